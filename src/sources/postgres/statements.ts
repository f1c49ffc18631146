import { escapeLiteral } from 'pg';

/** Groups whose edges or rows one statement reads; a statement of 8 to 19 bytes for each. */
export const GROUPS_PER_STATEMENT = 10_000;

/** The groups in parts, each for one statement. */
export function* statementParts(ids: Float64Array): Generator<Float64Array, void, undefined> {
  for (let start = 0; start < ids.length; start += GROUPS_PER_STATEMENT) {
    yield ids.subarray(start, start + GROUPS_PER_STATEMENT);
  }
}

/** The tables that are read, each with the columns of the index that Synapse makes for it. */
export const INDEXED_COLUMNS = {
  state_groups: ['id'],
  state_group_edges: ['state_group', 'prev_state_group'],
  state_groups_state: ['state_group', 'type', 'state_key'],
} as const;

/**
 * Settings that hold until the transaction ends.
 *
 * Without them a planner may well sort or hash a whole room's rows, into temporary files, where its
 * statistics are off. With them each statement walks the index it was written for.
 */
const SETTINGS = {
  ...Object.fromEntries(
    [
      'enable_bitmapscan',
      'enable_hashjoin',
      'enable_material',
      'enable_memoize',
      'enable_mergejoin',
      'enable_seqscan',
      'enable_sort',
      'jit',
    ].map((name) => [name, 'off']),
  ),
  ...Object.fromEntries(
    ['enable_indexonlyscan', 'enable_indexscan', 'enable_nestloop'].map((name) => [name, 'on']),
  ),
  max_parallel_workers_per_gather: '0',
  client_encoding: 'UTF8',
  standard_conforming_strings: 'on',
  // Rows that a policy hides would be missed without a word; so they are an error.
  row_security: 'off',
  // The reader may be slowed down by what it writes to.
  statement_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  transaction_timeout: '0',
  // Else the server would not notice that we are gone while it has nothing to send.
  client_connection_check_interval: '5s',
};

/**
 * Begins the one snapshot that all is read in, which is taken only when the tables are locked: whoever waits for a
 * table that another writes anew, by TRUNCATE or ALTER TABLE, finds it empty in a snapshot of before.
 */
export function beginStatement(tables: readonly string[]): string {
  return [
    'BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY',
    'SET LOCAL lock_timeout = 0',
    'SET LOCAL statement_timeout = 0',
    ...(tables.length === 0 ? [] : [`LOCK TABLE ${tables.join(', ')} IN ACCESS SHARE MODE`]),
  ].join('; ');
}

/** What to set, a row with `name` and `value` each; without what the server's version or system lacks. */
export function knownSettings(settings: Readonly<Record<string, string>>): string {
  const rows = Object.entries(settings).map(([name, value]) => `('${name}', '${value}')`);
  return `(VALUES ${rows.join(', ')}) AS wanted (name, value) JOIN pg_settings USING (name)
  WHERE (name <> 'client_connection_check_interval' OR version() LIKE '%linux%')`;
}

/** Whether a table, of which `table` gives the oid, has an index that begins with a column and leads to all rows. */
const hasIndex = (table: string, column: string): string => `EXISTS (
      SELECT FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
      WHERE indrelid = ${table} AND attname = ${column} AND indisvalid AND indpred IS NULL
    )`;

/**
 * Gives the milliseconds since 1970 at which the snapshot was taken. Where Synapse's index on predecessors is
 * missing, as in a copy it may, joins by a hash are left as they are: else the edges that lead to groups would take
 * a walk over all edges for each group.
 */
export const SET_UP = `
  SELECT count(set_config(name, value, true)), (extract(epoch FROM now()) * 1000)::text AS time
  FROM ${knownSettings(SETTINGS)}
    AND (name <> 'enable_hashjoin' OR ${hasIndex("to_regclass('state_group_edges')", "'prev_state_group'")})`;

/**
 * Of each table: whether search_path leads to it, whether it may be read, whether it can be locked, and whether it
 * has an index (a view may be anything) that begins with the column it is read by.
 */
export const CHECK_TABLES = `
  SELECT name, oid IS NOT NULL AS found,
    has_table_privilege(oid, 'SELECT') AS readable,
    (SELECT relkind IN ('r', 'p', 'v') FROM pg_class WHERE pg_class.oid = table_oid.oid) AS lockable,
    (SELECT relkind NOT IN ('r', 'p') FROM pg_class WHERE pg_class.oid = table_oid.oid)
      OR ${hasIndex('table_oid.oid', 'key')} AS indexed
  FROM (VALUES ${Object.entries(INDEXED_COLUMNS)
    .map(([name, [key]]) => `('${name}', '${key}')`)
    .join(', ')}) AS wanted (name, key),
    LATERAL (SELECT to_regclass(name)::oid AS oid) AS table_oid`;

/** Who we are, where, and what is searched for tables. */
export const WHEREABOUTS = `
  SELECT quote_ident(current_user) AS user, current_database() AS database,
    array_to_string(current_schemas(false), ', ') AS schemas`;

/** How many groups a room ($1) has, the first and the last of them. */
export const ROOM_GROUPS =
  'SELECT count(*) AS count, min(id) AS first, max(id) AS last FROM state_groups WHERE room_id = $1';

/** The first and the last group of all rooms; null where there is none. */
export const FIRST_AND_LAST = 'SELECT min(id) AS first, max(id) AS last FROM state_groups';

