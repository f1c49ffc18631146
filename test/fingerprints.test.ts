import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { VerificationError } from '../src/errors.js';
import { LevelsPlanner } from '../src/planner/levels.js';
import type { Plan } from '../src/planner/planner.js';
import { grown } from '../src/state/grown.js';
import { NO_STATE, type LiveStates } from '../src/state/live-states.js';
import { rooms, tableOf } from './support/naive-room.js';
import { planRoom } from './support/plan-room.js';

/**
 * Spoils a plan that puts the group on another base than the stored one, or returns false if it can't.
 * `bases` are the states that may be taken instead, and `any` is a number to choose by.
 */
type Lie = (states: LiveStates, state: number, plan: Plan, bases: number[], any: number) => boolean;

const LIES: Record<string, Lie> = {
  'another base': (states, state, plan, bases, any) => {
    const wrong = bases.filter((base) => !gives(states, base, plan, state));
    if (wrong.length === 0) return false;
    plan.base = wrong[any % wrong.length];
    return true;
  },
  'a base with a vanished key': (states, state, plan, bases, any) => {
    const wrong = bases.filter((base) =>
      [...entriesOf(states, base).keys()].some((key) => states.get(state, key) < 0),
    );
    if (wrong.length === 0) return false;
    plan.base = wrong[any % wrong.length];
    plan.length = 0;
    for (const [key, entry] of entriesOf(states, state)) {
      if (states.get(plan.base, key) !== entry) push(plan, entry);
    }
    return true;
  },
  'a row that is missing': (_states, _state, plan, _bases, any) => {
    if (plan.length === 0) return false;
    plan.delta[any % plan.length] = plan.delta[plan.length - 1];
    plan.length--;
    return true;
  },
  'a row too many': (states, _state, plan, _bases, any) => {
    push(plan, lyingEntry(states, any % states.entries.keys.length));
    return true;
  },
  'a row that comes twice': (_states, _state, plan, _bases, any) => {
    if (plan.length === 0) return false;
    push(plan, plan.delta[any % plan.length]);
    return true;
  },
  'another event': (states, _state, plan, _bases, any) => {
    if (plan.length === 0) return false;
    const at = any % plan.length;
    plan.delta[at] = lyingEntry(states, states.entries.key[plan.delta[at]]);
    return true;
  },
};

/** Plans as levels does, but lies once, from the group on that is the `from`th to get another base. */
class Liar extends LevelsPlanner {
  /** The index of the group that was lied about. */
  liedAbout: number | undefined;
  #rebased = 0;
  readonly #known: number[] = [];

  constructor(
    readonly lie: Lie,
    readonly from: number,
    readonly any: number,
  ) {
    super([3, 2]);
  }

  override plan(states: LiveStates, state: number, stored: number, plan: Plan): boolean {
    const changed = super.plan(states, state, stored, plan);
    if (changed && plan.base !== stored && this.liedAbout === undefined) {
      const bases = this.#known.filter((base) => base !== stored);
      if (this.#rebased++ >= this.from && this.lie(states, state, plan, bases, this.any)) {
        this.liedAbout = states.group[state];
      }
    }
    states.hold(state);
    this.#known.push(state);
    return changed;
  }
}

function push(plan: Plan, entry: number): void {
  plan.delta = grown(plan.delta, plan.length + 1);
  plan.delta[plan.length++] = entry;
}

/** An entry that no state has. */
function lyingEntry({ entries }: LiveStates, key: number): number {
  const event = Buffer.from('$lie\n');
  const view = new DataView(event.buffer, event.byteOffset, event.length);
  return entries.intern(key, event, view, 0, event.length);
}

function entriesOf(states: LiveStates, state: number): Map<number, number> {
  const list = new Int32Array(state === NO_STATE ? 0 : states.size[state]);
  if (state !== NO_STATE) states.list(state, list);
  return new Map(Array.from(list, (entry) => [states.entries.key[entry], entry]));
}

function gives(states: LiveStates, base: number, plan: Plan, state: number): boolean {
  const given = entriesOf(states, base);
  for (const entry of plan.delta.subarray(0, plan.length)) {
    given.set(states.entries.key[entry], entry);
  }
  const wanted = entriesOf(states, state);
  return (
    given.size === wanted.size && [...wanted].every(([key, entry]) => given.get(key) === entry)
  );
}

describe('verification', () => {
  for (const [what, lie] of Object.entries(LIES)) {
    it(`catches a plan with ${what}, unless it is switched off`, async () => {
      let lies = 0;
      const room = rooms(40, { regular: true });
      await fc.assert(
        fc.asyncProperty(room, fc.nat(5), fc.nat(), async (groups, from, any) => {
          const table = tableOf(groups);
          const liar = new Liar(lie, from, any);
          const planned = planRoom(groups, table, liar);
          const error = await planned.then(
            () => undefined,
            (reason: unknown) => reason,
          );
          if (liar.liedAbout === undefined) {
            assert.equal(error, undefined);
          } else {
            lies++;
            assert.ok(error instanceof VerificationError);
            assert.equal(error.stateGroup, table.ids[liar.liedAbout]);
            assert.match(error.message, new RegExp(`state group ${error.stateGroup} `));
            const believing = new Liar(lie, from, any);
            const { plan } = await planRoom(groups, table, believing, { verify: false });
            assert.equal(believing.liedAbout, liar.liedAbout);
            assert.equal(plan.groupsVerified, 0);
          }
        }),
        { numRuns: 60 },
      );
      assert.ok(lies >= 10, `${lies} lies were told`);
    });
  }
});
