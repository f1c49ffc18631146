import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { EntryPool } from '../src/state/entry-pool.js';
import { KeyTable } from '../src/state/key-table.js';
import { LiveStates, NO_STATE } from '../src/state/live-states.js';
import { EMPTY, LACKS_KEY, OVER_LIMIT } from '../src/state/state-trie.js';

/** A live state of the model: its entries by key, and how often it is held. */
interface Model {
  readonly state: number;
  readonly group: number;
  readonly entries: ReadonlyMap<number, number>;
  holders: number;
}

/** The states under test and the model beside them. */
class Twins {
  readonly pool = new EntryPool(new KeyTable(1, 2));
  readonly states = new LiveStates(this.pool);
  live: Model[] = [];
  groups = 0;

  /** Makes keys known until there are `count`, so that tries get deeper. */
  know(count: number): void {
    while (this.pool.keys.length < count) {
      const key = Buffer.from(`type\t${this.pool.keys.length}\t`);
      this.pool.keys.intern(key, viewOf(key), 0, key.length, 4);
    }
  }

  /** An entry of a known key, held for the caller. */
  entry(key: number, event: number): number {
    const line = Buffer.from(`$${event}\n`);
    return this.pool.intern(key, line, viewOf(line), 0, line.length);
  }

  pick(any: number): Model | undefined {
    return this.live[any % this.live.length];
  }

  grow(base: Model | undefined, rows: readonly (readonly [number, number])[]): void {
    const delta = new Map(
      rows.map(([key, event]) => [key % this.pool.keys.length, event] as const),
    );
    const entries = Int32Array.from(delta, ([key, event]) => this.entry(key, event));
    const group = this.groups++;
    const state = this.states.create(group, base?.state ?? NO_STATE);
    this.states.apply(state, entries, entries.length);
    const model = new Map(base?.entries);
    for (const entry of entries) model.set(this.pool.key[entry], entry);
    for (const entry of entries) this.pool.release(entry);
    this.live.push({ state, group, entries: model, holders: 1 });
  }

  /** A copy of `base` without some of its keys. */
  shrink(base: Model, keys: readonly number[]): void {
    const group = this.groups++;
    const state = this.states.create(group, base.state);
    const entries = new Map(base.entries);
    for (const any of keys) {
      const key = [...entries.keys()][any % entries.size];
      if (entries.delete(key)) this.states.remove(state, key);
    }
    this.live.push({ state, group, entries, holders: 1 });
  }

  hold(model: Model, times: number): void {
    this.states.hold(model.state, times);
    model.holders += times;
  }

  release(model: Model): void {
    this.states.release(model.state);
    if (--model.holders === 0) this.live = this.live.filter((other) => other !== model);
  }

  compare(from: Model, to: Model, limit: number): void {
    const differing = [...to.entries.values()].filter(
      (entry) => from.entries.get(this.pool.key[entry]) !== entry,
    );
    const lacking = [...from.entries.keys()].some((key) => !to.entries.has(key));
    const found = new Int32Array(limit + 1).fill(-7);
    const count = this.states.difference(from.state, to.state, found, limit);
    assert.ok(found[limit] === -7, 'it writes no more than it may');
    if (lacking && differing.length > limit) assert.ok(count === LACKS_KEY || count === OVER_LIMIT);
    else if (lacking) assert.equal(count, LACKS_KEY);
    else if (differing.length > limit) assert.equal(count, OVER_LIMIT);
    else assert.deepEqual([...found.subarray(0, count)], this.inOrder(differing));
  }

  /** Sees that every live state is what the model says, and that only their entries are held. */
  check(): void {
    const { states, pool } = this;
    const held = new Set<number>();
    for (const { state, group, entries } of this.live) {
      assert.equal(states.group[state], group);
      assert.equal(states.size[state], entries.size);
      const keys = Math.min(pool.keys.length, states.trie.capacity);
      for (let key = 0; key < keys; key += 1 + (keys >> 5)) {
        assert.equal(states.get(state, key), entries.get(key) ?? -1);
      }
      const list = new Int32Array(entries.size);
      assert.equal(states.list(state, list), entries.size);
      assert.deepEqual([...list], this.inOrder([...entries.values()]));
      const visited: number[] = [];
      states.trie.forEach(states.root[state], (entry) => visited.push(entry));
      assert.deepEqual(visited, [...list]);
      for (const entry of list) held.add(entry);
    }
    for (let entry = 0; entry < pool.length; entry++) {
      assert.equal(pool.holders[entry] > 0, held.has(entry));
    }
  }

