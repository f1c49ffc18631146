import type { GroupTable } from '../sources/group-table.js';
import { grown } from '../state/grown.js';
import { NO_STATE, type LiveStates } from '../state/live-states.js';
import { chainsToCome, SYNAPSE_HOPS, UNENDING } from './chains-to-come.js';
import type { Plan, Planner } from './planner.js';
import { LACKS_KEY, OVER_LIMIT } from '../state/state-trie.js';
import { ReachableStates } from './reachable-states.js';

/** Branches whose heads and ancestors are looked at; measured in docs/algorithm.md. */
const BRANCHES = 256;
/** So many of these may have no hops left: only the ancestors of such a head can still serve. */
const FULL_BRANCHES = 4;
/**
 * Where the own branch has a base, another branch's may cost the 32nd part of a snapshot: hardly any that
 * costs more is chosen, and to find that out took half of all comparing.
 */
const NEIGHBOUR = 1 / 32;
const LEAST_NEIGHBOUR = 64;
/** A branch goes on from a head that is at most so many rows away. */
const NEAR = 16;
/**
 * Two states are compared up to so many rows more than a base may cost: what is known then of how far
 * apart they are spares the comparing of as many neighbours.
 */
const BEYOND = 256;
/** More rows than any base costs: it has a key too many, and so has all that stands on it. */
const NO_BASE = 2 ** 30;
/** As many rows as are counted. */
const MOST_ROWS = 2 ** 30;
/** A stored delta of so few rows is kept without a search while it fits. */
const SMALL_DELTA = 8;

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
 * What is looked at depends on the new tree alone, and among equals the stored predecessor comes first. A
 * group that fits where it is stored moves only to the best, for a branch without end, of what costs fewer
 * rows: nothing is, where the stored base was the best for a branch that ends. And a stored snapshot gives
 * way only where some base would be better than it for a branch without end. So a room that was compressed
 * with the same settings stays as it is, though its branches end elsewhere then.
 *
 * Memory: the heads, the groups that others are still to be stored on, and the ancestors of both, at
 * most `maxHops` each, which share what is equal.
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
  readonly #reachable = new ReachableStates();
  /** States at the ends of branches, the last used at the end. */
  readonly #heads = new Int32Array(BRANCHES);
  #headCount = 0;
  /** For each state whether it is held for groups that are stored on it, and the last search that looked at it. */
  #awaited = new Uint8Array(256);
  #lookedAt = new Int32Array(256);
  #search = 0;
  /** For each state the rows of its delta on where the way goes on, and how many it would cost at least in the search under way. */
  #deltaRows = new Int32Array(256);
  #leastRows = new Int32Array(256);
  /** A key that the state of the search under way has not. */
  #lackedKey = -1;
  /** From a head to its root. */
  #way = new Int32Array(128);
  #found = new Int32Array(1024);
  /** So many hops the group's branch needs, itself included; none if only rows count. */
  #hopsNeeded = 0;
  #best = NO_STATE;
  /** The rows of the best base for what its hops are worth. */
  #bestPrice = 0;
  /** What a snapshot costs if all its hops are needed, and whether some base would cost less then. */
  #unendingPrice = 0;
  #beatsSnapshot = false;

  constructor(settings: AdaptiveSettings = {}) {
    const { maxHops = SYNAPSE_HOPS, rebaseDeep = false } = settings;
    const { headroom = Math.floor(maxHops / 2) } = settings;
    this.#settings = { maxHops, headroom, rebaseDeep };
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
    this.#makeRoom(states);
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
    }
    this.#deltaRows[state] = changed ? plan.length : states.neededRows[state];
    if (base === NO_STATE && stored !== NO_STATE) {
      this.forcedResets++;
      this.forcedResetRows += plan.length;
    }
    this.#goOn(states, state, base);
    return changed;
  }

  /** The branch goes on with it, though nothing may be based on it anew if it is about to be deleted. */
  stays(states: LiveStates, state: number, stored: number): void {
    this.#makeRoom(states);
    this.#deltaRows[state] = states.neededRows[state];
    this.#goOn(states, state, stored);
  }

  #makeRoom({ length }: LiveStates): void {
    this.#awaited = grown(this.#awaited, length);
    this.#lookedAt = grown(this.#lookedAt, length);
    this.#deltaRows = grown(this.#deltaRows, length);
    this.#leastRows = grown(this.#leastRows, length);
  }

  endOfSuccessors(states: LiveStates, stored: number): void {
    if (this.#awaited[stored] !== 1) return;
    this.#awaited[stored] = 0;
    this.#reachable.leave(states, stored);
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
    this.#hopsNeeded = newest ? 0 : mayStay ? Infinity : this.#chainToCome(states, state) + 1;
    // Where it may stay though its chain is too long, it moves for what was saved, so that no room gets larger.
    const hops = stored === NO_STATE ? 1 : states.hopsAfter[stored] + 1;
    const saved = Math.max(0, this.#savedRows);
    const isDeep = hops > maxHops && hops <= states.hopsBefore[state] && !rebaseDeep;
    const most = isDeep ? Math.min(needed + saved, states.size[state]) : states.size[state];
    this.#find(states, state, stored, newest ? Math.max(1, limit - toCome) : limit, most);
    if (stored === NO_STATE || this.#best === stored) return this.#best;
    const cost = this.#bestRows(states, state) - needed;
    if (left >= 0) return cost < 0 ? this.#best : stored;
    // So are hops under a newest group.
    if (hops <= maxHops) return cost <= saved ? this.#best : stored;
    if (rebaseDeep && hops <= states.hopsBefore[state]) this.mayCostRows = true;
    if (cost <= saved || rebaseDeep || hops > states.hopsBefore[state]) return this.#best;
    this.#deepGroups++;
    return stored;
  }

  /**
   * The longest chain that the group may have: what hangs on it stays there, and is to fit as well. Where it
   * does not as it is stored, it gets no deeper.
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

  #bestRows(states: LiveStates, state: number): number {
    const size = states.size[state];
    return this.#best === NO_STATE ? size : states.difference(this.#best, state, this.#found, size);
  }

  /** Finds the best base within `limit` hops and of at most `dearest` rows, or none if a snapshot is better. */
  #find(states: LiveStates, state: number, stored: number, limit: number, dearest: number): void {
    const size = states.size[state];
    this.#search++;
    this.#lackedKey = -1;
    this.#found = grown(this.#found, size);
    if (this.#findHead(states, state, stored, limit, dearest)) return;
    this.#best = NO_STATE;
    this.#bestPrice = size / this.#worth(limit);
    this.#unendingPrice = size / limit ** 2;
    this.#beatsSnapshot = stored !== NO_STATE || this.#hopsNeeded === 0;
    // A group that fits where it is stored moves only for fewer rows.
    const fits = stored !== NO_STATE && limit > states.hopsAfter[stored];
    const cheaper = fits ? states.neededRows[state] - 1 : dearest;
    if (stored !== NO_STATE) {
      // Once a room is compressed the stored base fits, and its ancestors are neighbours like others.
      this.#look(states, state, stored, 0, limit, size);
      this.#climb(states, state, stored, limit, Math.min(cheaper, this.#mostRows(size)));
    }
    const most = Math.min(cheaper, this.#mostRows(size));
    for (let i = this.#headCount - 1; i >= 0; i--) {
      this.#climb(states, state, this.#heads[i], limit, most);
    }
    if (!this.#beatsSnapshot) this.#best = NO_STATE;
  }

  /**
   * Looks for the nearest head whose hops left are worth the rows it costs: then the branch just goes
   * on. A hop is worth a row, or in a small room its part of a snapshot.
   */
  #findHead(
    states: LiveStates,
    state: number,
    stored: number,
    limit: number,
    dearest: number,
  ): boolean {
    this.#best = NO_STATE;
    const size = states.size[state];
    const hopWorth = Math.min(1, size / this.#settings.maxHops);
    let rows = Math.min(size, dearest + 1);
    for (let i = this.#headCount - 1; i >= 0; i--) {
      const head = this.#heads[i];
      const left = limit - states.hopsAfter[head] - 1;
      if (left < 0 || head === stored || states.barred[head] > 0) continue;
      const found = this.#rows(
        states,
        head,
        state,
        Math.min(rows - 1, NEAR, Math.floor(left * hopWorth)),
        0,
      );
      if (found < 0) continue;
      this.#best = head;
      rows = found;
    }
    if (stored !== NO_STATE && states.neededRows[state] <= rows) {
      const left = limit - states.hopsAfter[stored] - 1;
      if (left >= 0 && states.neededRows[state] <= left * hopWorth) this.#best = stored;
    }
    return this.#best !== NO_STATE;
  }

  /** So many rows may a base cost, once there is one. */
  #mostRows(size: number): number {
    if (this.#best === NO_STATE) return size;
    return Math.max(LEAST_NEIGHBOUR, Math.floor(size * NEIGHBOUR));
  }

  /**
   * Looks at `from` and its ancestors in the new tree for a base that costs at most `most` rows, up to the
   * first that was looked at before in this search. A delta of few rows brings a base no nearer than these
   * rows: where that first one is too far away, so mostly is all on the way to it.
   */
  #climb(states: LiveStates, state: number, from: number, limit: number, most: number): void {
    const lookedAt = this.#lookedAt;
    const leastRows = this.#leastRows;
    let length = 0;
    let nearer = 0;
    let base = from;
    while (base !== NO_STATE && lookedAt[base] !== this.#search) {
      lookedAt[base] = this.#search;
      leastRows[base] = 0;
      if (states.barred[base] > 0) {
        nearer = Infinity;
      } else {
        if (length === this.#way.length) this.#way = grown(this.#way, length + 1);
        this.#way[length++] = base;
        nearer += this.#deltaRows[base];
      }
      base = this.#reachable.baseOf(base);
    }
    const isFar =
      base !== NO_STATE &&
      leastRows[base] - nearer > Math.max(this.#better(limit, most), this.#beating(limit));
    const likely = isFar ? NO_STATE : this.#lookAtLikely(states, state, length, limit, most);
    while (length > 0) {
      base = this.#way[--length];
      if (base === likely) continue;
      const below = this.#reachable.baseOf(base);
      const least = below === NO_STATE ? 0 : leastRows[below] - this.#deltaRows[base];
      if (isFar) leastRows[base] = least;
      else this.#look(states, state, base, least, limit, most);
    }
  }

  /**
   * Of the way's states looks at the one that would be the best if where it begins were at hand and no key had
   * changed twice: a good one spares most others the comparing. Returns it.
   */
  #lookAtLikely(
    states: LiveStates,
    state: number,
    length: number,
    limit: number,
    most: number,
  ): number {
    let likely = NO_STATE;
    let likelyPrice = Infinity;
    let away = 1;
    for (let i = 0; i < length; i++) {
      const base = this.#way[i];
      const hops = limit - states.hopsAfter[base];
      const price = hops > 0 ? away / this.#worth(hops) : Infinity;
      if (price < likelyPrice) {
        likely = base;
        likelyPrice = price;
      }
      away += this.#deltaRows[base];
    }
    if (likely !== NO_STATE) this.#look(states, state, likely, 0, limit, most);
    return likely;
  }

  /** Takes `base`, which costs at least so many rows, if it is better than the best so far. */
  #look(
    states: LiveStates,
    state: number,
    base: number,
    least: number,
    limit: number,
    most: number,
  ): void {
    this.#leastRows[base] = least;
    const hops = limit - states.hopsAfter[base];
    if (hops <= 0) return;
    const better = this.#better(hops, most);
    const beating = this.#beating(hops);
    const allowed = Math.max(better, beating);
    if (least > allowed) return;
    const rows = this.#rows(states, base, state, allowed, BEYOND);
    this.#leastRows[base] = rows < 0 ? Math.max(least, ~rows) : rows;
    if (rows < 0) return;
    this.#beatsSnapshot ||= rows <= beating;
    if (rows > better) return;
    this.#best = base;
    this.#bestPrice = rows / this.#worth(hops);
  }

  /** At so many rows at most a base that leaves so many hops is better than the best so far. */
  #better(hops: number, most: number): number {
    return Math.min(Math.ceil(this.#worth(hops) * this.#bestPrice) - 1, most);
  }

  /** At so many rows at most it is the first that is better than a snapshot for a branch without end. */
  #beating(hops: number): number {
    return this.#beatsSnapshot ? -1 : Math.ceil(hops ** 2 * this.#unendingPrice) - 1;
  }

  /** What so many hops are worth, as a number of groups that they reach. */
  #worth(hops: number): number {
    return this.#hopsNeeded === 0 ? 1 : Math.min(hops, this.#hopsNeeded) ** 2;
  }

  /**
   * The rows of `state`'s delta on `base`, if these are at most `limit`; else `~` of a number that they
   * are at least. They are counted up to so many `beyond` the limit.
   */
  #rows(states: LiveStates, base: number, state: number, limit: number, beyond: number): number {
    const more = states.size[state] - states.size[base];
    if (more < 0) return ~NO_BASE;
    if (more > limit) return ~more;
    // Ancestors and neighbours of a base that is none mostly have the same key too many.
    if (this.#lackedKey >= 0 && states.get(base, this.#lackedKey) >= 0) return ~NO_BASE;
    const most = Math.min(limit + beyond, this.#found.length);
    const rows = states.difference(base, state, this.#found, most);
    if (rows === OVER_LIMIT) return ~(most + 1);
    if (rows !== LACKS_KEY) return rows <= limit ? rows : ~rows;
    this.#lackedKey = states.trie.lackedKey;
    return ~NO_BASE;
  }

  /** Makes `state` the head of a branch, in the place of its base if that was one. */
  #goOn(states: LiveStates, state: number, base: number): void {
    this.#reachable.attach(states, state, this.#wayOn(states, state, base));
    this.#reachable.enter(states, state);
    this.#await(states, state);
    this.#forget(states, base);
    const { maxHops } = this.#settings;
    if (base !== NO_STATE && states.hopsAfter[base] + 1 >= maxHops) this.#forgetFull(states);
    if (this.#headCount === BRANCHES) this.#forget(states, this.#heads[0]);
    this.#heads[this.#headCount++] = state;
  }

  /**
   * The nearest ancestor that can be a base, of which one without hops left is none: so a chain that is
   * stored deeper than `maxHops` is no longer to walk and to hold than others.
   */
  #wayOn(states: LiveStates, state: number, base: number): number {
    if (base === NO_STATE || states.hopsAfter[base] < this.#settings.maxHops) return base;
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
      if (states.hopsAfter[head] < this.#settings.maxHops) continue;
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
