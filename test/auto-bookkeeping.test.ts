import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { goldenDatabase, readTables, run } from './support/auto-run.js';
import { rooms } from './support/naive-room.js';
import type { Room } from './support/naive-room.js';
import { Readable } from 'node:stream';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { expectSameStates, readAllStates } from './support/states.js';

const LEVELS = { strategy: { name: 'levels', sizes: undefined } } as const;
const ROOM = '!room1:example.org';

/** What can be wrong in the tables of a room that was compressed up to half, and what is said of it. */
const STALE: Readonly<Record<string, readonly [sql: string, said: RegExp | undefined]>> = {
  'no progress': ['DELETE FROM state_compressor_progress', /not known how far/],
  'a head that is gone': [
    `DELETE FROM state_groups WHERE id = (SELECT current_head FROM state_compressor_state WHERE level_num = 1);
     DELETE FROM state_groups_state WHERE state_group NOT IN (SELECT id FROM state_groups)`,
    /not in the room any more: \d+ of level 1\.$/,
  ],
  'a head of another room': [
    "UPDATE state_compressor_state SET current_head = (SELECT max(id) FROM state_groups WHERE room_id = '!room0:example.org') WHERE level_num = 2",
    /not in the room any more: \d+ of level 2\.$/,
  ],
  'a head that is yet to come': [
    `UPDATE state_compressor_state SET current_head = (SELECT max(id) FROM state_groups WHERE room_id = '${ROOM}') WHERE level_num = 1`,
    /head of level 1, is above 9061/,
  ],
  'a missing level': [
    'DELETE FROM state_compressor_state WHERE level_num = 1',
    /level 1 is missing/,
  ],
  'a length without a head': [
    'UPDATE state_compressor_state SET current_head = NULL WHERE level_num = 1',
    /level 1 has a length of \d+ and no head/,
  ],
  'a length beyond the size': [
    'UPDATE state_compressor_state SET current_length = 51 WHERE level_num = 2',
    /level 2 has a length of 51 and a size of 50/,
  ],
  'no levels': ['DELETE FROM state_compressor_state', undefined],
  'a last group that is gone': [
    'UPDATE state_compressor_progress SET last_compressed = last_compressed + 1',
    undefined,
  ],
  'no lowest group': ['DELETE FROM state_compressor_total_progress', undefined],
  'a room that is gone': [
    `INSERT INTO state_compressor_progress VALUES ('!gone:example.org', 5);
     INSERT INTO state_compressor_state VALUES ('!gone:example.org', 1, 100, 1, 5)`,
    /Forgot the progress of 1 room that has no state groups/,
  ],
};

test('stale bookkeeping heals itself, and every state stays', async (t) => {
  const db = await goldenDatabase(t);
  await run(db, { ...LEVELS, rooms: [ROOM], chunks: 2 });
  await db.query(`
    CREATE TABLE kept_groups AS TABLE state_groups; CREATE TABLE kept_edges AS TABLE state_group_edges;
    CREATE TABLE kept_rows AS TABLE state_groups_state; CREATE TABLE kept_levels AS TABLE state_compressor_state;
    CREATE TABLE kept_progress AS TABLE state_compressor_progress`);
  const states = await readAllStates(db, ROOM);
  for (const [name, [sql, said]] of Object.entries(STALE)) {
    await db.query(`
      TRUNCATE state_groups, state_group_edges, state_groups_state, state_compressor_state,
        state_compressor_progress, state_compressor_total_progress;
      INSERT INTO state_groups TABLE kept_groups; INSERT INTO state_group_edges TABLE kept_edges;
      INSERT INTO state_groups_state TABLE kept_rows; INSERT INTO state_compressor_state TABLE kept_levels;
      INSERT INTO state_compressor_progress TABLE kept_progress;
      INSERT INTO state_compressor_total_progress VALUES ('X', 0)`);
    await db.query(sql);
    // With a group its rows are gone, which others read through it.
    const before = name === 'a head that is gone' ? await readAllStates(db, ROOM) : states;
    const { failed, lines } = await run(db, { ...LEVELS, rooms: [ROOM] });
    assert.deepEqual(failed, [], name);
    const warned = lines.filter((line) => /stale|Forgot/.test(line));
    if (said === undefined) assert.deepEqual(warned, [], name);
    else assert.match(warned.join('\n'), said, name);
    expectSameStates(await readAllStates(db, ROOM), before);
    const tables = await readTables(db);
    assert.match(tables['state_compressor_progress'], /^!room1:example.org\t14464\n$/, name);
    await assertConsistent(db);
    assert.equal((await run(db, { ...LEVELS, rooms: [ROOM] })).chunks, 0, name);
  }
});

