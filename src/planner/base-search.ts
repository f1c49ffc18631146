import { grown } from '../state/grown.js';
import { NO_STATE, type LiveStates } from '../state/live-states.js';
import { LACKS_KEY, OVER_LIMIT } from '../state/state-trie.js';
import type { Branches } from './branches.js';

/**
 * Where the own branch has a base, another branch's may cost the 32nd part of a snapshot: hardly any that
 * costs more is chosen, and to find that out took half of all comparing.
 */
const NEIGHBOUR = 1 / 32;
const LEAST_NEIGHBOUR = 64;
/** The ancestors of so many heads are looked at, and of one more for each row of a snapshot: what there is to save. */
const LEAST_BRANCHES = 16;
/**
 * A branch goes on from a head, or from where it is stored, that is at most so many rows away. Where two views of a
 * room take turns, each is stored on the other, and its own last group is an ancestor that costs a row.
 */
const NEAR = 4;
/**
 * Two states are compared up to so many rows more than a base may cost: what is known then of how far
 * apart they are spares the comparing of as many neighbours.
 */
const BEYOND = 256;
/** More rows than any base costs: it has a key too many, and so has all that stands on it. */
const NO_BASE = 2 ** 30;

/** The group that a base is looked for, and what the base may cost. */
export interface Wanted {
  readonly state: number;
  /** The state of its stored predecessor, or `NO_STATE`. */
  readonly stored: number;
  /** The longest chain that the group may end. */
  readonly limit: number;
  /** The most rows. */
  readonly dearest: number;
  /** So many hops the group's branch needs, itself included; 0 if only rows count. */
  readonly hopsNeeded: number;
}

/**
 * The search for the base that costs the fewest rows for the hops it leaves, among the stored predecessor, the
 * heads of branches, and all their ancestors in the new tree. What is looked at depends on that tree alone, and
 * among equals the stored predecessor comes first.
 */
export class BaseSearch {
  readonly #branches: Branches;
  readonly #maxHops: number;
  /** The number of the search under way, and what it is for. */
  #search = 0;
  #states!: LiveStates;
  #state = NO_STATE;
  #stored = NO_STATE;
  #size = 0;
  #limit = 0;
  #hopsNeeded = 0;
  /** For each state the last search that looked at it, and the rows that it would cost at least. */
  #lookedAt = new Int32Array(256);
  #leastRows = new Int32Array(256);
  /** A key that the state of the search has not. */
  #lackedKey = -1;
  /** From a head to its root. */
  #way = new Int32Array(128);
  #found = new Int32Array(1024);
  #best = NO_STATE;
  #bestRows = 0;
  /** The rows of the best base for what its hops are worth. */
  #bestPrice = 0;
  /** What a snapshot costs if all its hops are needed, and whether some base would cost less then. */
  #unendingPrice = 0;
  #beatsSnapshot = false;

  constructor(branches: Branches, maxHops: number) {
    this.#branches = branches;
    this.#maxHops = maxHops;
  }

  /** The rows of the group's delta on what `find` gave last; of a snapshot all. */
  get rows(): number {
    return this.#best === NO_STATE ? this.#size : this.#bestRows;
  }

