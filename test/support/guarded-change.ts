import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import type pg from 'pg';
import { Rewriter } from '../../src/apply/rewriter.js';
import { idsHash } from '../../src/planner/ids-hash.js';
import type { ChangedGroup, PlannedGroup } from '../../src/planner/planned-group.js';
import { sqlSink } from '../../src/sinks/sql.js';
import { testDatabase } from './postgres.js';
import type { Schema, TestDatabase } from './postgres.js';

export const ROOM = '!room:example.org';

/** A state group to store: its delta or snapshot as `type/event_id`, each type a key. */
export interface StoredGroup {
  readonly id: number;
  readonly predecessor?: number | undefined;
  readonly rows: readonly string[];
}

export const ROOM_GROUPS: readonly StoredGroup[] = [
  { id: 1, rows: ['create/$c', 'topic/$t0', 'member/$a'] },
  { id: 2, predecessor: 1, rows: ['topic/$t1'] },
  { id: 3, predecessor: 2, rows: ['name/$n'] },
  { id: 4, predecessor: 3, rows: ['topic/$t2', 'avatar/$p'] },
  { id: 5, rows: ['create/$c', 'topic/$t2', 'member/$a', 'name/$n', 'avatar/$p', 'rules/$r'] },
  { id: 6, predecessor: 5, rows: ['topic/$t3'] },
];

/** A new predecessor for some of the groups. */
const PLAN: readonly (readonly [group: number, newPredecessor: number | undefined])[] = [
  [3, 1],
  [4, 2],
  [5, 3],
  [6, undefined],
];

export async function store(db: TestDatabase, groups: readonly StoredGroup[]): Promise<void> {
  for (const { id, predecessor, rows } of groups) {
    await db.query("INSERT INTO state_groups VALUES ($1, $2, '$e')", [id, ROOM]);
    if (predecessor !== undefined) {
      await db.query('INSERT INTO state_group_edges VALUES ($1, $2)', [id, predecessor]);
    }
    await db.query(
      `INSERT INTO state_groups_state
       SELECT $1, $2, split_part(entry, '/', 1), '', split_part(entry, '/', 2)
       FROM unnest($3::text[]) AS entry`,
      [id, ROOM, rows],
    );
  }
}

/** A database that holds a room of these groups. */
export async function storedRoom(
  t: TestContext,
  {
    groups = ROOM_GROUPS,
    schema = 'synapse',
  }: { groups?: readonly StoredGroup[]; schema?: Schema } = {},
): Promise<TestDatabase> {
  const db = await testDatabase(t, schema);
  await store(db, groups);
  return db;
}

export async function openRewriter(t: TestContext, db: TestDatabase): Promise<Rewriter> {
  const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
  t.after(() => rewriter.close());
  return rewriter;
}

/** Plans a group anew, on a group that has none but its keys or in full, from what is stored now. */
export async function planChange(
  db: TestDatabase,
  stateGroup: number,
  newPredecessor: number | undefined,
): Promise<ChangedGroup> {
  const { rows: delta } = await db.query<{ row: string; hash: string }>(DELTA, [
    stateGroup,
    newPredecessor,
  ]);
  const { rows: stored } = await db.query<{ predecessor: string; rows: string; hash: string }>(
    STORED,
    [stateGroup],
  );
  const { predecessor, rows, hash } = stored[0];
  const oldPredecessor = predecessor === null ? undefined : Number(predecessor);
  return {
    stateGroup,
    oldPredecessor,
    newPredecessor,
    oldRows: Number(rows),
    newRows: delta.length,
    change: {
      oldHash: BigInt(hash) + idsHash(stateGroup, oldPredecessor, newPredecessor),
      newRowsHash: delta.reduce((sum, row) => sum + BigInt(row.hash), 0n),
      rows: Buffer.from(delta.map(({ row }) => `${row}\n`).join('')),
    },
  };
}

export async function planRoom(db: TestDatabase): Promise<ChangedGroup[]> {
  const changes: ChangedGroup[] = [];
  for (const [group, newPredecessor] of PLAN) {
    changes.push(await planChange(db, group, newPredecessor));
  }
  return changes;
}

