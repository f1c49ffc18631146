import { finished } from 'node:stream/promises';
import type { Readable } from 'node:stream';
import type pg from 'pg';
import { InputError, RoomNotFoundError } from '../../errors.js';
import type { AllRooms, RoomToOpen } from '../all-rooms.js';
import { chunkStream } from '../chunk-stream.js';
import type { RoomSource } from '../room-source.js';
import { statementError } from './database-errors.js';
import { readHeaders, readSmallRooms } from './headers.js';
import { roomSource, type PostgresSourceSettings } from './postgres-source.js';
import { openSnapshot } from './snapshot.js';
import { storedTables } from './table-input.js';

/** Small rooms whose headers are read at once. */
const ROOMS_AT_ONCE = 100;

/** The ids of all rooms, one look into the index each, instead of one at each group. */
const ROOMS = `
  WITH RECURSIVE room (id) AS (
    SELECT min(room_id) FROM state_groups
    UNION ALL
    SELECT (SELECT min(room_id) FROM state_groups WHERE room_id > room.id)
    FROM room WHERE room.id IS NOT NULL
  )
  SELECT id FROM room WHERE id IS NOT NULL`;

export interface PostgresRoomsSettings extends Omit<PostgresSourceSettings, 'room' | 'range'> {
  /** Only these rooms; all if it is not given. */
  readonly rooms?: readonly string[];
}

/**
 * Opens rooms of a Synapse state database, in one snapshot, which lasts until all is closed. Holds the ids of the
 * rooms, and what one room takes. To open a room that is not there fails with a RoomNotFoundError.
 *
 * @throws UsageError for connection settings that make no sense, DatabaseError if the database can't be read
 */
export function openPostgresRooms(settings: PostgresRoomsSettings): Promise<AllRooms> {
  const { keepTables, signal } = settings;
  return openSnapshot(settings, 'while the rooms were looked for', async (snapshot) => {
    const { client, time, close } = snapshot;
    const ids =
      settings.rooms ?? (await client.query<{ id: string }>(ROOMS)).rows.map(({ id }) => id);
    const names = ids.map((id) => Buffer.from(id)).sort((a, b) => a.compare(b));
    return {
      count: names.length,
      rooms: () => roomsOf(client, time, names, signal),
      ...(keepTables && { storedTables: () => storedTables(client) }),
      warnings: [],
      close,
    };
  });
}

async function* roomsOf(
  client: pg.Client,
  snapshotTime: Date,
  names: readonly Buffer[],
  signal: AbortSignal | undefined,
): AsyncGenerator<RoomToOpen, void, undefined> {
  for (let start = 0; start < names.length; start += ROOMS_AT_ONCE) {
    const rooms = names.slice(start, start + ROOMS_AT_ONCE).map((bytes) => bytes.toString());
    const tables = await reading(`rooms '${rooms[0]}' to '${rooms.at(-1)}'`, signal, () =>
      readSmallRooms(client, rooms).catch((error: unknown) => {
        // Each by itself, the room that it is of is told.
        if (error instanceof InputError) return [];
        throw error;
      }),
    );
    for (const [i, name] of rooms.entries()) {
      const open = async (): Promise<RoomSource> => {
        const groups =
          tables[i] ??
          (await reading(`room '${name}'`, signal, () => readHeaders(client, name, {})));
        if (groups === undefined || groups.length === 0) {
          throw new RoomNotFoundError(`This database holds no state groups of room '${name}'.`);
        }
        return oneOfMany(roomSource(client, snapshotTime, name, groups, signal));
      };
      yield { name, open };
      signal?.throwIfAborted();
    }
  }
}

async function reading<T>(
  what: string,
  signal: AbortSignal | undefined,
  read: () => Promise<T>,
): Promise<T> {
  try {
    return await read();
  } catch (error) {
    signal?.throwIfAborted();
    throw statementError(error, `while the state groups of ${what} were read`);
  }
}

/** Leaves the connection to the rooms that follow. */
function oneOfMany(source: RoomSource): RoomSource {
  let rows: Readable | undefined;
  return {
    ...source,
    rows() {
      rows = source.rows();
      // A COPY that is broken off takes the connection with it, and the snapshot.
      const chunks: AsyncIterator<Buffer> = rows.iterator({ destroyOnReturn: false });
      return chunkStream(chunks as AsyncGenerator<Buffer, void, undefined>);
    },
    async close() {
      if (rows === undefined || rows.closed) return;
      rows.resume();
      await finished(rows);
    },
  };
}
