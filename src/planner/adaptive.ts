import type { GroupTable } from '../sources/group-table.js';
import { grown } from '../state/grown.js';
import { NO_STATE, type LiveStates } from '../state/live-states.js';
import { BaseSearch } from './base-search.js';
import { Branches } from './branches.js';
import { chainsToCome, SYNAPSE_HOPS, UNENDING } from './chains-to-come.js';
import type { Plan, Planner } from './planner.js';

/**
 * On a base that is at most this part of a snapshot away, a state shares what is equal with it: of two views of a
 * room that take turns, each is built on the other, and held with its own ancestors.
 */
const SHARED = 16;
/** A stored delta of so few rows is kept without a search while it fits. */
const SMALL_DELTA = 4;

/**
 * So many last groups count as the newest: a room's forward extremities are among them, which Synapse
 * joins when they become more. Whether others are stored on a group tells nothing, as that changes by
 * compressing.
 */
const NEWEST = 10;

export interface AdaptiveSettings {
  /** The longest chain, counted in groups, the group itself included; default 100. */
  readonly maxHops?: number;
  /** Hops to leave under the newest groups, so that Synapse's next ones fit; default half of `maxHops`. */
  readonly headroom?: number;
  /** Shortens all chains that are stored longer than `maxHops`, though the room may get larger. */
  readonly rebaseDeep?: boolean;
}

/**
 * Keeps each group on its own predecessor while the chain has hops left, and otherwise chooses the base
 * that costs the fewest rows for the hops it leaves.
 *
 * Hops are a budget. Where `h` are left, chains that start deeper and deeper, each for few rows, reach
 * about `h² / 2` groups before many rows have to be paid again. So a base is the better the fewer rows it
 * costs for the square of the hops it leaves; of a branch that is known to end, hops that it will not need
 * count for nothing. Candidates are the stored predecessor, the heads of the branches that were used last,
 * and all their ancestors in the new tree: backfill, forks and state resolution make a room many branches,
 * and a base found for one serves its neighbours.
 *
 * A group that fits where it is stored moves only to what costs fewer rows and is the best for a branch without
 * end. If the stored base was the best for a branch that ends, there is no such: what cost fewer rows had fewer
 * hops of use to that branch, so it has fewer hops in all. And a stored snapshot gives way only where some base
 * would be better than it for a branch without end. So a room that was compressed with the same settings stays as
 * it is, though its branches end elsewhere then.
 *
 * Memory: what a group may be based on, see `Branches`.
 */
export class AdaptivePlanner implements Planner {
  readonly description: string;
  forcedResets = 0;
  forcedResetRows = 0;
  /** Groups whose chain was stored longer than `maxHops` and was left so. */
  #deepGroups = 0;
  /** Whether a chain that was stored longer is shortened, which is asked for at any cost. */
  mayCostRows = false;
  #savedRows = 0;

  readonly #settings: Required<AdaptiveSettings>;
  #chainsToCome: Uint8Array | undefined;
  #hanging: Int32Array = new Int32Array(0);
  readonly #branches: Branches;
  readonly #search: BaseSearch;

  constructor(settings: AdaptiveSettings = {}) {
    const { maxHops = SYNAPSE_HOPS, rebaseDeep = false } = settings;
    const { headroom = Math.floor(maxHops / 2) } = settings;
    this.#settings = { maxHops, headroom, rebaseDeep };
    this.#branches = new Branches(maxHops);
    this.#search = new BaseSearch(this.#branches, maxHops);
    this.description = `adaptive, at most ${maxHops} hops, ${headroom} left under the newest groups`;
  }

