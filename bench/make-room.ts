import { parseArgs } from 'node:util';
import { writeRoomFiles } from './room-files.js';
import { roomName } from './room-tables.js';
import { CREATION_KEYS, ROOM_KINDS } from './rooms.js';
import type { RoomSettings } from './rooms.js';

const USAGE = `Usage: node --import tsx bench/make-room.ts KIND [options] FOLDER

Writes state_groups.copy, state_group_edges.copy and state_groups_state.copy to FOLDER.

KIND is one of ${ROOM_KINDS.join(', ')}.
  --groups N   state groups of a room (default 10000)
  --members M  members that join it in the end (default 4100; 18 for small)
  --rooms R    rooms of this kind that grow side by side (default 1)
  --seed S     the same seed makes the same rooms (default 1)
`;

try {
  process.stdout.write(makeRooms(process.argv.slice(2)));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}

/** @returns What was made, in words. */
function makeRooms(args: string[]): string {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      groups: { type: 'string', default: '10000' },
      members: { type: 'string' },
      rooms: { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
    },
  });
  const [kindName, folder] = positionals;
  const kind = ROOM_KINDS.find((known) => known === kindName);
  if (kind === undefined || folder === undefined || positionals.length > 2) throw new Error(USAGE);
  const groups = positiveInteger('groups', values.groups);
  const members = positiveInteger('members', values.members ?? (kind === 'small' ? '18' : '4100'));
  const seed = positiveInteger('seed', values.seed);
  const rooms: RoomSettings[] = [];
  for (let i = 0; i < positiveInteger('rooms', values.rooms); i++) {
    rooms.push({ kind, groups, keys: CREATION_KEYS + members, seed: seed + i });
  }
  const counts = writeRoomFiles(rooms, folder);
  return `${roomName(seed, 0)}\n${counts.groups} groups, ${counts.edges} edges, ${counts.rows} rows\n`;
}

function positiveInteger(option: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new Error(`--${option} must be a whole number of at least 1, but is '${text}'.`);
  }
  return value;
}
