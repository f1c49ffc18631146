import { SYNAPSE_HOPS } from '../planner/chains-to-come.js';
import { NO_ROOM, type AllGroups } from '../sources/all-groups.js';
import type { GroupEdges } from '../sources/group-edges.js';
import type { Example, Findings } from './findings.js';

const HAS_ROWS = 1;
const NOT_SMALLER = 2;
const OWN_ANCESTOR = 4;

/** In the lengths of chains: the chain has no end. */
const ENDLESS = -1;

/**
 * The state groups, with those that only edges name, and the edges between them: 18 bytes a group, 8 more
 * while chains are measured and 20 more while cycles are looked for. An index stands for a group.
 */
export class GroupGraph {
  /** How many groups are looked at, those of the room or all, and how many edges they have. */
  groups = 0;
  edges = 0;
  /** Groups in the longest of their chains that has an end. */
  longestChain = 0;
  /** In ascending order. */
  readonly ids: Float64Array;
  readonly #rooms: Int32Array;
  readonly #edges: GroupEdges;
  readonly #repeated: Int32Array;
  readonly #room: number | undefined;
  readonly #marks: Uint16Array;

  /** With a room, only what concerns its groups is looked for. */
  constructor({ ids, rooms, edges, repeated }: AllGroups, room: number | undefined) {
    this.ids = ids;
    this.#rooms = rooms;
    this.#edges = edges;
    this.#repeated = repeated;
    this.#room = room;
    this.#marks = new Uint16Array(ids.length);
  }

  /** Whether `state_groups` has the group. */
  isKnown(group: number): boolean {
    return this.#rooms[group] !== NO_ROOM;
  }

  /** Whether the group is looked at: it is of the room, or all are. */
  isWanted(group: number): boolean {
    return this.#room === undefined || this.#rooms[group] === this.#room;
  }

  /** To be called for each group that has rows. */
  markRows(group: number): void {
    this.#marks[group] |= HAS_ROWS;
  }

  /** The groups that are looked at and, beside them, missing ones that edges join to them. */
  wantedIds(): Float64Array {
    const wanted = new Uint8Array(this.ids.length);
    for (let group = 0; group < wanted.length; group++) {
      if (this.isWanted(group)) wanted[group] = 1;
      this.#forEachEdge(group, (prev) => {
        if (this.isWanted(group) && !this.isKnown(prev)) wanted[prev] = 1;
        if (this.isWanted(prev) && !this.isKnown(group)) wanted[group] = 1;
      });
    }
    return this.ids.filter((_, group) => wanted[group] === 1);
  }

  /** Looks at the edges. */
  checkEdges(findings: Findings): void {
    for (let group = 0; group < this.ids.length; group++) {
      const isWanted = this.isWanted(group);
      if (isWanted && this.isKnown(group)) this.groups++;
      if (isWanted && this.#edges.degree(group) > 1) {
        findings.add('several-edges', () => ({ stateGroup: this.ids[group] }));
      }
      this.#forEachEdge(group, (prev) => {
        const edge = (): Example => ({ stateGroup: this.ids[group], predecessor: this.ids[prev] });
        const isPrevWanted = this.isWanted(prev);
        if (isWanted) this.edges++;
        if (isPrevWanted && !this.isKnown(group)) findings.add('edge-from-missing-group', edge);
        if (isWanted && !this.isKnown(prev)) findings.add('edge-to-missing-group', edge);
        if ((isWanted || isPrevWanted) && this.#leavesRoom(group, prev)) {
          findings.add('edge-between-rooms', edge);
        }
        if (prev >= group) {
          this.#marks[group] |= NOT_SMALLER;
          if (isWanted) findings.add('predecessor-not-smaller', edge);
        }
      });
    }
    this.#repeated.forEach((group, at) => {
      if (!this.isWanted(group)) return;
      this.edges++;
      const isFirst = group !== this.#repeated[at - 1];
      findings.add('repeated-edge', isFirst ? () => ({ stateGroup: this.ids[group] }) : undefined);
    });
    this.#checkChains(findings);
  }

  /** To be called after `markRows()`. */
  checkEmptyGroups(findings: Findings): void {
    for (let group = 0; group < this.ids.length; group++) {
      if (!this.isKnown(group) || !this.isWanted(group)) continue;
      if ((this.#marks[group] & HAS_ROWS) !== 0 || this.#edges.degree(group) > 0) continue;
      findings.add('empty-group', () => ({ stateGroup: this.ids[group] }));
    }
  }

  #checkChains(findings: Findings): void {
    const isUpward = this.#marks.some((marks) => (marks & NOT_SMALLER) !== 0);
    // A way that leads back to where it began goes up somewhere.
    if (isUpward) this.#edges.markCycles(this.#marks, NOT_SMALLER, OWN_ANCESTOR);
    const lengths = this.#chainLengths();
    for (let group = 0; group < lengths.length; group++) {
      if (!this.isWanted(group)) continue;
      this.longestChain = Math.max(this.longestChain, lengths[group]);
      if ((this.#marks[group] & OWN_ANCESTOR) !== 0) {
        findings.add('own-ancestor', () => ({ stateGroup: this.ids[group] }));
      }
      if (lengths[group] > SYNAPSE_HOPS) {
        findings.add('deep-chain', () => ({ stateGroup: this.ids[group] }));
      }
    }
  }

  /** For each group the groups in the longest chain that begins with it. */
  #chainLengths(): Int32Array {
    const lengths = new Int32Array(this.ids.length);
    /** So many of a group's edges lead to groups whose chains are known, from the first on. */
    const known = new Int32Array(this.ids.length);
    const path: number[] = [];
    for (let start = 0; start < lengths.length; start++) {
      if ((this.#marks[start] & OWN_ANCESTOR) !== 0) lengths[start] = ENDLESS;
    }
    for (let start = 0; start < lengths.length; start++) {
      path.push(start);
      for (let at = path.pop(); at !== undefined; at = path.pop()) {
        if (lengths[at] !== 0) continue;
        const pending = this.#firstPending(at, lengths, known);
        if (pending === undefined) lengths[at] = this.#chainLength(at, lengths);
        else path.push(at, pending);
      }
    }
    return lengths;
  }

  /** The first predecessor whose chain is not known; the edges before it are not looked at again. */
  #firstPending(group: number, lengths: Int32Array, known: Int32Array): number | undefined {
    const degree = this.#edges.degree(group);
    for (; known[group] < degree; known[group]++) {
      const prev = this.#edges.predecessor(group, known[group]);
      if (lengths[prev] === 0) return prev;
    }
    return undefined;
  }

  #chainLength(group: number, lengths: Int32Array): number {
    let longest = 0;
    this.#forEachEdge(group, (prev) => {
      if (longest === ENDLESS || lengths[prev] === ENDLESS) longest = ENDLESS;
      else longest = Math.max(longest, lengths[prev]);
    });
    return longest === ENDLESS ? ENDLESS : longest + 1;
  }

  #leavesRoom(group: number, prev: number): boolean {
    const [room, other] = [this.#rooms[group], this.#rooms[prev]];
    return room !== NO_ROOM && other !== NO_ROOM && room !== other;
  }

  #forEachEdge(group: number, visit: (prev: number) => void): void {
    const degree = this.#edges.degree(group);
    for (let n = 0; n < degree; n++) visit(this.#edges.predecessor(group, n));
  }
}
