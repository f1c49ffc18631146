import { randomBytes } from 'node:crypto';
import { InputError } from '../errors.js';
import { decodedField, isText } from '../state/copy-text.js';
import { FieldHash } from '../state/field-hash.js';
import { grown } from '../state/grown.js';
import type { Example, Findings } from './findings.js';

const TAB = 9;

/**
 * Looks at the rows of one group after the other for keys that come twice. Keys and events are known by
 * their 64-bit hash under a seed of the run's own, so that two different ones pass for one once in 2^64.
 * Takes 24 bytes for each row of the largest group.
 */
export class RepeatedKeys {
  readonly #findings: Findings;
  readonly #hash = new FieldHash();
  readonly #seedHigh: number;
  readonly #seedLow: number;
  #group = NaN;
  /** Keys of the group, by the low bits of their hash: the number of the key plus one, or 0. */
  #buckets = new Int32Array(4096);
  /** The hashes of each key and of its first event, four words a key. */
  #hashes = new Int32Array(4096);
  #keys = 0;
  /** Of keys with several events: the key's number and each further event. */
  readonly #contradictory = new Map<number, Set<string>>();

  constructor(findings: Findings) {
    const seed = randomBytes(8);
    this.#findings = findings;
    this.#seedHigh = seed.readInt32LE(0);
    this.#seedLow = seed.readInt32LE(4);
  }

  /**
   * Looks at the line of `state_groups_state` in bytes `start` to `end`, which is the group's.
   *
   * @throws InputError if no text can stand so in one of its fields
   */
  add(group: number, bytes: Buffer, view: DataView, start: number, end: number): void {
    if (group !== this.#group) this.#begin(group);
    const type = bytes.indexOf(TAB, bytes.indexOf(TAB, start) + 1) + 1;
    const stateKey = bytes.indexOf(TAB, type) + 1;
    const event = bytes.indexOf(TAB, stateKey) + 1;
    if (
      !isText(bytes, type, stateKey - 1) ||
      !isText(bytes, stateKey, event - 1) ||
      !isText(bytes, event, end)
    ) {
      throw new InputError(
        `A row of state group ${group} has a NULL (\\N) or a field that ends with a backslash, as no row of state_groups_state can.`,
      );
    }
    const hash = this.#hash;
    hash.updateField(bytes, view, type, stateKey - 1, this.#seedHigh, this.#seedLow);
    hash.updateField(bytes, view, stateKey, event - 1, hash.high, hash.low);
    const { high, low } = hash;
    const [key, isNew] = this.#keyOf(high, low);
    hash.updateField(bytes, view, event, end, high, low);
    const at = key * 4;
    if (isNew) {
      this.#hashes[at + 2] = hash.high;
      this.#hashes[at + 3] = hash.low;
      return;
    }
    const example = (): Example => ({
      stateGroup: group,
      type: decodedField(bytes.subarray(type, stateKey - 1)).toString(),
      stateKey: decodedField(bytes.subarray(stateKey, event - 1)).toString(),
    });
    if (this.#hashes[at + 2] === hash.high && this.#hashes[at + 3] === hash.low) {
      this.#findings.add('repeated-row', example);
      return;
    }
    let others = this.#contradictory.get(key);
    if (others === undefined) {
      others = new Set();
      this.#contradictory.set(key, others);
      this.#findings.add('contradictory-key', example);
    }
    const name = `${hash.high},${hash.low}`;
    if (others.has(name)) this.#findings.add('repeated-row', example);
    others.add(name);
  }

  #begin(group: number): void {
    this.#group = group;
    // Few keys are taken out one by one, for the table may be as large as the largest group's.
    if (this.#keys * 8 > this.#buckets.length) this.#buckets.fill(0);
    else for (let key = this.#keys - 1; key >= 0; key--) this.#buckets[this.#bucketOf(key)] = 0;
    this.#keys = 0;
    this.#contradictory.clear();
  }

  /** The number of the key with a hash, and whether the group had it not yet. */
  #keyOf(high: number, low: number): [key: number, isNew: boolean] {
    const hashes = this.#hashes;
    const mask = this.#buckets.length - 1;
    let bucket = low & mask;
    for (let key; (key = this.#buckets[bucket] - 1) >= 0; bucket = (bucket + 1) & mask) {
      if (hashes[key * 4] === high && hashes[key * 4 + 1] === low) return [key, false];
    }
    const key = this.#keys++;
    this.#hashes = grown(hashes, this.#keys * 4);
    this.#hashes[key * 4] = high;
    this.#hashes[key * 4 + 1] = low;
    this.#buckets[bucket] = this.#keys;
    if (this.#keys * 2 > this.#buckets.length) this.#rehash();
    return [key, true];
  }

  #rehash(): void {
    this.#buckets = new Int32Array(this.#buckets.length * 2);
    const mask = this.#buckets.length - 1;
    for (let key = 0; key < this.#keys; key++) {
      let bucket = this.#hashes[key * 4 + 1] & mask;
      while (this.#buckets[bucket] !== 0) bucket = (bucket + 1) & mask;
      this.#buckets[bucket] = key + 1;
    }
  }

  #bucketOf(key: number): number {
    const mask = this.#buckets.length - 1;
    let bucket = this.#hashes[key * 4 + 1] & mask;
    while (this.#buckets[bucket] !== key + 1) bucket = (bucket + 1) & mask;
    return bucket;
  }
}
