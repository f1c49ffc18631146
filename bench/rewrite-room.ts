import { once } from 'node:events';
import { copyFileSync, createWriteStream, mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import type { Planner } from '../src/planner/planner.js';
import { RoomPlan } from '../src/planner/room-plan.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import type { RoomSource } from '../src/sources/room-source.js';
import type { CachedRoom } from './room-cache.js';

const NEWLINE = 0x0a;

/**
 * Writes a generated room to `folder` as it is once a planner's changes are applied. Holds its rows in
 * memory.
 */
export async function rewriteRoom(
  room: CachedRoom,
  planner: Planner,
  folder: string,
): Promise<CachedRoom> {
  mkdirSync(folder, { recursive: true });
  const file = (table: string) => join(folder, `${table}.copy`);
  copyFileSync(join(room.folder, 'state_groups.copy'), file('state_groups'));
  const edges = createWriteStream(file('state_group_edges'));
  const rows = createWriteStream(file('state_groups_state'));
  const stored = new StoredRows(readFileSync(join(room.folder, 'state_groups_state.copy')));
  const counts = { groups: 0, edges: 0, rows: 0 };
  for await (const { stateGroup, newPredecessor, newRows, change } of planned(room, planner)) {
    const kept = stored.take(stateGroup);
    counts.groups++;
    counts.rows += newRows;
    if (newPredecessor !== undefined) {
      counts.edges++;
      edges.write(`${stateGroup}\t${newPredecessor}\n`);
    }
    const text = change ? withRoom(stateGroup, room.room, change.rows) : kept;
    if (!rows.write(text)) await once(rows, 'drain');
  }
  await Promise.all([edges, rows].map((stream) => (stream.end(), once(stream, 'close'))));
  return { room: room.room, folder, counts };
}

async function* planned(room: CachedRoom, planner: Planner): AsyncGenerator<PlannedGroup> {
  const source = await openRoom(room);
  try {
    const plan = new RoomPlan(source, planner);
    for await (const groups of source.rows().pipe(plan)) yield* groups as PlannedGroup[];
  } finally {
    await source.close();
  }
}

/** A generated room as a source. */
export function openRoom({ room, folder }: CachedRoom): Promise<RoomSource> {
  return openFilesSource({
    inputs: [folder],
    stdin: Readable.from([]),
    room,
    range: {},
    memory: 64e6,
    tmpdir: tmpdir(),
  });
}

/** The lines of `state_groups_state`, which are in order of state group. */
class StoredRows {
  #at = 0;

  constructor(readonly text: Buffer) {}

  /** The lines of the next group, if it is this one. */
  take(stateGroup: number): Buffer {
    const start = this.#at;
    const id = Buffer.from(`${stateGroup}\t`);
    while (this.text.subarray(this.#at, this.#at + id.length).equals(id)) {
      this.#at = this.text.indexOf(NEWLINE, this.#at) + 1;
    }
    return this.text.subarray(start, this.#at);
  }
}

/** A change's lines with the two columns that a change has only once. */
function withRoom(stateGroup: number, room: string, rows: Buffer): Buffer {
  const start = Buffer.from(`${stateGroup}\t${room}\t`);
  const parts: Buffer[] = [];
  for (let at = 0; at < rows.length;) {
    const end = rows.indexOf(NEWLINE, at) + 1;
    parts.push(start, rows.subarray(at, end));
    at = end;
  }
  return Buffer.concat(parts);
}
