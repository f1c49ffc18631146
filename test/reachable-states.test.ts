import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReachableStates } from '../src/planner/reachable-states.js';
import { EntryPool } from '../src/state/entry-pool.js';
import { KeyTable } from '../src/state/key-table.js';
import { LiveStates, NO_STATE } from '../src/state/live-states.js';

/** A state that only those hold who entered it. */
function enter(reachable: ReachableStates, states: LiveStates, base: number): number {
  const state = states.create(0, NO_STATE);
  reachable.attach(states, state, base);
  reachable.enter(states, state);
  states.release(state);
  return state;
}

const someStates = () => new LiveStates(new EntryPool(new KeyTable(1, 2)));

test('ancestors are reachable as long as a way leads to them', () => {
  const states = someStates();
  const reachable = new ReachableStates();
  const root = enter(reachable, states, NO_STATE);
  const left = enter(reachable, states, root);
  const right = enter(reachable, states, root);
  reachable.leave(states, root);
  reachable.leave(states, left);
  assert.equal(reachable.baseOf(right), root);
  assert.equal(states.create(0, NO_STATE), left, 'the left branch is free');
  reachable.leave(states, right);
  assert.deepEqual(
    [states.create(0, NO_STATE), states.create(0, NO_STATE)],
    [root, right],
    'nothing is held',
  );
});

test('a state that comes back leads no further, and what is free stays so', () => {
  const states = someStates();
  const reachable = new ReachableStates();
  const root = enter(reachable, states, NO_STATE);
  const stored = enter(reachable, states, root);
  // A group to come is stored on it.
  states.hold(stored);
  reachable.leave(states, stored);
  reachable.leave(states, root);
  const other = states.create(0, NO_STATE);
  assert.equal(other, root, "the root's number is another state's now");

  const back = enter(reachable, states, stored);
  assert.equal(reachable.baseOf(back), stored);
  assert.equal(reachable.baseOf(stored), NO_STATE);
  reachable.leave(states, back);
  reachable.attach(states, back, other);
  reachable.enter(states, back);
  states.release(other);
  assert.notEqual(states.create(0, NO_STATE), other, 'a base is held');
});
