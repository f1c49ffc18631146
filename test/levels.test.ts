import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { LevelsPlanner } from '../src/planner/levels.js';
import { Plan } from '../src/planner/planner.js';
import { EntryPool } from '../src/state/entry-pool.js';
import { KeyTable } from '../src/state/key-table.js';
import { LiveStates, NO_STATE } from '../src/state/live-states.js';
import { EMPTY } from '../src/state/state-trie.js';

const KEYS = 5;

/** Plans groups whose states are sets of a few keys, bit by bit, all of them stored in full. */
class Line {
  readonly states = new LiveStates(new EntryPool(new KeyTable(1, 2)));
  readonly planner: LevelsPlanner;
  /** The group that became each group's new predecessor. */
  readonly bases: (number | undefined)[] = [];
  readonly lengths: number[] = [];
  readonly #plan = new Plan();

  constructor(readonly sizes: readonly number[]) {
    this.planner = new LevelsPlanner(sizes);
  }

  add(keys: number): void {
    const { states } = this;
    const { entries } = states;
    const held = Array.from({ length: KEYS }, (_, bit) => bit)
      .filter((bit) => (keys & (1 << bit)) !== 0)
      .map((bit) => {
        const line = Buffer.from(`t\t${bit}\t$\n`);
        const view = new DataView(line.buffer, line.byteOffset, line.length);
        const key = entries.keys.intern(line, view, 0, 4, 1);
        return entries.intern(key, line, view, 4, line.length);
      });
    const state = states.create(this.bases.length, NO_STATE);
    states.apply(state, Int32Array.from(held), held.length);
    for (const entry of held) entries.release(entry);
    const changed = this.planner.plan(states, state, NO_STATE, this.#plan);
    const base = changed ? this.#plan.base : NO_STATE;
    this.bases.push(base === NO_STATE ? undefined : states.group[base]);
    this.lengths.push(changed ? this.#plan.length : held.length);
    states.release(state);
  }

  /** The groups whose states are live, ascending. */
  get live(): number[] {
    const { states } = this;
    return Array.from(states.root.subarray(0, states.length).keys())
      .filter((state) => states.root[state] !== EMPTY)
      .map((state) => states.group[state])
      .sort((a, b) => a - b);
  }

  /** The groups that a head's walk can still reach, ascending, by counting the levels anew. */
  get reachable(): number[] {
    const heads: (number | undefined)[] = this.sizes.map(() => undefined);
    const used = this.sizes.map(() => 0);
    for (const group of this.bases.keys()) {
      const roomy = used.findIndex((length, level) => length < this.sizes[level]);
      const full = roomy < 0 ? used.length : roomy;
      used.fill(1, 0, full);
      heads.fill(group, 0, full + 1).splice(this.sizes.length);
      if (roomy >= 0) used[roomy]++;
    }
    const found = new Set<number>();
    for (let group of heads) {
      for (; group !== undefined; group = this.bases[group]) found.add(group);
    }
    return [...found].sort((a, b) => a - b);
  }
}

describe('levels', () => {
  it('are filled from the lowest, and restart when all are full', () => {
    const line = new Line([2, 2]);
    for (let group = 0; group < 8; group++) line.add(1);
    assert.deepEqual(line.bases, [undefined, 0, undefined, 2, 2, 4, undefined, 6]);
    assert.deepEqual(line.lengths, [1, 0, 1, 0, 0, 0, 1, 0]);
    assert.equal(line.planner.forcedResets, 0);
  });

  it('go along new predecessors past a state that has a key too many', () => {
    const line = new Line([10]);
    for (const keys of [0b00001, 0b00011, 0b00111, 0b00101, 0b10001]) line.add(keys);
    assert.deepEqual(line.bases, [undefined, 0, 1, 0, 0]);
    assert.deepEqual(line.lengths, [1, 1, 1, 1, 1]);
    assert.equal(line.planner.forcedResets, 0);
  });

  it('write in full what no state on the way can be the base of, and count it', () => {
    const line = new Line([10]);
    for (const keys of [0b00001, 0b00011, 0b11100, 0b11101]) line.add(keys);
    assert.deepEqual(line.bases, [undefined, 0, undefined, 2]);
    assert.deepEqual(line.lengths, [1, 1, 3, 1]);
    assert.deepEqual([line.planner.forcedResets, line.planner.forcedResetRows], [1, 3]);
  });

  it('hold exactly the states that a head can still lead to', () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 });
    const masks = fc.array(fc.integer({ min: 1, max: 2 ** KEYS - 1 }), {
      maxLength: 200,
      size: 'max',
    });
    fc.assert(
      fc.property(sizes, masks, (levels, groups) => {
        const line = new Line(levels);
        for (const keys of groups) {
          // Often the same keys and more, so that chains get long.
          line.add(line.bases.length % 3 === 0 ? keys : 2 ** KEYS - 1);
          assert.deepEqual(line.live, line.reachable);
        }
      }),
      { numRuns: 30 },
    );
  });
});
