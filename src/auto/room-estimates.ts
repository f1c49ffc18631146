import { openSnapshot, type SnapshotSettings } from '../sources/postgres/snapshot.js';
import { PENDING_READABLE } from '../sources/postgres/statements.js';
import { DEFAULT_LEVEL_SIZES } from '../planner/levels.js';
import { ADAPTIVE_MARK } from './bookkeeping.js';

/** What a room holds and what compressing it would save, estimated. Rows are rows of `state_groups_state`. */
export interface RoomEstimate {
  readonly room: string;
  /** Exact, as are the next three. */
  readonly stateGroups: number;
  /** Groups above the last one that an automatic run compressed, and the first of them; all if none did. */
  readonly newGroups: number;
  readonly firstNewGroup: number | undefined;
  /** By what an automatic run compressed the room up to there. */
  readonly compressedBy: 'levels' | 'adaptive' | undefined;
  readonly rows: number;
  /** Rows that the adaptive strategy would save. */
  readonly gain: number;
}

/** Snapshots of each room whose rows are counted, evenly spaced over its time. */
const SNAPSHOTS = 5;
/** Pages of `state_group_edges` whose groups' deltas are counted, about 185 groups each. */
const DELTA_PAGES = 60;
/** A room's own deltas count if so many were met, else those of all rooms together. */
const ENOUGH_DELTAS = 10;
/**
 * A snapshot becomes a delta over the groups since the one before, at most as many as a chain has, each of which
 * changes a key or so, and often one that another has changed: of `n` rows `c` changes save `n × e^(-c / n)`. Rooms
 * of six kinds with 150 members and 600 save 0.9 to 1.7 times as much as by a hundred, smaller ones more.
 */
const MOST_CHANGES = 100;

/** The joins that reading a room's rows does without; compiling the statement takes longer than running it. */
const PLANNING = `
  SELECT set_config(name, 'on', true)
  FROM unnest(ARRAY['enable_hashjoin', 'enable_material', 'enable_mergejoin', 'enable_seqscan', 'enable_sort']) AS name`;

/** The table of rows as a whole, and whether there are the tables of automatic runs and of groups that go. */
const TABLES = `
  SELECT has_table_privilege(to_regclass('state_compressor_state')::oid, 'SELECT')
      AND has_table_privilege(to_regclass('state_compressor_progress')::oid, 'SELECT') AS progress,
    ${PENDING_READABLE} AS pending,
    pg_relation_size('state_group_edges') / current_setting('block_size')::int AS edge_pages,
    pg_total_relation_size('state_groups_state') AS bytes`;

export interface EstimateSettings extends SnapshotSettings {
  /** Only these rooms; all if there are none. */
  readonly rooms: readonly string[];
}

export interface Estimates {
  /** Bytes of `state_groups_state` with its indexes. */
  readonly tableBytes: number;
  readonly rooms: readonly RoomEstimate[];
}

/**
 * Estimates rooms in one snapshot, without a scan of `state_groups_state` and without the server's
 * statistics. Groups and snapshots (groups without an edge) are counted in `state_groups` and
 * `state_group_edges`; rows of a snapshot and of a delta come from samples that are looked up in the index.
 * So it takes seconds for millions of groups, and memory only for the list of rooms.
 *
 * @throws DatabaseError if the database can't be read, UsageError, the signal's reason
 */
export function readEstimates(settings: EstimateSettings): Promise<Estimates> {
  const { rooms } = settings;
  return openSnapshot(settings, 'while the rooms were estimated', async ({ client, close }) => {
    await client.query(PLANNING);
    const { rows: tables } = await client.query<TablesRow>(TABLES);
    const [{ progress, pending, edge_pages, bytes }] = tables;
    const percentage = Math.min(100, (100 * DELTA_PAGES) / Math.max(1, Number(edge_pages)));
    const { rows } = await client.query<EstimateRow>(
      estimateStatement(progress === true, pending, percentage),
      [rooms.length === 0 ? null : rooms],
    );
    await close();
    return { tableBytes: Number(bytes), rooms: rows.map(estimateOf) };
  });
}

interface TablesRow {
  readonly progress: boolean | null;
  readonly pending: boolean;
  readonly edge_pages: string;
  readonly bytes: string;
}

interface EstimateRow {
  readonly room_id: string;
  readonly groups: string;
  readonly new_groups: string;
  readonly first_new_group: string | null;
  /** Whether an automatic run compressed the room, and the snapshots that adaptive left. */
  readonly is_compressed: boolean;
  readonly snapshots_left: number | null;
  readonly snapshots: string;
  readonly new_snapshots: string;
  /** Rows a snapshot and rows a delta, on average. */
  readonly snapshot_rows: number;
  readonly delta_rows: number;
}

const IS_NEW = '(last_compressed IS NULL OR id > last_compressed)';

