import { randomBytes } from 'node:crypto';
import { ByteArena } from './byte-arena.js';
import { FieldHash } from './field-hash.js';
import { grown } from './grown.js';
import { KeyOrder } from './key-order.js';

/**
 * The `(type, state_key)` pairs of a room as dense integers. A key is kept as its bytes in canonical
 * COPY text, `type \t state_key \t`, about 60 bytes a key beside the 44 of the arrays here. Keys are
 * never forgotten: they are as many as the room's state is large, not as many as its rows.
 */
export class KeyTable {
  readonly arena = new ByteArena();
  length = 0;
  /** Places in the arena, in words, and lengths in bytes. */
  place = new Int32Array(64);
  byteLength = new Int32Array(64);
  /** Hash with the run's seed. */
  hashHigh = new Int32Array(64);
  hashLow = new Int32Array(64);
  /** Hash of type and state_key with seed 0, as `hashtextextended(state_key, hashtextextended(type, 0))`. */
  guardHigh = new Int32Array(64);
  guardLow = new Int32Array(64);
  readonly order = new KeyOrder(this);
  readonly #hash = new FieldHash();
  #buckets = new Int32Array(256);

  constructor(
    readonly seedHigh: number,
    readonly seedLow: number,
  ) {}

  /** A table under a seed of the run's own, which nobody can choose keys for. */
  static seeded(): KeyTable {
    const seed = randomBytes(8);
    return new KeyTable(seed.readInt32LE(0), seed.readInt32LE(4));
  }

  /**
   * The number of the key in bytes `start` to `end`: `type \t state_key \t`, spelt canonically, where
   * the type is `typeLength` bytes long. A key that was not seen before gets the next number.
   */
  intern(
    bytes: Uint8Array,
    view: DataView,
    start: number,
    end: number,
    typeLength: number,
  ): number {
    const hash = this.#hash;
    hash.update(view, start, end, this.seedHigh, this.seedLow);
    const mask = this.#buckets.length - 1;
    let bucket = hash.low & mask;
    for (let key; (key = this.#buckets[bucket] - 1) >= 0; bucket = (bucket + 1) & mask) {
      if (
        this.hashLow[key] === hash.low &&
        this.hashHigh[key] === hash.high &&
        this.byteLength[key] === end - start &&
        this.arena.holds(this.place[key], view, start, end)
      ) {
        return key;
      }
    }
    const key = this.#add(bytes, start, end, hash.high, hash.low);
    this.#buckets[bucket] = key + 1;
    if (this.length * 2 > this.#buckets.length) this.#rehash();
    this.#guard(key, bytes, view, start, end, typeLength);
    this.order.insert(key);
    return key;
  }

  #add(bytes: Uint8Array, start: number, end: number, high: number, low: number): number {
    const key = this.length++;
    if (key === this.place.length) {
      this.place = grown(this.place, this.length);
      this.byteLength = grown(this.byteLength, this.length);
      this.hashHigh = grown(this.hashHigh, this.length);
      this.hashLow = grown(this.hashLow, this.length);
      this.guardHigh = grown(this.guardHigh, this.length);
      this.guardLow = grown(this.guardLow, this.length);
    }
    this.place[key] = this.arena.add(bytes, start, end);
    this.byteLength[key] = end - start;
    this.hashHigh[key] = high;
    this.hashLow[key] = low;
    return key;
  }

  #rehash(): void {
    const buckets = new Int32Array(this.#buckets.length * 2);
    const mask = buckets.length - 1;
    for (let key = 0; key < this.length; key++) {
      let bucket = this.hashLow[key] & mask;
      while (buckets[bucket] !== 0) bucket = (bucket + 1) & mask;
      buckets[bucket] = key + 1;
    }
    this.#buckets = buckets;
  }

  #guard(
    key: number,
    bytes: Uint8Array,
    view: DataView,
    start: number,
    end: number,
    typeLength: number,
  ): void {
    const hash = this.#hash;
    const typeEnd = start + typeLength;
    hash.updateField(bytes, view, start, typeEnd, 0, 0);
    hash.updateField(bytes, view, typeEnd + 1, end - 1, hash.high, hash.low);
    this.guardHigh[key] = hash.high;
    this.guardLow[key] = hash.low;
  }
}
