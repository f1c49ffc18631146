import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import pg from 'pg';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import {
  apply,
  guardedSql,
  NOT_IN_ROOM,
  OTHER_ROWS,
  planChange,
  planRoom,
  privilegesToApply,
  ROOM_GROUPS,
  SINCE,
  store,
  storeManyGroups,
  swallowWrites,
} from './support/guarded-change.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql, psql } from './support/psql.js';
import { expectSameStates, readAllStates } from './support/states.js';

async function connect(t: TestContext, db: TestDatabase): Promise<pg.Client> {
  const client = new pg.Client(db.url);
  await client.connect();
  // The database goes first, and takes the connection with it.
  client.on('error', () => {});
  t.after(() => client.end());
  return client;
}

async function edges(db: TestDatabase): Promise<string> {
  return text(db.copyOut('SELECT * FROM state_group_edges ORDER BY 1, 2'));
}

async function rows(db: TestDatabase): Promise<string> {
  return text(db.copyOut('SELECT * FROM state_groups_state ORDER BY 1, 3, 4, 5'));
}

/** Lets rows of state group 4 fail. */
async function refuseRows(db: TestDatabase): Promise<void> {
  await db.query(`
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN RAISE 'the disk is full'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON state_groups_state
      FOR EACH ROW WHEN (new.state_group = 4) EXECUTE FUNCTION refuse()`);
}

for (const schema of ['synapse', 'synapse-before-1.124'] as const) {
  test(`changes are applied once, and a second time nothing is (${schema})`, async (t) => {
    const db = await testDatabase(t, schema);
    const client = await connect(t, db);
    await store(db, ROOM_GROUPS);
    const states = await readAllStates(db);
    const sql = await guardedSql(await planRoom(db));

    assert.deepEqual(await apply(client, sql), { rewritten: 4, skipped: 0, warnings: [] });
    assert.equal(await edges(db), '2\t1\n3\t1\n4\t2\n5\t3\n');
    expectSameStates(await readAllStates(db), states);

    const compressed = await rows(db);
    const again = await apply(client, sql);
    assert.deepEqual([again.rewritten, again.skipped], [0, 4]);
    assert.match(
      again.warnings[0],
      /^State group 3 was left as it is: its predecessor is not what/,
    );
    assert.equal(await edges(db), '2\t1\n3\t1\n4\t2\n5\t3\n');
    assert.equal(await rows(db), compressed);

    // Nor is anything left that lasts longer than the changes.
    assert.deepEqual((await client.query('SHOW lock_timeout')).rows, [{ lock_timeout: '0' }]);
  });
}

for (const { what, sql, skipped, reason } of SINCE) {
  test(`a group is left as it is, and the others are not, when ${what}`, async (t) => {
    const db = await testDatabase(t);
    const client = await connect(t, db);
    await store(db, ROOM_GROUPS);
    const changes = await guardedSql(await planRoom(db));
    await db.query(sql);
    const states = await readAllStates(db);
    const storedOf = () =>
      text(
        db.copyOut(
          `SELECT type, event_id FROM state_groups_state WHERE state_group = ${skipped}
           UNION ALL SELECT 'edge', prev_state_group::text FROM state_group_edges WHERE state_group = ${skipped}
           ORDER BY 1, 2`,
        ),
      );
    const stored = await storedOf();

    assert.deepEqual(await apply(client, changes), {
      rewritten: 3,
      skipped: 1,
      warnings: [`State group ${skipped} was left as it is: ${reason}.`],
    });
    assert.equal(await storedOf(), stored);
    expectSameStates(await readAllStates(db), states);
  });
}

for (const newPredecessor of [undefined, 1, 3]) {
  test(`a group is left as it is when its new predecessor became ${newPredecessor} on the way`, async (t) => {
    const db = await testDatabase(t);
    const client = await connect(t, db);
    await store(db, ROOM_GROUPS);
    const states = await readAllStates(db);
    const changes = (await planRoom(db)).map((group) =>
      group.stateGroup === 4 ? { ...group, newPredecessor } : group,
    );
    assert.deepEqual(await apply(client, await guardedSql(changes)), {
      rewritten: 3,
      skipped: 1,
      warnings: [`State group 4 was left as it is: ${OTHER_ROWS}.`],
    });
    expectSameStates(await readAllStates(db), states);
  });
}

