import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { Statistics } from '../src/report/statistics.js';
import { applySql } from './support/apply-sql.js';
import {
  fixture,
  LARGE_ROOM,
  loadTables,
  synapseStates,
  temporaryFolder,
} from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

/** Both rooms, what is known of them, and the rows that the old tool leaves of the large one. */
const ROOMS = [
  {
    room: LARGE_ROOM,
    known: { stateGroups: 5394, rowsBefore: 18351 },
    rowsAfterLevels: 8951,
  },
  {
    room: '!MlmO6RiERMEwPQNvXSAjqHDDQP-s6jpT6UOy23RaJOY',
    known: { stateGroups: 620, rowsBefore: 1128 },
  },
];

/** The longest chains: of adaptive its bound, of levels three that are full, 100 + 50 + 25. */
const MOST_HOPS = { adaptive: 100, levels: 175 };

for (const [strategy, transactions] of [
  ['adaptive', true],
  ['adaptive', false],
  ['levels', true],
] as const) {
  const how = transactions ? 'with -t' : 'in one transaction';
  test(`both rooms of a real Synapse keep every state by ${strategy}, applied ${how}`, async (t) => {
    const folder = await temporaryFolder(t);
    const db = await testDatabase(t);
    await loadTables(db, 'synapse');
    const asSynapseReads = await synapseStates();
    const hops = new Map(asSynapseReads.map((state) => [state.group, state.hops]));

    for (const [index, { room, known, rowsAfterLevels }] of ROOMS.entries()) {
      const sql = join(folder, `${index}.sql`);
      const { code, stdout, stderr } = await runCli([
        ...(transactions ? ['-t'] : []),
        '--strategy',
        strategy,
        '-i',
        fixture('synapse'),
        '-r',
        room,
        '-o',
        sql,
        '--stats-file=-',
      ]);
      assert.equal(code, 0, stderr);
      const statistics = JSON.parse(stdout) as Statistics;
      assert.deepEqual({ ...statistics, ...known }, statistics);
      if (strategy === 'levels' && rowsAfterLevels !== undefined) {
        assert.equal(statistics.rowsAfter, rowsAfterLevels);
      }
      assert.equal(statistics.outcome, 'written');
      assert.equal(statistics.groupsVerified, statistics.groupsWritten);
      assert.deepEqual(statistics.warnings, []);
      assert.ok(statistics.hopsAfter.largest <= MOST_HOPS[strategy]);
      assertHops(
        statistics,
        (await groupsOf(db, room)).map((group) => hops.get(group) ?? 0),
      );

      await applySql(db, sql, { oneTransaction: !transactions });
      assert.equal(await rowsOf(db, room), statistics.rowsAfter);
    }
    expectSameStates(
      await readAllStates(db),
      new Map(asSynapseReads.map(({ group, sha256 }) => [group, sha256])),
    );
  });
}

function assertHops({ hopsBefore }: Statistics, hops: readonly number[]): void {
  assert.equal(hopsBefore.largest, Math.max(...hops));
  const mean = hops.reduce((sum, count) => sum + count, 0) / hops.length;
  assert.ok(Math.abs(hopsBefore.mean - mean) < 0.01, `${hopsBefore.mean} is not ${mean}`);
}

async function groupsOf(db: TestDatabase, room: string): Promise<number[]> {
  const { rows } = await db.query<{ id: string }>(
    'SELECT id FROM state_groups WHERE room_id = $1',
    [room],
  );
  return rows.map(({ id }) => Number(id));
}

async function rowsOf(db: TestDatabase, room: string): Promise<number> {
  const { rows } = await db.query<{ count: string }>(
    'SELECT count(*) FROM state_groups_state WHERE room_id = $1',
    [room],
  );
  return Number(rows[0].count);
}

test('an export of rows that failed midway, behind a whole one, does not pass without a warning', async (t) => {
  const folder = await temporaryFolder(t);
  for (const table of ['state_groups', 'state_group_edges']) {
    copyFileSync(fixture('synapse', `${table}.copy.gz`), join(folder, `${table}.copy.gz`));
  }
  const all = gunzipSync(readFileSync(fixture('synapse', 'state_groups_state.copy.gz')));
  const warnings = async (rows: Buffer): Promise<readonly string[]> => {
    writeFileSync(join(folder, 'state_groups_state.copy'), rows);
    const { code, stdout } = await runCli(['-i', folder, '-r', ROOMS[0].room, '--stats-file=-']);
    assert.equal(code, 0);
    return (JSON.parse(stdout) as Statistics).warnings;
  };
  assert.deepEqual(await warnings(all), []);
  const half = all.subarray(0, all.indexOf('\n', all.length / 2) + 1);
  const [warning, ...others] = await warnings(half);
  assert.match(warning, /^\d\d state groups have neither rows nor an edge,/);
  assert.deepEqual(others, []);
});
