import { once } from 'node:events';
import type pg from 'pg';
import type { InputError } from '../../errors.js';
import { GroupTableBuilder, withPending } from '../group-table.js';
import type { GroupTable } from '../group-table.js';
import { IdFinder, IdList, indexOfId } from '../id-list.js';
import type { GroupRange } from '../group-range.js';
import { CopyOut } from './copy-out.js';
import { IdReader, idOf } from './id-reader.js';
import {
  ALL_EDGES,
  ANCESTORS,
  ANY_PENDING,
  DESCENDANTS,
  edgesStatement,
  edgesToStatement,
  fewEdgesStatement,
  FIRST_AND_LAST,
  groupsOfRoomsStatement,
  groupsStatement,
  PENDING_READABLE,
  pendingStatement,
  statementParts,
} from './statements.js';

const HEADERS_PER_BATCH = 1000;
/** Ids that are looked through first for each group that is asked for. */
const FIRST_SPAN = 4;
/** Rooms of more groups are not read with others. */
const SMALL_ROOM = 200;
const SMALLEST_BIGINT = '-9223372036854775808';

/** A room and its groups in range, ascending; where the range begins, and groups below it that are wanted. */
interface RoomGroups {
  readonly room: string;
  readonly ids: Float64Array;
  readonly above?: number | undefined;
  readonly bases?: readonly number[];
}

/**
 * Reads the headers of a room's groups in range, of `bases` below it, of the ancestors of both, and of
 * the groups out of range that read through one in range; undefined if there is no group in
 * range. Marks those that Synapse is about to delete, if the user may know.
 *
 * Ids and edges come by COPY, which saves the client a tenth of a second for 74,000 groups next to a
 * cursor. Groups that are not in range are few as a rule, and come by a cursor.
 *
 * @throws InputError for an id beyond 2^53 - 1; errors of the server and of the connection as they are
 */
export async function readHeaders(
  client: pg.Client,
  room: string,
  range: GroupRange,
  bases: readonly number[] = [],
): Promise<GroupTable | undefined> {
  const ids = await readGroups(client, room, range);
  if (ids.length === 0) return undefined;
  const [table] = await readTables(client, [{ room, ids, above: range.minStateGroup, bases }]);
  return table;
}

/**
 * Reads the headers of up to 256 rooms in as few statements as those of one: to ask for a small room takes
 * longer than to read it. Undefined for a room of more than 200 groups.
 *
 * @throws as `readHeaders`
 */
export async function readSmallRooms(
  client: pg.Client,
  rooms: readonly string[],
): Promise<(GroupTable | undefined)[]> {
  const groups = rooms.map((): number[] => []);
  await copyPairs(client, groupsOfRoomsStatement(rooms, SMALL_ROOM + 1), (number, id, unusable) => {
    if (unusable !== undefined) throw unusable;
    groups[number - 1].push(id);
  });
  const small = groups.flatMap((ids, i) =>
    ids.length > SMALL_ROOM ? [] : [{ room: rooms[i], ids: Float64Array.from(ids).sort() }],
  );
  const tables = (await readTables(client, small)).values();
  return groups.map(({ length }) => (length > SMALL_ROOM ? undefined : tables.next().value));
}

