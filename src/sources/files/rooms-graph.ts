import { NO_ROOM, type AllGroups } from '../all-groups.js';
import { GroupTableBuilder, type GroupTable } from '../group-table.js';
import { lowerBound } from '../id-list.js';

/**
 * The groups of all rooms, room by room. Takes 4 bytes a group, and 8 for each edge between rooms, beside
 * what `AllGroups` takes.
 */
export class RoomsGraph {
  readonly #groups: AllGroups;
  readonly #nameless: 'missing-group' | 'out-of-range';
  /** The groups, room by room, and where each room's begin. */
  readonly #members: Int32Array;
  readonly #starts: Int32Array;
  /** Room × number of groups + group beside it that has one of its groups as predecessor; ascending. */
  readonly #successors: Float64Array;

  /** `nameless` is what a group is whose room is not known. */
  constructor(groups: AllGroups, rooms: number, nameless: 'missing-group' | 'out-of-range') {
    this.#groups = groups;
    this.#nameless = nameless;
    const starts = new Int32Array(rooms + 1);
    for (const room of groups.rooms) if (room !== NO_ROOM) starts[room + 1]++;
    for (let room = 0; room < rooms; room++) starts[room + 1] += starts[room];
    const next = starts.slice();
    this.#members = new Int32Array(starts[rooms]);
    const successors: number[] = [];
    groups.rooms.forEach((room, group) => {
      if (room !== NO_ROOM) this.#members[next[room]++] = group;
      this.#forEachEdge(group, (prev) => {
        const other = groups.rooms[prev];
        if (other !== NO_ROOM && other !== room) successors.push(this.keyOf(other, group));
      });
    });
    this.#starts = starts;
    this.#successors = Float64Array.from(successors).sort();
  }

  /** Orders rows by room, and in a room by group. */
  keyOf(room: number, group: number): number {
    return room * this.#groups.ids.length + group;
  }

  /** The headers of a room's groups, as a source of this room alone has them. */
  tableOf(room: number): GroupTable {
    const { ids, rooms, edges, repeated } = this.#groups;
    const members = this.#members.subarray(this.#starts[room], this.#starts[room + 1]);
    const builder = new GroupTableBuilder(Float64Array.from(members, (group) => ids[group]));
    const beside: number[] = [];
    const found = new Set<number>();
    const addBeside = (group: number): void => {
      if (rooms[group] === room || found.has(group)) return;
      found.add(group);
      beside.push(group);
    };
    const addEdges = (group: number): void => {
      this.#forEachEdge(group, (prev) => {
        builder.addEdge(ids[group], ids[prev]);
        addBeside(prev);
      });
      if (isIn(repeated, group)) builder.addEdge(ids[group], ids[edges.predecessor(group, 0)]);
    };
    members.forEach(addEdges);
    const from = lowerBound(this.#successors, this.keyOf(room, 0));
    const to = lowerBound(this.#successors, this.keyOf(room + 1, 0));
    for (const key of this.#successors.subarray(from, to)) addBeside(key % ids.length);
    for (let group = beside.pop(); group !== undefined; group = beside.pop()) {
      builder.addAncestor(ids[group], rooms[group] === NO_ROOM ? this.#nameless : 'other-room');
      addEdges(group);
    }
    return builder.finish();
  }

  /** Keys for the rows of each group that a room reads through and that is not its own, ascending. */
  outsiders(): Outsiders {
    const { ids, rooms } = this.#groups;
    const leaving = new Set<number>();
    rooms.forEach((room, group) => {
      this.#forEachEdge(group, (prev) => {
        if (rooms[prev] === room) return;
        if (room !== NO_ROOM) leaving.add(room);
        if (rooms[prev] !== NO_ROOM) leaving.add(rooms[prev]);
      });
    });
    const outsiders = new Outsiders();
    for (const room of leaving) {
      for (const id of this.tableOf(room).ids) {
        const group = lowerBound(ids, id);
        if (rooms[group] !== room) outsiders.add(group, this.keyOf(room, group));
      }
    }
    return outsiders;
  }

  #forEachEdge(group: number, visit: (prev: number) => void): void {
    const { edges } = this.#groups;
    const degree = edges.degree(group);
    for (let n = 0; n < degree; n++) visit(edges.predecessor(group, n));
  }
}

/** The groups that are read for other rooms than their own: few, in a sound database none. */
class Outsiders {
  readonly #keys = new Map<number, number[]>();

  add(group: number, key: number): void {
    const keys = this.#keys.get(group);
    if (keys === undefined) this.#keys.set(group, [key]);
    else keys.push(key);
  }

  keysOf(group: number): readonly number[] {
    return this.#keys.get(group) ?? [];
  }
}

function isIn(sorted: Int32Array, value: number): boolean {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return sorted[low] === value;
}
