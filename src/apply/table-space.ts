import { DatabaseError } from '../errors.js';
import type { Applied } from './apply-changes.js';
import type { Rewriter } from './rewriter.js';

/** What Postgres knows of `state_groups_state`: bytes, and what its statistics say of rows. */
export interface TableSpace {
  readonly tableBytes: number;
  readonly indexBytes: number;
  readonly liveRows: number;
  /** Mean bytes of a row's columns, and of those in the index; null before the first ANALYZE. */
  readonly rowWidth: number | null;
  readonly keyWidth: number | null;
  /** Whether this user may VACUUM it. */
  readonly isOwner: boolean;
}

const SPACE = `
  SELECT pg_table_size(pg_class.oid)::float8 AS "tableBytes",
    pg_indexes_size(pg_class.oid)::float8 AS "indexBytes",
    coalesce(nullif(pg_stat_get_live_tuples(pg_class.oid), 0), reltuples)::float8 AS "liveRows",
    sum(avg_width)::float8 AS "rowWidth",
    (sum(avg_width) FILTER (WHERE attname IN ('state_group', 'type', 'state_key')))::float8 AS "keyWidth",
    pg_has_role(relowner, 'USAGE') AS "isOwner"
  FROM pg_class LEFT JOIN pg_stats ON tablename = relname AND schemaname = relnamespace::regnamespace::text
  WHERE pg_class.oid = to_regclass('state_groups_state')
  GROUP BY pg_class.oid, reltuples, relowner`;

/** Bytes beside its columns that a row takes in a table and in a btree, with what alignment costs on average. */
const ROW_OVERHEAD = 32;
const ENTRY_OVERHEAD = 16;
/** How full a new btree's pages are. */
const FILL = 0.9;

/** All that a rewriter writes to, for VACUUM. */
export const TABLES = 'state_groups_state, state_group_edges, state_groups';

export async function readSpace(rewriter: Rewriter): Promise<TableSpace> {
  const [space] = await rewriter.query<TableSpace & Record<string, unknown>>(SPACE);
  return space;
}

/**
 * Runs a plain VACUUM of all that was changed, until the signal ends it. Returns why it was not done, as a
 * sentence; undefined if it was.
 *
 * @throws the signal's reason
 */
export async function vacuum(rewriter: Rewriter): Promise<string | undefined> {
  const { isOwner } = await readSpace(rewriter);
  if (!isOwner) return "VACUUM was not run, as it takes the tables' owner or a superuser.";
  try {
    await rewriter.runLong(`VACUUM (ANALYZE) ${TABLES}`);
    return undefined;
  } catch (error) {
    // All is applied, and somebody else's VACUUM, or the next one, will do.
    if (error instanceof DatabaseError) return `VACUUM was not run to its end. ${error.message}`;
    throw error;
  }
}

/** Bytes that `state_groups_state` takes, and about how many its rows need. */
export interface NeededSpace {
  readonly tableBytes: number;
  readonly indexBytes: number;
  readonly neededTableBytes: number;
  readonly neededIndexBytes: number;
}

/**
 * An estimate. Rows are counted from those before, as Postgres's counts of now may not be of now.
 * Undefined where nothing is known of the table.
 */
export function neededSpace(
  { liveRows: rowsBefore }: TableSpace,
  { tableBytes, indexBytes, rowWidth, keyWidth }: TableSpace,
  { rowsDeleted, rowsInserted }: Pick<Applied, 'rowsDeleted' | 'rowsInserted'>,
): NeededSpace | undefined {
  const rows = rowsBefore - rowsDeleted + rowsInserted;
  if (rows < 0 || rowWidth === null || keyWidth === null) return undefined;
  const neededTableBytes = Math.min(tableBytes, rows * (rowWidth + ROW_OVERHEAD));
  const neededIndexBytes = Math.min(indexBytes, (rows * (keyWidth + ENTRY_OVERHEAD)) / FILL);
  return { tableBytes, indexBytes, neededTableBytes, neededIndexBytes };
}
