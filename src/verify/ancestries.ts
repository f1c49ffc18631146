import { NO_PREDECESSOR, UNREADABLE, type GroupTable } from '../sources/group-table.js';
import { grown } from '../state/grown.js';

/** Pairs of a gathered group and an ancestor that are held at most; 16 MB. */
const MOST_PAIRS = 2 ** 21;

/**
 * The groups whose state is not their predecessor's with their own rows over it: those with several
 * predecessors, and those that read through a group with a larger id. Synapse takes the row of the
 * highest id among all ancestors, so such a state is put together of the rows of each, in ascending
 * order. There are none in a sound room.
 *
 * Takes 8 bytes for each such group and ancestor of it, and while it is made 4 bytes a group.
 */
export class Ancestries {
  /** Groups that are gathered, with the number of groups they read through, themselves included. */
  readonly members: ReadonlyMap<number, number>;
  /** Groups that would have to be gathered, but have too many ancestors together. */
  readonly tooLarge: ReadonlySet<number>;
  /** Ancestor × number of groups + gathered group, ascending. */
  readonly #pairs: Float64Array;
  readonly #groups: number;
  #next = 0;

  constructor(groups: GroupTable) {
    this.#groups = groups.length;
    const finder = new AncestryFinder(groups);
    if (groups.otherEdges.length > 0) finder.find();
    this.members = finder.members;
    this.tooLarge = finder.tooLarge;
    this.#pairs = finder.pairs.subarray(0, finder.length).sort();
  }

  /** The gathered groups that read through `ancestor`. To be asked for one group after the other. */
  *of(ancestor: number): Generator<number, void, undefined> {
    const pairs = this.#pairs;
    const end = (ancestor + 1) * this.#groups;
    while (this.#next < pairs.length && pairs[this.#next] < end) {
      yield pairs[this.#next++] % this.#groups;
    }
  }
}

class AncestryFinder {
  readonly members = new Map<number, number>();
  readonly tooLarge = new Set<number>();
  pairs = new Float64Array(0);
  length = 0;
  readonly #groups: GroupTable;
  readonly #others = new Map<number, number[]>();
  /** Of each gathered group the highest that it reads through. */
  readonly #highest = new Map<number, number>();
  /** The gathered group that a group was last met for. */
  #metFor = new Int32Array(0);

  constructor(groups: GroupTable) {
    this.#groups = groups;
  }

  find(): void {
    const { length, prev, flags, otherEdges } = this.#groups;
    for (let i = 0; i < otherEdges.length; i += 2) {
      const others = this.#others.get(otherEdges[i]);
      if (others === undefined) this.#others.set(otherEdges[i], [otherEdges[i + 1]]);
      else others.push(otherEdges[i + 1]);
    }
    this.#metFor = new Int32Array(length).fill(-1);
    for (let group = 0; group < length; group++) {
      if ((flags[group] & UNREADABLE) === 0) continue;
      // A predecessor's state that is complete before this group's turn can be built on.
      const isLate = (this.#highest.get(prev[group]) ?? NO_PREDECESSOR) >= group;
      if (isLate || this.#others.has(group)) this.#gather(group);
    }
  }

  #gather(group: number): void {
    const from = this.length;
    let highest = group;
    const pending = [group];
    this.#metFor[group] = group;
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      if (this.tooLarge.size > 0 || this.length === MOST_PAIRS) {
        this.length = from;
        this.tooLarge.add(group);
        return;
      }
      this.pairs = grown(this.pairs, this.length + 1);
      this.pairs[this.length++] = at * this.#groups.length + group;
      highest = Math.max(highest, at);
      for (const prev of [this.#groups.prev[at], ...(this.#others.get(at) ?? [])]) {
        if (prev === NO_PREDECESSOR || this.#metFor[prev] === group) continue;
        this.#metFor[prev] = group;
        pending.push(prev);
      }
    }
    this.members.set(group, this.length - from);
    this.#highest.set(group, highest);
  }
}
