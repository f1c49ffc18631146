import type { ChangedGroup } from '../planner/planned-group.js';

/** What a transaction is to take: Synapse waits no longer for a group that we hold. */
const TARGET_SECONDS = 0.3;
/** Rows, deleted and inserted, of the first batch and of the largest. */
const FIRST_ROWS = 10_000;
const MOST_ROWS = 400_000;
/** However few rows they have. */
const MOST_GROUPS = 2000;
/** Of new rows, which are held in memory. */
const MOST_BYTES = 8 * 1024 * 1024;

/** How large a batch may become, by how long the last ones took. */
export class BatchSize {
  readonly #most: number;
  #limit: number;
  #rows = 0;
  #groups = 0;
  #bytes = 0;

  constructor(mostRows: number) {
    this.#most = Math.min(mostRows, MOST_ROWS);
    this.#limit = Math.min(FIRST_ROWS, this.#most);
  }

  get isFull(): boolean {
    return this.#rows >= this.#limit || this.#groups >= MOST_GROUPS || this.#bytes >= MOST_BYTES;
  }

  add({ oldRows, newRows, change }: ChangedGroup): void {
    this.#groups++;
    this.#rows += oldRows + newRows;
    this.#bytes += change.rows.length;
  }

  /** Ends a batch that took so long. A server that was held up once is not slow for ever, hence the limits. */
  took(seconds: number): void {
    const factor = Math.min(2, Math.max(0.5, TARGET_SECONDS / Math.max(seconds, 0.001)));
    this.#limit = Math.min(this.#most, Math.max(1, this.#limit * factor));
    this.#rows = 0;
    this.#groups = 0;
    this.#bytes = 0;
  }
}
