import { EdgeList } from '../edge-list.js';
import { IdFinder, lowerBound } from '../id-list.js';
import { copyLines, noStateGroup, numberAt } from './copy-lines.js';
import type { Input } from './input.js';

const TAB = 9;
/** How many neighbouring ids one further reading of the file gathers the edges of. */
const WINDOW = 2 ** 20;

type OnEdge = (group: number, prev: number) => void;

interface RoomEdges {
  /** The groups that are not the room's. */
  readonly beside: ReadonlySet<number>;
  /** Whether the table has no edge, of any room. */
  readonly isEmpty: boolean;
}

/**
 * Calls `onEdge` with all edges of the room's groups `ids`, which ascend, of the groups beside these that read
 * through one of them, and of all that any of these leads to.
 *
 * In a sound database there are none, and the file is read once. Otherwise it is read again until all
 * are known; 36 bytes an edge of neighbouring ids are held then, for the ids of a chain lie close
 * together, and to read the file again for each hop of it would take too long.
 */
export async function collectEdges(
  edges: Input,
  ids: Float64Array,
  onEdge: OnEdge,
): Promise<RoomEdges> {
  const beside = new Set<number>();
  const below = new Set<number>();
  const room = new IdFinder(ids);
  const prevs = new IdFinder(ids);
  const count = await readEdges(edges, (group, prev) => {
    if (room.has(group)) {
      onEdge(group, prev);
      if (!prevs.has(prev)) beside.add(prev);
    } else if (prevs.has(prev)) {
      below.add(group);
    }
  });
  let wanted = new Set(below);
  while (wanted.size > 0) {
    wanted = await follow(edges, wanted, 'descendants', (_, group) => {
      if (below.has(group) || room.has(group)) return false;
      below.add(group);
      return true;
    });
  }
  for (const group of below) beside.add(group);
  wanted = new Set(beside);
  while (wanted.size > 0) {
    wanted = await follow(edges, wanted, 'ancestors', (group, prev) => {
      onEdge(group, prev);
      if (beside.has(prev) || room.has(prev)) return false;
      beside.add(prev);
      return true;
    });
  }
  return { beside, isEmpty: count === 0 };
}

/**
 * Follows the edges from the wanted groups, and as far as it can from those that are found. `isNew` is called
 * with where each edge begins and ends in this direction, and says whether it is to be followed from there.
 * Returns the groups from which it could not be yet.
 */
async function follow(
  edges: Input,
  wanted: ReadonlySet<number>,
  direction: 'ancestors' | 'descendants',
  isNew: (from: number, to: number) => boolean,
): Promise<Set<number>> {
  const isUp = direction === 'ancestors';
  let first = isUp ? 0 : Infinity;
  for (const id of wanted) first = isUp ? Math.max(first, id) : Math.min(first, id);
  const isHeld = (id: number): boolean =>
    wanted.has(id) ||
    (isUp ? id <= first && id > first - WINDOW : id >= first && id < first + WINDOW);

  const held = new EdgeList();
  await readEdges(edges, (group, prev) => {
    if (isUp && isHeld(group)) held.add(group, prev);
    if (!isUp && isHeld(prev)) held.add(prev, group);
  });
  const { groups, prevs, length } = held;
  const order = Uint32Array.from({ length }, (_, i) => i).sort((a, b) => groups[a] - groups[b]);
  const from = Float64Array.from(order, (i) => groups[i]);
  const to = Float64Array.from(order, (i) => prevs[i]);

  const later = new Set<number>();
  const reached = [...wanted];
  for (let id; (id = reached.pop()) !== undefined;) {
    for (let i = lowerBound(from, id); from[i] === id; i++) {
      if (!isNew(id, to[i])) continue;
      if (isHeld(to[i])) reached.push(to[i]);
      else later.add(to[i]);
    }
  }
  return later;
}

/** Calls `onEdge` with each edge in the order of the table, and returns how many these are. */
export async function readEdges(edges: Input, onEdge: OnEdge): Promise<number> {
  let edgesRead = 0;
  for await (const lines of copyLines(edges, 'state_group_edges')) {
    const { bytes, count, starts, groups } = lines;
    for (let i = 0; i < count; i++) {
      const start = bytes.indexOf(TAB, starts[i]) + 1;
      const end = starts[i + 1] - 1;
      const prev = numberAt(bytes, start, end);
      if (Number.isNaN(prev)) throw lines.error(i, noStateGroup(bytes.subarray(start, end)));
      onEdge(groups[i], prev);
    }
    edgesRead += count;
  }
  return edgesRead;
}
