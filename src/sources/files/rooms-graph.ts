import { NO_ROOM, type AllGroups } from '../all-groups.js';
import { GroupTableBuilder, type GroupTable } from '../group-table.js';
import { lowerBound } from '../id-list.js';

/**
 * The groups of all rooms, room by room. Beside what `AllGroups` takes it takes 4 bytes a group, and 8 more
 * if an edge leads from one room to another.
 */
export class RoomsGraph {
  readonly #groups: AllGroups;
  readonly #nameless: 'missing-group' | 'out-of-range';
  /** The groups, room by room, and where each room's begin. */
  readonly #members: Int32Array;
  readonly #starts: Int32Array;
  /** The groups that have group 0 as predecessor, then those of group 1 and so on, and where each one's begin. */
  readonly #successors: Int32Array = new Int32Array(0);
  readonly #successorStarts: Int32Array = new Int32Array(0);

  /** `nameless` is what a group is whose room is not known. */
  constructor(groups: AllGroups, rooms: number, nameless: 'missing-group' | 'out-of-range') {
    this.#groups = groups;
    this.#nameless = nameless;
    const starts = new Int32Array(rooms + 1);
    for (const room of groups.rooms) if (room !== NO_ROOM) starts[room + 1]++;
    for (let room = 0; room < rooms; room++) starts[room + 1] += starts[room];
    const next = starts.slice();
    this.#members = new Int32Array(starts[rooms]);
    groups.rooms.forEach((room, group) => {
      if (room !== NO_ROOM) this.#members[next[room]++] = group;
    });
    this.#starts = starts;
    if (this.#hasCrossing()) {
      [this.#successors, this.#successorStarts] = this.#reversed();
    }
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
      if (repeated[lowerBound(repeated, group)] === group)
        builder.addEdge(ids[group], ids[edges.predecessor(group, 0)]);
    };
    members.forEach(addEdges);
    // Who reads through one of the room's groups, from however far away, may be irregular.
    const below = new Set<number>();
    const addSuccessors = (group: number): void => {
      this.#forEachSuccessor(group, (successor) => {
        if (rooms[successor] === room) return;
        addBeside(successor);
        below.add(successor);
      });
    };
    members.forEach(addSuccessors);
    // What is added meanwhile comes as well.
    below.forEach(addSuccessors);
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

  /** Whether an edge leads to another room. */
  #hasCrossing(): boolean {
    const { rooms } = this.#groups;
    return rooms.some((room, group) => {
      let crosses = false;
      this.#forEachEdge(group, (prev) => {
        crosses ||= rooms[prev] !== NO_ROOM && rooms[prev] !== room;
      });
      return crosses;
    });
  }

  /** All edges the other way round. */
  #reversed(): [successors: Int32Array, starts: Int32Array] {
    const { length } = this.#groups.ids;
    const starts = new Int32Array(length + 1);
    const forEach = (visit: (group: number, prev: number) => void): void => {
      for (let group = 0; group < length; group++) {
        this.#forEachEdge(group, (prev) => visit(group, prev));
      }
    };
    forEach((_, prev) => starts[prev + 1]++);
    for (let group = 0; group < length; group++) starts[group + 1] += starts[group];
    const next = starts.slice();
    const successors = new Int32Array(starts[length]);
    forEach((group, prev) => (successors[next[prev]++] = group));
    return [successors, starts];
  }

  #forEachSuccessor(group: number, visit: (successor: number) => void): void {
    if (this.#successorStarts.length === 0) return;
    for (let i = this.#successorStarts[group]; i < this.#successorStarts[group + 1]; i++) {
      visit(this.#successors[i]);
    }
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
