import { EdgeList } from './edge-list.js';
import { GroupEdges } from './group-edges.js';
import { IdFinder, IdList, indexOfId } from './id-list.js';

/** `prev` of a group without predecessor. */
export const NO_PREDECESSOR = -1;

/** The group is in the chosen range and room: a planner may give it another predecessor. */
export const IN_RANGE = 1;
/** The group's encoding must stay as stored, because an irregular group reads through it. */
export const FROZEN = 2;
/** Its own edges or an ancestor's make its state depend on more than a chain: neither planned on nor a base. */
export const UNREADABLE = 4;
/** The group is of another room, or known from edges alone: nothing may be based on it that is not stored so. */
export const ELSEWHERE = 8;

/** What is irregular in a room's edges: how many groups, and the first of them, ascending. */
export interface Irregularity {
  readonly kind: IrregularityKind;
  readonly count: number;
  readonly examples: readonly number[];
}

/**
 * - `several-edges`: the group has edges to different predecessors.
 * - `larger-predecessor`: a predecessor of it has a larger id than its own.
 * - `own-ancestor`: its edges lead back to it.
 * - `unread-rows`: it is an ancestor that belongs to another room, and its rows can't be read any more.
 * - `repeated-edge`: an edge of it is stored more than once, which changes nothing.
 * - `missing-group`: it is known from edges alone.
 * - `other-room`: it is an ancestor that belongs to another room.
 */
export type IrregularityKind =
  | 'several-edges'
  | 'larger-predecessor'
  | 'own-ancestor'
  | 'unread-rows'
  | 'repeated-edge'
  | 'missing-group'
  | 'other-room';

/**
 * The headers of a room's state groups in ascending id, in 17 bytes a group. An index into the table
 * stands for a group in everything that follows.
 *
 * Synapse takes for each key the row of the highest id among a group and its ancestors. So a group is
 * regular if it has one predecessor at most, with a smaller id. A group that is not, and every group
 * that descends from one, is `UNREADABLE`; what an irregular group reads through is `FROZEN`.
 */
export interface GroupTable {
  readonly length: number;
  /** State group ids, ascending. */
  readonly ids: Float64Array;
  /**
   * Index of the predecessor, or `NO_PREDECESSOR`; always smaller than the group's own index. Of an
   * irregular group it is the largest of its predecessors that is smaller than the group itself.
   */
  readonly prev: Int32Array;
  /** The edges of irregular groups that `prev` does not give: index of the group, of its predecessor, and so on. */
  readonly otherEdges: Int32Array;
  /** How many groups have this one as `prev`. */
  readonly successors: Int32Array;
  /** `IN_RANGE`, `FROZEN`, `UNREADABLE` and `ELSEWHERE` bits. */
  readonly flags: Uint8Array;
  readonly irregularities: readonly Irregularity[];
}

/**
 * While a table is put together each group has marks: the bits of `flags`, and these. A mark of a kind
 * of irregularity is set once a group, however many edges are to blame.
 */
const FLAGS = IN_RANGE | FROZEN | UNREADABLE;
const NEEDED = 8;
const KINDS = [
  ['several-edges', 16],
  ['larger-predecessor', 32],
  ['own-ancestor', 64],
  ['unread-rows', 128],
  ['repeated-edge', 256],
  ['missing-group', 512],
  ['other-room', 1024],
] as const satisfies readonly (readonly [IrregularityKind, number])[];
const [[, SEVERAL], [, LARGER], [, OWN], [, UNREAD], [, REPEATED], [, MISSING], [, OTHER_ROOM]] =
  KINDS;
const IRREGULAR = SEVERAL | LARGER | OWN | UNREAD;
const EXAMPLES = 5;

/**
 * Collects ids and edges in any order, each as often as it comes, then puts them in order and finds
 * what is irregular.
 *
 * A source adds the groups in range and their edges, asks for `missingPredecessors()` and adds those
 * with their edges until there are none, then calls `finish()`. It may add more groups than are
 * needed: those that are no ancestor of a group in range are left out, but what an irregular one of
 * them reads through is frozen. So a source that knows all of a room's edges adds them all.
 *
 * Takes 8 bytes for each group and 16 for each edge while they are collected, up to three times that
 * for the moment in which an array grows, and 37 bytes a group more in `finish()` (57 if there are
 * predecessors with larger ids).
 */
