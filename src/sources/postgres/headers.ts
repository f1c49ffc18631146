import type pg from 'pg';
import { GroupTableBuilder } from '../group-table.js';
import type { GroupTable } from '../group-table.js';
import { IdFinder, IdList } from '../id-list.js';
import type { GroupRange } from '../room-source.js';
import { CopyOut } from './copy-out.js';
import { IdReader, idOf } from './id-reader.js';
import {
  ANCESTORS,
  DESCENDANTS,
  edgesStatement,
  edgesToStatement,
  FIRST_AND_LAST,
  GROUPS_PER_STATEMENT,
  groupsStatement,
} from './statements.js';

const HEADERS_PER_BATCH = 1000;
/** Ids that are looked through first for each group that is asked for. */
const FIRST_SPAN = 4;
const SMALLEST_BIGINT = '-9223372036854775808';

/**
 * Reads the headers of a room's groups in range, of `bases` below it, of the ancestors of both, and of
 * the groups out of range that read through one in range; undefined if there is no group in
 * range.
 *
 * Ids and edges come by COPY, which saves the client a tenth of a second for 74,000 groups next to a
 * cursor. Groups that are not in range are few as a rule, and come by a cursor.
 *
 * @throws DatabaseError for an id beyond 2^53 - 1; errors of the server and of the connection as they are
 */
export async function readHeaders(
  client: pg.Client,
  room: string,
  range: GroupRange,
  bases: readonly number[] = [],
): Promise<GroupTable | undefined> {
  const ids = await readGroups(client, room, range);
  if (ids.length === 0) return undefined;
  const builder = new GroupTableBuilder(ids);
  const inRange = [room, String(range.minStateGroup ?? SMALLEST_BIGINT), String(ids.at(-1))];
  await readEdges(client, ids, edgesStatement, (group, prev) => builder.addEdge(group, prev));
  const read = new Set<number>();
  const successors = await readOutsideSuccessors(client, ids);
  if (successors.length > 0) {
    await readBeside(client, builder, DESCENDANTS, successors, inRange, read);
  }
  bases.forEach((id) => builder.keepBase(id));
  const outside = [...bases, ...builder.missingPredecessors()];
  if (outside.length > 0) await readBeside(client, builder, ANCESTORS, outside, inRange, read);
  return builder.finish();
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

async function readEdges(
  client: pg.Client,
  ids: Float64Array,
  statementOf: (ids: Float64Array) => string,
  onEdge: (group: number, prev: number) => void,
): Promise<void> {
  for (let start = 0; start < ids.length; start += GROUPS_PER_STATEMENT) {
    const statement = statementOf(ids.subarray(start, start + GROUPS_PER_STATEMENT));
    let group: number | undefined;
    await copyIds(client, statement, (id) => {
      if (group === undefined) {
        group = id;
      } else {
        onEdge(group, id);
        group = undefined;
      }
    });
  }
}

/** The groups out of range that have one in range as predecessor, ascending. */
async function readOutsideSuccessors(client: pg.Client, ids: Float64Array): Promise<Float64Array> {
  const inRange = new IdFinder(ids);
  const outside = new IdList();
  await readEdges(client, ids, edgesToStatement, (group) => {
    if (!inRange.has(group)) outside.add(group);
  });
  return outside.sorted();
}

async function copyIds(
  client: pg.Client,
  statement: string,
  onId: (id: number) => void,
): Promise<void> {
  const reader = new IdReader(onId);
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
  const lost = lossOf(client);
  const { default: QueryStream } = await import('pg-query-stream');
  const rows = client.query(
    new QueryStream(statement, [`{${ids.join(',')}}`, ...inRange], {
      rowMode: 'array',
      batchSize: HEADERS_PER_BATCH,
      types: { getTypeParser: () => (text: string) => text },
    }),
  );
  const iterator = (rows as AsyncIterable<HeaderRow>)[Symbol.asyncIterator]();
  for (;;) {
    const next = await Promise.race([iterator.next(), lost]);
    if (next.done === true) return;
    const [id, ofRoom, predecessors] = next.value;
    const group = idOf(id);
    // Groups between two that are in range are found from both.
    if (read.has(group)) continue;
    read.add(group);
    builder.addAncestor(group, REASONS[ofRoom ?? 'none']);
    if (predecessors !== '{}') {
      for (const prev of predecessors.slice(1, -1).split(',')) builder.addEdge(group, idOf(prev));
    }
  }
}

/** Rejects when the connection ends: a cursor that it takes along waits for ever for an answer to its close. */
function lossOf(client: pg.Client): Promise<never> {
  const lost = new Promise<never>((_resolve, reject) => {
    client.once('end', () => reject(new Error('Connection terminated unexpectedly')));
  });
  // The connection also ends when all is done.
  lost.catch(() => {});
  return lost;
}

/** Id, whether it is of the room, and predecessors, as Postgres writes them. */
type HeaderRow = [string, 't' | 'f' | null, string];

const REASONS = { t: 'out-of-range', f: 'other-room', none: 'missing-group' } as const;
