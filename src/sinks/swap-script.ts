import { shellQuoted } from './shell-quoted.js';
import { comment } from './sql-literal.js';
import type { TableDigest } from './table-digest.js';

/** A table that is written anew: what it held, and what it holds then. */
export interface TableSwap {
  readonly table: 'state_group_edges' | 'state_groups_state';
  readonly before: TableDigest;
  readonly after: TableDigest;
}

const COLUMNS = {
  state_group_edges: 'state_group, prev_state_group',
  state_groups_state: 'state_group, room_id, type, state_key, event_id',
} as const;

/** A row's hash, as `TableDigest` has it. */
const HASHES = {
  state_group_edges: 'hashtextextended(prev_state_group::text, state_group)',
  state_groups_state:
    'hashtextextended(event_id, hashtextextended(state_key, hashtextextended(type, hashtextextended(room_id, state_group))))',
} as const;

/**
 * The psql script that puts the files of `folder`, which it lies in, in the place of what the tables
 * hold: in one transaction, which ends without effect unless the tables hold, row for row, what was
 * exported, and afterwards what was planned.
 *
 * The tables stay the ones they were, with their indexes, owners, privileges and statistics targets.
 */
export function swapScript(
  folder: string,
  header: readonly string[],
  swaps: readonly TableSwap[],
): string {
  const tables = swaps.map(({ table }) => table).join(', ');
  return `${comment(header)}--
-- Puts new tables in the place of ${tables}. With Synapse stopped:
--   cd ${shellQuoted(folder).replaceAll(/[\r\n]/g, ' ')} && psql -X -f swap.sql DATABASE

\\set ON_ERROR_STOP on
BEGIN;
SET LOCAL lock_timeout = '10s';
SET LOCAL statement_timeout = 0;
SET LOCAL client_min_messages = warning;
LOCK TABLE ${tables} IN ACCESS EXCLUSIVE MODE;

CREATE PROCEDURE pg_temp.expect_rows(held regclass, row_hash text, want_count bigint, want_hash numeric, otherwise text)
LANGUAGE plpgsql AS $function$
DECLARE
    found_count bigint;
    found_hash numeric;
BEGIN
    EXECUTE format('SELECT count(*), coalesce(sum(%s), 0) FROM %s', row_hash, held)
    INTO found_count, found_hash;
    IF found_count <> want_count OR found_hash <> want_hash THEN
        RAISE EXCEPTION '% Nothing was changed.', format(otherwise, held, found_count, want_count);
    END IF;
END
$function$;

\\echo Comparing the tables with what was exported
${swaps.map(({ table, before }) => expectation(table, before, '%s is not what it was when it was exported (%s rows, then %s): export it again.')).join('')}
TRUNCATE ${tables};
${swaps.map(({ table }) => `\\copy ${table} (${COLUMNS[table]}) FROM '${table}.copy' WITH (ENCODING 'UTF8')\n`).join('')}
\\echo Comparing the tables with what was planned
${swaps.map(({ table, after }) => expectation(table, after, 'The file of %s is not whole (%s rows of %s): copy it again.')).join('')}DROP PROCEDURE pg_temp.expect_rows;
COMMIT;
ANALYZE ${tables};
`;
}

function expectation(
  table: TableSwap['table'],
  { count, hash }: TableDigest,
  otherwise: string,
): string {
  return `CALL pg_temp.expect_rows('${table}', '${HASHES[table]}', ${count}, ${hash}, '${otherwise}');\n`;
}
