import { NO_STATE, type LiveStates } from '../state/live-states.js';
import { grown } from '../state/grown.js';
import { LACKS_KEY } from '../state/state-trie.js';
import type { Plan, Planner } from './planner.js';
import { ReachableStates } from './reachable-states.js';

/** The old tool's. */
export const DEFAULT_LEVEL_SIZES: readonly number[] = [100, 50, 25];

/** A level between two runs. */
export interface Level {
  readonly size: number;
  readonly length: number;
  /** The head's index in the group table; where levels are stored, its id. */
  readonly head: number | undefined;
}

/**
 * The published algorithm of rust-synapse-compress-state, with the same result: a tree of levels, each
 * a chain of a set length. A group's base is the head of the lowest level that has room; where that
 * has keys which the group has not, the head's own new predecessor, and so on.
 */
export class LevelsPlanner implements Planner {
  readonly description: string;
  readonly warnings: readonly string[] = [];
  forcedResets = 0;
  forcedResetRows = 0;
  readonly #sizes: readonly number[];
  /** For each level its head, or `NO_STATE`, and the length of its chain. */
  readonly #heads: number[];
  readonly #lengths: number[];
  readonly #headGroups: (number | undefined)[];
  readonly #reachable = new ReachableStates();
  /** States that saved heads may lead to, held until all heads have come. */
  #read: number[] = [];

  /**
   * @param sizes of the levels, the lowest first; the old tool's by default
   * @param saved where an earlier run stopped: levels of these sizes, whose heads are in the group table
   *   with their ancestors
   */
  constructor(sizes: readonly number[] = DEFAULT_LEVEL_SIZES, saved: readonly Level[] = []) {
    this.#sizes = sizes;
    this.#heads = sizes.map(() => NO_STATE);
    this.#lengths = sizes.map((_, level) => saved[level]?.length ?? 0);
    this.#headGroups = sizes.map((_, level) => saved[level]?.head);
    this.description = `levels ${sizes.join(',')}`;
  }

  /** As they stand now. */
  get levels(): Level[] {
    return this.#sizes.map((size, level) => ({
      size,
      length: this.#lengths[level],
      head: this.#headGroups[level],
    }));
  }

  read(states: LiveStates, state: number, stored: number): void {
    if (this.#headGroups.every((head) => head === undefined)) return;
    this.#reachable.attach(states, state, stored);
    this.#reachable.enter(states, state);
    this.#read.push(state);
    for (const [level, head] of this.#headGroups.entries()) {
      if (head !== states.group[state]) continue;
      this.#heads[level] = state;
      this.#reachable.enter(states, state);
    }
  }

  plan(states: LiveStates, state: number, stored: number, plan: Plan): boolean {
    for (const read of this.#read) this.#reachable.leave(states, read);
    this.#read = [];
    const sizes = this.#sizes;
    let level = 0;
    while (level < sizes.length && this.#lengths[level] >= sizes[level]) level++;
    const candidate = level < sizes.length ? this.#heads[level] : NO_STATE;

    let changed = true;
    if (candidate === stored) {
      plan.base = stored;
      changed = false;
    } else {
      this.#findBase(states, state, candidate, plan);
    }

    this.#reachable.attach(states, state, plan.base);
    for (let full = 0; full < level; full++) this.#become(states, full, state, 1);
    if (level < sizes.length) this.#become(states, level, state, this.#lengths[level] + 1);
    return changed;
  }

  /** Takes the first valid base from the candidate on along its new predecessors, or none. */
  #findBase(states: LiveStates, state: number, candidate: number, plan: Plan): void {
    const size = states.size[state];
    plan.delta = grown(plan.delta, size);
    for (let base = candidate; base !== NO_STATE; base = this.#reachable.baseOf(base)) {
      if (states.size[base] > size || states.barred[base] > 0) continue;
      const length = states.difference(base, state, plan.delta, size);
      if (length === LACKS_KEY) continue;
      plan.base = base;
      plan.length = length;
      return;
    }
    plan.base = NO_STATE;
    plan.length = states.list(state, plan.delta);
    if (candidate !== NO_STATE) {
      this.forcedResets++;
      this.forcedResetRows += size;
    }
  }

  #become(states: LiveStates, level: number, state: number, length: number): void {
    const old = this.#heads[level];
    this.#heads[level] = state;
    this.#headGroups[level] = states.group[state]!;
    this.#lengths[level] = length;
    this.#reachable.enter(states, state);
    if (old !== NO_STATE) this.#reachable.leave(states, old);
  }
}