/** Stores 20,000 groups of a row each, half of them marked for deletion, and plans 20 of the others anew. */
export async function storeManyGroups(db: TestDatabase): Promise<ChangedGroup[]> {
  await db.query(`
    INSERT INTO state_groups SELECT i, '${ROOM}', '$e' FROM generate_series(1, 20000) AS i;
    INSERT INTO state_group_edges SELECT i, i - 1 FROM generate_series(2, 20000) AS i;
    INSERT INTO state_groups_state
      SELECT i, '${ROOM}', 'topic', '', '$t' || i FROM generate_series(1, 20000) AS i;
    INSERT INTO state_groups_pending_deletion (state_group, insertion_ts)
      SELECT i, 1 FROM generate_series(10001, 20000) AS i`);
  // Not from the tables, since what this session reads may be counted later.
  const { rows: groups } = await db.query<{ id: number; hash: string }>(
    `SELECT id, hashtextextended('$t' || id, hashtextextended('', hashtextextended('topic', 0))) AS hash
     FROM generate_series(11, 30) AS id`,
  );
  return groups.map(({ id, hash }) => {
    const newPredecessor = id === 20 ? undefined : id - 5;
    return {
      stateGroup: id,
      oldPredecessor: id - 1,
      newPredecessor,
      oldRows: 1,
      newRows: 1,
      change: {
        oldHash: BigInt(hash) + idsHash(id, id - 1, newPredecessor),
        newRowsHash: BigInt(hash),
        rows: Buffer.from(`topic\t\t$t${id}\n`),
      },
    };
  });
}

/** Makes a trigger that keeps each such row from being written, without a word. */
export async function swallowWrites(db: TestDatabase, event: string, table: string): Promise<void> {
  await db.query(`
    CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER swallow BEFORE ${event} ON ${table} FOR EACH ROW EXECUTE FUNCTION swallow()`);
}

/** What a role needs to apply changes, as GRANT and REVOKE name it. */
export function privilegesToApply({ name }: TestDatabase): string[] {
  return [
    `TEMPORARY ON DATABASE ${name}`,
    'USAGE ON SCHEMA public',
    'SELECT ON state_groups',
    'UPDATE (room_id) ON state_groups',
    ...['SELECT', 'INSERT', 'DELETE'].flatMap((privilege) => [
      `${privilege} ON state_group_edges`,
      `${privilege} ON state_groups_state`,
    ]),
    'SELECT ON state_groups_pending_deletion',
  ];
}

const DELTA = `
  WITH RECURSIVE chain (id, member) AS (
    SELECT id, id FROM unnest(ARRAY[$1, $2]::bigint[]) AS id
    UNION
    SELECT chain.id, edge.prev_state_group
      FROM chain JOIN state_group_edges AS edge ON edge.state_group = chain.member
  ),
  state AS (
    SELECT DISTINCT ON (id, type, state_key) id, concat_ws(E'\\t', type, state_key, event_id) AS row
      FROM chain JOIN state_groups_state ON state_group = member
      ORDER BY id, type, state_key, member DESC
  )
  SELECT row, hashtextextended(split_part(row, E'\\t', 3), hashtextextended(
      split_part(row, E'\\t', 2), hashtextextended(split_part(row, E'\\t', 1), 0))) AS hash
    FROM (SELECT row FROM state WHERE id = $1 EXCEPT SELECT row FROM state WHERE id = $2) AS delta
    ORDER BY row`;

const STORED = `
  SELECT (SELECT prev_state_group FROM state_group_edges WHERE state_group = $1) AS predecessor,
    count(*) AS rows,
    coalesce(sum(hashtextextended(event_id, hashtextextended(state_key, hashtextextended(type, 0)))), 0) AS hash
  FROM state_groups_state WHERE state_group = $1`;

/** The changes as the sink writes them with `-t`. */
export function guardedSql(changes: readonly PlannedGroup[]): Promise<string> {
  const sink = sqlSink({ room: ROOM, transactions: true, header: [] });
  return text(Readable.from([changes]).pipe(sink));
}

/** What SQL of `guardedSql` said when it was applied. */
export interface Outcome {
  readonly rewritten: number;
  readonly skipped: number;
  readonly warnings: readonly string[];
}