test('a predecessor that is not older is never taken', async (t) => {
  const db = await testDatabase(t);
  const client = await connect(t, db);
  await store(db, [...ROOM_GROUPS, { id: 7, rows: ['create/$c'] }]);
  const states = await readAllStates(db);
  const changes = [await planChange(db, 6, 7), await planChange(db, 5, 5)];

  const { rewritten, warnings } = await apply(client, await guardedSql(changes));
  assert.equal(rewritten, 0);
  assert.deepEqual(warnings, [
    'State group 6 was left as it is: its new predecessor is not older.',
    `State group 5 was left as it is: ${NOT_IN_ROOM}.`,
  ]);
  expectSameStates(await readAllStates(db), states);
});

const PSQL_OPTIONS = [
  [],
  ['-v', 'ON_ERROR_STOP=1'],
  ['-v', 'ON_ERROR_STOP=1', '-v', 'AUTOCOMMIT=off'],
  ['-v', 'ON_ERROR_STOP=1', '-v', 'ON_ERROR_ROLLBACK=on'],
  ['-v', 'ON_ERROR_STOP=1', '-1'],
];

for (const options of PSQL_OPTIONS) {
  const skip = !hasPsql && 'there is no psql';
  test(`psql ${options.join(' ')} goes on after a group that is left`, { skip }, async (t) => {
    const db = await testDatabase(t);
    await store(db, ROOM_GROUPS);
    const sql = await guardedSql(await planRoom(db));
    await db.query("DELETE FROM state_groups_state WHERE state_group = 4 AND type = 'topic'");
    const states = await readAllStates(db);

    const { code, stdout, stderr } = await psql(db, Readable.from([sql]), ['-tA', ...options]);
    assert.deepEqual([code, stdout], [0, '3|1|0\n']);
    assert.match(stderr, /WARNING: {2}State group 4 was left as it is: its rows are not what was/);
    assert.doesNotMatch(stderr, /ERROR/);
    assert.equal(await edges(db), '2\t1\n3\t1\n4\t3\n5\t3\n');
    expectSameStates(await readAllStates(db), states);
  });
}

test('a group whose statement fails is neither changed nor counted', async (t) => {
  if (!hasPsql) return t.skip('there is no psql');
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const states = await readAllStates(db);
  await refuseRows(db);

  const sql = Readable.from([await guardedSql(await planRoom(db))]);
  const { stdout, stderr } = await psql(db, sql, ['-tA']);
  assert.equal(stdout, '3|0|1\n');
  assert.match(stderr, /ERROR: {2}the disk is full/);
  assert.equal(await edges(db), '2\t1\n3\t1\n4\t3\n5\t3\n');
  expectSameStates(await readAllStates(db), states);
});

for (const [event, table] of [
  ['DELETE', 'state_groups_state'],
  ['INSERT', 'state_groups_state'],
  ['INSERT', 'state_group_edges'],
  ['DELETE', 'state_group_edges'],
  ['UPDATE', 'state_groups'],
]) {
  test(`a trigger that swallows each ${event} of ${table} is noticed`, async (t) => {
    if (!hasPsql) return t.skip('there is no psql');
    const db = await testDatabase(t);
    await store(db, ROOM_GROUPS);
    await swallowWrites(db, event, table);
    const states = await readAllStates(db);
    const sql = Readable.from([await guardedSql(await planRoom(db))]);
    const { stdout, stderr } = await psql(db, sql, ['-tA']);
    // One of the four has no edge that would be in the trigger's way.
    assert.equal(stdout, table === 'state_group_edges' ? '1|0|3\n' : '0|0|4\n');
    assert.match(
      stderr,
      event === 'INSERT' && table === 'state_groups_state'
        ? /ERROR: {2}The new rows of state group \d are not what was planned/
        : /ERROR: {2}A trigger or a rule kept rows of state group \d as they were/,
    );
    expectSameStates(await readAllStates(db), states);
  });
}

