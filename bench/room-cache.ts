import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeRoomFiles } from './room-files.js';
import { roomName } from './room-tables.js';
import type { TableCounts } from './room-tables.js';
import type { RoomSettings } from './rooms.js';

/** A generated room in files that stay for the next run. */
export interface CachedRoom {
  /** Its room id. */
  readonly room: string;
  /** Holds `state_groups.copy`, `state_group_edges.copy` and `state_groups_state.copy`. */
  readonly folder: string;
  readonly counts: TableCounts;
}

/** The branching room at three sizes, as most benchmarks take it. */
export const SIZES = {
  small: { kind: 'branching', groups: 10_000, keys: 4112, seed: 1 },
  seed: { kind: 'branching', groups: 74_000, keys: 4112, seed: 1 },
  large: { kind: 'branching', groups: 200_000, keys: 14_112, seed: 1 },
} as const satisfies Record<string, RoomSettings>;

/** The folder, out of version control, for what a benchmark writes. */
export const DATA = fileURLToPath(new URL('data', import.meta.url));
const GENERATOR = ['random.ts', 'rooms.ts', 'room-tables.ts', 'room-files.ts'];

/** The room in `bench/data`, made first if it is not there as today's generator makes it. */
export function cachedRoom(name: string, settings: RoomSettings): CachedRoom {
  const { kind, groups, keys, seed } = settings;
  const version = `${kind}-${groups}-${keys}-${seed}-${generatorVersion()}`;
  const folder = join(DATA, `${name}-${version}`);
  const countsFile = join(folder, 'counts.json');
  if (!existsSync(countsFile)) {
    mkdirSync(DATA, { recursive: true });
    for (const older of readdirSync(DATA)) {
      if (older.startsWith(`${name}-`)) rmSync(join(DATA, older), { recursive: true });
    }
    const unfinished = `${folder}.unfinished`;
    const counts = writeRoomFiles([settings], unfinished);
    writeFileSync(join(unfinished, 'counts.json'), JSON.stringify(counts));
    renameSync(unfinished, folder);
  }
  const counts = JSON.parse(readFileSync(countsFile, 'utf8')) as TableCounts;
  return { room: roomName(seed, 0), folder, counts };
}

function generatorVersion(): string {
  const hash = createHash('sha256');
  for (const file of GENERATOR) hash.update(readFileSync(new URL(file, import.meta.url)));
  return hash.digest('hex').slice(0, 12);
}
