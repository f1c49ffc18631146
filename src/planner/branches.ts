import { grown } from '../state/grown.js';
import { NO_STATE, type LiveStates } from '../state/live-states.js';
import { ReachableStates } from './reachable-states.js';

/** Branches whose heads and ancestors are looked at; measured in docs/algorithm.md. */
const BRANCHES = 256;
/** So many of these may have no hops left: only the ancestors of such a head can still serve. */
const FULL_BRANCHES = 4;
/** As many rows as are counted. */
const MOST_ROWS = 2 ** 30;

/**
 * What a group may be based on: the heads, which are the states at the ends of the branches that were used
 * last; the states that other groups are still to be stored on; and the ancestors of both in the new tree, at
 * most `maxHops` each, which share what is equal.
 */
export class Branches {
  readonly #maxHops: number;
  readonly #reachable = new ReachableStates();
  /** The last used at the end. */
  readonly #heads = new Int32Array(BRANCHES);
  #headCount = 0;
  /** For each state whether it is held for groups that are stored on it. */
  #awaited = new Uint8Array(256);
  /** The rows of each state's delta to the next state on its chain. */
  #deltaRows = new Int32Array(256);

  constructor(maxHops: number) {
    this.#maxHops = maxHops;
  }

  get headCount(): number {
    return this.#headCount;
  }

  /** The heads are numbered by their last use, the oldest first. */
  headAt(place: number): number {
    return this.#heads[place];
  }

  /** The next state on the chain of a state that is held; `NO_STATE` at its end. */
  baseOf(state: number): number {
    return this.#reachable.baseOf(state);
  }

  /** The rows of the delta between a state and `baseOf` it; for a snapshot, all of its rows. */
  deltaRows(state: number): number {
    return this.#deltaRows[state];
  }

  /** Makes `state`, whose delta on `base` has so many rows, the head of a branch, in the place of its base if that was one. */
  goOn(states: LiveStates, state: number, base: number, rows: number): void {
    this.#awaited = grown(this.#awaited, states.length);
    this.#deltaRows = grown(this.#deltaRows, states.length);
    this.#deltaRows[state] = rows;
    this.#reachable.attach(states, state, this.#wayOn(states, state, base));
    this.#reachable.enter(states, state);
    this.#await(states, state);
    this.#forget(states, base);
    if (base !== NO_STATE && states.hopsAfter[base] + 1 >= this.#maxHops) this.#forgetFull(states);
    if (this.#headCount === BRANCHES) this.#forget(states, this.#heads[0]);
    this.#heads[this.#headCount++] = state;
  }

  /** The last of the groups stored on the state has come. */
  endOfSuccessors(states: LiveStates, stored: number): void {
    if (this.#awaited[stored] !== 1) return;
    this.#awaited[stored] = 0;
    this.#reachable.leave(states, stored);
  }

  /**
   * The nearest ancestor that can be a base, of which one without hops left is none: so a chain that is
   * stored deeper than `maxHops` is no longer to walk and to hold than others.
   */
  #wayOn(states: LiveStates, state: number, base: number): number {
    if (base === NO_STATE || states.hopsAfter[base] < this.#maxHops) return base;
    this.#deltaRows[state] = Math.min(MOST_ROWS, this.#deltaRows[state] + this.#deltaRows[base]);
    return this.#reachable.baseOf(base);
  }

  /**
   * Holds a group's ancestors until all that are stored on it have come: of a thousand branches most are
   * not among the last used when they go on.
   */
  #await(states: LiveStates, state: number): void {
    if (states.successorsLeft[state] > 0) {
      this.#awaited[state] = 1;
      this.#reachable.enter(states, state);
    }
  }

  /** Forgets the oldest head without hops left, if there are as many as may be. */
  #forgetFull(states: LiveStates): void {
    let full = 0;
    let oldest = NO_STATE;
    for (let i = this.#headCount - 1; i >= 0; i--) {
      const head = this.#heads[i];
      if (states.hopsAfter[head] < this.#maxHops) continue;
      full++;
      oldest = head;
    }
    if (full >= FULL_BRANCHES) this.#forget(states, oldest);
  }

  #forget(states: LiveStates, head: number): void {
    const at = this.#heads.subarray(0, this.#headCount).lastIndexOf(head);
    if (at < 0) return;
    this.#heads.copyWithin(at, at + 1, this.#headCount--);
    this.#reachable.leave(states, head);
  }
}
