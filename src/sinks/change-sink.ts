import type { Transform } from 'node:stream';
import type { RoomSource } from '../sources/room-source.js';
import { VERSION } from '../version.js';
import type { AmongRooms } from './among-rooms.js';
import { copySink, endOfScript } from './copy.js';
import { jsonlSink } from './jsonl.js';
import { guardSummary } from './sql-guard.js';
import { sqlSink } from './sql.js';
import { tablesSink } from './tables.js';

/** How changes are written; the sink of each says more. */
export type Format = 'sql' | 'copy' | 'tables' | 'jsonl';

export interface ChangeSinkSettings {
  /** Default `sql`. The output for `tables` is one of `openTablesOutput`. */
  readonly format?: Format;
  /** With `copy`: the most groups of one transaction. */
  readonly batch?: number;
  /** With `sql`: wraps each group's statements in a guarded transaction. */
  readonly transactions?: boolean;
  /** If the output takes the changes of several rooms one after the other: then it ends with `endOfRooms`. */
  readonly amongRooms?: AmongRooms;
}

/** The sink for a room's changes in a format. `strategy` is how they are planned, for the comment at the top. */
export function changeSink(
  source: RoomSource,
  strategy: string,
  { format = 'sql', batch, transactions = false, amongRooms }: ChangeSinkSettings,
): Transform {
  const { room } = source;
  const place = amongRooms === undefined ? {} : { amongRooms };
  switch (format) {
    case 'sql': {
      const how = transactions
        ? 'Each state group is changed in a transaction of its own, and left as it is if it is not as it was read.'
        : 'Apply this in one transaction, with Synapse stopped: psql -1 -v ON_ERROR_STOP=1 -f FILE';
      return sqlSink({ room, transactions, header: [...origin(source, strategy), how], ...place });
    }
    case 'copy':
      return copySink({
        room,
        header: origin(source, strategy),
        ...(batch !== undefined && { batch }),
        ...place,
      });
    case 'tables':
      return tablesSink({ room });
    case 'jsonl':
      return jsonlSink({ room });
  }
}

/** What stands after the changes of several rooms, of so many groups with so many new rows together. */
export function endOfRooms(
  { format = 'sql', transactions = false }: ChangeSinkSettings,
  groups: number,
  rows: number,
): string {
  if (format === 'copy') return endOfScript(groups, rows);
  return format === 'sql' && transactions ? guardSummary(groups) : '';
}

/** What made the changes, from what. */
function origin({ room, groups, snapshotTime }: RoomSource, strategy: string): string[] {
  const { ids, length } = groups;
  return [
    `Written by synapse_compress_state ${VERSION}.`,
    `Room ${JSON.stringify(room)}, state groups ${ids[0]} to ${ids[length - 1]}; ${strategy}.`,
    snapshotTime === undefined
      ? 'The tables are as they were when they were exported.'
      : `The tables are as they were at ${snapshotTime.toISOString()}.`,
  ];
}
