import { GroupEdges } from '../sources/group-edges.js';
import { IdList, indexOfId } from '../sources/id-list.js';
import { grown } from '../state/grown.js';
import { DEEPEST_CHAIN, type Example, type Findings } from './findings.js';

/** Number of the room of a group that is not in `state_groups`. */
const NO_ROOM = -1;

const HAS_ROWS = 1;
const NOT_SMALLER = 2;
const OWN_ANCESTOR = 4;

/** In the lengths of chains: the chain has no end. */
const ENDLESS = -1;

/** Collects the tables `state_groups` and `state_group_edges`: 12 bytes a group, 16 an edge. */
export class GroupGraphBuilder {
  #ids = new Float64Array(1024);
  #rooms = new Int32Array(1024);
  #groups = 0;
  #isAscending = true;
  #edgeGroups = new Float64Array(1024);
  #edgePrevs = new Float64Array(1024);
  #edges = 0;

  /** `room` is a number of the caller's for the group's room. */
  addGroup(id: number, room: number): void {
    const at = this.#groups++;
    if (at > 0 && id <= this.#ids[at - 1]) this.#isAscending = false;
    this.#ids = grown(this.#ids, this.#groups);
    this.#rooms = grown(this.#rooms, this.#groups);
    this.#ids[at] = id;
    this.#rooms[at] = room;
  }

  addEdge(group: number, prev: number): void {
    const at = this.#edges++;
    this.#edgeGroups = grown(this.#edgeGroups, this.#edges);
    this.#edgePrevs = grown(this.#edgePrevs, this.#edges);
    this.#edgeGroups[at] = group;
    this.#edgePrevs[at] = prev;
  }

  /** Puts the graph together. With a room, only what concerns its groups is looked for. */
  finish(room: number | undefined): GroupGraph {
    const known = this.#sortedGroups();
    const [ids, rooms] = this.#withMissing(known);
    let repeated = new Int32Array(16);
    let repeatedLength = 0;
    const edges = new GroupEdges(ids.length, (group) => {
      repeated = grown(repeated, repeatedLength + 1);
      repeated[repeatedLength++] = group;
    });
    for (let i = 0; i < this.#edges; i++) {
      edges.add(indexOfId(ids, this.#edgeGroups[i]), indexOfId(ids, this.#edgePrevs[i]));
    }
    edges.settle();
    repeated = repeated.subarray(0, repeatedLength).sort();
    return new GroupGraph(ids, rooms, edges, repeated, room);
  }

  /** The groups in ascending id, each once. */
  #sortedGroups(): [ids: Float64Array, rooms: Int32Array] {
    const ids = this.#ids.subarray(0, this.#groups);
    const rooms = this.#rooms.subarray(0, this.#groups);
    if (this.#isAscending) return [ids, rooms];
    const order = Uint32Array.from(ids, (_, index) => index).sort((a, b) => ids[a] - ids[b]);
    const distinct = order.filter((index, at) => at === 0 || ids[index] !== ids[order[at - 1]]);
    return [
      Float64Array.from(distinct, (index) => ids[index]),
      Int32Array.from(distinct, (index) => rooms[index]),
    ];
  }

  /** The groups and those that only edges name, in ascending id. */
  #withMissing([ids, rooms]: [ids: Float64Array, rooms: Int32Array]): [Float64Array, Int32Array] {
    const named = new IdList();
    for (const ends of [this.#edgeGroups, this.#edgePrevs]) {
      for (let i = 0; i < this.#edges; i++) {
        if (indexOfId(ids, ends[i]) < 0) named.add(ends[i]);
      }
    }
    const missing = named.sorted();
    if (missing.length === 0) return [ids, rooms];
    const all = new Float64Array(ids.length + missing.length);
    all.set(ids);
    all.set(missing, ids.length);
    all.sort();
    const allRooms = new Int32Array(all.length).fill(NO_ROOM);
    for (let index = 0, from = 0; from < ids.length; index++) {
      if (all[index] === ids[from]) allRooms[index] = rooms[from++];
    }
    return [all, allRooms];
  }
}

/**
 * The state groups, with those that only edges name, and the edges between them: 18 bytes a group, 4 more
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

  constructor(
    ids: Float64Array,
    rooms: Int32Array,
    edges: GroupEdges,
    repeated: Int32Array,
    room: number | undefined,
  ) {
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
      if (lengths[group] > DEEPEST_CHAIN) {
        findings.add('deep-chain', () => ({ stateGroup: this.ids[group] }));
      }
    }
  }

  /** For each group the groups in the longest chain that begins with it. */
  #chainLengths(): Int32Array {
    const lengths = new Int32Array(this.ids.length);
    const path: number[] = [];
    for (let start = 0; start < lengths.length; start++) {
      if ((this.#marks[start] & OWN_ANCESTOR) !== 0) lengths[start] = ENDLESS;
    }
    for (let start = 0; start < lengths.length; start++) {
      path.push(start);
      for (let at = path.pop(); at !== undefined; at = path.pop()) {
        if (lengths[at] !== 0) continue;
        let longest = 0;
        let pending = -1;
        this.#forEachEdge(at, (prev) => {
          if (lengths[prev] === 0) pending = prev;
          else if (longest !== ENDLESS) {
            longest = lengths[prev] === ENDLESS ? ENDLESS : Math.max(longest, lengths[prev]);
          }
        });
        if (pending >= 0) path.push(at, pending);
        else lengths[at] = longest === ENDLESS ? ENDLESS : longest + 1;
      }
    }
    return lengths;
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
