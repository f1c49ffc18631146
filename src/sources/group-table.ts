import { EdgeList } from './edge-list.js';
import { GroupEdges } from './group-edges.js';
import { IdFinder, IdList, indexOfId } from './id-list.js';
import { GroupCount, type SomeGroups } from './some-groups.js';

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
/** Synapse is about to delete the group: the same holds, and its encoding stays as stored. */
export const PENDING = 16;

/** What is irregular in a room's edges, and in which groups, the first of them ascending. */
export interface Irregularity extends SomeGroups {
  readonly kind: IrregularityKind;
}

/**
 * - `several-edges`: the group has edges to different predecessors.
 * - `larger-predecessor`: a predecessor of it has a larger id than its own.
 * - `own-ancestor`: its edges lead back to it.
 * - `unread-rows`: it is an ancestor that belongs to another room, and its rows can't be read any more.
 * - `repeated-edge`: an edge of it is stored more than once, which changes nothing.
 * - `missing-group`: it is known from edges alone.
 * - `other-room`: it is an ancestor that belongs to another room.
 * - `pending-deletion`: Synapse is about to delete it.
 */
export type IrregularityKind =
  | 'several-edges'
  | 'larger-predecessor'
  | 'own-ancestor'
  | 'unread-rows'
  | 'repeated-edge'
  | 'missing-group'
  | 'other-room'
  | 'pending-deletion';

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
  /** `IN_RANGE`, `FROZEN`, `UNREADABLE`, `ELSEWHERE` and `PENDING` bits. */
  readonly flags: Uint8Array;
  /**
   * How many groups the longest chain has that stands on this one and is out of range, though of the room:
   * it gets deeper with it. Empty if there are none.
   */
  readonly hanging: Int32Array;
  readonly irregularities: readonly Irregularity[];
}

/**
 * While a table is put together each group has marks: the first three bits of `flags`, and these, which are no
 * flags. A mark of a kind of irregularity is set once a group, however many edges are to blame.
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

/**
 * Collects the edges of a room's groups, and groups beside them, in any order and each as often as it
 * comes, then puts them in order and finds what is irregular.
 *
 * A source adds the edges of the groups in range, asks for `missingPredecessors()` and adds those with
 * their edges until there are none, then calls `finish()`. It may add more groups than are needed: those
 * that are no ancestor of a group in range are left out, but what an irregular one of them reads through
 * is frozen. So a source that knows all of a room's edges adds them all.
 *
 * Beside the ids it takes 6 bytes for each of the room's groups, 8 for each group and 16 for each edge
 * beside them, and in `finish()` 9 bytes a group more; 27 if not all groups stay or some are beside them,
 * and another 20 if there are predecessors with larger ids.
 */