/** Ids of a room's groups from above `min` up to `max`, in any order. */
export function groupsStatement(
  room: string,
  min: number | undefined,
  max: number | undefined,
): string {
  const above = min === undefined ? '' : ` AND id > ${min}`;
  const upTo = max === undefined ? '' : ` AND id <= ${max}`;
  return `SELECT id FROM state_groups WHERE room_id = ${escapeLiteral(room)}${above}${upTo}`;
}

/** Of each room its place among `rooms`, from 1 on, and the ids of its groups, at most `limit` of them. */
export function groupsOfRoomsStatement(rooms: readonly string[], limit: number): string {
  return `SELECT r.place, g.id
    FROM unnest(ARRAY[${rooms.map((room) => escapeLiteral(room)).join(',')}]) WITH ORDINALITY AS r (room, place)
      CROSS JOIN LATERAL (SELECT id FROM state_groups WHERE room_id = r.room LIMIT ${limit}) AS g`;
}

/** Edges that a page of `state_group_edges` holds: of 8 kB, 44 bytes each. */
const EDGES_PER_PAGE = 185;
/** To look up an edge by its group, and then by its predecessor, takes longer than to read three in the table's order. */
const CHEAPER = 3;

/**
 * Whether all edges of all rooms are read sooner than those of so many groups are looked up. By the table's size:
 * its statistics may be off.
 */
export function fewEdgesStatement(groups: number): string {
  return `SELECT pg_relation_size('state_group_edges') BETWEEN 1
    AND current_setting('block_size')::bigint * ${Math.floor((CHEAPER * groups) / EDGES_PER_PAGE)} AS answer`;
}

/** All edges of all rooms, in any order. */
export const ALL_EDGES = 'SELECT state_group, prev_state_group FROM state_group_edges';

/** The edges of groups, in any order. */
export function edgesStatement(ids: Float64Array): string {
  return `SELECT e.state_group, e.prev_state_group
    FROM unnest(${idArray(ids)}) AS g (id) JOIN state_group_edges AS e ON e.state_group = g.id`;
}

/** The edges that lead to groups, in any order. */
export function edgesToStatement(ids: Float64Array): string {
  return `SELECT e.state_group, e.prev_state_group
    FROM unnest(${idArray(ids)}) AS g (id) JOIN state_group_edges AS e ON e.prev_state_group = g.id`;
}

/** Whether there may be groups that Synapse (1.124 and later) is about to delete, and they may be read: an expression. */
export const PENDING_READABLE =
  "has_table_privilege(to_regclass('state_groups_pending_deletion')::oid, 'SELECT') IS TRUE";

/** Whether there are any. */
export const ANY_PENDING = 'SELECT EXISTS (SELECT FROM state_groups_pending_deletion) AS answer';

/** Those of the groups that Synapse is about to delete, in any order. */
export function pendingStatement(ids: Float64Array): string {
  return `SELECT p.state_group
    FROM unnest(${idArray(ids)}) AS g (id) JOIN state_groups_pending_deletion AS p ON p.state_group = g.id`;
}

/**
 * The rows of groups, in the order of `ids` and in the index's within a group.
 *
 * A subquery with an order of its own is planned by itself, with the group's id as a parameter. So the
 * ids come first and each is looked up in the index, whatever the planner thinks of their number. Next
 * to `= ANY (ids)` this saves the planner a look at each id.
 */
export function rowsStatement(
  ids: Float64Array,
  columns = 'state_group, type, state_key, event_id',
): string {
  return `SELECT ${columns}
    FROM unnest(${idArray(ids)}) AS g (id) CROSS JOIN LATERAL (
      SELECT state_group, type, state_key, event_id FROM state_groups_state
      WHERE state_group = g.id ORDER BY type, state_key
    ) AS s`;
}

const IS_IN_RANGE = `EXISTS (
        SELECT FROM state_groups AS g
        WHERE g.id = next.id AND (g.room_id = $2) IS TRUE AND g.id > $3 AND g.id <= $4
      )`;

/** A group's id, whether it is of the room (null if there is no such group), and its predecessors. */
const HEADER = `id, (SELECT room_id = $2 FROM state_groups AS g WHERE g.id = found.id),
    ARRAY(SELECT prev_state_group FROM state_group_edges AS e WHERE e.state_group = found.id)`;

/**
 * The headers of groups ($1), and of what is found from them along the edges, but in range (room $2, above
 * $3, up to $4), each once.
 *
 * UNION drops what was found before, so a cycle ends. OFFSET keeps the planner from looking first at which of all
 * edges lead into the range.
 */
const walk = (from: EdgeEnd, to: EdgeEnd): string => `
  WITH RECURSIVE found (id) AS (
    SELECT unnest($1::bigint[])
    UNION
    SELECT next.id FROM found CROSS JOIN LATERAL (
      SELECT e.${to} FROM state_group_edges AS e WHERE e.${from} = found.id OFFSET 0
    ) AS next (id)
    WHERE NOT ${IS_IN_RANGE}
  )
  SELECT ${HEADER} FROM found`;

type EdgeEnd = (typeof INDEXED_COLUMNS)['state_group_edges'][number];

/** The headers of groups and all their ancestors but those that are in range. */
export const ANCESTORS = walk('state_group', 'prev_state_group');

/** The headers of groups and all their descendants but those that are in range. */
export const DESCENDANTS = walk('prev_state_group', 'state_group');

function idArray(ids: Float64Array): string {
  return `'{${ids.join(',')}}'::bigint[]`;
}
