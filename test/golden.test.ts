import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Statistics } from '../src/report/statistics.js';
import { NO_CHANGES } from '../src/sinks/no-changes.js';
import { applySql } from './support/apply-sql.js';
import {
  fixture,
  goldenCases,
  loadTables,
  readFixture,
  temporaryFolder,
} from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

const ROOM = '!OGEhHVWSdvArJzumhm:example.org';

/** What the old tool printed, and whether it wrote anything. */
interface Expected {
  readonly options: string;
  readonly stateGroups: number;
  readonly rowsBefore: number;
  readonly rowsAfter: number;
  readonly forcedResets: number;
  readonly forcedResetRows: number;
  readonly stateGroupsChanged: number;
  readonly applied: boolean;
}

/** The order of the tables in `after/`. */
const IN_ORDER = {
  state_group_edges: 'SELECT * FROM state_group_edges ORDER BY state_group, prev_state_group',
  state_groups_state: 'SELECT * FROM state_groups_state ORDER BY state_group, type, state_key',
};

for (const name of goldenCases()) {
  const expected = JSON.parse(
    readFileSync(fixture('golden', name, 'expected.json'), 'utf8'),
  ) as Expected;

  test(`as the old tool: ${name} (${expected.options || 'default options'})`, async (t) => {
    const folder = await temporaryFolder(t);
    for (const transactions of [true, false]) {
      const db = await loadedDatabase(t, name);
      const run = async (source: string[], output: string) => {
        const sql = join(folder, `${output}-${transactions}.sql`);
        const options = [
          '--strategy',
          'levels',
          ...expected.options.split(' ').filter(Boolean),
          ...(transactions ? ['-t'] : []),
        ];
        const statistics = await compress([...source, ...options], sql);
        assertCounts(statistics, expected);
        const isWritten = (await readFile(sql, 'utf8')) !== `${NO_CHANGES}\n`;
        assert.equal(isWritten, expected.applied);
        return sql;
      };
      const fromFiles = await run(['-i', fixture('golden', name, 'before')], 'files');
      const fromPostgres = await run(['-p', db.url], 'postgres');
      if (!expected.applied) continue;

      assertSameLines(await changesIn(fromFiles), await changesIn(fromPostgres), 'SQL');
      // Equal tables have equal states, so those of the second database need not be read again.
      const before = transactions ? await readAllStates(db) : undefined;
      await applySql(db, fromFiles, { oneTransaction: !transactions });
      if (before) expectSameStates(await readAllStates(db), before);
      await assertTables(db, name);
    }
  });
}

async function loadedDatabase(t: TestContext, name: string): Promise<TestDatabase> {
  const db = await testDatabase(t);
  await loadTables(db, `golden/${name}/before`);
  return db;
}

async function compress(args: readonly string[], sql: string): Promise<Statistics> {
  const { code, stdout, stderr } = await runCli([...args, '-r', ROOM, '-o', sql, '--stats-file=-']);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Statistics;
}

function assertCounts(statistics: Statistics, expected: Expected): void {
  const { options: _options, applied, ...counts } = expected;
  const { stateGroups, rowsBefore, rowsAfter, forcedResets, forcedResetRows } = statistics;
  const { stateGroupsChanged, outcome } = statistics;
  assert.deepEqual(
    { stateGroups, rowsBefore, rowsAfter, forcedResets, forcedResetRows, stateGroupsChanged },
    counts,
  );
  assert.equal(outcome === 'written', applied, outcome);
}

/** The file without the comment at its top, which names the source. */
async function changesIn(file: string): Promise<string> {
  return (await readFile(file, 'utf8')).replace(/^(?:--.*\n)+/, '');
}

async function assertTables(db: TestDatabase, name: string): Promise<void> {
  for (const [table, query] of Object.entries(IN_ORDER)) {
    const actual = await text(db.copyOut(query));
    const wanted = await text(readFixture('golden', name, `after/${table}.copy.gz`));
    assertSameLines(actual, wanted, table);
  }
}

/** The first difference says more than a hundred thousand of them. */
function assertSameLines(actual: string, expected: string, what: string): void {
  const [lines, expectedLines] = [actual.split('\n'), expected.split('\n')];
  const at = expectedLines.findIndex((line, index) => line !== lines[index]);
  assert.equal(lines[at], expectedLines[at], `${what}, line ${at + 1}`);
  assert.equal(lines.length, expectedLines.length, `lines of ${what}`);
}