export class GroupTableBuilder {
  readonly #inRange = new IdList();
  readonly #others = {
    'out-of-range': new IdList(),
    'other-room': new IdList(),
    'unread-rows': new IdList(),
    'missing-group': new IdList(),
  };
  readonly #bases = new IdList();
  readonly #edges = new EdgeList();
  /** Of the edges before `#looked`, these predecessors were missing when last asked. */
  #missing: Float64Array = new Float64Array(0);
  #looked = 0;

  /** Adds a group of the room that is in range. */
  addGroup(id: number): void {
    this.#inRange.add(id);
  }

  /**
   * Adds a group that is out of range, of another room (whose rows can or can't be read), or known from
   * edges alone. Of several reasons for one group the first in this order counts; in range is before all.
   */
  addAncestor(
    id: number,
    reason: 'out-of-range' | 'other-room' | 'unread-rows' | 'missing-group',
  ): void {
    this.#others[reason].add(id);
  }

  /** Keeps an added group, with its ancestors, in the table even if none in range descends from it. */
  keepBase(id: number): void {
    this.#bases.add(id);
  }

  /** Adds an edge whose `group` was or will be added. */
  addEdge(group: number, prev: number): void {
    this.#edges.add(group, prev);
  }

  /** Ids that edges name as predecessors and that were not added yet, ascending. */
  missingPredecessors(): Float64Array {
    const known = this.#lists().map((list) => new IdFinder(list));
    const missing = new IdList();
    const look = (id: number): void => {
      if (!known.some((finder) => finder.has(id))) missing.add(id);
    };
    this.#missing.forEach(look);
    const { prevs, length } = this.#edges;
    prevs.subarray(this.#looked, length).forEach(look);
    this.#looked = length;
    this.#missing = missing.sorted();
    return this.#missing;
  }

  /**
   * Puts the table together.
   *
   * @throws Error if an edge names a group that was not added, which is a mistake of the source
   */
  finish(): GroupTable {
    const ids = this.#union();
    const marks = this.#reasons(ids);
    const edges = this.#indexedEdges(ids, marks);
    markIrregular(edges, marks);
    edges.markAncestors(marks, IRREGULAR, FROZEN);
    for (const id of this.#bases.sorted()) marks[indexOfId(ids, id)] |= NEEDED;
    edges.markAncestors(marks, IN_RANGE | NEEDED, NEEDED);
    return tableOf(ids, edges, marks);
  }

  /** In the order in which reasons count. */
  #lists(): Float64Array[] {
    return [this.#inRange, ...Object.values(this.#others)].map((list) => list.sorted());
  }

  #union(): Float64Array {
    const lists = this.#lists();
    const all = new Float64Array(lists.reduce((length, list) => length + list.length, 0));
    let length = 0;
    for (const list of lists) {
      all.set(list, length);
      length += list.length;
    }
    if (lists.some((list) => list.length === length)) return all;
    all.sort();
    let distinct = 0;
    for (const id of all) {
      if (distinct === 0 || id !== all[distinct - 1]) all[distinct++] = id;
    }
    return all.subarray(0, distinct);
  }

  #reasons(ids: Float64Array): Uint16Array {
    const lists = this.#lists();
    const marksOf = [IN_RANGE, 0, OTHER_ROOM, UNREAD, MISSING];
    const next = lists.map(() => 0);
    const marks = new Uint16Array(ids.length);
    for (let index = 0; index < ids.length; index++) {
      for (let reason = lists.length - 1; reason >= 0; reason--) {
        if (lists[reason][next[reason]] !== ids[index]) continue;
        next[reason]++;
        marks[index] = marksOf[reason]!;
      }
    }
    return marks;
  }

  #indexedEdges(ids: Float64Array, marks: Uint16Array): GroupEdges {
    const edges = new GroupEdges(ids.length, (group) => (marks[group] |= REPEATED));
    const groupFinder = new IdFinder(ids);
    const prevFinder = new IdFinder(ids);
    const { groups, prevs, length } = this.#edges;
    for (let i = 0; i < length; i++) {
      const group = groupFinder.indexOf(groups[i]);
      const prev = prevFinder.indexOf(prevs[i]);
      if (group < 0 || prev < 0) {
        const missing = group < 0 ? groups[i] : prevs[i];
        throw new Error(`State group ${missing} is named by an edge but was not added.`);
      }
      edges.add(group, prev);
    }
    edges.settle();
    return edges;
  }
}

