import { addAbortSignal } from 'node:stream';
import type pg from 'pg';
import { RoomNotFoundError } from '../../errors.js';
import { describeIrregularities } from '../describe-irregularities.js';
import { noneInRange, type GroupRange } from '../group-range.js';
import type { GroupTable } from '../group-table.js';
import type { RoomSource } from '../room-source.js';
import { readHeaders } from './headers.js';
import { rowStream } from './row-stream.js';
import { openSnapshot, type SnapshotSettings } from './snapshot.js';
import { ROOM_GROUPS } from './statements.js';
import { storedTables } from './table-input.js';

export interface PostgresSourceSettings extends SnapshotSettings {
  readonly room: string;
  readonly range: GroupRange;
  /** Groups below the range that a planner starts from; read with their ancestors. */
  readonly bases?: readonly number[];
  /** Lets `storedTables()` be asked: the snapshot is held until the source is closed. */
  readonly keepTables?: boolean;
}

/**
 * Opens a room of a Synapse state database. Headers and rows are read over one connection, in one
 * snapshot; the transaction ends as soon as the last row was read, lest it hold up VACUUM.
 *
 * @throws UsageError for connection settings that make no sense, DatabaseError if the database can't be
 *   read, RoomNotFoundError if the room has no state groups in range
 */
export function openPostgresSource(settings: PostgresSourceSettings): Promise<RoomSource> {
  const { room, keepTables } = settings;
  const doing = `while the state groups of room '${room}' were read`;
  return openSnapshot(settings, doing, async ({ client, time, close }) => {
    const source = await readRoom(client, time, settings);
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
  });
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
  settings: PostgresSourceSettings,
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

async function notFound(
  client: pg.Client,
  room: string,
  range: GroupRange,
): Promise<RoomNotFoundError> {
  const { rows } = await client.query<{ count: string; first: string; last: string }>(ROOM_GROUPS, [
    room,
  ]);
  if (rows[0].count !== '0') return noneInRange(room, rows[0], range);
  return new RoomNotFoundError(
    `This database holds no state groups of room '${room}'. Check the spelling of the room's id.`,
  );
}
