import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as consumers from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import * as zlib from 'node:zlib';
import type { Statistics } from '../src/report/statistics.js';
import { fixture, LARGE_ROOM, loadTables, temporaryFolder } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql } from './support/psql.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

const hasZstdInZlib = 'createZstdCompress' in zlib;

/** What no compression concerns, and what is nearly lost: rows and edges of no group, a row stored twice. */
const STRAYS = `
  INSERT INTO state_groups_state SELECT 900000 + i, '!gone:x', 'm.a', E'\\t\\\\\\n' || i, '$' || i
    FROM generate_series(1, 5) AS i;
  INSERT INTO state_groups_state SELECT * FROM state_groups_state WHERE state_group = 900001;
  INSERT INTO state_group_edges VALUES (900001, 900000), (900002, 900001), (900000, 123456789012345)`;

/** A database with the rooms of a real Synapse and strays. */
async function database(t: TestContext): Promise<TestDatabase> {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  await db.query(STRAYS);
  return db;
}

/** Exports the three tables as an operator does. */
async function exported(db: TestDatabase, folder: string): Promise<string> {
  await mkdir(folder);
  for (const table of ['state_groups', 'state_group_edges', 'state_groups_state']) {
    await writeFile(join(folder, `${table}.copy`), db.copyOut(`TABLE ${table}`));
  }
  return folder;
}

async function compressed(args: readonly string[], stdin?: NodeJS.ReadableStream) {
  const { code, stdout, stderr } = await runCli(
    ['-r', LARGE_ROOM, '--stats-file', '-', ...args],
    stdin === undefined ? {} : { stdin: stdin as never },
  );
  assert.equal(code, 0, stderr);
  return { statistics: JSON.parse(stdout) as Statistics, stderr };
}

/** Runs the line that the program gave for it in a shell, with the database in its place. */
function runLine(stderr: string, db: TestDatabase, cwd: string) {
  const line = stderr.split('\n').find((text) => text.includes('psql '))!;
  const command = `set -e; ${line.replace('DATABASE', `'${db.url}'`)}`;
  return spawnSync('sh', ['-c', command], { cwd, encoding: 'utf8' });
}

const countRows = async (db: TestDatabase, where = 'true') =>
  Number(
    (await db.query<{ count: string }>(`SELECT count(*) FROM state_groups_state WHERE ${where}`))
      .rows[0].count,
  );

const strays = async (db: TestDatabase) => [
  (await db.query('SELECT * FROM state_groups_state WHERE state_group > 900000 ORDER BY 1, 4'))
    .rows,
  (await db.query('SELECT * FROM state_group_edges WHERE state_group >= 900000 ORDER BY 1')).rows,
];

const WAITING = `
  SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
  WHERE datname = current_database() AND NOT granted`;

for (const from of ['files', 'Postgres', 'standard input'] as const) {
  test(
    `new tables made from ${from} hold all that was stored, and swap in`,
    { skip: !hasPsql },
    async (t) => {
      const db = await database(t);
      const folder = await temporaryFolder(t);
      const files = await exported(db, join(folder, 'exports'));
      const source = {
        files: ['-i', files],
        Postgres: ['-p', db.url],
        'standard input': [
          '-i',
          join(files, 'state_group_edges.copy'),
          '-i',
          join(files, 'state_groups.copy'),
          '-i',
          '-',
        ],
      }[from];
      const rowsFile = createReadStream(join(files, 'state_groups_state.copy'));
      const [states, stored, rows] = [
        await readAllStates(db),
        await strays(db),
        await countRows(db),
      ];

      const tables = join(folder, "new 'tables'");
      const { statistics, stderr } = await compressed(
        [...source, '--format', 'tables', '-o', tables],
        from === 'standard input' ? rowsFile : undefined,
      );
      assert.deepEqual((await readdir(folder)).sort(), ['exports', "new 'tables'"]);
      const swapped = runLine(stderr, db, folder);
      assert.equal(swapped.status, 0, swapped.stderr);
      expectSameStates(await readAllStates(db), states);
      assert.deepEqual(await strays(db), stored);
      assert.equal(await countRows(db), rows - statistics.rowsBefore + statistics.rowsAfter);
      assert.ok(statistics.rowsAfter < statistics.rowsBefore / 1.5);

      const again = runLine(stderr, db, folder);
      assert.notEqual(again.status, 0);
      assert.match(
        again.stderr,
        /is not what it was when it was exported .* Nothing was changed\./,
      );
    },
  );
}

