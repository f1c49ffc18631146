import { grown } from '../state/grown.js';
import { NO_STATE, type LiveStates } from '../state/live-states.js';

/**
 * The states that a planner may still choose as bases: those it starts from, and their ancestors in the
 * new tree. Each is held as long as some way leads to it.
 */
export class ReachableStates {
  /** For each reachable state its base's number plus one; 0 for a snapshot, and where the way on is lost. */
  #base = new Int32Array(256);
  #ways = new Int32Array(256);

  /** Makes `base` the new predecessor of `state`, which must be entered right after. */
  attach(states: LiveStates, state: number, base: number): void {
    this.#base = grown(this.#base, states.length);
    this.#ways = grown(this.#ways, states.length);
    this.#base[state] = base + 1;
    if (base !== NO_STATE) this.enter(states, base);
  }

  /** The new predecessor of a reachable state; `NO_STATE` for a snapshot and for one out of reach. */
  baseOf(state: number): number {
    return this.#ways[state] > 0 ? this.#base[state] - 1 : NO_STATE;
  }

  enter(states: LiveStates, state: number): void {
    if (this.#ways[state]++ === 0) states.hold(state);
  }

  leave(states: LiveStates, state: number): void {
    while (state !== NO_STATE && --this.#ways[state] === 0) {
      const base = this.#base[state] - 1;
      // The state may come back as a stored predecessor, and its number as another state's.
      this.#base[state] = 0;
      states.release(state);
      state = base;
    }
  }
}