test('a level whose head was deleted leaves the other levels as they are', async (t) => {
  const db = await testDatabase(t);
  await db.query(`
    INSERT INTO state_groups SELECT id, '!a:x', '$' || id FROM generate_series(1, 4) AS id;
    INSERT INTO state_group_edges VALUES (4, 3);
    INSERT INTO state_groups_state
      SELECT id, '!a:x', 't', key, '$' || id FROM generate_series(1, 3) AS id, unnest('{a,b,c}'::text[]) AS key;
    INSERT INTO state_groups_state VALUES (4, '!a:x', 't', 'a', '$4')`);
  const levels = { strategy: { name: 'levels', sizes: [2, 9] } } as const;
  await run(db, levels);
  // The next group is stored in full, as Synapse does where its predecessor was deleted.
  await db.query(`
    DELETE FROM state_groups_state WHERE state_group = 4; DELETE FROM state_group_edges WHERE state_group = 4;
    DELETE FROM state_groups WHERE id = 4; INSERT INTO state_groups VALUES (5, '!a:x', '$5');
    INSERT INTO state_groups_state VALUES
      (5, '!a:x', 't', 'a', '$5'), (5, '!a:x', 't', 'b', '$3'), (5, '!a:x', 't', 'c', '$3')`);
  const { lines } = await run(db, levels);
  assert.match(lines.join('\n'), /not in the room any more: 4 of level 1\.$/m);
  const tables = await readTables(db);
  assert.match(tables['state_groups_state'], /^5\t!a:x\tt\ta\t\$5$(?!\n5)/m);
  assert.match(tables['state_group_edges'], /^5\t3$/m);
  assert.equal(tables['state_compressor_state'], '!a:x\t1\t2\t1\t5\n!a:x\t2\t9\t2\t5\n');
});

test('levels of other sizes than those asked for are begun anew', async (t) => {
  const db = await goldenDatabase(t);
  const before = await readAllStates(db);
  await run(db, { ...LEVELS, rooms: [ROOM], chunks: 2 });
  const same = await run(db, {
    strategy: { name: 'levels', sizes: [100, 50, 25] },
    rooms: [ROOM],
    chunks: 1,
  });
  assert.doesNotMatch(same.lines.join('\n'), /stale/);
  const other = await run(db, { strategy: { name: 'levels', sizes: [60, 40] }, rooms: [ROOM] });
  assert.match(other.lines.join('\n'), /the sizes 100,50,25, and 60,40 is asked for/);
  const { rows } = await db.query(
    'SELECT array_agg(max_size ORDER BY level_num) AS sizes FROM state_compressor_state',
  );
  assert.deepEqual(rows, [{ sizes: [60, 40] }]);
  expectSameStates(await readAllStates(db), before);
});

test('who may not make the tables is told, and who need not is not', async (t) => {
  const db = await goldenDatabase(t);
  const role = `auto_${db.name}`;
  await db.query(`
    CREATE ROLE ${role} LOGIN PASSWORD 'p';
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    GRANT SELECT, UPDATE ON state_groups TO ${role};
    GRANT SELECT, INSERT, DELETE ON state_group_edges, state_groups_state TO ${role};
    GRANT SELECT ON state_groups_pending_deletion TO ${role}`);
  const url = new URL(db.url);
  url.username = role;
  url.password = 'p';
  await assert.rejects(
    run(db, { dsn: url.href }),
    /may not make the tables .*CREATE TABLE state_compressor_state/s,
  );
  await run(db, { ...LEVELS, chunks: 1 });
  await assert.rejects(
    run(db, { dsn: url.href }),
    /permission denied for table state_compressor_.* automatic runs need SELECT, INSERT/s,
  );
  await db.query(`
    GRANT SELECT, INSERT, UPDATE, DELETE ON state_compressor_state, state_compressor_progress,
      state_compressor_total_progress TO ${role}`);
  assert.equal((await run(db, { dsn: url.href })).rooms, 3);
  await db.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
});