test(
  'tables that changed, or files that are not whole, are not swapped',
  { skip: !hasPsql },
  async (t) => {
    const db = await database(t);
    const folder = await temporaryFolder(t);
    const tables = join(folder, 'tables');
    const { stderr } = await compressed(['-p', db.url, '--format', 'tables', '-o', tables]);
    const states = await readAllStates(db);
    const rows = await countRows(db);

    for (const [change, back] of [
      [
        `UPDATE state_groups_state SET event_id = '$other' WHERE state_group = 900003`,
        `UPDATE state_groups_state SET event_id = '$3' WHERE state_group = 900003`,
      ],
      [
        'UPDATE state_group_edges SET prev_state_group = 5 WHERE state_group = 900000',
        'UPDATE state_group_edges SET prev_state_group = 123456789012345 WHERE state_group = 900000',
      ],
    ]) {
      await db.query(change);
      const refused = runLine(stderr, db, folder);
      assert.notEqual(refused.status, 0);
      assert.match(refused.stderr, /is not what it was when it was exported/);
      await db.query(back);
    }
    const file = join(tables, 'state_groups_state.copy');
    const whole = await readFile(file);
    await truncate(file, whole.lastIndexOf('\n', -2) + 1);
    const refused = runLine(stderr, db, folder);
    assert.notEqual(refused.status, 0);
    assert.match(refused.stderr, /The file of state_groups_state is not whole/);
    assert.equal(await countRows(db), rows);

    await writeFile(file, whole);
    const swapped = runLine(stderr, db, folder);
    assert.equal(swapped.status, 0, swapped.stderr);
    expectSameStates(await readAllStates(db), states);
  },
);

test(
  'what another transaction has written, but not committed, when tables are swapped is not lost',
  { skip: !hasPsql },
  async (t) => {
    const db = await database(t);
    const folder = await temporaryFolder(t);
    const tables = join(folder, 'tables');
    await compressed(['-p', db.url, '--format', 'tables', '-o', tables]);
    await db.query(
      "BEGIN; INSERT INTO state_groups_state VALUES (900009, '!gone:x', 'm', '', '$')",
    );
    const swap = spawn('psql', ['-X', '-d', db.url, '-f', 'swap.sql'], { cwd: tables });
    const said = consumers.text(swap.stderr);
    while ((await db.query(WAITING)).rowCount === 0) assert.equal(swap.exitCode, null);
    await db.query('COMMIT');
    assert.match(await said, /state_groups_state is not what it was when it was exported/);
    assert.equal(await countRows(db, 'state_group = 900009'), 1);
  },
);

test('a folder that is there, or no place for one, is refused before anything is read', async (t) => {
  const folder = await temporaryFolder(t);
  const file = join(folder, 'file');
  await writeFile(file, '');
  for (const [output, code, message] of [
    [folder, 7, /the folder is there already/],
    [file, 7, /it is a file, and --format tables makes a folder/],
    [join(folder, 'missing', 'tables'), 7, /its folder does not exist/],
    ['-', 2, /makes a folder/],
    [join(folder, 'x.gz'), 2, /makes a folder/],
  ] as const) {
    const result = await runCli([
      '-i',
      fixture('synapse'),
      '-r',
      LARGE_ROOM,
      '--format',
      'tables',
      '-o',
      output,
    ]);
    assert.equal(result.code, code, result.stderr);
    assert.match(result.stderr, message);
    assert.doesNotMatch(result.stderr, /Fetching/);
  }
  assert.deepEqual(await readdir(folder), ['file']);
});

for (const [end, unpack] of [
  ['gz', ['gunzip', '-c']],
  ['zst', ['zstd', '-dc']],
] as const) {
  const isThere = spawnSync(unpack[0], ['--version']).status === 0;
  test(
    `SQL that is named .${end} is packed, and the line that is shown applies it`,
    { skip: !hasPsql || !isThere },
    async (t) => {
      const db = await database(t);
      const folder = await temporaryFolder(t);
      const states = await readAllStates(db);
      const plain = await runCli(['-i', fixture('synapse'), '-r', LARGE_ROOM, '-o', '-', '-t']);
      for (const options of [['-t'], []]) {
        const output = join(folder, `out${options.length}.sql.${end}`);
        const { statistics, stderr } = await compressed([
          '-i',
          fixture('synapse'),
          '-o',
          output,
          ...options,
        ]);
        const [program, ...args] = unpack;
        const unpacked = spawnSync(program, [...args, output], { maxBuffer: 2 ** 28 });
        assert.equal(unpacked.status, 0);
        if (options.length === 1) assert.equal(unpacked.stdout.toString(), plain.stdout);
        assert.equal(statistics.outputBytes, (await readFile(output)).length);
        assert.equal(runLine(stderr, db, folder).status, 0);
        expectSameStates(await readAllStates(db), states);
      }
    },
  );
}

