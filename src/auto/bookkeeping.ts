import type pg from 'pg';
import { lacksPrivilege } from '../apply/rewrite-errors.js';
import { DatabaseError } from '../errors.js';
import { DEFAULT_LEVEL_SIZES } from '../planner/levels.js';
import type { Level } from '../planner/levels.js';

/** A statement and its parameters, as pg takes them. */
export interface Statement {
  readonly text: string;
  readonly values: readonly unknown[];
}

/** How far a room was compressed, by this program or by the old tool. */
export interface RoomProgress {
  /** The last state group that was looked at; undefined if none was. */
  readonly lastCompressed: number | undefined;
  /** The levels to go on with. */
  readonly levels: readonly Level[];
  /** What of the saved levels is not gone on with, and why: the end of a sentence that begins with the room. */
  readonly stale?: string;
}

/**
 * The tables of rust-synapse-compress-state's auto compressor, as that makes them, so that either can go
 * on where the other stopped.
 */
const TABLES = {
  state_compressor_state: `CREATE TABLE state_compressor_state (
      room_id text NOT NULL,
      level_num int NOT NULL,
      max_size int NOT NULL,
      current_length int NOT NULL,
      current_head bigint,
      UNIQUE (room_id, level_num)
    );
    CREATE INDEX state_compressor_state_index ON state_compressor_state (room_id)`,
  state_compressor_progress: `CREATE TABLE state_compressor_progress (
      room_id text PRIMARY KEY,
      last_compressed bigint NOT NULL
    )`,
  state_compressor_total_progress: `CREATE TABLE state_compressor_total_progress (
      lock char(1) NOT NULL DEFAULT 'X' UNIQUE,
      lowest_uncompressed_group bigint NOT NULL,
      CHECK (lock = 'X')
    )`,
};

/** Makes those tables that are missing: `IF NOT EXISTS` would ask for the right to make them even if none is. */
export async function createTables(client: pg.ClientBase): Promise<void> {
  const { rows } = await client.query<{ name: keyof typeof TABLES }>(
    'SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL',
    [Object.keys(TABLES)],
  );
  try {
    for (const { name } of rows) await client.query(TABLES[name]);
  } catch (error) {
    if (!lacksPrivilege(error)) throw error;
    throw new DatabaseError(
      `The user may not make the tables in which progress is kept. Make them as another user, and GRANT SELECT, INSERT, UPDATE, DELETE on them:\n${rows.map(({ name }) => TABLES[name]).join(';\n')};`,
      { cause: error },
    );
  }
  await client.query(
    'INSERT INTO state_compressor_total_progress (lowest_uncompressed_group) VALUES (0) ON CONFLICT (lock) DO NOTHING',
  );
}

/** Forgets rooms that have no state groups any more, and returns how many. */
export async function forgetRoomsThatAreGone(client: pg.ClientBase): Promise<number> {
  const { rows } = await client.query<{ count: string }>(`
    WITH progress AS (
      DELETE FROM state_compressor_progress AS p
      WHERE NOT EXISTS (SELECT FROM state_groups AS g WHERE g.room_id = p.room_id) RETURNING room_id
    ), levels AS (
      DELETE FROM state_compressor_state AS s
      WHERE NOT EXISTS (SELECT FROM state_groups AS g WHERE g.room_id = s.room_id) RETURNING room_id
    )
    SELECT count(*) FROM (SELECT room_id FROM progress UNION SELECT room_id FROM levels) AS gone`);
  return Number(rows[0].count);
}

/**
 * Forgets what was saved of state groups that are still to come, as where a database was put back to an earlier
 * time and these tables were not, and returns of how many rooms.
 */
