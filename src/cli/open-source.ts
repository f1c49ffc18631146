import { RoomNotFoundError } from '../errors.js';
import type { AllRooms } from '../sources/all-rooms.js';
import type { RoomSource } from '../sources/room-source.js';
import type { CompressCommand } from './compress-arguments.js';

/** Loads the one source that is needed: the other's packages cost a tenth of a second. */
export async function openSource(
  settings: Pick<CompressCommand, 'source' | 'range' | 'memory'> & {
    readonly room: string;
    readonly keepTables?: boolean;
    readonly onTrust?: boolean;
  },
  tmpdir: string,
  signal: AbortSignal,
): Promise<RoomSource> {
  const { source, room, range, memory, keepTables = false, onTrust = false } = settings;
  try {
    if (source.kind === 'postgres') {
      const { openPostgresSource } = await import('../sources/postgres/postgres-source.js');
      const { dsn } = source;
      return await openPostgresSource({ dsn, env: process.env, room, range, keepTables, signal });
    }
    const { openFilesSource } = await import('../sources/files/files-source.js');
    const { inputs, tables = {} } = source;
    const { stdin } = process;
    const from = { inputs, tables, stdin, room, range, keepTables, onTrust };
    return await openFilesSource({ ...from, memory, tmpdir, signal });
  } catch (error) {
    if (error instanceof RoomNotFoundError && !room.startsWith('!')) {
      throw new RoomNotFoundError(`${error.message} ${roomHint(room)}`, { cause: error });
    }
    throw error;
  }
}

/** As `openSource`, for all rooms. */
export async function openRooms(
  settings: Pick<CompressCommand, 'source' | 'memory'> & { readonly keepTables: boolean },
  tmpdir: string,
  signal: AbortSignal,
): Promise<AllRooms> {
  const { source, memory, keepTables } = settings;
  if (source.kind === 'postgres') {
    const { openPostgresRooms } = await import('../sources/postgres/postgres-rooms.js');
    return openPostgresRooms({ dsn: source.dsn, env: process.env, keepTables, signal });
  }
  const { openFilesRooms } = await import('../sources/files/files-rooms.js');
  const { inputs, tables = {} } = source;
  const { stdin } = process;
  return openFilesRooms({ inputs, tables, stdin, keepTables, memory, tmpdir, signal });
}

function roomHint(room: string): string {
  if (room.startsWith('#')) {
    return 'An address such as #room:example.com is not the id: the id starts with ! and stands in the room settings.';
  }
  return "A room id starts with !, which shells may change: put it in single quotes, as in -r '!abc:example.com'.";
}