/** Heads are there, of their room and not above what was compressed; lengths fit sizes. */
async function assertConsistent(db: TestDatabase): Promise<void> {
  const { rows } = await db.query(`
    SELECT s.* FROM state_compressor_state AS s
      LEFT JOIN state_compressor_progress AS p USING (room_id)
      LEFT JOIN state_groups AS g ON g.id = current_head AND g.room_id = s.room_id
    WHERE last_compressed IS NULL OR current_length NOT BETWEEN 0 AND max_size
      OR current_head IS NOT NULL AND (g.id IS NULL OR g.id > last_compressed)
      OR (current_head IS NULL) <> (current_length = 0)`);
  assert.deepEqual(rows, []);
}

/** In COPY text, and named so that adaptive takes them whatever they promise. */
const ROOMS = ['!a:example.org', '!b\\t$$:example.org'];
const NAMES = ['!a:example.org', '!b\t$$:example.org', '!other:example.org'];

/** Adds the groups of rooms, in turn from each, with ids from `first` on. */
async function add(db: TestDatabase, made: readonly Room[], first: number): Promise<void> {
  const groups: string[] = [];
  const edges = new Set<string>();
  const rows: string[] = [];
  for (const [n, room] of made.entries()) {
    const idOf = (id: number): number => first + id * made.length + n;
    for (const { id, reason, predecessors, rows: delta } of room) {
      const name = reason === 'other-room' ? '!other:example.org' : ROOMS[n];
      if (reason !== 'missing-group') groups.push(`${idOf(id)}\t${name}\t$e\n`);
      for (const prev of predecessors) edges.add(`${idOf(id)}\t${idOf(prev)}\n`);
      for (const [key, event] of delta) rows.push(`${idOf(id)}\t${name}\t${key}\t${event}\n`);
    }
  }
  for (const [table, lines] of [
    ['state_groups', groups],
    ['state_group_edges', [...edges]],
    ['state_groups_state', rows],
  ] as const) {
    await db.copyIn(table, Readable.from([lines.join('')]));
  }
}

const room = fc.oneof(rooms(60, { regular: true }), rooms(40, { regular: false }));
const database = fc.tuple(room, room);
const strategy = fc.oneof(
  fc.constant({ name: 'adaptive', settings: { maxHops: 6 } } as const),
  fc
    .array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 })
    .map((sizes) => ({ name: 'levels', sizes }) as const),
);
const runs = fc.array(fc.record({ strategy, chunkSize: fc.integer({ min: 1, max: 50 }) }), {
  minLength: 1,
  maxLength: 2,
});

test('whatever runs on whatever rooms, states stay, and once more changes nothing', async (t) => {
  const db = await testDatabase(t);
  await fc.assert(
    fc.asyncProperty(database, database, runs, async (old, later, settings) => {
      await db.query(`
        TRUNCATE state_groups, state_group_edges, state_groups_state;
        DROP TABLE IF EXISTS state_compressor_state, state_compressor_progress, state_compressor_total_progress`);
      for (const [time, made] of [old, later].entries()) {
        await add(db, made, 1 + time * 1000);
        const before = await readAllStates(db);
        for (const { strategy: by, chunkSize } of settings) {
          const all = { strategy: by, chunkSize, ...(by.name === 'adaptive' && { rooms: NAMES }) };
          const { failed, groupsSkipped } = await run(db, all);
          assert.deepEqual(failed, []);
          expectSameStates(await readAllStates(db), before);
          await assertConsistent(db);
          const tables = await readTables(db);
          await run(db, all);
          // What was skipped, for a predecessor that is not in state_groups, leaves another room to plan on.
          if (groupsSkipped === 0) assert.deepEqual(await readTables(db), tables);
        }
      }
    }),
    { numRuns: 20 },
  );
});
