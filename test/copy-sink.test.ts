import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { RoomPlan } from '../src/planner/room-plan.js';
import { copySink } from '../src/sinks/copy.js';
import type { CopySettings } from '../src/sinks/copy.js';
import { openPostgresSource } from '../src/sources/postgres/postgres-source.js';
import { loadTables } from './support/fixtures.js';
import { planRoom, ROOM, ROOM_GROUPS, store } from './support/guarded-change.js';
import { testPostgres } from './support/postgres.js';
import type { Schema, TestDatabase } from './support/postgres.js';
import { hasPsql, psql } from './support/psql.js';
import { expectSameStates, readAllStates } from './support/states.js';

const skip = !hasPsql && 'there is no psql';

async function database(t: TestContext, schema: Schema = 'synapse'): Promise<TestDatabase> {
  const db = await (await testPostgres()).createDatabase({ schema });
  t.after(() => db.drop());
  return db;
}

function script(
  changes: readonly PlannedGroup[],
  settings: Partial<CopySettings> = {},
): Promise<string> {
  const sink = copySink({ room: ROOM, header: ['made by hand'], ...settings });
  return text(Readable.from([changes]).pipe(sink));
}

async function edges(db: TestDatabase): Promise<string> {
  return text(db.copyOut('SELECT * FROM state_group_edges ORDER BY 1, 2'));
}

const NEW_EDGES = '2\t1\n3\t1\n4\t2\n5\t3\n';

for (const schema of ['synapse', 'synapse-before-1.124'] as const) {
  test(
    `psql applies the script once, and a second time nothing (${schema})`,
    { skip },
    async (t) => {
      const db = await database(t, schema);
      await store(db, ROOM_GROUPS);
      const states = await readAllStates(db);
      const sql = await script(await planRoom(db));

      for (const counts of ['4|0|0\n', '0|4|0\n']) {
        assert.deepEqual(await psql(db, Readable.from([sql]), ['-tA']), {
          code: 0,
          stdout: counts,
          stderr: '',
        });
        assert.equal(await edges(db), NEW_EDGES);
        expectSameStates(await readAllStates(db), states);
      }
    },
  );
}

const PSQL_OPTIONS = [[], ['-1'], ['-v', 'AUTOCOMMIT=off'], ['-v', 'ON_ERROR_ROLLBACK=on']];

for (const options of PSQL_OPTIONS) {
  for (const batch of [1, 3, 500]) {
    const how = `psql ${options.join(' ')}, ${batch} groups at once,`;
    test(`${how} goes on after a group that is left`, { skip }, async (t) => {
      const db = await database(t);
      await store(db, ROOM_GROUPS);
      const sql = await script(await planRoom(db), { batch });
      await db.query("DELETE FROM state_groups_state WHERE state_group = 4 AND type = 'topic'");
      const states = await readAllStates(db);

      const { code, stdout, stderr } = await psql(db, Readable.from([sql]), ['-tA', ...options]);
      assert.deepEqual([code, stdout], [0, '3|0|1\n']);
      assert.match(stderr, /NOTICE: {2}State group 4 was left as it is: its rows are not what was/);
      assert.doesNotMatch(stderr, /ERROR/);
      assert.equal(await edges(db), '2\t1\n3\t1\n4\t3\n5\t3\n');
      expectSameStates(await readAllStates(db), states);
    });
  }

  test(
    `psql ${options.join(' ')} breaks no group, wherever the script is cut off`,
    { skip },
    async (t) => {
      const db = await database(t);
      await store(db, ROOM_GROUPS);
      const states = await readAllStates(db);
      const sql = await script(await planRoom(db), { batch: 2 });
      const begin = sql.indexOf('\nBEGIN;\nCOPY');
      const lines = [...sql.matchAll(/\n/g)]
        .map(({ index }) => index)
        .filter((end) => end >= begin);
      const cut = fc.oneof(
        fc.integer({ min: begin, max: sql.length }),
        fc.constantFrom(...lines),
        fc.constantFrom(...lines.map((end) => end + 1)),
      );
      await fc.assert(
        // The second begins where the first was cut off, as a file does that is written over.
        fc.asyncProperty(cut, fc.boolean(), async (end, again) => {
          await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
          await store(db, ROOM_GROUPS);
          await psql(db, Readable.from([sql.slice(0, end), again ? sql : '']), options);
          expectSameStates(await readAllStates(db), states);
        }),
        { numRuns: 40 },
      );
    },
  );
}

test('scripts of several rooms are one script', { skip }, async (t) => {
  const db = await database(t);
  await loadTables(db, 'synapse');
  const states = await readAllStates(db);
  const { rows: rooms } = await db.query<{ room: string }>(
    'SELECT DISTINCT room_id AS room FROM state_groups',
  );
  const scripts: Buffer[] = [];
  for (const { room } of rooms) {
    const source = await openPostgresSource({ dsn: db.url, env: {}, room, range: {} });
    const plan = source.rows().pipe(new RoomPlan(source, new AdaptivePlanner()));
    scripts.push(await buffer(plan.pipe(copySink({ room, header: [] }))));
  }
  const { code, stdout, stderr } = await psql(db, Readable.from(scripts), ['-tA']);
  assert.deepEqual([code, stderr], [0, '']);
  assert.match(stdout, /^(\d+\|0\|0\n)+$/);
  expectSameStates(await readAllStates(db), states);
});

test('nothing is written where nothing changes', async () => {
  const group = { stateGroup: 2, oldPredecessor: 1, newPredecessor: 1, oldRows: 3, newRows: 3 };
  assert.equal(await script([{ ...group, change: undefined }]), '');
});
