import type { EntryPool } from './entry-pool.js';
import { grown } from './grown.js';
import { EMPTY, StateTrie } from './state-trie.js';

/** No state: the group has no predecessor, or its state can't be known. */
export const NO_STATE = -1;

/**
 * The states that can still be needed, each under a small number that is used again once nobody holds
 * the state. A state is held by the successors to come, and by the planner while it may choose it.
 */
export class LiveStates {
  readonly trie: StateTrie;
  /** One more than the largest number in use. */
  length = 0;
  root = new Int32Array(64);
  /** Keys in the state. */
  size = new Int32Array(64);
  /** Index of the state's group in the group table. */
  group = new Int32Array(64);
  /** Groups in the chain as stored and as planned, the group itself included. */
  hopsBefore = new Int32Array(64);
  hopsAfter = new Int32Array(64);
  /** Rows that the group's delta needs on its stored predecessor, and rows that repeat what that says already. */
  neededRows = new Int32Array(64);
  spareRows = new Int32Array(64);
  /** Whether the state's group may be a base only where it is stored as one: it is of another room, of none, or going. */
  barred = new Uint8Array(64);
  /** Groups still to come that have this one as stored predecessor. */
  successorsLeft = new Int32Array(64);
  /** The state that was built last; the next snapshot is mostly built on it, so that it shares what is equal. */
  #recent = NO_STATE;
  #holders = new Int32Array(64);
  #free = new Int32Array(64);
  #freeLength = 0;

  constructor(readonly entries: EntryPool) {
    this.trie = new StateTrie(entries);
  }

  /**
   * The state of `base` with a group's rows over it, or, for `NO_STATE`, of these alone; held once. Rows of
   * one key must be one entry, and `rows` knows which keys are among them.
   */
  build(
    group: number,
    base: number,
    { entries, length }: { readonly entries: Int32Array; readonly length: number },
    rows: { has(key: number): boolean },
  ): number {
    const state = this.create(group, base === NO_STATE ? this.#nearest(length) : base);
    const spare = this.apply(state, entries, length);
    this.spareRows[state] = base === NO_STATE ? 0 : spare;
    this.neededRows[state] = length - this.spareRows[state];
    if (base === NO_STATE && this.size[state] !== length) {
      const { key } = this.entries;
      const gone: number[] = [];
      this.trie.forEach(this.root[state], (entry) => {
        if (!rows.has(key[entry])) gone.push(key[entry]);
      });
      for (const goneKey of gone) this.remove(state, goneKey);
    }
    this.hold(state);
    if (this.#recent !== NO_STATE) this.release(this.#recent);
    this.#recent = state;
    return state;
  }

  /** What a snapshot of so many rows is built on: nothing, if most of its keys would have to be taken out again. */
  #nearest(rows: number): number {
    return this.#recent !== NO_STATE && this.size[this.#recent] <= 2 * rows
      ? this.#recent
      : NO_STATE;
  }

  /** A new state equal to `base`'s, or empty for `NO_STATE`; held once. */
  create(group: number, base: number): number {
    const state = this.#freeLength > 0 ? this.#free[--this.#freeLength] : this.length++;
    if (state === this.root.length) this.#grow();
    this.group[state] = group;
    this.root[state] = base === NO_STATE ? EMPTY : this.trie.hold(this.root[base]);
    this.size[state] = base === NO_STATE ? 0 : this.size[base];
    this.#holders[state] = 1;
    return state;
  }

  hold(state: number, times = 1): void {
    this.#holders[state] += times;
  }

  release(state: number): void {
    if (--this.#holders[state] > 0) return;
    this.trie.release(this.root[state]);
    this.root[state] = EMPTY;
    this.#free = grown(this.#free, this.#freeLength + 1);
    this.#free[this.#freeLength++] = state;
  }

  /** The entry of `key` in `state`, or -1. */
  get(state: number, key: number): number {
    return this.trie.get(this.root[state], key);
  }

  /** As `StateTrie.difference`, of two states. */
  difference(from: number, to: number, found: Int32Array, limit: number): number {
    return this.trie.difference(this.root[from], this.root[to], found, limit);
  }

  /** Writes all entries of `state` to `found`, and returns how many. */
  list(state: number, found: Int32Array): number {
    return this.trie.difference(EMPTY, this.root[state], found, found.length);
  }

  /**
   * Puts the first `count` of `rows` into `state`: its delta, or, for a snapshot built on another
   * group's state, all there is. Rows of one key must be one entry. Returns how many rows were there
   * already.
   */
  apply(state: number, rows: Int32Array, count: number): number {
    const { trie, entries } = this;
    while (trie.capacity < entries.keys.length) trie.deepen(this.root, this.length);
    let root = this.root[state];
    let size = this.size[state];
    let present = 0;
    for (let i = 0; i < count; i++) {
      const entry = rows[i];
      const old = trie.get(root, entries.key[entry]);
      if (old === entry) {
        present++;
        continue;
      }
      if (old < 0) size++;
      root = trie.set(root, entry);
    }
    this.root[state] = root;
    this.size[state] = size;
    return present;
  }

  /**
   * Lets `state` share with `base` what is equal: it was built on another state, and differs from this one in the
   * first `count` of `rows`.
   */
  share(state: number, base: number, rows: Int32Array, count: number): void {
    let root = this.trie.hold(this.root[base]);
    for (let i = 0; i < count; i++) root = this.trie.set(root, rows[i]);
    this.trie.release(this.root[state]);
    this.root[state] = root;
  }

  /** Takes `key` out of `state`. */
  remove(state: number, key: number): void {
    this.root[state] = this.trie.remove(this.root[state], key);
    this.size[state]--;
  }

  #grow(): void {
    this.root = grown(this.root, this.length);
    this.size = grown(this.size, this.length);
    this.group = grown(this.group, this.length);
    this.hopsBefore = grown(this.hopsBefore, this.length);
    this.hopsAfter = grown(this.hopsAfter, this.length);
    this.neededRows = grown(this.neededRows, this.length);
    this.spareRows = grown(this.spareRows, this.length);
    this.barred = grown(this.barred, this.length);
    this.successorsLeft = grown(this.successorsLeft, this.length);
    this.#holders = grown(this.#holders, this.length);
  }
}
