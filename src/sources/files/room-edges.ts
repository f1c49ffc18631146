import { EdgeList } from '../edge-list.js';
import { IdFinder } from '../id-list.js';
import { copyLines, noStateGroup, numberAt } from './copy-lines.js';
import type { Input } from './input.js';

const TAB = 9;
/** How many neighbouring ids one further reading of the file gathers the edges of. */
const WINDOW = 2 ** 20;
const TAKEN = -1;

type OnEdge = (group: number, prev: number) => void;

/**
 * Calls `onEdge` with all edges of the room's groups `ids`, which ascend, and of the groups beside
 * these that they lead to or that lead to one of them. Returns the groups beside.
 *
 * In a sound database there are none, and the file is read once. Otherwise it is read again until all
 * are known; 16 bytes an edge of neighbouring ids are held then, for the ids of a chain lie close
 * together, and to read the file again for each hop of it would take too long.
 */
export async function collectEdges(
  edges: Input,
  ids: Float64Array,
  onEdge: OnEdge,
): Promise<ReadonlySet<number>> {
  const beside = new Set<number>();
  const room = new IdFinder(ids);
  const prevs = new IdFinder(ids);
  await readEdges(edges, (group, prev) => {
    if (room.has(group)) {
      onEdge(group, prev);
      if (!prevs.has(prev)) beside.add(prev);
    } else if (prevs.has(prev)) {
      beside.add(group);
    }
  });
  let wanted = new Set(beside);
  while (wanted.size > 0) {
    wanted = await follow(edges, wanted, (group, prev) => {
      onEdge(group, prev);
      if (beside.has(prev) || room.has(prev)) return false;
      beside.add(prev);
      return true;
    });
  }
  return beside;
}

/**
 * Reads the edges of the wanted groups and, as far as it can, of those they lead to. `isNew` is called
 * with each and says whether its predecessor is to be followed. Returns those that could not be yet.
 */
async function follow(
  edges: Input,
  wanted: ReadonlySet<number>,
  isNew: (group: number, prev: number) => boolean,
): Promise<Set<number>> {
  let top = 0;
  for (const id of wanted) top = Math.max(top, id);
  const isHeld = (group: number): boolean =>
    (group <= top && group > top - WINDOW) || wanted.has(group);

  const held = new EdgeList();
  await readEdges(edges, (group, prev) => {
    if (isHeld(group)) held.add(group, prev);
  });
  const { groups, prevs, length } = held;

  const reached = new Set(wanted);
  const later = new Set<number>();
  for (let isComplete = false; !isComplete;) {
    isComplete = true;
    // Backwards, because a predecessor's edge mostly stands before its successor's.
    for (let i = length - 1; i >= 0; i--) {
      const prev = prevs[i];
      if (!reached.has(groups[i])) continue;
      if (isNew(groups[i], prev)) {
        if (isHeld(prev)) reached.add(prev);
        else later.add(prev);
        isComplete = false;
      }
      groups[i] = TAKEN;
    }
  }
  return later;
}

/** Calls `onEdge` with each edge in the order of the table. */
export async function readEdges(edges: Input, onEdge: OnEdge): Promise<void> {
  for await (const lines of copyLines(edges, 'state_group_edges')) {
    const { bytes, count, starts, groups } = lines;
    for (let i = 0; i < count; i++) {
      const start = bytes.indexOf(TAB, starts[i]) + 1;
      const end = starts[i + 1] - 1;
      const prev = numberAt(bytes, start, end);
      if (Number.isNaN(prev)) throw lines.error(i, noStateGroup(bytes.subarray(start, end)));
      onEdge(groups[i], prev);
    }
  }
}
