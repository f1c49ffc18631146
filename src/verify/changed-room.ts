import type { NewEncoding } from '../changes/room-change.js';
import { InputError, StatesDifferError } from '../errors.js';
import { numberAt } from '../sources/files/copy-lines.js';
import { chunkStream } from '../sources/chunk-stream.js';
import {
  GroupTableBuilder,
  IN_RANGE,
  NO_PREDECESSOR,
  type GroupTable,
} from '../sources/group-table.js';
import { IdFinder, indexOfId } from '../sources/id-list.js';
import type { RoomSource } from '../sources/room-source.js';
import { Pieces } from '../sources/sort/pieces.js';
import { RunChunks } from '../sources/sort/run-chunks.js';
import { ExternalSort, type SortSettings } from '../sources/sort/sort-lines.js';
import { fieldOf } from '../state/copy-text.js';
import { Tee } from './tee.js';

const TAB = 9;
const LINE_FEED = 10;

/**
 * A room as it is and as it is with changes laid over it, for `compareRooms`. The room is read once. Holds
 * about 100 bytes for each change, whose rows are sorted in temporary files, and of the room's rows those
 * of a group or two.
 *
 * @param source an open source of the whole room; it is closed with either of the two
 * @throws InputError if the changes can't be read, are none of this room, or change a group twice;
 *   StatesDifferError if they name a group that the room does not have
 */
export async function withChanges(
  source: RoomSource,
  changes: AsyncIterable<NewEncoding>,
  settings: SortSettings,
): Promise<readonly [before: RoomSource, after: RoomSource]> {
  const predecessors = new Map<number, number | undefined>();
  const others = new OtherRooms(source);
  const read = () => changedRows(source, changes, predecessors, others);
  const sort = new ExternalSort({ read }, settings);
  let tee: Tee | undefined;
  const close = async (): Promise<void> => {
    await tee?.close();
    await sort.close();
    await source.close();
  };
  try {
    const chunks = new RunChunks(await sort.run());
    if (predecessors.size === 0 && others.changes > 0) {
      throw new InputError(`The changes have none of room '${source.room}'.`);
    }
    const groups = changedTable(source, predecessors);
    const branch = (number: 0 | 1): AsyncGenerator<Buffer, void, undefined> => {
      tee ??= new Tee(source.rows());
      return tee.branch(number);
    };
    const { room, snapshotTime, rowColumns } = source;
    const warnings = [...source.warnings, ...others.warnings];
    const both = { room, snapshotTime, rowColumns, close };
    return [
      {
        ...both,
        warnings,
        groups: source.groups,
        rows: () => chunkStream(branch(0)),
      },
      {
        ...both,
        warnings: [],
        groups,
        rows: () => {
          const ids = Float64Array.from(predecessors.keys()).sort();
          return chunkStream(laidOver(branch(1), groups, ids, chunks));
        },
      },
    ];
  } catch (error) {
    await close();
    throw error;
  }
}

/** Changes of other rooms than the source's, which are not laid over it. */
class OtherRooms {
  changes = 0;
  readonly #source: RoomSource;
  /** Rooms with changes of groups that groups of the source's room are stored on. */
  readonly #readThrough = new Set<string>();

  constructor(source: RoomSource) {
    this.#source = source;
  }

  /** @throws StatesDifferError if the group is one of the source's room */
  add(room: string, stateGroup: number): void {
    this.changes++;
    const { groups } = this.#source;
    const index = indexOfId(groups.ids, stateGroup);
    if (index < 0) return;
    if (isInRange(groups.flags[index])) {
      throw new StatesDifferError(
        `State group ${stateGroup} is changed as one of room '${room}', and is of room '${this.#source.room}'.`,
      );
    }
    this.#readThrough.add(room);
  }

  get warnings(): string[] {
    return [...this.#readThrough].map(
      (room) =>
        `Groups of this room are stored on groups of room '${room}', which are changed as well and were taken as they are stored: verify that room too.`,
    );
  }
}

