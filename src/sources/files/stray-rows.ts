import { GroupCount } from '../some-groups.js';
import { countLines } from './copy-lines.js';

/** Rows of groups that `state_groups` does not have. */
export class StrayRows {
  #rows = 0;
  readonly #groups = new GroupCount();

  add(group: number, rows: Buffer): void {
    this.#rows += countLines(rows);
    if (!this.#groups.examples.includes(group)) this.#groups.add(group);
  }

  /** What there is to say, in a sentence; `whose` are the rows, as in ` of the room`. */
  warnings(whose: string): string[] {
    if (this.#rows === 0) return [];
    const belong = this.#rows === 1 ? `1 row${whose} belongs` : `${this.#rows} rows${whose} belong`;
    return [
      `${belong} to state groups that state_groups does not have (${this.#groups.examples.join(', ')}). They were left out, and stay as they are.`,
    ];
  }
}
