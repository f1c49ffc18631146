import { grown } from '../state/grown.js';
import { NO_STATE, type LiveStates } from '../state/live-states.js';

/**
 * Checks that a group's state under a new predecessor and delta is its state as stored.
 *
 * A state's fingerprint is the sum of the 64-bit hashes of its entries, keyed by a seed drawn for the
 * run, kept as two sums of 32 bits. The stored side is counted from the rows alone; the new side from
 * the base's fingerprint and, for each row of the delta, the entry it replaces in the base. Neither
 * looks at how the planner found the delta, and both cost what the rows cost. Two different states
 * agree once in 2^64.
 */
export class Fingerprints {
  /** Groups compared so far. */
  verified = 0;
  #high = new Int32Array(256);
  #low = new Int32Array(256);

  constructor(readonly states: LiveStates) {}

  /** Counts the stored state of `state` from its rows and its stored predecessor. */
  stored(state: number, predecessor: number, rows: Int32Array, count: number): void {
    this.#high = grown(this.#high, state + 1);
    this.#low = grown(this.#low, state + 1);
    this.#sum(predecessor, rows, count);
    this.#high[state] = this.#sumHigh;
    this.#low[state] = this.#sumLow;
  }

  /** Whether `base`'s state with `delta` over it is the stored state of `state`. */
  agrees(state: number, base: number, delta: Int32Array, count: number): boolean {
    this.verified++;
    this.#sum(base, delta, count);
    return this.#sumHigh === this.#high[state] && this.#sumLow === this.#low[state];
  }

  #sumHigh = 0;
  #sumLow = 0;

  #sum(base: number, rows: Int32Array, count: number): void {
    const { key, hashHigh, hashLow } = this.states.entries;
    let high = base === NO_STATE ? 0 : this.#high[base];
    let low = base === NO_STATE ? 0 : this.#low[base];
    for (let i = 0; i < count; i++) {
      const entry = rows[i];
      high = (high + hashHigh[entry]) | 0;
      low = (low + hashLow[entry]) | 0;
      if (base === NO_STATE) continue;
      const replaced = this.states.get(base, key[entry]);
      if (replaced >= 0) {
        high = (high - hashHigh[replaced]) | 0;
        low = (low - hashLow[replaced]) | 0;
      }
    }
    this.#sumHigh = high;
    this.#sumLow = low;
  }
}
