import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { applySql } from './support/apply-sql.js';
import {
  fixture,
  goldenCases,
  LARGE_ROOM,
  loadTables,
  temporaryFolder,
} from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { CLI, runCli } from './support/run-cli.js';
import { readAllStates } from './support/states.js';

const GOLDEN_ROOM = '!OGEhHVWSdvArJzumhm:example.org';
const SMALL_ROOM = '!MlmO6RiERMEwPQNvXSAjqHDDQP-s6jpT6UOy23RaJOY';

async function database(t: TestContext, tables?: string): Promise<TestDatabase> {
  const db = await testDatabase(t);
  if (tables !== undefined) await loadTables(db, tables);
  return db;
}

for (const name of goldenCases()) {
  if (!existsSync(fixture('golden', name, 'after'))) continue;
  test(`what the old tool made of a room is equal: ${name}`, async (t) => {
    // It holds the two tables that change; the groups stay the same.
    const after = join(await temporaryFolder(t), 'after');
    await mkdir(after);
    for (const table of ['state_group_edges', 'state_groups_state']) {
      const file = `${table}.copy.gz`;
      await symlink(fixture('golden', name, 'after', file), join(after, file));
    }
    const groups = 'state_groups.copy.gz';
    await symlink(fixture('golden', name, 'before', groups), join(after, groups));
    const before = fixture('golden', name, 'before');
    const { code, stdout, stderr } = await runCli(['verify', before, after, '-r', GOLDEN_ROOM]);
    assert.equal(code, 0, stderr);
    assert.match(
      stdout,
      /^Room '!OGEhHVWSdvArJzumhm:example.org': \d+ state groups compared, all states are equal\.\n$/,
    );
  });
}

test('a real room is equal before and after, by each strategy', async (t) => {
  const folder = await temporaryFolder(t);
  const before = fixture('synapse');
  for (const strategy of ['levels', 'adaptive']) {
    const db = await database(t, 'synapse');
    for (const [room, groups] of [
      [LARGE_ROOM, 5394],
      [SMALL_ROOM, 620],
    ] as const) {
      const sql = join(folder, `${strategy}-${groups}.sql`);
      const compressed = await runCli(
        ['-i', before, '-r', room, '-t', '-o', sql].concat('--strategy', strategy),
      );
      assert.equal(compressed.code, 0, compressed.stderr);
      await applySql(db, sql, { oneTransaction: false });
      const { host, port, user, password } = db.address;
      const { code, stdout, stderr } = await runCli(
        ['verify', before, `dbname=${db.name} host=${host} port=${port}`, '--room-id', room],
        { env: { PGUSER: user, PGPASSWORD: password } },
      );
      assert.equal(code, 0, stderr);
      assert.equal(
        stdout,
        `Room '${room}': ${groups} state groups compared, all states are equal.\n`,
      );
    }
  }
});

/** A group's state as Synapse reads it: of each key the events of the highest group in its chain. */
async function stateOf(db: TestDatabase, id: number): Promise<Map<string, string[]>> {
  const { rows } = await db.query<{ type: string; state_key: string; events: string[] }>(
    `WITH RECURSIVE chain (id) AS (
       VALUES ($1::bigint)
       UNION SELECT prev_state_group FROM chain JOIN state_group_edges ON state_group = id
     )
     SELECT DISTINCT ON (type, state_key)
       type, state_key, array_agg(DISTINCT event_id ORDER BY event_id) AS events
     FROM chain JOIN state_groups_state ON state_group = id
     GROUP BY type, state_key, id ORDER BY type, state_key, id DESC`,
    [id],
  );
  return new Map(
    rows.map(({ type, state_key, events }) => [JSON.stringify([type, state_key]), events]),
  );
}

/** The lines that `verify` prints about a group that differs, by the whole states. */
async function differenceLines(before: TestDatabase, after: TestDatabase, id: number) {
  const [was, is] = [await stateOf(before, id), await stateOf(after, id)];
  const keys = [...new Set([...was.keys(), ...is.keys()])]
    .filter((key) => was.get(key)?.join() !== is.get(key)?.join())
    .sort();
  const [type, stateKey] = JSON.parse(keys[0]) as [string, string];
  const events = (state: typeof was) =>
    state
      .get(keys[0])
      ?.map((event) => JSON.stringify(event))
      .join(' or ') ?? 'no event';
  return [
    `State group ${id} differs in ${keys.length === 1 ? 'one key' : `${keys.length} keys, the first of them`}:`,
    `  type:      ${JSON.stringify(type)}`,
    `  state_key: ${JSON.stringify(stateKey)}`,
    `  before:    ${events(was)}`,
    `  after:     ${events(is)}`,
  ];
}

/** What is done to a row ($1, $2), and to its group ($3), which has a predecessor. */
const CHANGES = [
  ['another event', `UPDATE state_groups_state SET event_id = '$other' WHERE ctid = $row`],
  ['a row less', 'DELETE FROM state_groups_state WHERE ctid = $row'],
  ['another key', `UPDATE state_groups_state SET state_key = E'new\t"' WHERE ctid = $row`],
  [
    'a contradiction',
    `INSERT INTO state_groups_state
     SELECT state_group, room_id, type, state_key, '~other' FROM state_groups_state WHERE ctid = $row`,
  ],
  ['an edge less', 'DELETE FROM state_group_edges WHERE state_group = $group'],
  [
    'an edge to another room',
    `INSERT INTO state_group_edges
     SELECT $group, max(id) FROM state_groups WHERE room_id <> $room AND id < $group`,
  ],
  [
    'an edge to a larger group',
    `INSERT INTO state_group_edges SELECT $group, max(id) FROM state_groups WHERE room_id = $room`,
  ],
] as const;