function markIrregular(edges: GroupEdges, marks: Uint16Array): void {
  let upward = false;
  for (let group = 0; group < edges.length; group++) {
    const degree = edges.degree(group);
    if (degree > 1) marks[group] |= SEVERAL;
    for (let n = 0; n < degree; n++) {
      const prev = edges.predecessor(group, n);
      if (prev > group) {
        marks[group] |= LARGER;
        upward = true;
      }
      if (prev === group) marks[group] |= OWN;
    }
  }
  // A way that leads back to where it began goes up somewhere.
  if (upward) edges.markCycles(marks, LARGER, OWN);
}

/** Leaves out what no group in range needs, and numbers the rest anew. */
function tableOf(ids: Float64Array, edges: GroupEdges, marks: Uint16Array): GroupTable {
  const kept = marks.filter((mark) => (mark & (IN_RANGE | NEEDED)) !== 0);
  const length = kept.length;
  const table = {
    length,
    ids: new Float64Array(length),
    prev: new Int32Array(length),
    otherEdges: new Int32Array(0),
    successors: new Int32Array(length),
    flags: new Uint8Array(length),
    irregularities: [] as Irregularity[],
  };
  const { prev, successors, flags } = table;
  const newIndex = new Int32Array(ids.length);
  for (let old = 0, index = 0; old < ids.length; old++) {
    if ((marks[old] & (IN_RANGE | NEEDED)) === 0) continue;
    newIndex[old] = index;
    table.ids[index] = ids[old]!;
    const before = largestSmaller(edges, old);
    prev[index] = before === NO_PREDECESSOR ? before : newIndex[before];
    flags[index] = marks[old] & FLAGS;
    if (before !== NO_PREDECESSOR) {
      successors[prev[index]]++;
      flags[index] |= flags[prev[index]] & UNREADABLE;
    }
    if ((marks[old] & IRREGULAR) !== 0) flags[index] |= UNREADABLE;
    if ((marks[old] & (MISSING | OTHER_ROOM)) !== 0) flags[index] |= ELSEWHERE;
    index++;
  }
  table.otherEdges = otherEdges(edges, marks, newIndex, prev);
  for (const [kind, mark] of KINDS) {
    let count = 0;
    const examples: number[] = [];
    kept.forEach((marked, index) => {
      if ((marked & mark) === 0) return;
      if (count++ < EXAMPLES) examples.push(table.ids[index]);
    });
    if (count > 0) table.irregularities.push({ kind, count, examples });
  }
  return table;
}

/** The edges of the kept groups but those that `prev` has, in new numbers. */
function otherEdges(
  edges: GroupEdges,
  marks: Uint16Array,
  newIndex: Int32Array,
  prev: Int32Array,
): Int32Array<ArrayBuffer> {
  const others: number[] = [];
  for (let old = 0; old < edges.length; old++) {
    if ((marks[old] & IRREGULAR) === 0 || (marks[old] & (IN_RANGE | NEEDED)) === 0) continue;
    const group = newIndex[old];
    for (let n = 0; n < edges.degree(old); n++) {
      const other = newIndex[edges.predecessor(old, n)];
      if (other !== prev[group]) others.push(group, other);
    }
  }
  return Int32Array.from(others);
}

/** The largest predecessor that is smaller than the group, or `NO_PREDECESSOR`. */
function largestSmaller(edges: GroupEdges, group: number): number {
  let largest = NO_PREDECESSOR;
  for (let n = edges.degree(group) - 1; n >= 0; n--) {
    const prev = edges.predecessor(group, n);
    if (prev < group && prev > largest) largest = prev;
  }
  return largest;
}
