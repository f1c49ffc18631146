import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { loadTables, readFixture } from './support/fixtures.js';
import { testPostgres } from './support/postgres.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

/** The order of the tables in fixtures/golden/auto/after. */
const IN_ORDER = {
  state_group_edges: 'SELECT * FROM state_group_edges ORDER BY state_group, prev_state_group',
  state_groups_state: 'SELECT * FROM state_groups_state ORDER BY state_group, type, state_key',
  state_compressor_state: 'SELECT * FROM state_compressor_state ORDER BY room_id, level_num',
  state_compressor_progress: 'SELECT * FROM state_compressor_progress ORDER BY room_id',
  state_compressor_total_progress: 'SELECT * FROM state_compressor_total_progress',
};

test("by levels all tables come out as the old tool's do, its own included", async (t) => {
  const db = await (await testPostgres()).createDatabase({ schema: 'synapse' });
  t.after(() => db.drop());
  await loadTables(db, 'golden/auto/before');
  const before = await readAllStates(db);
  const args = ['auto', '-p', db.url, '-c', '500', '-n', '1000', '-l', '100,50,25'];
  const { code, stderr } = await runCli([...args, '--log-format', 'json']);
  assert.equal(code, 0, stderr);
  const lines = stderr.trim().split('\n');
  const summary = JSON.parse(lines.at(-1)!) as Record<string, unknown>;
  const { chunks, withoutGain, failed } = summary;
  assert.deepEqual({ chunks, withoutGain, failed }, { chunks: 11, withoutGain: 0, failed: [] });
  assert.equal(Number(summary['rowsDeleted']) - Number(summary['rowsInserted']), 25765);
  for (const [table, query] of Object.entries(IN_ORDER)) {
    const actual = (await text(db.copyOut(query))).split('\n');
    const expected = (await text(readFixture(`golden/auto/after/${table}.copy.gz`))).split('\n');
    const at = expected.findIndex((line, index) => line !== actual[index]);
    assert.equal(actual[at], expected[at], `${table}, line ${at + 1}`);
    assert.equal(actual.length, expected.length, table);
  }
  expectSameStates(await readAllStates(db), before);
});
