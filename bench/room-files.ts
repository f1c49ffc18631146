import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { writeTables } from './room-tables.js';
import type { Sink, TableCounts } from './room-tables.js';
import type { RoomSettings } from './rooms.js';

/**
 * Writes `state_groups.copy`, `state_group_edges.copy` and `state_groups_state.copy` to `folder`,
 * which is made if need be.
 */
export function writeRoomFiles(rooms: readonly RoomSettings[], folder: string): TableCounts {
  mkdirSync(folder, { recursive: true });
  const open = (table: string) => openSync(join(folder, `${table}.copy`), 'w');
  const files = [open('state_groups'), open('state_group_edges'), open('state_groups_state')];
  const [stateGroups, stateGroupEdges, stateGroupsState] = files.map((file) => writerTo(file));
  const counts = writeTables(rooms, { stateGroups, stateGroupEdges, stateGroupsState });
  for (const file of files) closeSync(file);
  return counts;
}

function writerTo(file: number): Sink {
  return (bytes) => {
    for (let written = 0; written < bytes.length;) {
      written += writeSync(file, bytes, written);
    }
  };
}