async function readTables(client: pg.Client, rooms: readonly RoomGroups[]): Promise<GroupTable[]> {
  const ids = allIds(rooms);
  const builders = rooms.map((room) => new GroupTableBuilder(room.ids));
  const [roomOf, roomOfPrev] = roomFinders(rooms, ids);
  // Groups out of range that have one in range as predecessor.
  const successors = rooms.map(() => new IdList());
  // An id that is no number here matters only on an edge of ours.
  const onEdge: OnPair = (group, prev, unusable) => {
    const room = roomOf(group);
    if (room < 0) return;
    if (unusable !== undefined) throw unusable;
    builders[room].addEdge(group, prev);
  };
  const onEdgeTo: OnPair = (group, prev, unusable) => {
    const room = roomOfPrev(prev);
    if (room < 0) return;
    if (unusable !== undefined) throw unusable;
    if (roomOf(group) !== room) successors[room].add(group);
  };
  if (await isTrue(client, fewEdgesStatement(ids.length))) {
    await copyPairs(client, ALL_EDGES, (group, prev, unusable) => {
      onEdge(group, prev, unusable);
      onEdgeTo(group, prev, unusable);
    });
  } else {
    await copyEdges(client, ids, edgesStatement, onEdge);
    await copyEdges(client, ids, edgesToStatement, onEdgeTo);
  }
  for (const [i, { room, ids: own, above, bases = [] }] of rooms.entries()) {
    const builder = builders[i];
    const inRange = [room, String(above ?? SMALLEST_BIGINT), String(own.at(-1))];
    const read = new Set<number>();
    const below = successors[i].sorted();
    if (below.length > 0) await readBeside(client, builder, DESCENDANTS, below, inRange, read);
    bases.forEach((id) => builder.keepBase(id));
    const outside = [...bases, ...builder.missingPredecessors()];
    if (outside.length > 0) await readBeside(client, builder, ANCESTORS, outside, inRange, read);
  }
  const tables = builders.map((builder) => builder.finish());
  const pending = await readPending(client, tables);
  return pending.length === 0 ? tables : tables.map((table) => withPending(table, pending));
}

/** Those groups of the tables that Synapse is about to delete. */
async function readPending(
  client: pg.Client,
  tables: readonly GroupTable[],
): Promise<Float64Array> {
  const pending = new IdList();
  if (
    !(await isTrue(client, `SELECT ${PENDING_READABLE} AS answer`)) ||
    !(await isTrue(client, ANY_PENDING))
  )
    return pending.sorted();
  for (const part of statementParts(allIds(tables))) {
    await copyIds(client, pendingStatement(part), (id) => pending.add(id));
  }
  return pending.sorted();
}

async function isTrue(client: pg.Client, statement: string): Promise<boolean> {
  const { rows } = await client.query<{ answer: boolean }>(statement);
  return rows[0].answer;
}

/** The groups of all rooms, ascending. */
function allIds(rooms: readonly { readonly ids: Float64Array }[]): Float64Array {
  if (rooms.length === 1) return rooms[0].ids;
  return Float64Array.from(rooms.flatMap(({ ids }) => [...ids])).sort();
}

type RoomFinder = (group: number) => number;

/**
 * Two functions that give the place among `rooms` of the one that a group is in range of, or -1. Each is quick
 * for groups that mostly ascend.
 */
function roomFinders(rooms: readonly RoomGroups[], ids: Float64Array): [RoomFinder, RoomFinder] {
  const places = new Uint8Array(ids.length);
  rooms.forEach((room, place) => {
    if (place > 0) room.ids.forEach((id) => (places[indexOfId(ids, id)] = place));
  });
  const roomFinder = (): RoomFinder => {
    const finder = new IdFinder(ids);
    return (group) => {
      const index = finder.indexOf(group);
      return index < 0 ? -1 : places[index];
    };
  };
  return [roomFinder(), roomFinder()];
}

/**
 * The ids of the groups in range, ascending. They are put in order here, to spare the server the sort.
 *
 * Where only the first groups are asked for, ids are looked through in wider and wider spans: a run in chunks
 * would read all ids that are to come for each of them.
 */
async function readGroups(
  client: pg.Client,
  room: string,
  { minStateGroup, maxStateGroup, groupsToCompress }: GroupRange,
): Promise<Float64Array> {
  const ids = new IdList();
  const read = async (
    above: number | undefined,
    upTo: number | undefined,
  ): Promise<Float64Array> => {
    await copyIds(client, groupsStatement(room, above, upTo), (id) => ids.add(id));
    return ids.sorted();
  };
  if (groupsToCompress === undefined) return read(minStateGroup, maxStateGroup);
  const { rows } = await client.query<{ first: string; last: string }>(FIRST_AND_LAST);
  const [first, last] = [Number(rows[0].first), Number(rows[0].last)];
  // Ids that are no numbers here are told when they are read.
  if (!Number.isSafeInteger(first)) return read(minStateGroup, maxStateGroup);
  let above = Math.max(minStateGroup ?? -Infinity, first - 1);
  for (let span = FIRST_SPAN * groupsToCompress; ; span *= 8) {
    const upTo = above + span;
    const isLast = upTo >= Math.min(maxStateGroup ?? Infinity, last);
    const found = await read(above, isLast ? maxStateGroup : upTo);
    if (isLast || found.length >= groupsToCompress) return found.subarray(0, groupsToCompress);
    above = upTo;
  }
}

