import { parseArgs } from 'node:util';
import { writeRoomFiles } from './room-files.js';
import { roomName } from './room-tables.js';
import { CREATION_KEYS, ROOM_KINDS, type RoomSettings } from './rooms.js';

const USAGE = `Usage: node --import tsx bench/make-room.ts KIND [options] FOLDER

Writes state_groups.copy, state_group_edges.copy and state_groups_state.copy to FOLDER.

KIND is one of ${ROOM_KINDS.join(', ')}.
  --groups N   state groups of a room (default 10000)
  --members M  members that join it in the end (default 4100; 18 for small)
  --rooms R    rooms of this kind that grow side by side (default 1)
  --seed S     the same seed makes the same rooms (default 1)
`;

const { values, positionals } = parseArgs({
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
if (kind === undefined || folder === undefined || positionals.length > 2) {
  process.stderr.write(USAGE);
  process.exit(2);
}
const groups = positiveInteger('groups', values.groups);
const members = positiveInteger('members', values.members ?? (kind === 'small' ? '18' : '4100'));
const seed = positiveInteger('seed', values.seed);
const rooms = Array.from({ length: positiveInteger('rooms', values.rooms) }, (_, index) => ({
  kind,
  groups,
  keys: CREATION_KEYS + members,
  seed: seed + index,
})) satisfies RoomSettings[];
const counts = writeRoomFiles(rooms, folder);
process.stdout.write(
  `${roomName(seed, 0)}\n${counts.groups} groups, ${counts.edges} edges, ${counts.rows} rows\n`,
);

function positiveInteger(option: string, text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) {
    process.stderr.write(`--${option} must be a whole number of at least 1, but is '${text}'.\n`);
    process.exit(2);
  }
  return value;
}