function estimateStatement(hasProgress: boolean, hasPending: boolean, percentage: number): string {
  // What Synapse is about to delete is left as it is.
  const stays = hasPending
    ? 'AND NOT EXISTS (SELECT FROM state_groups_pending_deletion AS d WHERE d.state_group = g.id)'
    : '';
  const progress = hasProgress
    ? `SELECT room_id, last_compressed, (
          SELECT max(max_size) FILTER (WHERE level_num = ${ADAPTIVE_MARK})
          FROM state_compressor_state AS s WHERE s.room_id = p.room_id
          HAVING bool_and(current_head IS NULL AND (level_num = ${ADAPTIVE_MARK}
            OR (level_num, max_size) IN (${DEFAULT_LEVEL_SIZES.map((size, i) => `(${i + 1}, ${size})`).join(', ')})))
        ) AS snapshots_left FROM state_compressor_progress AS p`
    : "SELECT ''::text AS room_id, 0::bigint AS last_compressed, 0 AS snapshots_left WHERE false";
  return `
    WITH progress AS (${progress}),
    room AS (
      SELECT room_id, count(*) AS groups,
        count(*) FILTER (WHERE ${IS_NEW}) AS new_groups,
        min(id) FILTER (WHERE ${IS_NEW}) AS first_new_group,
        max(last_compressed) IS NOT NULL AS is_compressed, max(snapshots_left) AS snapshots_left
      FROM state_groups LEFT JOIN progress USING (room_id)
      WHERE $1::text[] IS NULL OR room_id = ANY ($1) GROUP BY room_id
    ),
    snapshot AS (
      SELECT room_id, id, ${IS_NEW} AS is_new,
        row_number() OVER (PARTITION BY room_id ORDER BY id) AS n,
        count(*) OVER (PARTITION BY room_id) AS snapshots
      FROM state_groups AS g LEFT JOIN progress USING (room_id)
      WHERE ($1 IS NULL OR room_id = ANY ($1))
        AND NOT EXISTS (SELECT FROM state_group_edges AS e WHERE e.state_group = g.id) ${stays}
    ),
    snapshots AS (
      SELECT room_id, count(*) AS snapshots, count(*) FILTER (WHERE is_new) AS new_snapshots,
        avg((SELECT count(*) FROM state_groups_state AS s WHERE s.state_group = snapshot.id))
          FILTER (WHERE (n + snapshots / ${2 * SNAPSHOTS}) * ${SNAPSHOTS} % snapshots < ${SNAPSHOTS}) AS rows
      FROM snapshot GROUP BY room_id
    ),
    sample AS (
      SELECT (SELECT g.room_id FROM state_groups AS g WHERE g.id = e.state_group) AS room_id,
        (SELECT count(*) FROM state_groups_state AS s WHERE s.state_group = e.state_group) AS rows
      FROM state_group_edges AS e TABLESAMPLE SYSTEM (${percentage}) REPEATABLE (1)
    ),
    deltas AS (
      SELECT room_id, avg(rows) AS rows FROM sample
      GROUP BY room_id HAVING count(*) >= ${ENOUGH_DELTAS}
    )
    SELECT room_id, groups, new_groups, first_new_group, is_compressed, snapshots_left,
      coalesce(s.snapshots, 0) AS snapshots, coalesce(s.new_snapshots, 0) AS new_snapshots,
      coalesce(s.rows, 0)::float AS snapshot_rows,
      coalesce(d.rows, (SELECT avg(rows) FROM sample), 1)::float AS delta_rows
    FROM room LEFT JOIN snapshots AS s USING (room_id) LEFT JOIN deltas AS d USING (room_id)`;
}

function estimateOf(row: EstimateRow): RoomEstimate {
  const [stateGroups, newGroups] = [Number(row.groups), Number(row.new_groups)];
  const [snapshots, newSnapshots] = [Number(row.snapshots), Number(row.new_snapshots)];
  const left = row.snapshots_left;
  // What adaptive left in full it would leave again, and of a room's snapshots one stays. Of those that it left
  // some may be deleted.
  const spare =
    left === null ? Math.max(0, snapshots - 1) : Math.max(newSnapshots, snapshots - left);
  const groupsEach = newSnapshots > 0 ? newGroups / newSnapshots : stateGroups / snapshots;
  const changes = groupsEach * row.delta_rows;
  return {
    room: row.room_id,
    stateGroups,
    newGroups,
    firstNewGroup: row.first_new_group === null ? undefined : Number(row.first_new_group),
    compressedBy: left !== null ? 'adaptive' : row.is_compressed ? 'levels' : undefined,
    rows: Math.round(snapshots * row.snapshot_rows + (stateGroups - snapshots) * row.delta_rows),
    gain: Math.round(spare * savedOf(row.snapshot_rows, changes)),
  };
}

/** The rows of a snapshot of so many that a delta of these changes does without. */
function savedOf(rows: number, changes: number): number {
  return rows === 0 ? 0 : rows * Math.exp(-Math.min(MOST_CHANGES, changes) / rows);
}

/** Said of a room that is asked for by name. */
export function unknownRoom(room: string): string {
  return `Room '${room}' has no state groups in this database.`;
}
