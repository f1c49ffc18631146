import { readableSize } from '../report/size.js';
import type { Applied } from './apply-changes.js';
import type { Rewriter } from './rewriter.js';

/** What Postgres knows of `state_groups_state`: sizes in bytes, rows as its statistics have them. */
export interface TableSpace {
  readonly tableBytes: number;
  readonly indexBytes: number;
  readonly liveRows: number;
  readonly deadRows: number;
  /** Whether this user may VACUUM it. */
  readonly isOwner: boolean;
}

const SPACE = `
  SELECT pg_table_size(oid)::float8 AS "tableBytes", pg_indexes_size(oid)::float8 AS "indexBytes",
    greatest(coalesce(nullif(pg_stat_get_live_tuples(oid), 0), reltuples), 0)::float8 AS "liveRows",
    pg_stat_get_dead_tuples(oid)::float8 AS "deadRows", pg_has_role(relowner, 'USAGE') AS "isOwner"
  FROM pg_class WHERE oid = to_regclass('state_groups_state')`;

const TABLES = 'state_groups_state, state_group_edges, state_groups';

export async function readSpace(rewriter: Rewriter): Promise<TableSpace> {
  const [space] = await rewriter.query<TableSpace & Record<string, unknown>>(SPACE);
  return space;
}

/** Runs a plain VACUUM of all that was changed. False if the user may not. */
export async function vacuum(rewriter: Rewriter): Promise<boolean> {
  const { isOwner } = await readSpace(rewriter);
  if (!isOwner) return false;
  await rewriter.query('SET statement_timeout = 0');
  await rewriter.query(`VACUUM (ANALYZE) ${TABLES}`);
  return true;
}

/** Bytes of the table and of its indexes that no row needs any more. */
export interface UnusedSpace {
  readonly tableBytes: number;
  readonly indexBytes: number;
  readonly unusedShare: number;
}

/**
 * An estimate, from what the statistics said before and what was deleted and inserted since: Postgres's
 * own counts of now may not be of now. Undefined where nothing is known of the table.
 */
export function unusedSpace(
  before: TableSpace,
  { tableBytes, indexBytes }: TableSpace,
  { rowsDeleted, rowsInserted }: Pick<Applied, 'rowsDeleted' | 'rowsInserted'>,
): UnusedSpace | undefined {
  const live = before.liveRows - rowsDeleted + rowsInserted;
  const all = before.liveRows + before.deadRows + rowsInserted;
  if (live < 0 || all <= 0) return undefined;
  return { tableBytes, indexBytes, unusedShare: 1 - live / all };
}

/** What can be done about the space that deleted rows take. */
export function spaceLines(space: UnusedSpace | undefined, isVacuumed: boolean): string[] {
  if (space === undefined) {
    return isVacuumed ? [] : [`VACUUM ${TABLES}; lets new rows use the space of the deleted ones.`];
  }
  const { tableBytes, indexBytes, unusedShare } = space;
  const size = (bytes: number): string => readableSize(Math.round(bytes));
  const whole = tableBytes + indexBytes;
  const unused = (bytes: number): string => size(bytes * unusedShare);
  const needed = (bytes: number): string => size(bytes * (1 - unusedShare));
  return [
    `Of the ${size(whole)} of state_groups_state and its indexes, rows need about ${needed(whole)} now.`,
    ...(isVacuumed
      ? []
      : [
          `  VACUUM ${TABLES}; lets new rows use the other ${unused(whole)}, also while Synapse runs. The files stay as large as they are.`,
        ]),
    `  VACUUM FULL state_groups_state; gives it back to the system. It needs about ${needed(whole)} of free disk, and Synapse has to wait for it; pg_repack needs the same and lets Synapse go on.`,
    `  REINDEX TABLE CONCURRENTLY state_groups_state; gives back the indexes' part alone, about ${unused(indexBytes)}. It needs about ${needed(indexBytes)} of free disk, and lets Synapse go on.`,
  ];
}