export async function forgetTheFuture(client: pg.ClientBase): Promise<number> {
  const { rows } = await client.query<{ count: string }>(`
    WITH newest AS (SELECT coalesce(max(id), 0) AS id FROM state_groups),
    progress AS (
      DELETE FROM state_compressor_progress USING newest WHERE last_compressed > id RETURNING room_id
    ), levels AS (
      DELETE FROM state_compressor_state WHERE room_id IN (SELECT room_id FROM progress)
    ), total AS (
      UPDATE state_compressor_total_progress SET lowest_uncompressed_group = 0 FROM newest
      WHERE lowest_uncompressed_group > id + 1 OR EXISTS (SELECT FROM progress)
    )
    SELECT count(*) FROM progress`);
  return Number(rows[0].count);
}

/** Those of the rooms that have no state groups. */
export async function roomsWithoutGroups(
  client: pg.ClientBase,
  rooms: readonly string[],
): Promise<string[]> {
  const { rows } = await client.query<{ room: string }>(
    'SELECT room FROM unnest($1::text[]) AS room WHERE NOT EXISTS (SELECT FROM state_groups WHERE room_id = room)',
    [rooms],
  );
  return rows.map(({ room }) => room);
}

/**
 * The room of the lowest state group that is not compressed yet, among those rooms or all, and that group; if
 * it is known that there is none below `from`, they need not be looked at again.
 */
export async function lowestUncompressed(
  client: pg.ClientBase,
  among: readonly string[] | undefined,
  except: readonly string[],
  from: number,
): Promise<{ readonly room: string; readonly group: number } | undefined> {
  const { rows } = await client.query<{ room_id: string; id: string }>(
    `SELECT room_id, id
      FROM state_groups LEFT JOIN state_compressor_progress USING (room_id)
      WHERE id >= (SELECT greatest(lowest_uncompressed_group, $3) FROM state_compressor_total_progress)
        AND (last_compressed IS NULL OR id > last_compressed)
        AND ($1::text[] IS NULL OR room_id = ANY ($1)) AND room_id <> ALL ($2)
      ORDER BY id LIMIT 1`,
    [among, except, from],
  );
  return rows.length === 0 ? undefined : { room: rows[0].room_id, group: Number(rows[0].id) };
}

/**
 * Reads how far a room was compressed. Levels that can't be gone on with are given up: then the groups to
 * come start on empty levels, which costs one snapshot. A level whose head was deleted counts as full, so that
 * the next one's head serves.
 *
 * @param sizes of the levels that are asked for; without any, those that are saved
 */
export async function readProgress(
  client: pg.ClientBase,
  room: string,
  sizes: readonly number[] | undefined,
): Promise<RoomProgress> {
  const { rows: progress } = await client.query<{ last_compressed: string }>(
    'SELECT last_compressed FROM state_compressor_progress WHERE room_id = $1',
    [room],
  );
  const lastCompressed = progress.length === 0 ? undefined : Number(progress[0].last_compressed);
  const { rows } = await client.query<LevelRow>(
    `SELECT level_num, max_size, current_length, current_head,
        EXISTS (SELECT FROM state_groups AS g WHERE g.id = s.current_head AND g.room_id = s.room_id) AS is_there
      FROM state_compressor_state AS s WHERE room_id = $1 ORDER BY level_num`,
    [room],
  );
  const isUsed = rows.some(
    ({ current_length, current_head }) => current_length > 0 || current_head,
  );
  if (!isUsed) return { lastCompressed, levels: emptyLevels(sizes) };
  const why = whyStale(rows, lastCompressed, sizes);
  if (why !== undefined) {
    const stale = `goes on with empty levels, as the saved ones are stale: ${why}`;
    return { lastCompressed, levels: emptyLevels(sizes), stale };
  }
  const gone = rows.filter(({ current_head, is_there }) => current_head !== null && !is_there);
  const levels = rows.map((row) => {
    const { max_size: size, current_length: length, current_head: head } = row;
    if (gone.includes(row)) return { size, length: size, head: undefined };
    return { size, length, head: head === null ? undefined : Number(head) };
  });
  if (gone.length === 0) return { lastCompressed, levels };
  const heads = gone.map(({ level_num, current_head }) => `${current_head} of level ${level_num}`);
  const stale = `goes on without some heads of levels, which are stale, as these state groups are not in the room any more: ${heads.join(', ')}`;
  return { lastCompressed, levels, stale };
}

