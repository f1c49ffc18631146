import type { ChangedGroup } from '../planner/planned-group.js';
import { GUARD_DEFINITION, PASSED } from './sql-guard.js';

/**
 * What changes as SQL have around their rows. The sink writes these texts, and the reader of changes asks
 * for them to the letter. Rooms are literals, and each text ends with a line.
 */

/** A table of the session's own, for the rows of a bare change that are too many for one statement. */
const LARGE = 'pg_temp.synapse_compress_state_rows';

const INSERT = 'INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)\n';
const LIST_END = ') AS rows (type, state_key, event_id)';

/** What follows the comment at the top. */
export function setup(transactions: boolean): string {
  // In a transaction, so that it stands also where a client opens one before the first statement.
  return transactions
    ? `\nBEGIN;\nSET client_encoding = 'UTF8';\n${GUARD_DEFINITION}COMMIT;\n`
    : `\nSET client_encoding = 'UTF8';\nCREATE TEMPORARY TABLE IF NOT EXISTS ${LARGE} (type text, state_key text, event_id text);\n`;
}

/**
 * Begins the statement of a bare change; one of the three texts below follows. It does nothing where the group or
 * its new predecessor is gone: what is based on a group that Synapse has deleted meanwhile would lose its state.
 *
 * @param listed how many rows the lists before it have, if there are any; nor does it do anything if one failed
 */
export function swap(
  stateGroup: number,
  newPredecessor: number | undefined,
  listed?: number,
): string {
  const groups = newPredecessor === undefined ? [stateGroup] : [stateGroup, newPredecessor];
  const oldEdges = `old_edges AS (DELETE FROM state_group_edges WHERE state_group = ${stateGroup}`;
  const edges =
    newPredecessor === undefined
      ? `${oldEdges} AND EXISTS (SELECT FROM there)),\n`
      : `${oldEdges} AND prev_state_group <> ${newPredecessor} AND EXISTS (SELECT FROM there)),
new_edge AS (INSERT INTO state_group_edges (state_group, prev_state_group)
SELECT ${stateGroup}, ${newPredecessor} FROM there
WHERE NOT EXISTS (SELECT FROM state_group_edges WHERE state_group = ${stateGroup} AND prev_state_group = ${newPredecessor})),\n`;
  const all = listed === undefined ? '' : ` AND (SELECT count(*) FROM ${LARGE}) = ${listed}`;
  return `WITH there AS (SELECT FROM state_groups WHERE id IN (${groups.join(', ')}) HAVING count(*) = ${groups.length}${all}),
${edges}old_rows AS (DELETE FROM state_groups_state WHERE state_group = ${stateGroup} AND EXISTS (SELECT FROM there) RETURNING *)\n${INSERT}`;
}

/** A bare change to no rows. */
export const NO_ROWS =
  'SELECT state_group, room_id, type, state_key, event_id FROM old_rows WHERE false;\n';

/** A bare change to a list of rows. */
export function bareList(stateGroup: number, room: string): List {
  return { begin: `${selection(stateGroup, room)} FROM there, (VALUES\n`, end: `\n${LIST_END};\n` };
}

/** A bare change to the rows of the lists before it. */
export function largeSelect(stateGroup: number, room: string): string {
  return `${selection(stateGroup, room)} FROM there, ${LARGE};\nTRUNCATE ${LARGE};\n`;
}

/** Stands before the lists for `largeSelect`: those of a script that was cut off may be there yet. */
export const BEGIN_LARGE = `TRUNCATE ${LARGE};\n`;

/** Rows for `largeSelect`. */
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
    begin: `${INSERT}${selection(stateGroup, room)} FROM (VALUES\n`,
    end: `\n${LIST_END}\nWHERE ${PASSED};\n`,
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
