import { FieldHash } from '../state/field-hash.js';

const TAB = 9;
/** Two sums of so many halves of hashes are exact. */
const EXACT = 2 ** 20;

/**
 * What a table holds, in whatever order: the number of its rows, and the sum of the hashes of them, each
 * `hashtextextended(last column, hashtextextended(the one before, … state_group))`, as Postgres computes
 * it (11 and later).
 */
export class TableDigest {
  count = 0;
  #sum = 0n;
  #high = 0;
  #low = 0;
  #summed = 0;
  readonly #hash = new FieldHash();

  get hash(): bigint {
    return this.#sum + BigInt(this.#low) + (BigInt(this.#high) << 32n);
  }

  /** Adds the row of `group` whose line of COPY text is in bytes `start` to `end`, the line feed excluded. */
  add(group: number, bytes: Buffer, view: DataView, start: number, end: number): void {
    const hash = this.#hash;
    hash.high = Math.floor(group / 2 ** 32) | 0;
    hash.low = group | 0;
    let field = bytes.indexOf(TAB, start) + 1;
    while (field <= end) {
      const tab = bytes.indexOf(TAB, field);
      const fieldEnd = tab < 0 || tab > end ? end : tab;
      hash.updateField(bytes, view, field, fieldEnd, hash.high, hash.low);
      field = fieldEnd + 1;
    }
    this.count++;
    this.#high += hash.high;
    this.#low += hash.low >>> 0;
    if (++this.#summed === EXACT) {
      this.#sum = this.hash;
      this.#high = 0;
      this.#low = 0;
      this.#summed = 0;
    }
  }
}