export class GroupTableBuilder {
  readonly #ids: Float64Array;
  readonly #marks: Uint16Array;
  /** Between two of `#ids`, by their index. */
  readonly #edges: GroupEdges;
  readonly #groupFinder: IdFinder;
  readonly #prevFinder: IdFinder;
  readonly #others = {
    'out-of-range': new IdList(),
    'other-room': new IdList(),
    'unread-rows': new IdList(),
    'missing-group': new IdList(),
  };
  readonly #bases = new IdList();
  /** The other edges. */
  readonly #beside = new EdgeList();
  /** Of the edges before `#looked`, these predecessors were missing when last asked. */
  #missing: Float64Array = new Float64Array(0);
  #looked = 0;

  /**
   * `ids` are groups of the room, ascending and each once; those from the index `from` to before `to` are
   * in range. They become the table's if all of them stay and none comes beside them.
   */
  constructor(ids: Float64Array, from = 0, to = ids.length) {
    this.#ids = ids;
    this.#marks = new Uint16Array(ids.length).fill(IN_RANGE, from, to);
    this.#edges = new GroupEdges(ids.length, (group) => (this.#marks[group] |= REPEATED));
    this.#groupFinder = new IdFinder(ids);
    this.#prevFinder = new IdFinder(ids);
  }

  /**
   * Adds a group of the room that is out of range, one of another room (whose rows can or can't be read),
   * or one known from edges alone. Of several reasons for one group the first in this order counts; that
   * it is among the room's ids is before all.
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

  /** Adds an edge whose `group` is one of the room's, or was or will be added. */
  addEdge(group: number, prev: number): void {
    const groupIndex = this.#groupFinder.indexOf(group);
    const prevIndex = this.#prevFinder.indexOf(prev);
    if (groupIndex >= 0 && prevIndex >= 0) this.#edges.add(groupIndex, prevIndex);
    else this.#beside.add(group, prev);
  }

  /** Ids that edges name as predecessors and that were not added yet, ascending. */
  missingPredecessors(): Float64Array {
    const known = this.#lists().map((list) => new IdFinder(list));
    const missing = new IdList();
    const look = (id: number): void => {
      if (!known.some((finder) => finder.has(id))) missing.add(id);
    };
    this.#missing.forEach(look);
    const { prevs, length } = this.#beside;
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
    this.#edges.settle();
    const hasOthers =
      this.#beside.length > 0 || this.#lists().some((list, i) => i > 0 && list.length > 0);
    const [ids, marks, edges] = hasOthers
      ? this.#withOthers()
      : [this.#ids, this.#marks, this.#edges];
    markIrregular(edges, marks);
    edges.markAncestors(marks, IRREGULAR, FROZEN);
    for (const id of this.#bases.sorted()) marks[indexOfId(ids, id)] |= NEEDED;
    edges.markAncestors(marks, IN_RANGE | NEEDED, NEEDED);
    return tableOf(ids, edges, marks);
  }

  /** In the order in which reasons count. */
  #lists(): Float64Array[] {
    return [this.#ids, ...Object.values(this.#others).map((list) => list.sorted())];
  }

  /** The room's groups and those beside them, in new numbers. */
  #withOthers(): [ids: Float64Array, marks: Uint16Array, edges: GroupEdges] {
    const lists = this.#lists();
    const ids = union(lists);
    const marks = new Uint16Array(ids.length);
    const finder = new IdFinder(ids);
    const marksOf = [0, 0, OTHER_ROOM, UNREAD, MISSING];
    for (let reason = lists.length - 1; reason > 0; reason--) {
      for (const id of lists[reason]) marks[finder.indexOf(id)] = marksOf[reason]!;
    }
    const newIndex = Int32Array.from(this.#ids, (id) => finder.indexOf(id));
    this.#marks.forEach((mark, index) => (marks[newIndex[index]] = mark));

    const edges = new GroupEdges(ids.length, (group) => (marks[group] |= REPEATED));
    for (let group = 0; group < this.#edges.length; group++) {
      for (let n = this.#edges.degree(group) - 1; n >= 0; n--) {
        edges.add(newIndex[group], newIndex[this.#edges.predecessor(group, n)]);
      }
    }
    const { groups, prevs, length } = this.#beside;
    for (let i = 0; i < length; i++) {
      const group = finder.indexOf(groups[i]);
      const prev = finder.indexOf(prevs[i]);
      if (group < 0 || prev < 0) {
        const missing = group < 0 ? groups[i] : prevs[i];
        throw new Error(`State group ${missing} is named by an edge but was not added.`);
      }
      edges.add(group, prev);
    }
    edges.settle();
    return [ids, marks, edges];
  }
}

/** Marks those groups of the table that Synapse is about to delete; `pending` may have others. Changes `flags`. */
export function withPending(table: GroupTable, pending: Float64Array): GroupTable {
  const { ids, flags, irregularities } = table;
  const groups = new GroupCount();
  for (const id of pending) {
    const index = indexOfId(ids, id);
    if (index < 0) continue;
    flags[index] |= PENDING | FROZEN;
    groups.add(id);
  }
  const { count, examples } = groups;
  if (count === 0) return table;
  return {
    ...table,
    irregularities: [...irregularities, { kind: 'pending-deletion', count, examples }],
  };
}

/** All ids of the lists in ascending order, each once. */
function union(lists: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(lists.reduce((length, list) => length + list.length, 0));
  let length = 0;
  for (const list of lists) {
    all.set(list, length);
    length += list.length;
  }
  all.sort();
  let distinct = 0;
  for (const id of all) {
    if (distinct === 0 || id !== all[distinct - 1]) all[distinct++] = id;
  }
  return all.subarray(0, distinct);
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
  const isKept = (mark: number): boolean => (mark & (IN_RANGE | NEEDED)) !== 0;
  const isWhole = marks.every(isKept);
  const kept = isWhole ? marks : marks.filter(isKept);
  const { length } = kept;
  const table = {
    length,
    ids: isWhole ? ids : ids.filter((_, index) => isKept(marks[index])),
    prev: new Int32Array(length),
    otherEdges: new Int32Array(0),
    successors: new Int32Array(length),
    flags: new Uint8Array(length),
    hanging: new Int32Array(0),
    irregularities: [] as Irregularity[],
  };
  const newIndex = isWhole ? undefined : newIndexes(marks, isKept);
  const { prev, successors, flags } = table;
  for (let old = 0, index = 0; old < ids.length; old++) {
    if (!isKept(marks[old])) continue;
    const before = largestSmaller(edges, old);
    prev[index] = before === NO_PREDECESSOR || !newIndex ? before : newIndex[before];
    flags[index] = marks[old] & FLAGS;
    if (before !== NO_PREDECESSOR) {
      successors[prev[index]]++;
      flags[index] |= flags[prev[index]] & UNREADABLE;
    }
    if ((marks[old] & IRREGULAR) !== 0) flags[index] |= UNREADABLE;
    if ((marks[old] & (MISSING | OTHER_ROOM)) !== 0) flags[index] |= ELSEWHERE;
    index++;
  }
  const hanging = hangingOn(edges, marks);
  if (hanging !== undefined) {
    table.hanging = isWhole ? hanging : hanging.filter((_, index) => isKept(marks[index]));
  }
  table.otherEdges = otherEdges(edges, marks, newIndex, prev);
  const all = kept.reduce((sum, marked) => sum | marked, 0);
  for (const [kind, mark] of KINDS) {
    if ((all & mark) === 0) continue;
    const groups = new GroupCount();
    kept.forEach((marked, index) => {
      if ((marked & mark) !== 0) groups.add(table.ids[index]);
    });
    const { count, examples } = groups;
    table.irregularities.push({ kind, count, examples });
  }
  return table;
}

/** For each group that is kept its number among these. */
function newIndexes(marks: Uint16Array, isKept: (mark: number) => boolean): Int32Array {
  let next = 0;
  return Int32Array.from(marks, (mark) => (isKept(mark) ? next++ : -1));
}

/** For each group `GroupTable.hanging`; undefined if nothing hangs on any. */
function hangingOn(edges: GroupEdges, marks: Uint16Array): Int32Array<ArrayBuffer> | undefined {
  let hanging: Int32Array<ArrayBuffer> | undefined;
  for (let group = edges.length - 1; group >= 0; group--) {
    if ((marks[group] & (IN_RANGE | UNREAD | MISSING | OTHER_ROOM)) !== 0) continue;
    const before = largestSmaller(edges, group);
    if (before === NO_PREDECESSOR) continue;
    hanging ??= new Int32Array(edges.length);
    hanging[before] = Math.max(hanging[before], hanging[group] + 1);
  }
  return hanging;
}

/** The edges of the kept groups but those that `prev` has, in new numbers. */
function otherEdges(
  edges: GroupEdges,
  marks: Uint16Array,
  newIndex: Int32Array | undefined,
  prev: Int32Array,
): Int32Array<ArrayBuffer> {
  const others: number[] = [];
  for (let old = 0; old < edges.length; old++) {
    if ((marks[old] & IRREGULAR) === 0 || (marks[old] & (IN_RANGE | NEEDED)) === 0) continue;
    const group = newIndex?.[old] ?? old;
    for (let n = 0; n < edges.degree(old); n++) {
      const predecessor = edges.predecessor(old, n);
      const other = newIndex?.[predecessor] ?? predecessor;
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
