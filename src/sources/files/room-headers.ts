import { RoomNotFoundError } from '../../errors.js';
import { noneInRange, type GroupRange } from '../group-range.js';
import { GroupTableBuilder, type GroupTable } from '../group-table.js';
import { lowerBound } from '../id-list.js';
import type { TemporaryFile } from '../../temporary-file.js';
import { EmptyTables, emptyRows } from './empty-tables.js';
import type { TableInputs } from './find-inputs.js';
import { rereadable, type Input } from './input.js';
import { RoomColumn } from './room-column.js';
import { collectEdges, readEdges } from './room-edges.js';
import { roomGroups, roomGroupsWithRows, type RoomGroups } from './room-groups.js';

export interface RoomHeaders {
  readonly groups: GroupTable;
  /** All of the room's groups, in range or not, ascending. */
  readonly roomIds: Float64Array;
  /** Where the rows are to be read: the input that was given, or a copy of what is needed of it. */
  readonly rows: Input;
  /** Takes the rows, to see whether they or the edges are missing as a whole. */
  readonly emptyTables: EmptyTables;
  readonly warnings: readonly string[];
}

/**
 * Reads which groups the room has, and their edges. Holds all of the room's groups and edges until the
 * table is made, whatever the range, because the file is in no order and chains reach below it.
 *
 * @throws RoomNotFoundError if the room has no groups, or none in range
 */
export async function readHeaders(
  tables: TableInputs,
  room: string,
  range: GroupRange,
  temporaryFile: () => Promise<TemporaryFile>,
): Promise<RoomHeaders> {
  const column = new RoomColumn(room);
  const warnings: string[] = [];
  let rows = tables.state_groups_state;
  let found: RoomGroups;
  if (tables.state_groups === undefined) {
    const withRows = await roomGroupsWithRows(rows, column, temporaryFile);
    found = withRows;
    rows = withRows.rows;
    warnings.push(
      'Without the table state_groups only groups that have rows are known to be of the room. Its groups without rows were not counted, and stay as they are.',
    );
  } else {
    found = await roomGroups(await rereadable(tables.state_groups, temporaryFile), column);
  }
  const { ids } = found;
  if (ids.length === 0) throw await noSuchRoom(room, tables, found);
  const [from, to] = bounds(ids, range);
  if (from === to) {
    throw noneInRange(room, { count: ids.length, first: ids[0], last: ids.at(-1)! }, range);
  }

  const builder = new GroupTableBuilder(ids, from, to);
  const edges = await rereadable(tables.state_group_edges, temporaryFile);
  const addEdge = (group: number, prev: number): void => builder.addEdge(group, prev);
  const { beside, isEmpty } = await collectEdges(edges, ids, addEdge);
  const otherRooms = await found.otherRoomsGroups(beside);
  // Without state_groups, a group that has no rows is the room's as far as can be known.
  const ofNoRoom = tables.state_groups === undefined ? 'out-of-range' : 'missing-group';
  const isCopied = tables.state_groups === undefined && rows !== tables.state_groups_state;
  const ofOtherRoom = isCopied ? 'unread-rows' : 'other-room';
  for (const id of beside) builder.addAncestor(id, otherRooms.has(id) ? ofOtherRoom : ofNoRoom);
  const counts = { hasEdges: !isEmpty, groups: ids.length, rooms: 1 };
  const emptyTables = new EmptyTables({ edges, rows, ...counts });
  return { groups: builder.finish(), roomIds: ids, rows, emptyTables, warnings };
}

/** The part of `ids` that is in range: from the first index, up to before the second. */
function bounds(ids: Float64Array, range: GroupRange): [from: number, to: number] {
  const { minStateGroup = -1, maxStateGroup = Number.MAX_SAFE_INTEGER, groupsToCompress } = range;
  const from = lowerBound(ids, minStateGroup + 1);
  const to = Math.max(from, lowerBound(ids, maxStateGroup + 1));
  return [from, groupsToCompress === undefined ? to : Math.min(to, from + groupsToCompress)];
}

async function noSuchRoom(
  room: string,
  tables: TableInputs,
  { otherRooms }: RoomGroups,
): Promise<Error> {
  const { state_groups, state_group_edges: edges, state_groups_state: rows } = tables;
  const { name } = state_groups ?? rows;
  const isEmpty = state_groups === undefined && otherRooms.size === 0;
  if (isEmpty && (await readEdges(edges, () => {})) > 0) return emptyRows(rows);
  const others =
    otherRooms.size === 0
      ? 'It holds no room at all.'
      : `It holds ${[...otherRooms].map((other) => `'${other}'`).join(', ')} and maybe others.`;
  return new RoomNotFoundError(`${name} holds no state groups of room '${room}'. ${others}`);
}
