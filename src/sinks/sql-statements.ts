import type { ChangedGroup } from '../planner/planned-group.js';
import { GUARD_DEFINITION, PASSED } from './sql-guard.js';

/**
 * What changes as SQL have around their rows. The sink writes these texts, and the reader of changes asks
 * for them to the letter. Rooms are literals, and each text ends with a line.
 */

/** A table of the session's own, for the rows of a bare change that are too many for one statement. */
export const LARGE = 'pg_temp.synapse_compress_state_rows';
const TRUNCATE = `TRUNCATE ${LARGE};\n`;

const INSERT = 'INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)';
const COLUMNS = '(type, state_key, event_id)';

/** What follows the comment at the top. */
export function setup(transactions: boolean): string {
  // In a transaction, so that it stands also where a client opens one before the first statement.
  return transactions
    ? `\nBEGIN;\nSET client_encoding = 'UTF8';\n${GUARD_DEFINITION}COMMIT;\n`
    : `\nSET client_encoding = 'UTF8';\nCREATE TEMPORARY TABLE IF NOT EXISTS ${LARGE} (type text, state_key text, event_id text);\n`;
}

/** What a bare change takes its rows from: a list in the same statement, or the table that lists before it fill. */
export type RowsFrom = typeof LISTED | typeof LARGE;
export const LISTED = 'rows';

/**
 * Swaps a group's edges and rows for new ones. It does nothing where the group or its new predecessor is gone:
 * what is based on a group that Synapse has deleted meanwhile would lose its state. Nor does it where there are
 * other than so many new rows, as where a list failed, or a line of the file was lost. Without any one of its lines
 * it is no statement.
 */
export function swap(
  {
    stateGroup,
    newPredecessor,
    newRows,
  }: Pick<ChangedGroup, 'stateGroup' | 'newPredecessor' | 'newRows'>,
  room: string,
  from: RowsFrom,
): string {
  const groups = newPredecessor === undefined ? [stateGroup] : [stateGroup, newPredecessor];
  const all = newRows === 0 ? '' : ` AND (SELECT count(*) FROM ${from}) = ${newRows}`;
  const oldEdges = `old_edges AS (DELETE FROM state_group_edges WHERE state_group = ${stateGroup}`;
  const edges =
    newPredecessor === undefined
      ? `${oldEdges} AND EXISTS (SELECT FROM there)),\n`
      : `${oldEdges} AND prev_state_group <> ${newPredecessor} AND EXISTS (SELECT FROM there)),
new_edge AS (INSERT INTO state_group_edges (state_group, prev_state_group)
SELECT ${stateGroup}, ${newPredecessor} FROM there
WHERE NOT EXISTS (SELECT FROM state_group_edges WHERE state_group = ${stateGroup} AND prev_state_group = ${newPredecessor})),\n`;
  const rows =
    newRows === 0
      ? 'SELECT state_group, room_id, type, state_key, event_id FROM old_rows WHERE false;\n'
      : `${selection(stateGroup, room)} FROM there, ${from};\n`;
  const isFirst = newRows === 0 || from === LARGE;
  return `${isFirst ? 'WITH ' : ''}there AS (SELECT FROM state_groups WHERE id IN (${groups.join(', ')}) HAVING count(*) = ${groups.length}${all}), ${edges}old_rows AS (DELETE FROM state_groups_state WHERE state_group = ${stateGroup} AND EXISTS (SELECT FROM there) RETURNING *)
${INSERT} ${rows}${from === LARGE ? TRUNCATE : ''}`;
}

/** Begins a swap that has its rows in the same statement. */
export const LIST: List = { begin: `WITH ${LISTED} ${COLUMNS} AS (VALUES\n`, end: '\n),\n' };

/** Stands before the lists of a swap from the table: those of a script that was cut off may be there yet. */
export const BEGIN_LARGE = TRUNCATE;

/** Rows for the table. */
export const LARGE_LIST: List = { begin: `INSERT INTO ${LARGE} VALUES\n`, end: ';\n' };

export const BEGIN = 'BEGIN ISOLATION LEVEL REPEATABLE READ;\n';
const COMMIT = 'COMMIT;\n';

/** Begins a group's transaction. */
export function takeGroup(
  group: Omit<ChangedGroup, 'newRows' | 'change'>,
  oldHash: bigint,
  room: string,
): string {
  const { stateGroup, oldPredecessor, newPredecessor, oldRows } = group;
  return `${BEGIN}CALL pg_temp.take_state_group(${stateGroup}, ${room}, ${oldPredecessor ?? 'NULL'}, ${newPredecessor ?? 'NULL'}, ${oldRows}, ${oldHash});\n`;
}

/** Ends it, once its rows are there. */
export function endGroup(stateGroup: number, newRows: number, newRowsHash: bigint): string {
  return `CALL pg_temp.check_state_group(${stateGroup}, ${newRows}, ${newRowsHash});\n${COMMIT}`;
}

/** New rows of a group that was taken. */
export function guardedList(stateGroup: number, room: string): List {
  return {
    begin: `${INSERT}\n${selection(stateGroup, room)} FROM (VALUES\n`,
    end: `\n) AS rows ${COLUMNS}\nWHERE ${PASSED};\n`,
  };
}

/** What stands around rows, each in brackets, with a comma and a line feed between two of them. */
export interface List {
  readonly begin: string;
  readonly end: string;
}

function selection(stateGroup: number, room: string): string {
  return `SELECT ${stateGroup}, ${room}, type, state_key, event_id`;
}