interface LevelRow {
  readonly level_num: number;
  readonly max_size: number;
  readonly current_length: number;
  readonly current_head: string | null;
  readonly is_there: boolean;
}

function whyStale(
  rows: readonly LevelRow[],
  lastCompressed: number | undefined,
  sizes: readonly number[] | undefined,
): string | undefined {
  if (lastCompressed === undefined) return 'it is not known how far the room was compressed';
  const saved = rows.map(({ max_size }) => max_size);
  if (sizes !== undefined && saved.join() !== sizes.join()) {
    return `they have the sizes ${saved.join(',')}, and ${sizes.join(',')} is asked for`;
  }
  for (const [index, row] of rows.entries()) {
    const { level_num: level, max_size: size, current_length: length, current_head: head } = row;
    if (level !== index + 1) return `level ${index + 1} is missing`;
    if (size < 1 || length < 0 || length > size) {
      return `level ${level} has a length of ${length} and a size of ${size}`;
    }
    if (head === null) {
      if (length > 0) return `level ${level} has a length of ${length} and no head`;
    } else if (row.is_there && Number(head) > lastCompressed) {
      return `state group ${head}, the head of level ${level}, is above ${lastCompressed}, the last one that was compressed`;
    }
  }
  return undefined;
}

/**
 * The levels that stand for a room which adaptive compressed. The old tool goes on with them as with its own
 * empty ones: it comes to a fourth after as many groups as it has in three. That one's size is how many groups
 * were left without a predecessor. Where there are more, Synapse has written some in full since, or some were
 * skipped.
 */
export function adaptiveLevels(snapshots: number): Level[] {
  const size = Math.min(Math.max(snapshots, 1), 2 ** 31 - 1);
  return emptyLevels([...DEFAULT_LEVEL_SIZES, size]);
}

/** What tells the levels that adaptive leaves from those of the old tool, which has begun its own. */
export const ADAPTIVE_MARK = DEFAULT_LEVEL_SIZES.length + 1;

/** Levels before the first group. */
export function emptyLevels(sizes: readonly number[] = DEFAULT_LEVEL_SIZES): Level[] {
  return sizes.map((size) => ({ size, length: 0, head: undefined }));
}

/** The statement that saves how far a room was compressed, with its levels. */
export function saveProgress(
  room: string,
  lastCompressed: number,
  levels: readonly Level[],
): Statement {
  return {
    text: `WITH surplus AS (
        DELETE FROM state_compressor_state WHERE room_id = $1 AND level_num NOT BETWEEN 1 AND cardinality($3::int[])
      ), levels AS (
        INSERT INTO state_compressor_state AS s (room_id, level_num, max_size, current_length, current_head)
        SELECT $1, level_num, max_size, current_length, current_head
        FROM unnest($3::int[], $4::int[], $5::bigint[]) WITH ORDINALITY
          AS level (max_size, current_length, current_head, level_num)
        ON CONFLICT (room_id, level_num) DO UPDATE SET max_size = excluded.max_size,
          current_length = excluded.current_length, current_head = excluded.current_head
      )
      INSERT INTO state_compressor_progress (room_id, last_compressed) VALUES ($1, $2)
      ON CONFLICT (room_id) DO UPDATE SET last_compressed = excluded.last_compressed`,
    values: [
      room,
      lastCompressed,
      levels.map(({ size }) => size),
      levels.map(({ length }) => length),
      levels.map(({ head }) => head ?? null),
    ],
  };
}

/** The statement that saves where the search for the next room begins. */
export function saveLowestUncompressed(group: number): Statement {
  return {
    text: 'UPDATE state_compressor_total_progress SET lowest_uncompressed_group = $1',
    values: [group],
  };
}