  inOrder(entries: number[]): number[] {
    return entries.sort((a, b) => this.pool.key[a] - this.pool.key[b]);
  }

  /**
   * Nodes that no state has and that are not free either. Nodes in use are numbered without gaps as far
   * as none was lost, so states of one entry each, a node on each level, show how many numbers are gone.
   */
  lostNodes(): number {
    const STATES = 3000;
    assert.equal(this.live.length, 0);
    const { trie } = this.states;
    const entry = this.entry(0, 0);
    const roots = Array.from({ length: STATES }, () => trie.set(EMPTY, entry));
    const levels = Math.log2(trie.capacity) / 4;
    for (const root of roots) trie.release(root);
    this.pool.release(entry);
    return roots.at(-1)! - (1 + (STATES - 1) * levels);
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

const step = fc.record({
  does: fc.constantFrom(
    ...(['root', 'know', 'hold', 'hold', 'shrink', 'shrink'] as const),
    ...(['grow', 'grow', 'grow', 'release', 'release', 'compare', 'compare'] as const),
  ),
  on: fc.nat(),
  to: fc.nat(),
  number: fc.oneof(fc.nat(20), fc.nat(300)),
  rows: fc.array(fc.tuple(fc.nat(1000), fc.nat(3)), { maxLength: 60, size: '+1' }),
});

describe('live states', () => {
  it('lets states that are one stay one when it gets deeper', () => {
    const twins = new Twins();
    twins.know(16);
    twins.grow(undefined, [[3, 1]]);
    const [{ state }] = twins.live;
    const same = twins.states.create(1, state);
    twins.know(17);
    twins.grow(undefined, [[16, 1]]);
    assert.equal(twins.states.root[same], twins.states.root[state]);
    twins.states.apply(same, Int32Array.of(twins.entry(3, 2)), 1);
    const { states } = twins;
    assert.equal(states.get(state, 3), twins.entry(3, 1));
    assert.equal(states.get(same, 3), twins.entry(3, 2));
  });

  it('are what a naive model says, and give back all they hold', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40, size: 'max' }), (steps) => {
        const twins = new Twins();
        twins.know(1);
        for (const { does, on, to, number, rows } of steps) {
          const model = twins.pick(on);
          if (does === 'know') twins.know(twins.pool.keys.length + number);
          else if (does === 'root' || model === undefined) twins.grow(undefined, rows);
          else if (does === 'grow') twins.grow(model, rows);
          else if (does === 'shrink')
            twins.shrink(
              model,
              rows.map(([key]) => key),
            );
          else if (does === 'hold') twins.hold(model, number % 4);
          else if (does === 'release') twins.release(model);
          else twins.compare(model, twins.pick(to)!, number);
        }
        twins.check();
        while (twins.live.length > 0) twins.release(twins.live[0]);
        twins.check();
        assert.equal(twins.lostNodes(), 0);
      }),
      { numRuns: 150 },
    );
  });

  it('keep their entries when more keys are known than a trie of their height can have', () => {
    const twins = new Twins();
    for (const keys of [1, 16, 17, 256, 257, 4096, 4097]) {
      twins.know(keys);
      twins.grow(twins.live.at(-1), [
        [0, keys],
        [keys - 1, 0],
      ]);
      twins.check();
      for (const model of twins.live) twins.compare(model, twins.live.at(-1)!, 20);
    }
    while (twins.live.length > 0) twins.release(twins.live[0]);
    assert.equal(twins.lostNodes(), 0);
  });

  it('use the numbers of states again that nobody holds', () => {
    const twins = new Twins();
    twins.know(100);
    for (let n = 0; n < 1000; n++) {
      twins.grow(twins.live[0], [[n, n]]);
      if (twins.live.length > 3) twins.release(twins.live[0]);
    }
    twins.check();
    assert.equal(twins.states.length, 4);
  });
});