async function copyEdges(
  client: pg.Client,
  ids: Float64Array,
  statementOf: (ids: Float64Array) => string,
  onEdge: OnPair,
): Promise<void> {
  for (const part of statementParts(ids)) await copyPairs(client, statementOf(part), onEdge);
}

/** Takes two ids, NaN for one that is unusable. */
type OnPair = (first: number, second: number, unusable: InputError | undefined) => void;

async function copyPairs(client: pg.Client, statement: string, onPair: OnPair): Promise<void> {
  let first: number | undefined;
  let unusable: InputError | undefined;
  const onId = (id: number): void => {
    if (first === undefined) {
      first = id;
    } else {
      onPair(first, id, unusable);
      first = undefined;
      unusable = undefined;
    }
  };
  await copyIds(client, statement, onId, (error) => {
    unusable ??= error;
    onId(NaN);
  });
}

async function copyIds(
  client: pg.Client,
  statement: string,
  onId: (id: number) => void,
  onUnusable?: (error: InputError) => void,
): Promise<void> {
  const reader = new IdReader(onId, onUnusable);
  let failure: unknown;
  const copy = new CopyOut(`COPY (${statement}) TO STDOUT`, (chunk) => {
    // Thrown here, it would be thrown at the socket.
    try {
      if (failure === undefined) reader.write(chunk);
    } catch (error) {
      failure = error;
    }
  });
  client.query(copy);
  await copy.finished;
  if (failure !== undefined) throw failure as Error;
}

/** Adds the headers that a statement finds from `ids` on, but those in `read`, to which it adds theirs. */
async function readBeside(
  client: pg.Client,
  builder: GroupTableBuilder,
  statement: string,
  ids: Float64Array | readonly number[],
  inRange: readonly string[],
  read: Set<number>,
): Promise<void> {
  const { default: QueryStream } = await import('pg-query-stream');
  const rows = client.query(
    new QueryStream(statement, [`{${ids.join(',')}}`, ...inRange], {
      rowMode: 'array',
      batchSize: HEADERS_PER_BATCH,
      types: { getTypeParser: () => (text: string) => text },
    }),
  );
  const reading = (async () => {
    for await (const [id, ofRoom, predecessors] of rows as AsyncIterable<HeaderRow>) {
      const group = idOf(id);
      // Groups between two that are in range are found from both.
      if (read.has(group)) continue;
      read.add(group);
      builder.addAncestor(group, REASONS[ofRoom ?? 'none']);
      if (predecessors === '{}') continue;
      for (const prev of predecessors.slice(1, -1).split(',')) builder.addEdge(group, idOf(prev));
    }
  })();
  const end = new AbortController();
  const lost = lossOf(client, end.signal);
  // Whichever comes second was not waited for.
  for (const late of [reading, lost]) late.catch(() => {});
  await Promise.race([reading, lost]).finally(() => end.abort());
}

/** Rejects when the connection ends: a cursor that it takes along waits for ever for an answer to its close. */
async function lossOf(client: pg.Client, signal: AbortSignal): Promise<never> {
  await once(client, 'end', { signal });
  throw new Error('Connection terminated unexpectedly');
}

/** Id, whether it is of the room, and predecessors, as Postgres writes them. */
type HeaderRow = [string, 't' | 'f' | null, string];

const REASONS = { t: 'out-of-range', f: 'other-room', none: 'missing-group' } as const;
