import { addAbortSignal } from 'node:stream';
import type pg from 'pg';
import { RoomNotFoundError } from '../../errors.js';
import { describeIrregularities } from '../describe-irregularities.js';
import type { GroupTable } from '../group-table.js';
import type { GroupRange, RoomSource } from '../room-source.js';
import { connect, dropConnection } from './connect.js';
import { parseConnection } from './connection-settings.js';
import { statementError } from './database-errors.js';
import { readHeaders } from './headers.js';
import { rowStream } from './row-stream.js';
import { beginSnapshot } from './snapshot.js';
import { ROOM_GROUPS } from './statements.js';
import { storedTables } from './table-input.js';

/** How long a connection may take to close. */
const FAREWELL_MS = 2000;

export interface PostgresSourceSettings {
  /** A URL, libpq's keywords, or a database's name; see `parseConnection`. */
  readonly dsn?: string | undefined;
  /** Where the `PG*` variables are looked up. */
  readonly env: NodeJS.ProcessEnv;
  readonly room: string;
  readonly range: GroupRange;
  /** Groups below the range that a planner starts from; read with their ancestors. */
  readonly bases?: readonly number[];
  /** Lets `storedTables()` be asked: the snapshot is held until the source is closed. */
  readonly keepTables?: boolean;
  /** Closes the connection at once when it is aborted, whatever is under way. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Opens a room of a Synapse state database. Headers and rows are read over one connection, in one
 * snapshot; the transaction ends as soon as the last row was read, lest it hold up VACUUM.
 *
 * @throws UsageError for connection settings that make no sense, DatabaseError if the database can't be
 *   read, RoomNotFoundError if the room has no state groups in range
 */
export async function openPostgresSource(settings: PostgresSourceSettings): Promise<RoomSource> {
  const { room, keepTables, signal } = settings;
  const client = await connect(parseConnection(settings.dsn, settings.env), signal);
  const close = closing(client, signal);
  try {
    signal?.throwIfAborted();
    const snapshotTime = await beginSnapshot(client);
    const source = await readRoom(client, snapshotTime, settings);
    return {
      ...source,
      rows() {
        const rows = source.rows();
        if (!keepTables) rows.once('close', () => void close());
        return rows;
      },
      ...(keepTables && { storedTables: () => storedTables(client) }),
      close,
    };
  } catch (error) {
    await close();
    signal?.throwIfAborted();
    throw statementError(error, `while the state groups of room '${room}' were read`);
  }
}

/**
 * Reads a room's headers in the snapshot of `client`.
 *
 * @throws RoomNotFoundError if the room has no state groups in range, DatabaseError for an id beyond
 *   2^53 - 1; errors of the server and of the connection as they are
 */
async function readRoom(
  client: pg.Client,
  snapshotTime: Date,
  settings: Omit<PostgresSourceSettings, 'dsn' | 'env'>,
): Promise<RoomSource> {
  const { room, range, signal } = settings;
  const groups = await readHeaders(client, room, range, settings.bases);
  if (groups === undefined) throw await notFound(client, room, range);
  return roomSource(client, snapshotTime, room, groups, signal);
}

/** A room whose headers were read in the snapshot of `client`; its rows are to be read before anything else is. */
export function roomSource(
  client: pg.Client,
  snapshotTime: Date,
  room: string,
  groups: GroupTable,
  signal: AbortSignal | undefined,
): RoomSource {
  return {
    room,
    groups,
    snapshotTime,
    rowColumns: 'without-room',
    warnings: describeIrregularities(groups),
    rows() {
      const rows = rowStream(client, groups.ids);
      return signal === undefined ? rows : addAbortSignal(signal, rows);
    },
    close: async () => {},
  };
}

/** A function that ends the connection once, however often it is called. From now on the signal cuts it. */
export function closing(client: pg.Client, signal: AbortSignal | undefined): () => Promise<void> {
  const abort = (): void => dropConnection(client);
  signal?.addEventListener('abort', abort);
  let closed: Promise<void> | undefined;
  return () => {
    signal?.removeEventListener('abort', abort);
    return (closed ??= end(client));
  };
}

async function end(client: pg.Client): Promise<void> {
  // A server that is gone without a word would never say goodbye.
  const impatience = setTimeout(() => dropConnection(client), FAREWELL_MS);
  await client.end();
  clearTimeout(impatience);
}

async function notFound(
  client: pg.Client,
  room: string,
  { minStateGroup, maxStateGroup }: GroupRange,
): Promise<RoomNotFoundError> {
  const { rows } = await client.query<{ count: string; first: string; last: string }>(ROOM_GROUPS, [
    room,
  ]);
  const [{ count, first, last }] = rows;
  if (count === '0') {
    return new RoomNotFoundError(
      `This database holds no state groups of room '${room}'. Check the spelling of the room's id.`,
    );
  }
  const limits = [
    ...(minStateGroup === undefined ? [] : [`above ${minStateGroup}`]),
    ...(maxStateGroup === undefined ? [] : [`up to ${maxStateGroup}`]),
  ];
  return new RoomNotFoundError(
    `None of the ${count} state groups of room '${room}', from ${first} to ${last}, is ${limits.join(' and ')}.`,
  );
}
