import { ByteArena } from './byte-arena.js';
import { FieldHash } from './field-hash.js';
import { grown } from './grown.js';
import type { KeyTable } from './key-table.js';
import type { GroupRows } from './row-parser.js';

/**
 * Entries of states, that is pairs of a key and an event id, as integers: equal entries are one number
 * while any state holds them. The event id is kept in canonical COPY text with its line feed. About 90
 * bytes an entry; an entry that nothing holds any more gives its place back.
 */
export class EntryPool {
  readonly arena = new ByteArena();
  /** One more than the largest number in use. */
  length = 0;
  key = new Int32Array(64);
  place = new Int32Array(64);
  /** Bytes of the event id and its line feed. */
  byteLength = new Int32Array(64);
  /** How many hold the entry: leaves of states, and the parser's rows. */
  holders = new Int32Array(64);
  /** Hash with the run's seed: one summand of a state's fingerprint. */
  hashHigh = new Int32Array(64);
  hashLow = new Int32Array(64);
  /** Hash with seed 0, as `hashtextextended(event_id, hash of the key)`. */
  guardHigh = new Int32Array(64);
  guardLow = new Int32Array(64);
  readonly #hash = new FieldHash();
  /** Chains of entries with one hash, so that entries can leave: first of a bucket, next of an entry. */
  #buckets = new Int32Array(256).fill(-1);
  #next = new Int32Array(64);
  #firstFree = -1;
  #live = 0;

  constructor(readonly keys: KeyTable) {}

  /**
   * The entry of `key` and the event id in bytes `start` to `end`, spelt canonically, its line feed
   * included. The caller holds it once more than before.
   */
  intern(key: number, bytes: Uint8Array, view: DataView, start: number, end: number): number {
    const hash = this.#hash;
    hash.update(view, start, end, this.keys.hashHigh[key], this.keys.hashLow[key]);
    const bucket = hash.low & (this.#buckets.length - 1);
    for (let entry = this.#buckets[bucket]; entry >= 0; entry = this.#next[entry]!) {
      if (
        this.hashLow[entry] === hash.low &&
        this.hashHigh[entry] === hash.high &&
        this.key[entry] === key &&
        this.byteLength[entry] === end - start &&
        this.arena.holds(this.place[entry], view, start, end)
      ) {
        this.holders[entry]++;
        return entry;
      }
    }
    return this.#add(key, bytes, view, start, end);
  }

  /** Gives up one hold. */
  release(entry: number): void {
    if (--this.holders[entry] === 0) this.#remove(entry);
  }

  /** The sum of the hashes with seed 0 over all rows of a group, as the exact `numeric` that SQL's `sum` gives. */
  guardSum(rows: Pick<GroupRows, 'entries' | 'length' | 'repeated' | 'repeatedLength'>): bigint {
    let high = 0;
    let low = 0;
    for (let i = 0; i < rows.length; i++) {
      high += this.guardHigh[rows.entries[i]];
      low += this.guardLow[rows.entries[i]] >>> 0;
    }
    for (let i = 0; i < rows.repeatedLength; i++) {
      high += this.guardHigh[rows.repeated[i]];
      low += this.guardLow[rows.repeated[i]] >>> 0;
    }
    return (BigInt(high) << 32n) + BigInt(low);
  }

  /** The first `count` of `list` as rows `type \t state_key \t event_id \n` of COPY text. */
  copyText(list: Int32Array, count: number): Buffer {
    const { keys, key, byteLength, place } = this;
    let length = 0;
    for (let i = 0; i < count; i++) {
      length += keys.byteLength[key[list[i]]] + byteLength[list[i]];
    }
    // Whole words are written, and what is too much is written over by what follows.
    const bytes = Buffer.allocUnsafe(length + 3);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let at = 0;
    for (let i = 0; i < count; i++) {
      const entry = list[i];
      const k = key[entry];
      at = copyWords(keys.arena.view, keys.place[k], keys.byteLength[k], view, at);
      at = copyWords(this.arena.view, place[entry], byteLength[entry], view, at);
    }
    return bytes.subarray(0, length);
  }

  /** Adds the entry whose hash with the run's seed was the last result. */
  #add(key: number, bytes: Uint8Array, view: DataView, start: number, end: number): number {
    if (++this.#live > this.#buckets.length) this.#rehash();
    let entry = this.#firstFree;
    if (entry >= 0) {
      this.#firstFree = this.#next[entry]!;
    } else {
      entry = this.length++;
      if (entry === this.key.length) this.#grow();
    }
    this.key[entry] = key;
    this.place[entry] = this.arena.add(bytes, start, end);
    this.byteLength[entry] = end - start;
    this.holders[entry] = 1;
    const hash = this.#hash;
    this.hashHigh[entry] = hash.high;
    this.hashLow[entry] = hash.low;
    this.#link(entry);
    const { guardHigh, guardLow } = this.keys;
    hash.updateField(bytes, view, start, end - 1, guardHigh[key], guardLow[key]);
    this.guardHigh[entry] = hash.high;
    this.guardLow[entry] = hash.low;
    return entry;
  }

  #link(entry: number): void {
    const bucket = this.hashLow[entry] & (this.#buckets.length - 1);
    this.#next[entry] = this.#buckets[bucket]!;
    this.#buckets[bucket] = entry;
  }

  #remove(entry: number): void {
    const bucket = this.hashLow[entry] & (this.#buckets.length - 1);
    let at = this.#buckets[bucket];
    if (at === entry) {
      this.#buckets[bucket] = this.#next[entry]!;
    } else {
      while (this.#next[at] !== entry) at = this.#next[at]!;
      this.#next[at] = this.#next[entry]!;
    }
    this.arena.remove(this.place[entry], this.byteLength[entry]);
    this.#next[entry] = this.#firstFree;
    this.#firstFree = entry;
    this.#live--;
  }

  #grow(): void {
    const length = this.length;
    this.key = grown(this.key, length);
    this.place = grown(this.place, length);
    this.byteLength = grown(this.byteLength, length);
    this.holders = grown(this.holders, length);
    this.hashHigh = grown(this.hashHigh, length);
    this.hashLow = grown(this.hashLow, length);
    this.guardHigh = grown(this.guardHigh, length);
    this.guardLow = grown(this.guardLow, length);
    this.#next = grown(this.#next, length);
  }

  #rehash(): void {
    this.#buckets = new Int32Array(this.#buckets.length * 2).fill(-1);
    for (let entry = 0; entry < this.length; entry++) {
      if (this.holders[entry] > 0) this.#link(entry);
    }
  }
}

function copyWords(
  from: DataView,
  place: number,
  length: number,
  to: DataView,
  at: number,
): number {
  for (let i = 0; i < length; i += 4) to.setInt32(at + i, from.getInt32(place * 4 + i));
  return at + length;
}
