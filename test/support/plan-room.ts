import { Readable } from 'node:stream';
import type { PlannedGroup } from '../../src/planner/planned-group.js';
import type { Planner } from '../../src/planner/planner.js';
import { RoomPlan } from '../../src/planner/room-plan.js';
import type { GroupTable } from '../../src/sources/group-table.js';
import type { RoomSource } from '../../src/sources/room-source.js';
import { cut } from './naive-copy-text.js';
import type { Room } from './naive-room.js';

interface Options {
  readonly columns?: RoomSource['rowColumns'];
  /** Of the chunks that the rows come in. */
  readonly lengths?: readonly number[];
  readonly verify?: boolean;
}

/** Streams the rows of a table's groups through `RoomPlan`, and collects what comes out. */
export async function planRoom(
  room: Room,
  groups: GroupTable,
  planner: Planner,
  { columns = 'without-room', lengths = [65_536], verify = true }: Options = {},
): Promise<{ planned: PlannedGroup[]; plan: RoomPlan }> {
  const name = '!room:example.org';
  const column = columns === 'with-room' ? `${name}\t` : '';
  const lines = room
    .filter(({ id }) => groups.ids.includes(id))
    .flatMap(({ id, rows }) => rows.map(([key, event]) => `${id}\t${column}${key}\t${event}\n`));
  const chunks = cut(Buffer.from(lines.join(''), 'latin1'), lengths);
  const plan = new RoomPlan({ groups, room: name, rowColumns: columns }, planner, verify);
  const planned: PlannedGroup[] = [];
  for await (const batch of Readable.from(chunks).pipe(plan))
    planned.push(...(batch as PlannedGroup[]));
  return { planned, plan };
}
