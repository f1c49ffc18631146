import type { Plan, Planner } from '../src/planner/planner.js';
import { NO_STATE, type LiveStates } from '../src/state/live-states.js';

/**
 * Puts each group on the one of all earlier groups, at any depth, that leaves it the fewest rows: no plan
 * leaves a room fewer. Holds every state and compares each with all before it, so it is for rooms of a
 * few thousand groups.
 */
export class LeastRowsPlanner implements Planner {
  readonly description = 'the best base among all groups';
  readonly forcedResets = 0;
  readonly forcedResetRows = 0;
  readonly warnings = [];
  readonly #earlier: number[] = [];
  #found = new Int32Array(1024);

  plan(states: LiveStates, state: number, stored: number, plan: Plan): boolean {
    const size = states.size[state];
    if (this.#found.length < size) {
      this.#found = new Int32Array(2 * size);
      plan.delta = new Int32Array(2 * size);
    }
    plan.base = NO_STATE;
    plan.length = size;
    // From the nearest on, as what it leaves bounds the search in the others.
    for (let i = this.#earlier.length - 1; i >= 0 && plan.length > 0; i--) {
      const base = this.#earlier[i];
      const found = states.difference(base, state, this.#found, plan.length - 1);
      if (found < 0) continue;
      plan.base = base;
      plan.length = found;
    }
    if (plan.base === NO_STATE) states.list(state, plan.delta);
    else states.difference(plan.base, state, plan.delta, plan.delta.length);
    states.hold(state);
    this.#earlier.push(state);
    return plan.base !== stored || states.spareRows[state] > 0;
  }
}