/** Sends SQL of `guardedSql`, or its last part, as one message. */
export async function apply(client: pg.Client, sql: string): Promise<Outcome> {
  const warnings: string[] = [];
  const note = ({ message = '' }): void => void warnings.push(message);
  client.on('notice', note);
  const results = (await client.query<string[]>({ text: sql, rowMode: 'array' })) as unknown as {
    readonly rows: readonly (readonly string[])[];
  }[];
  client.off('notice', note);
  const [rewritten, skipped] = results.at(-1)!.rows[0].map(Number);
  return { rewritten, skipped, warnings };
}

export const NOT_IN_ROOM = 'it or its new predecessor is not in the room any more';
const PENDING = 'it or its new predecessor is about to be deleted';
const OTHER_EDGE = 'its predecessor is not what was read';
export const OTHER_ROWS = 'its rows are not what was read, or its change is spoilt';

/** What another may have done to a group since it was read; group 4 is to be put on group 2. */
export const SINCE: readonly { what: string; sql: string; skipped: number; reason: string }[] = [
  {
    what: 'a row has another event',
    sql: "UPDATE state_groups_state SET event_id = '$x' WHERE state_group = 4 AND type = 'topic'",
    skipped: 4,
    reason: OTHER_ROWS,
  },
  {
    what: 'two rows have changed their events',
    sql: "UPDATE state_groups_state SET event_id = CASE event_id WHEN '$p' THEN '$t2' ELSE '$p' END WHERE state_group = 4",
    skipped: 4,
    reason: OTHER_ROWS,
  },
  {
    what: 'a row is there twice',
    sql: "INSERT INTO state_groups_state SELECT * FROM state_groups_state WHERE state_group = 4 AND type = 'topic'",
    skipped: 4,
    reason: OTHER_ROWS,
  },
  {
    what: 'a row is gone',
    sql: "DELETE FROM state_groups_state WHERE state_group = 4 AND type = 'topic'",
    skipped: 4,
    reason: OTHER_ROWS,
  },
  {
    what: 'its predecessor is another',
    sql: 'UPDATE state_group_edges SET prev_state_group = 1 WHERE state_group = 4',
    skipped: 4,
    reason: OTHER_EDGE,
  },
  {
    what: 'its predecessor is the planned one',
    sql: 'UPDATE state_group_edges SET prev_state_group = 2 WHERE state_group = 4',
    skipped: 4,
    reason: OTHER_EDGE,
  },
  {
    what: 'its predecessor is the planned one, and its rows are others, as many as the new ones',
    sql: `UPDATE state_group_edges SET prev_state_group = 2 WHERE state_group = 4;
      INSERT INTO state_groups_state VALUES (4, '${ROOM}', 'name', '', '$x')`,
    skipped: 4,
    reason: OTHER_EDGE,
  },
  {
    what: 'it has no predecessor',
    sql: 'DELETE FROM state_group_edges WHERE state_group = 4',
    skipped: 4,
    reason: OTHER_EDGE,
  },
  {
    what: 'it has two predecessors',
    sql: 'INSERT INTO state_group_edges VALUES (4, 1)',
    skipped: 4,
    reason: OTHER_EDGE,
  },
  {
    what: 'it has a predecessor',
    sql: 'INSERT INTO state_group_edges VALUES (5, 4)',
    skipped: 5,
    reason: OTHER_EDGE,
  },
  {
    what: 'it is gone',
    sql: 'DELETE FROM state_groups WHERE id = 6; DELETE FROM state_groups_state WHERE state_group = 6; DELETE FROM state_group_edges WHERE state_group = 6',
    skipped: 6,
    reason: NOT_IN_ROOM,
  },
  {
    what: 'its new predecessor is gone',
    sql: 'DELETE FROM state_groups WHERE id = 2',
    skipped: 4,
    reason: NOT_IN_ROOM,
  },
  {
    what: 'it is in another room',
    sql: "UPDATE state_groups SET room_id = '!other:example.org' WHERE id = 6",
    skipped: 6,
    reason: NOT_IN_ROOM,
  },
  {
    what: 'its new predecessor is in another room',
    sql: "UPDATE state_groups SET room_id = '!other:example.org' WHERE id = 2",
    skipped: 4,
    reason: NOT_IN_ROOM,
  },
  {
    what: 'it is about to be deleted',
    sql: 'INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) VALUES (6, 1)',
    skipped: 6,
    reason: PENDING,
  },
  {
    what: 'its new predecessor is about to be deleted',
    sql: 'INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) VALUES (2, 1)',
    skipped: 4,
    reason: PENDING,
  },
];