test('without anything that packs with zstd both are named', async (t) => {
  if (hasZstdInZlib) return t.skip('this Node.js packs with zstd by itself');
  const folder = await temporaryFolder(t);
  const { code, stderr } = await runCli(
    ['-i', fixture('synapse'), '-r', LARGE_ROOM, '-o', join(folder, 'out.zst')],
    { env: { PATH: folder } },
  );
  assert.equal(code, 7);
  assert.match(stderr, /Node\.js [\d.]+ can't pack with zstd, and there is no program zstd/);
  assert.deepEqual(await readdir(folder), []);
});

for (const bytes of [0, 1, 100_000]) {
  test(`it is told that zstd was killed after ${bytes} bytes`, async (t) => {
    if (hasZstdInZlib) return t.skip('this Node.js packs with zstd by itself');
    const folder = await temporaryFolder(t);
    const zstd = `#!/bin/sh\nhead -c ${bytes} > /dev/null\nkill -9 $$\n`;
    await writeFile(join(folder, 'zstd'), zstd, { mode: 0o755 });
    const { code, stderr } = await runCli(
      ['-i', fixture('synapse'), '-r', LARGE_ROOM, '-o', join(folder, 'out.zst')],
      { env: { PATH: `${folder}:/usr/bin:/bin` } },
    );
    assert.equal(code, 7, stderr);
    assert.match(stderr, /Can't write .*out\.zst: zstd failed: it ended with SIGKILL\./);
    assert.deepEqual(await readdir(folder), ['zstd']);
  });
}

test('a line of JSON tells a change whole', async (t) => {
  const folder = await temporaryFolder(t);
  const output = join(folder, 'changes.jsonl.gz');
  const { statistics } = await compressed([
    '-i',
    fixture('synapse'),
    '--format',
    'jsonl',
    '-o',
    output,
  ]);
  const lines = zlib
    .gunzipSync(await readFile(output))
    .toString()
    .trimEnd()
    .split('\n');
  const changes = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.equal(changes.length, statistics.groupsWritten);
  assert.equal(
    changes.reduce((sum, { rows }) => sum + (rows as unknown[]).length, 0),
    statistics.rowsInserted,
  );
  assert.equal(
    changes.reduce((sum, change) => sum + Number(change['old_rows']), 0),
    statistics.rowsDeleted,
  );
  for (const { room_id: room } of changes) assert.equal(room, LARGE_ROOM);
});

test('a text that is not UTF-8 is written as base64, and verified as it was', async (t) => {
  const folder = await temporaryFolder(t);
  const exports = join(folder, 'exports');
  await mkdir(exports);
  // Group 2 is stored whole, and is to become a row on group 1.
  const [key, otherKey] = ['m.é\t\x80\\t€', 'm.ü\t'].map((text) => Buffer.from(text, 'latin1'));
  const rows = [
    [1, key, '$1'],
    [1, otherKey, '$2'],
    [2, key, '$1'],
    [2, otherKey, '$\xff\\n'],
    [2, 'm.ok\t"€"', '$3'],
  ] as const;
  const lines = rows.flatMap(([group, ofKey, event]) => [
    Buffer.from(`${group}\t!r:x\t`),
    Buffer.from(ofKey),
    Buffer.from(`\t${event}\n`, 'latin1'),
  ]);
  await writeFile(join(exports, 'state_groups.copy'), '1\t!r:x\t$a\n2\t!r:x\t$b\n');
  await writeFile(join(exports, 'state_group_edges.copy'), '');
  await writeFile(join(exports, 'state_groups_state.copy'), Buffer.concat(lines));
  const output = join(folder, 'changes.jsonl');
  const made = await runCli(
    ['-i', exports, '-r', '!r:x', '--format', 'jsonl'].concat('-o', output),
  );
  assert.equal(made.code, 0, made.stderr);

  const line = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(output));
  const change = JSON.parse(line) as {
    state_group: number;
    new_predecessor: number;
    rows: unknown;
  };
  const base64 = (text: string) => ({ base64: Buffer.from(text, 'latin1').toString('base64') });
  assert.deepEqual(
    [change.state_group, change.new_predecessor, change.rows],
    [
      2,
      1,
      [
        ['m.ok', '"€"', '$3'],
        [base64('m.ü'), '', base64('$\xff\n')],
      ],
    ],
  );
  const verify = (changes: string) =>
    runCli(['verify', exports, '--changes', '-', '-r', '!r:x'], { stdin: changes });
  const verified = await verify(line);
  assert.equal(verified.code, 0, verified.stderr);
  const { base64: event } = base64('$\xff\n');
  const spoilt = await verify(line.replace(event, base64('$\xfe\n').base64));
  assert.equal(spoilt.code, 8);
  assert.match(spoilt.stdout, /^State group 2 differs in one key:$/m);
  for (const wrong of [event.slice(1), `${event.slice(0, -1)}!`, `\0`]) {
    const refused = await verify(line.replace(event, wrong));
    assert.equal(refused.code, 3);
    assert.match(
      refused.stderr,
      /Line 1 of standard input (has something that is no row|is no change)/,
    );
  }
});
