/** Automatic runs in tests: a database with rooms, a run, and what the tables hold afterwards. */
import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';
import { autoCompress } from '../../src/auto/auto-compressor.js';
import { nothingDone } from '../../src/auto/auto-settings.js';
import type { AutoSettings, AutoSummary } from '../../src/auto/auto-settings.js';
import { loadTables, readFixture } from './fixtures.js';
import { testDatabase } from './postgres.js';
import type { TestDatabase } from './postgres.js';

/** The tables in the order of fixtures/golden/auto/after. */
const IN_ORDER = {
  state_group_edges: 'SELECT * FROM state_group_edges ORDER BY state_group, prev_state_group',
  state_groups_state:
    'SELECT * FROM state_groups_state ORDER BY state_group, type, state_key, event_id',
  state_compressor_state: 'SELECT * FROM state_compressor_state ORDER BY room_id, level_num',
  state_compressor_progress: 'SELECT * FROM state_compressor_progress ORDER BY room_id',
  state_compressor_total_progress: 'SELECT * FROM state_compressor_total_progress',
};

/** Three rooms of 1,200, 1,600 and 2,000 state groups, which the old tool has compressed as well. */
export const GOLDEN_ROOMS = ['!room0:example.org', '!room1:example.org', '!room2:example.org'];

export async function goldenDatabase(t: TestContext): Promise<TestDatabase> {
  const db = await testDatabase(t);
  await loadTables(db, 'golden/auto/before');
  return db;
}

/** A run on all rooms, by adaptive unless it is said, and what it logged. */
export async function run(
  db: TestDatabase,
  settings: Partial<AutoSettings> = {},
  summary = nothingDone(),
): Promise<AutoSummary & { readonly lines: readonly string[] }> {
  const lines: string[] = [];
  const all: AutoSettings = {
    dsn: db.url,
    env: {},
    strategy: { name: 'adaptive', settings: {} },
    order: settings.strategy?.name === 'levels' ? 'id' : 'gain',
    chunkSize: 500,
    chunks: Infinity,
    rooms: [],
    except: [],
    maxRooms: Infinity,
    timeBudget: undefined,
    pace: undefined,
    vacuum: false,
    dryRun: false,
    tmpdir: tmpdir(),
    signal: new AbortController().signal,
    log: (_, message) => lines.push(message),
    onProgress: () => {},
    ...settings,
  };
  await autoCompress(all, summary);
  return { ...summary, lines };
}

/** The five tables as COPY text. */
export async function readTables(db: TestDatabase): Promise<Record<string, string>> {
  const tables: Record<string, string> = {};
  for (const [table, query] of Object.entries(IN_ORDER)) {
    tables[table] = await text(db.copyOut(query));
  }
  return tables;
}

/** Fails unless the tables, but for those that are excepted, are what the old tool left, its own among them. */
export async function assertGolden(
  db: TestDatabase,
  except: readonly string[] = [],
): Promise<void> {
  for (const [table, actual] of Object.entries(await readTables(db))) {
    if (except.includes(table)) continue;
    const lines = actual.split('\n');
    const expected = (await text(readFixture(`golden/auto/after/${table}.copy.gz`))).split('\n');
    const at = expected.findIndex((line, index) => line !== lines[index]);
    assert.equal(lines[at], expected[at], `${table}, line ${at + 1}`);
    assert.equal(lines.length, expected.length, table);
  }
}