/** The new rows as the source would give them, a group after the other; notes the new predecessors. */
async function* changedRows(
  { room, rowColumns }: RoomSource,
  changes: AsyncIterable<NewEncoding>,
  predecessors: Map<number, number | undefined>,
  others: OtherRooms,
): AsyncGenerator<Pieces, void, undefined> {
  const name = rowColumns === 'with-room' ? `${fieldOf(room).toString()}\t` : '';
  const pieces = new Pieces();
  for await (const { room: ofRoom, group } of changes) {
    const { stateGroup, newPredecessor, change } = group;
    if (ofRoom !== room) {
      others.add(ofRoom, stateGroup);
      continue;
    }
    if (predecessors.has(stateGroup)) {
      throw new InputError(
        `State group ${stateGroup} is changed twice, in a way that depends on order.`,
      );
    }
    predecessors.set(stateGroup, newPredecessor);
    const bytes = withPrefix(change.rows, Buffer.from(`${stateGroup}\t${name}`));
    if (bytes.length === 0) continue;
    pieces.reset(bytes, 0);
    pieces.add(stateGroup, 0, bytes.length);
    yield pieces;
  }
}

function withPrefix(lines: Buffer, prefix: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0, end: number; at < lines.length; at = end) {
    end = lines.indexOf(LINE_FEED, at) + 1;
    parts.push(prefix, lines.subarray(at, end));
  }
  return Buffer.concat(parts);
}

/** The headers with the new predecessors. */
function changedTable(
  { room, groups }: RoomSource,
  predecessors: ReadonlyMap<number, number | undefined>,
): GroupTable {
  const { ids, flags, prev, otherEdges } = groups;
  for (const [group, newPredecessor] of predecessors) {
    const index = indexOfId(ids, group);
    if (index < 0 || !isInRange(flags[index])) {
      throw new StatesDifferError(
        `State group ${group} is changed, and room '${room}' has none of that id.`,
      );
    }
    if (newPredecessor !== undefined && indexOfId(ids, newPredecessor) < 0) {
      throw new StatesDifferError(
        `State group ${group} of room '${room}' is given the predecessor ${newPredecessor}, which is not of the room.`,
      );
    }
  }
  const builder = new GroupTableBuilder(ids.filter((_, index) => isInRange(flags[index])));
  ids.forEach((id, index) => {
    if (!isInRange(flags[index])) builder.addAncestor(id, 'out-of-range');
    const newPredecessor = predecessors.get(id);
    if (newPredecessor !== undefined) builder.addEdge(id, newPredecessor);
    else if (!predecessors.has(id) && prev[index] !== NO_PREDECESSOR)
      builder.addEdge(id, ids[prev[index]]);
  });
  for (let i = 0; i < otherEdges.length; i += 2) {
    const id = ids[otherEdges[i]];
    if (!predecessors.has(id)) builder.addEdge(id, ids[otherEdges[i + 1]]);
  }
  return builder.finish();
}

function isInRange(flags: number): boolean {
  return (flags & IN_RANGE) !== 0;
}

/** The rows of `stored`, those of changed groups replaced, and those of groups that `groups` lacks left out. */
async function* laidOver(
  stored: AsyncIterable<Buffer>,
  groups: GroupTable,
  changed: Float64Array,
  newRows: RunChunks,
): AsyncGenerator<Buffer, void, undefined> {
  const finder = new IdFinder(groups.ids);
  let next = 0;
  let left = Buffer.alloc(0);
  let prefix = Buffer.alloc(0);
  let isKept = false;
  for await (const chunk of stored) {
    const bytes = left.length === 0 ? chunk : Buffer.concat([left, chunk]);
    // Neighbours that are kept go on in one go.
    let from = 0;
    let at = 0;
    for (let end; (end = bytes.indexOf(LINE_FEED, at) + 1) > 0; at = end) {
      if (prefix.length > 0 && bytes.subarray(at, at + prefix.length).equals(prefix)) {
        continue;
      }
      const tab = bytes.indexOf(TAB, at);
      prefix = Buffer.from(bytes.subarray(at, tab + 1));
      const group = numberAt(bytes, at, tab);
      if (isKept && at > from) yield Buffer.from(bytes.subarray(from, at));
      from = at;
      while (next < changed.length && changed[next] <= group) {
        yield* newRows.between(changed[next], changed[next++] + 1);
      }
      isKept = finder.has(group) && (next === 0 || changed[next - 1] !== group);
    }
    if (isKept && at > from) yield Buffer.from(bytes.subarray(from, at));
    left = Buffer.from(bytes.subarray(at));
  }
  while (next < changed.length) yield* newRows.between(changed[next], changed[next++] + 1);
  if (left.length > 0) yield left;
}
