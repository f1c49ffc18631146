import { DatabaseError } from '../errors.js';
import type { Rewriter } from './rewriter.js';

/** All that a rewriter writes to, for VACUUM. */
export const TABLES = 'state_groups_state, state_group_edges, state_groups';

/** Bytes that `state_groups_state` takes, about how many its rows need, and about how many rows are dead. */
export interface TableSpace {
  readonly tableBytes: number;
  readonly indexBytes: number;
  readonly neededTableBytes: number;
  readonly neededIndexBytes: number;
  readonly deadRows: number;
}

const SIZES = `
  SELECT pg_table_size(oid)::float8 AS "tableBytes", pg_indexes_size(oid)::float8 AS "indexBytes",
    pg_stat_get_dead_tuples(oid)::float8 AS "deadRows",
    pg_relation_size(oid) / current_setting('block_size')::float8 AS pages
  FROM pg_class WHERE oid = to_regclass('state_groups_state')`;

/** Pages whose rows are measured, as the server's statistics may be older than what was changed. */
const SAMPLE_PAGES = 1000;
/** Bytes that a row and an index entry take in a page, with what points to them and with alignment to eight. */
const ROW = '(pg_column_size(s.*) + 7) / 8 * 8 + 4';
const ENTRY =
  '(8 + pg_column_size(state_group) + pg_column_size(type) + pg_column_size(state_key) + 7) / 8 * 8 + 4';
/** How full a new btree's pages are. */
const FILL = 0.9;

interface Sizes extends Pick<TableSpace, 'tableBytes' | 'indexBytes' | 'deadRows'> {
  readonly pages: number;
  readonly [column: string]: unknown;
}

/** Bytes of rows and of index entries that were met. */
interface Sample {
  readonly rows: number;
  readonly entries: number;
  readonly [column: string]: unknown;
}

/**
 * Looks at a sample of the table. Undefined if that can't be had, for instance because another transaction holds
 * the table: it is no reason for what was done to end with an error.
 *
 * @throws the signal's reason
 */
export async function readSpace(rewriter: Rewriter): Promise<TableSpace | undefined> {
  try {
    const [{ tableBytes, indexBytes, deadRows, pages }] = await rewriter.query<Sizes>(SIZES);
    const part = Math.min(1, SAMPLE_PAGES / Math.max(1, pages));
    const [{ rows, entries }] = await rewriter.query<Sample>(`
      SELECT coalesce(sum(${ROW}), 0)::float8 AS rows, coalesce(sum(${ENTRY}), 0)::float8 AS entries
      FROM state_groups_state AS s TABLESAMPLE SYSTEM (${100 * part})`);
    return {
      tableBytes,
      indexBytes,
      neededTableBytes: Math.min(tableBytes, Math.round(rows / part)),
      neededIndexBytes: Math.min(indexBytes, Math.round(entries / part / FILL)),
      deadRows,
    };
  } catch (error) {
    if (error instanceof DatabaseError) return undefined;
    throw error;
  }
}

const IS_OWNER = `
  SELECT pg_has_role(relowner, 'USAGE') AS "isOwner" FROM pg_class WHERE oid = to_regclass('state_groups_state')`;

/**
 * Runs a plain VACUUM of all that was changed, until the signal ends it. Returns why it was not done, as a
 * sentence; undefined if it was.
 *
 * @throws the signal's reason
 */
export async function vacuum(rewriter: Rewriter): Promise<string | undefined> {
  try {
    const [{ isOwner }] = await rewriter.query<{ isOwner: boolean }>(IS_OWNER);
    if (!isOwner) return "VACUUM was not run, as it takes the tables' owner or a superuser.";
    await rewriter.runLong(`VACUUM (ANALYZE) ${TABLES}`);
    return undefined;
  } catch (error) {
    // All is applied, and somebody else's VACUUM, or the next one, will do.
    if (error instanceof DatabaseError) return `VACUUM was not run to its end. ${error.message}`;
    throw error;
  }
}