  get warnings(): string[] {
    if (this.#deepGroups === 0) return [];
    return [
      `${this.#deepGroups} state groups are in stored chains of more than ${this.#settings.maxHops} hops, which would cost more rows to shorten than were saved before them; they were left so. --rebase-deep shortens them.`,
    ];
  }

  begin({ prev, hanging }: GroupTable): void {
    this.#chainsToCome = chainsToCome(prev);
    this.#hanging = hanging;
  }

  plan(states: LiveStates, state: number, stored: number, plan: Plan, toCome: number): boolean {
    const base = this.#choose(states, state, stored, toCome);
    const changed = base !== stored || (states.spareRows[state] > 0 && states.barred[base] === 0);
    plan.base = base;
    if (changed) {
      plan.delta = grown(plan.delta, states.size[state]);
      plan.length =
        base === NO_STATE
          ? states.list(state, plan.delta)
          : states.difference(base, state, plan.delta, plan.delta.length);
      this.#savedRows += states.neededRows[state] + states.spareRows[state] - plan.length;
      // Of a snapshot nothing is near.
      const isNear = base !== stored && SHARED * plan.length < states.size[state];
      if (isNear) states.share(state, base, plan.delta, plan.length);
    }
    if (base === NO_STATE && stored !== NO_STATE) {
      this.forcedResets++;
      this.forcedResetRows += plan.length;
    }
    this.#branches.goOn(states, state, base, changed ? plan.length : states.neededRows[state]);
    return changed;
  }

  /** The branch goes on with it, though nothing may be based on it anew if it is about to be deleted. */
  stays(states: LiveStates, state: number, stored: number): void {
    this.#branches.goOn(states, state, stored, states.neededRows[state]);
  }

  endOfSuccessors(states: LiveStates, stored: number): void {
    this.#branches.endOfSuccessors(states, stored);
  }

  #choose(states: LiveStates, state: number, stored: number, toCome: number): number {
    const { headroom, rebaseDeep } = this.#settings;
    const maxHops = this.#maxHops(states, state);
    const newest = headroom > 0 && toCome < NEWEST;
    const limit = newest ? Math.max(1, maxHops - headroom) : maxHops;
    const needed = states.neededRows[state];
    const left = stored === NO_STATE ? -1 : limit - states.hopsAfter[stored] - 1;
    if (left >= 0 && needed <= SMALL_DELTA) return stored;

    // The first of the newest groups to be moved makes place for those to come, and for the fewest rows:
    // what hops are worth shows when their successors are there.
    const mayStay = left >= 0 || states.hopsBefore[state] > maxHops;
    const hopsNeeded = newest ? 0 : mayStay ? Infinity : this.#chainToCome(states, state) + 1;
    // Where it may stay though its chain is too long, it moves for what was saved, so that no room gets larger.
    const hops = stored === NO_STATE ? 1 : states.hopsAfter[stored] + 1;
    const saved = Math.max(0, this.#savedRows);
    const isDeep = hops > maxHops && hops <= states.hopsBefore[state] && !rebaseDeep;
    const dearest = isDeep ? Math.min(needed + saved, states.size[state]) : states.size[state];
    const best = this.#search.find(states, {
      state,
      stored,
      limit: newest ? Math.max(1, limit - toCome) : limit,
      dearest,
      hopsNeeded,
    });
    if (stored === NO_STATE || best === stored) return best;
    const cost = this.#search.rows - needed;
    if (left >= 0) return cost < 0 ? best : stored;
    // Saved rows may also pay for the hops that are left under the newest groups.
    if (hops <= maxHops) return cost <= saved ? best : stored;
    if (rebaseDeep && hops <= states.hopsBefore[state]) this.mayCostRows = true;
    if (cost <= saved || rebaseDeep || hops > states.hopsBefore[state]) return best;
    this.#deepGroups++;
    return stored;
  }

  /**
   * The longest chain that the group may have, so that what stands on it and stays there fits as well. Where
   * that is stored too deep already, it gets no deeper.
   */
  #maxHops(states: LiveStates, state: number): number {
    const { maxHops, rebaseDeep } = this.#settings;
    const fitting = Math.max(1, maxHops - (this.#hanging[states.group[state]] ?? 0));
    return rebaseDeep ? fitting : Math.max(fitting, Math.min(maxHops, states.hopsBefore[state]));
  }

  #chainToCome(states: LiveStates, state: number): number {
    const groups = this.#chainsToCome?.[states.group[state]] ?? UNENDING;
    return groups === UNENDING ? Infinity : groups;
  }
}
