import type { Pieces } from './pieces.js';
import type { Run } from './run.js';

const DIGIT_BITS = 11;
const DIGITS = 2 ** DIGIT_BITS;
/** What a piece takes beside its bytes: key, start, place in the order, and scratch for the sort. */
const PIECE_COST = 8 + 4 + 4 + 4;

/**
 * As many pieces as fit `memory` bytes, in the order in which they came until they are sorted: then by
 * key, and those of one key still in that order. A stable radix sort of 11 bits at a time, over as many
 * bits as the keys differ in.
 */
export class SortBuffer {
  #bytes: Uint8Array;
  #used = 0;
  #count = 0;
  #keys: Float64Array;
  #starts: Int32Array;
  #order: Int32Array;
  #scratch: Int32Array;
  #ascending = true;

  constructor(memory: number) {
    // A quarter for the pieces' keep, so that lines may be as short as 60 bytes. Untouched pages cost nothing.
    const pieces = Math.max(1, Math.floor(memory / 4 / PIECE_COST));
    this.#bytes = new Uint8Array(Math.max(1, Math.floor(memory) - pieces * PIECE_COST));
    this.#keys = new Float64Array(pieces);
    this.#starts = new Int32Array(pieces);
    this.#order = new Int32Array(pieces);
    this.#scratch = new Int32Array(pieces);
  }

  /** Bytes of the pieces that are held. */
  get length(): number {
    return this.#used;
  }

  /** Copies pieces from number `from` on; returns the number of the first one that does not fit. */
  add(pieces: Pieces, from: number): number {
    const { keys, starts, ends, count } = pieces;
    let index = from;
    // Neighbours are copied in one go.
    let copyStart = starts[from];
    let copyEnd = copyStart;
    let copyTo = this.#used;
    for (; index < count; index++) {
      const key = keys[index];
      const start = starts[index];
      const end = ends[index];
      if (!this.#takes(key, end - start)) break;
      if (start !== copyEnd) {
        this.#bytes.set(pieces.bytes.subarray(copyStart, copyEnd), copyTo);
        copyStart = start;
        copyTo = this.#used;
      }
      copyEnd = end;
      this.#used += end - start;
    }
    this.#bytes.set(pieces.bytes.subarray(copyStart, copyEnd), copyTo);
    return index;
  }

  clear(): void {
    this.#used = 0;
    this.#count = 0;
    this.#ascending = true;
  }

  /** The pieces in ascending order of key. To be read before anything else is added. */
  sorted(): Run {
    if (!this.#ascending) this.#sort();
    return new SortedPieces(
      this.#bytes.subarray(0, this.#used),
      this.#keys.subarray(0, this.#count),
      this.#starts,
      this.#ascending ? undefined : this.#order,
    );
  }

  #takes(key: number, length: number): boolean {
    const last = this.#count - 1;
    if (this.#used + length > this.#bytes.length) {
      if (last >= 0) return false;
      this.#bytes = new Uint8Array(length);
    }
    if (last >= 0) {
      const lastKey = this.#keys[last];
      if (key === lastKey) return true;
      if (this.#count === this.#keys.length) return false;
      if (key < lastKey) this.#ascending = false;
    }
    this.#keys[this.#count] = key;
    this.#starts[this.#count++] = this.#used;
    return true;
  }

  #sort(): void {
    const keys = this.#keys;
    const count = this.#count;
    let smallest = keys[0];
    let largest = smallest;
    for (let i = 0; i < count; i++) {
      this.#order[i] = i;
      if (keys[i] < smallest) smallest = keys[i]!;
      else if (keys[i] > largest) largest = keys[i]!;
    }
    const begins = new Int32Array(DIGITS + 1);
    for (let scale = 1; (largest - smallest) / scale >= 1; scale *= DIGITS) {
      const from = this.#order;
      const to = this.#scratch;
      begins.fill(0);
      // Keys reach 2^53; dividing by a power of two is exact, and `&` takes the whole part.
      for (let i = 0; i < count; i++) {
        begins[(((keys[i] - smallest) / scale) & (DIGITS - 1)) + 1]++;
      }
      for (let digit = 1; digit < DIGITS; digit++) begins[digit] += begins[digit - 1];
      for (let i = 0; i < count; i++) {
        const piece = from[i];
        to[begins[((keys[piece] - smallest) / scale) & (DIGITS - 1)]++] = piece;
      }
      this.#order = to;
      this.#scratch = from;
    }
  }
}

class SortedPieces implements Run {
  key = 0;
  start = 0;
  end = 0;
  readonly bytes: Uint8Array;
  readonly #keys: Float64Array;
  readonly #starts: Int32Array;
  readonly #order: Int32Array | undefined;
  #next = 0;

  constructor(
    bytes: Uint8Array,
    keys: Float64Array,
    starts: Int32Array,
    order: Int32Array | undefined,
  ) {
    this.bytes = bytes;
    this.#keys = keys;
    this.#starts = starts;
    this.#order = order;
  }

  next(): boolean {
    if (this.#next === this.#keys.length) return false;
    const piece = this.#order === undefined ? this.#next : this.#order[this.#next];
    this.#next++;
    this.key = this.#keys[piece]!;
    this.start = this.#starts[piece]!;
    const isLast = piece + 1 === this.#keys.length;
    this.end = isLast ? this.bytes.length : this.#starts[piece + 1];
    return true;
  }

  async more(): Promise<boolean> {
    return false;
  }
}
