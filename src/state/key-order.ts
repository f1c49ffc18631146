import { grown } from './grown.js';
import type { KeyTable } from './key-table.js';

/** A walk over one key costs about this fraction of comparing two. */
const WALK_COST = 1 / 25;

/**
 * The keys in the order of their bytes, so that rows are written in one order however they were read,
 * and in the order of the table's index.
 */
export class KeyOrder {
  #sorted = new Int32Array(64);
  #length = 0;
  #added = new Int32Array(64);
  #addedLength = 0;
  /** For each key its entry plus one while a list with that key is put in order, else 0. */
  #marked = new Int32Array(64);

  constructor(readonly keys: KeyTable) {}

  /** Adds a key; it is put in its place when an order is asked for next. */
  insert(key: number): void {
    this.#added = grown(this.#added, this.#addedLength + 1);
    this.#added[this.#addedLength++] = key;
  }

  /**
   * Puts the first `count` of `entries`, each of another key, in the order of their keys. Were a key there
   * twice, there would be as many afterwards, for the verification to find.
   */
  arrange(entries: Int32Array, count: number, keyOf: Int32Array): void {
    if (count < 2 || count * Math.log2(count) < this.#length * WALK_COST) {
      entries.subarray(0, count).sort((a, b) => this.#compare(keyOf[a], keyOf[b]));
      return;
    }
    this.#settle();
    this.#marked = grown(this.#marked, this.#length);
    const marked = this.#marked;
    for (let i = 0; i < count; i++) marked[keyOf[entries[i]]] = entries[i] + 1;
    let to = 0;
    for (let i = 0; to < count && i < this.#length; i++) {
      const key = this.#sorted[i];
      if (marked[key] === 0) continue;
      entries[to++] = marked[key] - 1;
      marked[key] = 0;
    }
  }

  /** Puts the added keys in their places, from the last on, so that each key moves once. */
  #settle(): void {
    const added = this.#added.subarray(0, this.#addedLength);
    added.sort((a, b) => this.#compare(a, b));
    this.#sorted = grown(this.#sorted, this.#length + added.length);
    const sorted = this.#sorted;
    let end = this.#length;
    for (let i = added.length - 1; i >= 0; i--) {
      let low = 0;
      let high = end;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (this.#compare(sorted[middle], added[i]) < 0) low = middle + 1;
        else high = middle;
      }
      sorted.copyWithin(low + i + 1, low, end);
      sorted[low + i] = added[i];
      end = low;
    }
    this.#length += added.length;
    this.#addedLength = 0;
  }

  #compare(a: number, b: number): number {
    const { place, byteLength, arena } = this.keys;
    const bytes = arena.bytes;
    let i = place[a] << 2;
    let j = place[b] << 2;
    const end = i + Math.min(byteLength[a], byteLength[b]);
    for (; i < end; i++, j++) {
      const difference = bytes[i] - bytes[j];
      if (difference !== 0) return difference;
    }
    return byteLength[a] - byteLength[b];
  }
}
