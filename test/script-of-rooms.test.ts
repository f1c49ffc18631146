import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { compressRooms } from '../src/compress-rooms.js';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { roomLine } from '../src/sinks/among-rooms.js';
import { openPostgresRooms } from '../src/sources/postgres/postgres-rooms.js';
import { temporaryFolder } from './support/fixtures.js';
import { memoryOutput } from './support/memory-output.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql, psql } from './support/psql.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

const skip = !hasPsql && 'there is no psql';

const FORMS = [
  { form: 'copy', settings: { format: 'copy' }, options: [] },
  { form: 'sql -t', settings: { transactions: true }, options: [] },
  { form: 'sql', settings: {}, options: ['-1', '-v', 'ON_ERROR_STOP=1'] },
] as const;
type Settings = (typeof FORMS)[number]['settings'];

const name = (room: number): string => `!it's\\${room}:x`;

/** Stores rooms of 12 groups, among them three snapshots of 20 rows, of which two can go. */
async function storeRooms(db: TestDatabase, count: number): Promise<void> {
  await db.query(`
    TRUNCATE state_groups, state_group_edges, state_groups_state;
    CREATE TEMPORARY TABLE IF NOT EXISTS stored (id int, room text, place int);
    TRUNCATE stored;
    INSERT INTO stored SELECT room * 12 + place, '!it''s\\' || room || ':x', place
      FROM generate_series(0, ${count - 1}) AS room, generate_series(1, 12) AS place;
    INSERT INTO state_groups SELECT id, room, '$e' FROM stored;
    INSERT INTO state_group_edges SELECT id, id - 1 FROM stored WHERE place NOT IN (1, 6, 10);
    INSERT INTO state_groups_state
      SELECT id, room, 'm.room.member', key::text, '$' || id / 12 || '_' || key || (key < place)
      FROM stored, generate_series(1, 20) AS key WHERE place IN (1, 6, 10) OR key = place - 1`);
}

async function script(
  t: TestContext,
  db: TestDatabase,
  settings: Settings,
  rooms?: readonly string[],
): Promise<string> {
  const output = memoryOutput();
  await compressRooms({
    ...settings,
    source: await openPostgresRooms({ dsn: db.url, env: {}, ...(rooms && { rooms }) }),
    planner: () => new AdaptivePlanner(),
    output,
    tmpdir: await temporaryFolder(t),
  });
  return output.text();
}

async function rowsStored(db: TestDatabase): Promise<number> {
  const { rows: counts } = await db.query<{ count: string }>(
    'SELECT count(*) FROM state_groups_state',
  );
  return Number(counts[0].count);
}

for (const { form, settings, options } of FORMS) {
  test(`what a script of ${form} sets up and counts stands once, however many rooms`, async (t) => {
    const db = await testDatabase(t);
    const scripts: string[] = [];
    for (const count of [1, 5, 45]) {
      await storeRooms(db, count);
      scripts.push(await script(t, db, settings));
    }
    for (const once of [/\bCREATE /g, /^SET /gm, /^SELECT current_setting|^WITH counts/gm]) {
      const counts = scripts.map((sql) => [...sql.matchAll(once)].length);
      assert.equal(new Set(counts).size, 1, String(once));
    }
    const bytes = (scripts[2].length - scripts[1].length) / 40;
    assert.ok(bytes < 2000, `${bytes} bytes a room`);
  });

  test(`psql applies scripts of rooms one after the other (${form})`, { skip }, async (t) => {
    const db = await testDatabase(t);
    await storeRooms(db, 20);
    const states = await readAllStates(db);
    const sql = await script(t, db, settings);
    await storeRooms(db, 5);
    const first = await script(t, db, settings);
    await storeRooms(db, 20);

    const { code, stdout, stderr } = await psql(db, Readable.from([first, sql]), [
      '-tA',
      ...options,
    ]);
    assert.equal(code, 0);
    assert.doesNotMatch(stderr, /ERROR/);
    if (form !== 'sql') assert.equal(stdout, '10|0|0\n30|10|0\n');
    assert.equal(await rowsStored(db), 20 * (20 + 11));
    expectSameStates(await readAllStates(db), states);
  });

  test(
    `a script of rooms breaks no group, wherever it is cut off (${form})`,
    { skip },
    async (t) => {
      const db = await testDatabase(t);
      await storeRooms(db, 3);
      const states = await readAllStates(db);
      const sql = await script(t, db, settings);
      const begin = sql.indexOf("'!it");
      const ends = [...sql.matchAll(/\n/g)].flatMap(({ index }) => [index, index + 1]);
      const cut = fc.oneof(
        fc.integer({ min: begin, max: sql.length }),
        fc.constantFrom(...ends.filter((end) => end >= begin)),
      );
      await fc.assert(
        fc.asyncProperty(cut, async (end) => {
          await storeRooms(db, 3);
          await psql(db, Readable.from([sql.slice(0, end)]), options);
          expectSameStates(await readAllStates(db), states);
        }),
        { numRuns: 25 },
      );
    },
  );

  test(`apply and verify read scripts of rooms one after the other (${form})`, async (t) => {
    const db = await testDatabase(t);
    await storeRooms(db, 5);
    const states = await readAllStates(db);
    const first = await script(t, db, settings, [name(0), name(1)]);
    const second = await script(t, db, settings, [name(2), name(3), name(4)]);
    const file = join(await temporaryFolder(t), 'changes');
    await writeFile(file, first + second);
    for (const room of [1, 2, 4]) {
      const args = ['verify', db.url, '--changes', file, '-r', name(room)];
      const { code, stdout, stderr } = await runCli(args);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /: 12 state groups compared, all states are equal\.\n$/);
    }
    const { code, stderr } = await runCli(['apply', file, '-p', db.url]);
    if (form === 'sql') {
      assert.equal(code, 3);
      return;
    }
    assert.equal(code, 0, stderr);
    assert.match(stderr, /\nRewrote 10 state groups: /);
    assert.equal(await rowsStored(db), 5 * (20 + 11));
    expectSameStates(await readAllStates(db), states);
  });
}

test('of a room that was cut out by hand nothing is taken for commands', { skip }, async (t) => {
  const db = await testDatabase(t);
  await storeRooms(db, 3);
  const states = await readAllStates(db);
  const sql = await script(t, db, { format: 'copy' });
  const further = sql.slice(sql.indexOf(roomLine(name(1))));
  const { code, stderr } = await psql(db, Readable.from([further]), []);
  assert.equal(code, 3);
  assert.equal([...stderr.matchAll(/ERROR/g)].length, 1, stderr);
  expectSameStates(await readAllStates(db), states);
});
