import { grown } from '../state/grown.js';
import { EdgeList } from './edge-list.js';
import { GroupEdges } from './group-edges.js';
import { IdList, indexOfId } from './id-list.js';

/** Number of the room of a group that is not in `state_groups`. */
export const NO_ROOM = -1;

/**
 * The state groups of all rooms, with those that only edges name, and the edges between them. An index
 * stands for a group.
 */
export interface AllGroups {
  /** In ascending order. */
  readonly ids: Float64Array;
  /** The number of each group's room, or `NO_ROOM`. */
  readonly rooms: Int32Array;
  readonly edges: GroupEdges;
  /** A group for each edge that is stored once more; ascending. */
  readonly repeated: Int32Array;
}

/** Collects the tables `state_groups` and `state_group_edges`: 12 bytes a group, 16 an edge. */
export class AllGroupsBuilder {
  #ids = new Float64Array(1024);
  #rooms = new Int32Array(1024);
  #groups = 0;
  #isAscending = true;
  readonly #edges = new EdgeList();

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
    this.#edges.add(group, prev);
  }

  /** Puts all together: 16 bytes a group, while what was collected is still there. */
  finish(): AllGroups {
    const known = this.#sortedGroups();
    const [ids, rooms] = this.#withMissing(known);
    let repeated = new Int32Array(16);
    let repeatedLength = 0;
    const edges = new GroupEdges(ids.length, (group) => {
      repeated = grown(repeated, repeatedLength + 1);
      repeated[repeatedLength++] = group;
    });
    const { groups, prevs, length } = this.#edges;
    for (let i = 0; i < length; i++) {
      edges.add(indexOfId(ids, groups[i]), indexOfId(ids, prevs[i]));
    }
    edges.settle();
    repeated = repeated.subarray(0, repeatedLength).sort();
    return { ids, rooms, edges, repeated };
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
    const { groups, prevs, length } = this.#edges;
    for (const ends of [groups, prevs]) {
      for (let i = 0; i < length; i++) {
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
