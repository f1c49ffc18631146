import { TABLES, type TableSpace } from '../apply/table-space.js';
import { counted } from './counted.js';
import { readableSize } from './size.js';

/** What can be done about the space that deleted rows take. */
export function spaceLines(space: TableSpace | undefined, isVacuumed: boolean): string[] {
  if (space === undefined) {
    return isVacuumed ? [] : [`VACUUM ${TABLES}; lets new rows use the space of the deleted ones.`];
  }
  const size = (bytes: number): string => readableSize(Math.round(bytes));
  const whole = space.tableBytes + space.indexBytes;
  const needed = space.neededTableBytes + space.neededIndexBytes;
  return [
    `state_groups_state and its indexes take ${size(whole)}, of which the rows need about ${size(needed)}; about ${counted(space.deadRows, 'row is', 'rows are')} dead.`,
    ...(isVacuumed
      ? []
      : [
          `  VACUUM ${TABLES}; lets new rows use the other ${size(whole - needed)}, also while Synapse runs. The files stay as large as they are.`,
        ]),
    `  CLUSTER state_groups_state USING state_groups_state_type_idx; ANALYZE state_groups_state; gives it back to the system, and puts the rows of each group side by side, which VACUUM FULL does not. Either needs about ${size(needed)} of free disk, and as much again for WAL and sorting, and Synapse has to wait for it. pg_repack can't do it, as the table has no unique index.`,
    `  REINDEX TABLE CONCURRENTLY state_groups_state; gives back the indexes' part alone, about ${size(space.indexBytes - space.neededIndexBytes)}. It needs about ${size(space.neededIndexBytes)} of free disk, and lets Synapse go on.`,
  ];
}