test('a script that lost any line of its changes leaves every state as it was', async (t) => {
  if (!hasPsql) return t.skip('there is no psql');
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const states = await readAllStates(db);
  const lines = (await guardedSql(await planRoom(db))).split('\n');
  const first = lines.indexOf('BEGIN ISOLATION LEVEL REPEATABLE READ;');
  assert.ok(first > 0);
  for (let lost = first; lost < lines.length; lost++) {
    const script = lines.toSpliced(lost, 1).join('\n');
    await psql(db, Readable.from([script]), []);
    expectSameStates(await readAllStates(db), states);
    await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
    await store(db, ROOM_GROUPS);
  }
});

test('a script that another one follows, wherever it was cut off, leaves every state as it was', async (t) => {
  if (!hasPsql) return t.skip('there is no psql');
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const states = await readAllStates(db);
  const sql = await guardedSql(await planRoom(db));
  const cuts = [
    'BEGIN',
    'CALL pg_temp.take',
    'INSERT INTO state_groups_state',
    'CALL pg_temp.check',
  ];
  for (const statement of cuts) {
    const at =
      sql.indexOf(';\n', sql.indexOf(statement, sql.indexOf('CALL pg_temp.take') - 50)) + 2;
    await psql(db, Readable.from([sql.slice(0, at), sql]), ['-tA']);
    expectSameStates(await readAllStates(db), states);
  }
});

test('rows that fail leave a group as it was, also where psql goes on behind each error', async (t) => {
  if (!hasPsql) return t.skip('there is no psql');
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const states = await readAllStates(db);
  await refuseRows(db);
  const sql = await guardedSql(await planRoom(db));
  const { stdout, stderr } = await psql(db, Readable.from([sql]), [
    '-tA',
    '-v',
    'ON_ERROR_ROLLBACK=on',
  ]);
  expectSameStates(await readAllStates(db), states);
  assert.match(stderr, /State group 4 stays as it is: its new rows did not all come, or failed\./);
  assert.match(stdout, /^3\|0\|1$/m);
});

test('tables in a schema of their own are found by the search path', async (t) => {
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  await db.query('CREATE SCHEMA state');
  for (const table of ['', '_state', '_pending_deletion']) {
    await db.query(`ALTER TABLE state_groups${table} SET SCHEMA state`);
  }
  await db.query(`
    ALTER TABLE state_group_edges SET SCHEMA state;
    ALTER DATABASE ${db.name} SET search_path = state;
    SET search_path = state`);
  const states = await readAllStates(db);
  const sql = await guardedSql(await planRoom(db));
  await db.query(
    'INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) VALUES (6, 1)',
  );

  const { rewritten, skipped } = await apply(await connect(t, db), sql);
  assert.deepEqual([rewritten, skipped], [3, 1]);
  expectSameStates(await readAllStates(db), states);
});

test('a role needs these privileges, each of them, and no others', async (t) => {
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const sql = await guardedSql(await planRoom(db));
  const role = `role_${randomUUID().replaceAll('-', '')}`;
  const privileges = privilegesToApply(db);
  await db.query(`
    CREATE ROLE ${role};
    REVOKE ALL ON DATABASE ${db.name} FROM PUBLIC;
    REVOKE ALL ON SCHEMA public FROM PUBLIC`);
  for (const privilege of privileges) await db.query(`GRANT ${privilege} TO ${role}`);
  try {
    for (const privilege of privileges) {
      const client = await connect(t, db);
      await db.query(`REVOKE ${privilege} FROM ${role}`);
      await client.query(`SET SESSION AUTHORIZATION ${role}`);
      await assert.rejects(apply(client, sql), /permission denied|does not exist/, privilege);
      await db.query(`GRANT ${privilege} TO ${role}`);
    }
    const client = await connect(t, db);
    await client.query(`SET SESSION AUTHORIZATION ${role}`);
    assert.equal((await apply(client, sql)).rewritten, 4);
  } finally {
    await db.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  }
});