  /** The best base, or `NO_STATE` if a snapshot is better. */
  find(states: LiveStates, { state, stored, limit, dearest, hopsNeeded }: Wanted): number {
    const size = states.size[state];
    this.#search++;
    this.#states = states;
    this.#state = state;
    this.#stored = stored;
    this.#size = size;
    this.#limit = limit;
    this.#hopsNeeded = hopsNeeded;
    this.#lookedAt = grown(this.#lookedAt, states.length);
    this.#leastRows = grown(this.#leastRows, states.length);
    this.#lackedKey = -1;
    this.#found = grown(this.#found, size);
    if (this.#findHead(dearest)) return this.#best;
    this.#best = NO_STATE;
    this.#bestPrice = size / this.#worth(limit);
    this.#unendingPrice = size / limit ** 2;
    this.#beatsSnapshot = stored !== NO_STATE || hopsNeeded === 0;
    // A group that fits where it is stored moves only for fewer rows.
    const fits = stored !== NO_STATE && limit > states.hopsAfter[stored];
    const cheaper = fits ? states.neededRows[state] - 1 : dearest;
    if (stored !== NO_STATE) {
      // Once a room is compressed the stored base fits, and its ancestors are neighbours like others.
      this.#look(stored, 0, size);
      this.#climb(stored, Math.min(cheaper, this.#mostRows()));
    }
    const most = Math.min(cheaper, this.#mostRows());
    const last = this.#branches.headCount - 1;
    for (let i = last; i >= 0 && i > last - LEAST_BRANCHES - size; i--) {
      this.#climb(this.#branches.headAt(i), most);
    }
    if (!this.#beatsSnapshot) this.#best = NO_STATE;
    return this.#best;
  }

  /**
   * Looks for the nearest head whose hops left are worth the rows it costs: then the branch just goes
   * on. A hop is worth a row, or in a small room its part of a snapshot.
   */
  #findHead(dearest: number): boolean {
    const states = this.#states;
    const stored = this.#stored;
    this.#best = NO_STATE;
    const hopWorth = Math.min(1, this.#size / this.#maxHops);
    let rows = Math.min(this.#size, dearest + 1);
    for (let i = this.#branches.headCount - 1; i >= 0; i--) {
      const head = this.#branches.headAt(i);
      const left = this.#limit - states.hopsAfter[head] - 1;
      if (left < 0 || head === stored || states.barred[head] > 0) continue;
      const found = this.#rows(head, Math.min(rows - 1, NEAR, Math.floor(left * hopWorth)), 0);
      if (found < 0) continue;
      this.#best = head;
      this.#bestRows = found;
      rows = found;
    }
    const needed = states.neededRows[this.#state];
    if (stored !== NO_STATE && needed <= rows) {
      const left = this.#limit - states.hopsAfter[stored] - 1;
      if (left >= 0 && needed <= Math.min(NEAR, left * hopWorth)) {
        this.#best = stored;
        this.#bestRows = needed;
      }
    }
    return this.#best !== NO_STATE;
  }

  /** So many rows may a base cost, once there is one. */
  #mostRows(): number {
    if (this.#best === NO_STATE) return this.#size;
    return Math.max(LEAST_NEIGHBOUR, Math.floor(this.#size * NEIGHBOUR));
  }

  /**
   * Looks at `from` and its ancestors in the new tree for a base that costs at most `most` rows, up to the
   * first that was looked at before in this search. A delta of few rows brings a base no nearer than these
   * rows: where that first one is too far away, so mostly is all on the way to it.
   */
  #climb(from: number, most: number): void {
    const { barred } = this.#states;
    const branches = this.#branches;
    const lookedAt = this.#lookedAt;
    const leastRows = this.#leastRows;
    let length = 0;
    let nearer = 0;
    let base = from;
    while (base !== NO_STATE && lookedAt[base] !== this.#search) {
      lookedAt[base] = this.#search;
      leastRows[base] = 0;
      if (barred[base] > 0) {
        nearer = Infinity;
      } else {
        if (length === this.#way.length) this.#way = grown(this.#way, length + 1);
        this.#way[length++] = base;
        nearer += branches.deltaRows(base);
      }
      base = branches.baseOf(base);
    }
    const isFar =
      base !== NO_STATE &&
      leastRows[base] - nearer >
        Math.max(this.#better(this.#limit, most), this.#beating(this.#limit));
    const likely = isFar ? NO_STATE : this.#lookAtLikely(length, most);
    while (length > 0) {
      base = this.#way[--length];
      if (base === likely) continue;
      const below = branches.baseOf(base);
      const least = below === NO_STATE ? 0 : leastRows[below] - branches.deltaRows(base);
      if (isFar) leastRows[base] = least;
      else this.#look(base, least, most);
    }
  }

  /**
   * Of the way's states looks at the one that would be the best if where it begins were at hand and no key had
   * changed twice: a good one spares most others the comparing. Returns it.
   */
  #lookAtLikely(length: number, most: number): number {
    let likely = NO_STATE;
    let likelyPrice = Infinity;
    let away = 1;
    for (let i = 0; i < length; i++) {
      const base = this.#way[i];
      const hops = this.#limit - this.#states.hopsAfter[base];
      const price = hops > 0 ? away / this.#worth(hops) : Infinity;
      if (price < likelyPrice) {
        likely = base;
        likelyPrice = price;
      }
      away += this.#branches.deltaRows(base);
    }
    if (likely !== NO_STATE) this.#look(likely, 0, most);
    return likely;
  }

  /** Takes `base`, which costs at least so many rows, if it is better than the best so far. */
  #look(base: number, least: number, most: number): void {
    this.#leastRows[base] = least;
    const hops = this.#limit - this.#states.hopsAfter[base];
    if (hops <= 0) return;
    const better = this.#better(hops, most);
    const beating = this.#beating(hops);
    const allowed = Math.max(better, beating);
    if (least > allowed) return;
    const rows = this.#rows(base, allowed, BEYOND);
    this.#leastRows[base] = rows < 0 ? Math.max(least, ~rows) : rows;
    if (rows < 0) return;
    this.#beatsSnapshot ||= rows <= beating;
    if (rows > better) return;
    this.#best = base;
    this.#bestRows = rows;
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
   * The rows of the state's delta on `base`, if these are at most `limit`; else `~` of a number that they
   * are at least. They are counted up to so many `beyond` the limit.
   */
  #rows(base: number, limit: number, beyond: number): number {
    const states = this.#states;
    const more = this.#size - states.size[base];
    if (more < 0) return ~NO_BASE;
    if (more > limit) return ~more;
    // Ancestors and neighbours of a base that is none mostly have the same key too many.
    if (this.#lackedKey >= 0 && states.get(base, this.#lackedKey) >= 0) return ~NO_BASE;
    const most = Math.min(limit + beyond, this.#found.length);
    const rows = states.difference(base, this.#state, this.#found, most);
    if (rows === OVER_LIMIT) return ~(most + 1);
    if (rows !== LACKS_KEY) return rows <= limit ? rows : ~rows;
    this.#lackedKey = states.trie.lackedKey;
    return ~NO_BASE;
  }
}