for (const [name, change] of CHANGES) {
  test(`${name} is found, and the group, the key and its events are named`, async (t) => {
    const [before, after] = [await database(t, 'synapse'), await database(t, 'synapse')];
    const { rows } = await after.query<{ row: string; group: string }>(
      `SELECT s.ctid AS row, state_group AS group
       FROM state_groups_state AS s JOIN state_group_edges USING (state_group)
       WHERE room_id = $1 ORDER BY state_group LIMIT 1 OFFSET 150`,
      [SMALL_ROOM],
    );
    const [{ row, group }] = rows;
    const values: Record<string, string> = { row: `'${row}'`, group, room: `'${SMALL_ROOM}'` };
    await after.query(change.replace(/\$(row|group|room)\b/g, (_, key: string) => values[key]));
    const states = await readAllStates(before, SMALL_ROOM);
    const statesAfter = await readAllStates(after, SMALL_ROOM);
    const differing = [...states.keys()]
      .filter((id) => states.get(id) !== statesAfter.get(id))
      .sort((a, b) => a - b);

    const { code, stdout, stderr } = await runCli(
      ['verify', before.url, after.url].concat('-r', SMALL_ROOM),
    );
    assert.equal(code, 8, stderr);
    const lines = stdout.trimEnd().split('\n');
    const [, named] = /^State group (\d+) /.exec(lines[1])!;
    assert.deepEqual(lines.slice(1), await differenceLines(before, after, Number(named)));
    assert.match(stderr, new RegExp(`State group ${named} of room .* has another state in AFTER`));
    if (name === 'an edge to a larger group') {
      assert.ok(differing.includes(Number(named)));
    } else {
      assert.equal(Number(named), differing[0]);
      const compared = [...states.keys()].filter((id) => id <= differing[0]).length;
      assert.equal(
        lines[0],
        `Room '${SMALL_ROOM}': ${compared} state groups compared, the last state differs.`,
      );
    }
  });
}

test('groups that only one side has are named; only a loss is an error', async (t) => {
  const db = await database(t, 'synapse');
  const { rows } = await db.query<{ id: string }>(
    `SELECT id FROM state_groups WHERE room_id = $1 AND NOT EXISTS (
       SELECT FROM state_group_edges WHERE prev_state_group = id) ORDER BY id LIMIT 1`,
    [SMALL_ROOM],
  );
  const [{ id }] = rows;
  await db.query(`
    DELETE FROM state_groups WHERE id = ${id};
    DELETE FROM state_group_edges WHERE state_group = ${id};
    DELETE FROM state_groups_state WHERE state_group = ${id};`);
  const lost = await runCli(['verify', fixture('synapse'), db.url, '-r', SMALL_ROOM]);
  assert.equal(lost.code, 8);
  assert.equal(
    lost.stdout,
    `Room '${SMALL_ROOM}': 619 state groups compared, all states are equal.\n` +
      `Only in BEFORE: 1 state group (${id}).\n`,
  );
  assert.match(
    lost.stderr,
    /: AFTER lacks 1 state group of room '.*' that BEFORE has\. If it has no table state_groups, put BEFORE's beside it: groups without rows are not known otherwise\.\n$/,
  );
  const grown = await runCli(['verify', db.url, fixture('synapse'), '-r', SMALL_ROOM]);
  assert.equal(grown.code, 0, grown.stderr);
  assert.equal(
    grown.stdout,
    `Room '${SMALL_ROOM}': 619 state groups compared, all states are equal.\n` +
      `Only in AFTER: 1 state group (${id}).\n`,
  );
});

test('what is missing is told with the exit code of its kind', async (t) => {
  const db = await database(t);
  const files = fixture('synapse');
  for (const [args, code, message] of [
    [[files], 2, /verify takes two sources, BEFORE and AFTER, and is given 1\./],
    [[files, files, files, '-r', SMALL_ROOM], 2, /is given 3\./],
    [[files, files], 2, /Which room\?/],
    [[files, files, '-r', SMALL_ROOM, '-o', 'x'], 2, /There is no option -o\./],
    [['-', '-', '-r', SMALL_ROOM], 2, /one standard input/],
    [[files, `${files}/missing`, '-r', SMALL_ROOM], 3, /there is no such file/],
    [[files, db.url, '-r', SMALL_ROOM], 4, /This database holds no state groups/],
    [[files, 'host=/missing dbname=x', '-r', SMALL_ROOM], 5, /There is no socket/],
    [[files, files, '-r', SMALL_ROOM, '--tmpdir', `${files}/missing`], 2, /is no folder/],
  ] as const) {
    const result = await runCli(['verify', ...args]);
    assert.equal(result.code, code, result.stderr);
    assert.match(result.stderr, message);
    assert.equal(result.stdout, '');
  }
  const help = await runCli(['verify', '--help']);
  assert.equal(help.code, 0);
  assert.match(
    help.stdout,
    /^Usage: synapse_compress_state verify BEFORE \(AFTER \| --changes FILE\) -r ROOM/,
  );
});

test('a signal ends it while a source is waited for', async (t) => {
  const args = ['verify', fixture('synapse'), '-', '-r', SMALL_ROOM];
  const child = spawn(process.execPath, [CLI, ...args], { stdio: 'pipe' });
  t.after(() => child.kill('SIGKILL'));
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (data: string) => {
    stderr += data;
    if (data.includes('AFTER')) child.kill('SIGTERM');
  });
  const [[code], stdout] = (await Promise.all([once(child, 'close'), text(child.stdout)])) as [
    [number | null],
    string,
  ];
  assert.equal(code, 143);
  assert.equal(stdout, '');
  assert.match(stderr, /Stopped by SIGTERM\. Not all states were compared\.\n$/);
});