test('no more is read than the groups have, also where nothing is known of the tables', async (t) => {
  const db = await testDatabase(t);
  const changes = await storeManyGroups(db);
  const sql = await guardedSql(changes);
  const before = await tuplesRead(db);
  const client = await connect(t, db);
  assert.equal((await apply(client, sql)).rewritten, 20);
  await end(client, db);

  const after = await tuplesRead(db);
  for (const [table, tuples] of after) {
    const read = tuples - before.get(table)!;
    assert.ok(read <= 20 * 10, `${read} rows of ${table} were read for 20 groups`);
  }
});

/** The rows that all sessions that have ended have fetched from each table. */
async function tuplesRead(db: TestDatabase): Promise<ReadonlyMap<string, number>> {
  await db.query('SELECT pg_stat_clear_snapshot()');
  const { rows: tables } = await db.query<{ relname: string; tuples: string }>(
    'SELECT relname, seq_tup_read + idx_tup_fetch AS tuples FROM pg_stat_user_tables WHERE idx_tup_fetch IS NOT NULL',
  );
  return new Map(tables.map(({ relname, tuples }) => [relname, Number(tuples)]));
}

/** Ends a session, and waits until the server is done with it. */
async function end(client: pg.Client, db: TestDatabase): Promise<void> {
  const { rows: own } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  await client.end();
  for (;;) {
    const { rowCount } = await db.query('SELECT FROM pg_stat_activity WHERE pid = $1', [
      own[0].pid,
    ]);
    if (rowCount === 0) return;
  }
}

/** Rooms of up to 12 groups, of which a parent's keys stay and some of few events come. */
const anyRoom = fc
  .array(
    fc.record({
      parent: fc.option(fc.nat(), { nil: undefined }),
      rows: fc.dictionary(fc.constantFrom('a', 'b', 'c', 'd'), fc.constantFrom('$1', '$2', '$3')),
      base: fc.option(fc.nat(), { nil: undefined }),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .map((groups) => {
    const keys: string[][] = [];
    return groups.map(({ parent, rows: entries, base }, index) => {
      const predecessor = parent === undefined || index === 0 ? undefined : (parent % index) + 1;
      const inherited = predecessor === undefined ? [] : keys[predecessor - 1];
      keys[index] = [...inherited, ...Object.keys(entries)];
      const possible = keys
        .slice(0, index)
        .flatMap((of, at) => (of.every((key) => keys[index].includes(key)) ? at + 1 : []));
      return {
        id: index + 1,
        predecessor,
        rows: Object.entries(entries).map(([key, event]) => `${key}/${event}`),
        newPredecessor: base === undefined ? undefined : possible[base % possible.length],
      };
    });
  });

test('any of the changes, in any order, keep every state, and none is applied twice', async (t) => {
  const db = await testDatabase(t);
  const client = await connect(t, db);
  const anyOrder = anyRoom.chain((room) =>
    fc.tuple(fc.constant(room), fc.shuffledSubarray(room, { minLength: 1 })),
  );
  await fc.assert(
    fc.asyncProperty(anyOrder, async ([room, chosen]) => {
      await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
      await store(db, room);
      const states = await readAllStates(db);
      const changes: PlannedGroup[] = [];
      for (const { id, newPredecessor } of chosen) {
        const planned = await planChange(db, id, newPredecessor);
        const { oldPredecessor, oldRows, newRows } = planned;
        if (oldPredecessor !== newPredecessor || oldRows !== newRows) changes.push(planned);
      }
      fc.pre(changes.length > 0);
      const sql = await guardedSql(changes);
      assert.deepEqual(await apply(client, sql), {
        rewritten: changes.length,
        skipped: 0,
        warnings: [],
      });
      expectSameStates(await readAllStates(db), states);
      const after = [await edges(db), await rows(db)];
      assert.equal((await apply(client, sql)).skipped, changes.length);
      assert.deepEqual([await edges(db), await rows(db)], after);
    }),
    { numRuns: 25 },
  );
});
