import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import pg from 'pg';
import { applyChanges, nothingApplied } from '../src/apply/apply-changes.js';
import { readChanges } from '../src/changes/read-changes.js';
import type { RoomChange } from '../src/changes/room-change.js';
import { Rewriter } from '../src/apply/rewriter.js';
import { DatabaseError, InputError } from '../src/errors.js';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import type { ChangedGroup } from '../src/planner/planned-group.js';
import { RoomPlan } from '../src/planner/room-plan.js';
import { copySink } from '../src/sinks/copy.js';
import { openPostgresSource } from '../src/sources/postgres/postgres-source.js';
import { applySql } from './support/apply-sql.js';
import { fixture, LARGE_ROOM, loadTables, temporaryFolder } from './support/fixtures.js';
import { planRoom, ROOM, ROOM_GROUPS, store } from './support/guarded-change.js';
import { cut } from './support/naive-copy-text.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { CLI, runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

async function script(changes: readonly ChangedGroup[], batch = 2, room = ROOM): Promise<Buffer> {
  return buffer(Readable.from([changes]).pipe(copySink({ room, header: ['made by hand'], batch })));
}

/** The changes of a stored room, as `-o` would have them. */
async function planned(db: TestDatabase, room: string): Promise<Buffer> {
  const source = await openPostgresSource({ dsn: db.url, env: {}, room, range: {} });
  const plan = source.rows().pipe(new RoomPlan(source, new AdaptivePlanner()));
  return buffer(plan.pipe(copySink({ room, header: [], batch: 20 })));
}

function changesIn(
  bytes: Buffer,
  lengths: readonly number[] = [65_536],
): AsyncGenerator<RoomChange> {
  return readChanges({
    read: () => Readable.from(cut(bytes, lengths)),
    place: (index) => `Line ${index + 1}`,
  });
}

/** What is read before an error, and that error. */
async function readAll(
  changes: AsyncIterable<RoomChange>,
): Promise<{ read: RoomChange[]; error: unknown }> {
  const read: RoomChange[] = [];
  try {
    for await (const change of changes) read.push(change);
    return { read, error: undefined };
  } catch (error) {
    return { read, error };
  }
}

test('a part that is missing from the middle is noticed', async () => {
  const change = (stateGroup: number): ChangedGroup => ({
    stateGroup,
    oldPredecessor: undefined,
    newPredecessor: undefined,
    oldRows: 1,
    newRows: 1,
    change: { oldHash: 1n, newRowsHash: 1n, rows: Buffer.from('a\t\t$a\n') },
  });
  const whole = (await script([change(1), change(2), change(3)], 1)).toString();
  const first = whole.indexOf('\nBEGIN;\nCOPY');
  const next = whole.indexOf('\nBEGIN;\nCOPY', first + 1);
  const { read, error } = await readAll(
    changesIn(Buffer.from(whole.slice(0, first) + whole.slice(next))),
  );
  assert.equal(read.length, 2);
  assert.match(
    String(error),
    /2 state groups with 2 rows were found: parts of the file are missing/,
  );
  const windows = await readAll(changesIn(Buffer.from(whole.replaceAll('\n', '\r\n'))));
  assert.match(String(windows.error), /ends with a carriage return, as on Windows/);
  for (const row of ['a\t$a', 'a\t\t\t$a', 'a\t\\N\t$a', 'a\t\\\t$a', 'a\t\t$a\\']) {
    const spoilt = await readAll(
      changesIn(Buffer.from(whole.replace('\n2\ta\t\t$a', `\n2\t${row}`))),
    );
    assert.match(String(spoilt.error), /Line \d+ is no row of state group 2/, row);
    assert.equal(spoilt.read.length, 1);
  }
});

test('a file that is cut off anywhere is applied as far as it goes, and breaks nothing', async (t) => {
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const states = await readAllStates(db);
  const bytes = await script(await planRoom(db));
  const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
  t.after(() => rewriter.close());
  const begin = bytes.indexOf('\nBEGIN;\nCOPY');
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: begin, max: bytes.length - 1 }), async (end) => {
      await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
      await store(db, ROOM_GROUPS);
      const applied = nothingApplied();
      const changes = changesIn(bytes.subarray(0, end));
      await assert.rejects(applyChanges({ changes, rewriter }, applied), InputError);
      const { read } = await readAll(changesIn(bytes.subarray(0, end)));
      assert.equal(applied.rewritten, read.length);
      expectSameStates(await readAllStates(db), states);
    }),
    { numRuns: 60 },
  );
});

test('after an error of the database nothing more is applied', async (t) => {
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const bytes = await script(await planRoom(db));
  const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
  t.after(() => rewriter.close());
  // The first look at what the server has to do fails, and no other.
  const error = new DatabaseError('gone');
  t.mock.method(rewriter, 'query', () => Promise.reject(error), { times: 1 });
  const applied = nothingApplied();
  await assert.rejects(applyChanges({ changes: changesIn(bytes), rewriter }, applied), error);
  assert.equal(applied.batches, 0);
});

for (const groups of [1, 4]) {
  test(`a file that holds the same changes of ${groups} groups twice is applied as two`, async (t) => {
    const db = await testDatabase(t);
    await store(db, ROOM_GROUPS);
    const states = await readAllStates(db);
    const bytes = await script((await planRoom(db)).slice(0, groups));
    const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
    t.after(() => rewriter.close());
    const applied = nothingApplied();
    await applyChanges({ changes: changesIn(Buffer.concat([bytes, bytes])), rewriter }, applied);
    assert.deepEqual(
      [applied.rewritten, applied.alreadyDone, applied.skipped],
      [groups, groups, 0],
    );
    expectSameStates(await readAllStates(db), states);
  });
}

test('the command looks, applies, and a second time finds all done', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const states = await readAllStates(db);
  const folder = await temporaryFolder(t);
  const file = join(folder, 'changes.copy');
  const bytes = await planned(db, LARGE_ROOM);
  await writeFile(file, bytes);
  const stored = await rowsOf(db);

  const apply = (...args: string[]) => runCli(['apply', ...args, '-p', db.url, '--stats-file=-']);
  // At this pace it would take days.
  const dryRun = await apply(file, '--dry-run', '--pace=1');
  assert.equal(dryRun.code, 0, dryRun.stderr);
  assert.match(
    dryRun.stderr,
    /\nWould rewrite \d+ state groups: delete \d+ rows and insert \d+\.\n/,
  );
  assert.equal(await rowsOf(db), stored);

  const first = await apply(file, '--vacuum');
  assert.equal(first.code, 0, first.stderr);
  assert.match(first.stderr, /\nRewrote \d+ state groups: .* transactions of at most [\d.]+ s\.\n/);
  assert.match(
    first.stderr,
    /CLUSTER state_groups_state USING state_groups_state_type_idx; .* gives it back/,
  );
  const figures = JSON.parse(first.stdout) as Record<string, number>;
  const looked = JSON.parse(dryRun.stdout) as Record<string, number>;
  for (const figure of ['rewritten', 'rowsDeleted', 'rowsInserted', 'skipped', 'alreadyDone']) {
    assert.equal(figures[figure], looked[figure], figure);
  }
  assert.equal(await rowsOf(db), stored - figures.rowsDeleted + figures.rowsInserted);
  expectSameStates(await readAllStates(db), states);

  // As the shell's <(gzip -c …) gives it.
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const [second] = await Promise.all([apply(fifo), writeFile(fifo, gzipSync(bytes))]);
  assert.equal(second.code, 0, second.stderr);
  assert.match(second.stderr, /\nRewrote 0 state groups: /);
  assert.ok(second.stderr.includes(`As it should be already: ${figures.rewritten} state groups.`));
});

for (const options of [['-t'], ['--format', 'jsonl']]) {
  test(`changes made with ${options.join(' ')} are applied, and those that were spoilt are not`, async (t) => {
    const db = await testDatabase(t);
    await loadTables(db, 'synapse');
    const states = await readAllStates(db);
    const file = join(await temporaryFolder(t), 'changes');
    const made = await runCli(['-p', db.url, '-r', LARGE_ROOM, '-o', file, ...options]);
    assert.equal(made.code, 0, made.stderr);
    const whole = await readFile(file, 'utf8');
    await writeFile(file, whole.replace(/(m\.room\.member'?"?, ?'?"?@)/, '$1~'));
    assert.notEqual(await readFile(file, 'utf8'), whole);

    const spoilt = await runCli(['apply', file, '-p', db.url]);
    assert.equal(spoilt.code, 0, spoilt.stderr);
    assert.match(spoilt.stderr, /its new rows did not arrive as they were planned/);
    expectSameStates(await readAllStates(db), states);

    const { code, stderr } = await runCli(['apply', '-', '-p', db.url], { stdin: whole });
    assert.equal(code, 0, stderr);
    assert.match(stderr, /\nRewrote 1 state group: /);
    assert.doesNotMatch(stderr, /as stored/);
    expectSameStates(await readAllStates(db), states);
  });
}

test('-c leaves what it applies in the file that -o names, and that there is no more to apply', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const states = await readAllStates(db);
  const file = join(await temporaryFolder(t), 'out.sql.gz');
  const compress = ['-p', db.url, '-r', LARGE_ROOM, '-c', '-o', file];
  const first = await runCli(compress);
  assert.equal(first.code, 0, first.stderr);
  assert.match(first.stderr, /\nRewrote \d+ state groups: /);
  assert.ok(first.stderr.includes(`What was applied is kept in ${file}.\n`));
  expectSameStates(await readAllStates(db), states);
  const again = await runCli(['apply', file, '-p', db.url]);
  assert.match(again.stderr, /Rewrote 0 state groups.*\nAs it should be already: /);

  const second = await runCli(compress);
  assert.equal(second.code, 0, second.stderr);
  assert.ok(second.stderr.includes(`There are no changes in ${file}.\n`));
  const nothing = await runCli(['apply', file, '-p', db.url]);
  assert.equal(nothing.code, 0, nothing.stderr);
  assert.equal(nothing.stderr, `There are no changes in ${file}.\n`);
  const verified = await runCli(['verify', db.url, '--changes', file, '-r', LARGE_ROOM]);
  assert.equal(verified.code, 0, verified.stderr);

  const device = await runCli(['-p', db.url, '-r', LARGE_ROOM, '-c', '-o', '/dev/null']);
  assert.equal(device.code, 2, device.stderr);
});

for (const options of [['--format', 'copy'], ['-t']]) {
  test(`groups are found by their ids, however small rooms are said to be: ${options.join(' ')}`, async (t) => {
    const db = await testDatabase(t);
    await loadTables(db, 'synapse');
    await db.query(`
      ALTER TABLE state_groups ALTER room_id SET (n_distinct = -1);
      ANALYZE state_groups;
      ALTER DATABASE ${new URL(db.url).pathname.slice(1)} SET plan_cache_mode = force_generic_plan`);
    const file = join(await temporaryFolder(t), 'changes');
    await runCli(['-i', fixture('synapse'), '-r', LARGE_ROOM, '-o', file, ...options]);
    const scans = async () => {
      await db.query('SELECT pg_stat_clear_snapshot()');
      const { rows } = await db.query<{ name: string; scans: string }>(
        `SELECT indexrelname AS name, idx_scan AS scans FROM pg_stat_user_indexes WHERE relname = 'state_groups'`,
      );
      return Object.fromEntries(rows.map(({ name, scans: count }) => [name, Number(count)]));
    };
    const before = await scans();
    await applySql(db, file, { oneTransaction: false });
    const applied = await runCli(['apply', file, '-p', db.url]);
    assert.match(applied.stderr, /As it should be already: \d+ state groups/);
    // What a session did is counted a little after its end.
    let after = await scans();
    while (after['state_groups_pkey'] === before['state_groups_pkey']) after = await scans();
    assert.equal(after['state_groups_room_id_idx'], before['state_groups_room_id_idx']);
  });
}

test('SQL for a stopped Synapse is refused with the line that applies it', async (t) => {
  const file = join(await temporaryFolder(t), 'out.sql');
  await runCli(['-i', fixture('synapse'), '-r', LARGE_ROOM, '-o', file]);
  const { code, stderr } = await runCli(['apply', file, '-p', 'host=127.0.0.1 port=1']);
  assert.equal(code, 3, stderr);
  assert.match(
    stderr,
    /psql -1 -v ON_ERROR_STOP=1 -f FILE\. Changes for apply are made with -t, or/,
  );
});

async function rowsOf(db: TestDatabase): Promise<number> {
  const { rows } = await db.query<{ count: string }>('SELECT count(*) FROM state_groups_state');
  return Number(rows[0].count);
}

test('-c plans, verifies and applies: one room, then all', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const states = await readAllStates(db);
  const one = await runCli(['-p', db.url, '-r', LARGE_ROOM, '-c', '--stats-file=-']);
  assert.equal(one.code, 0, one.stderr);
  const { rowsAfter, groupsWritten, applied } = JSON.parse(one.stdout) as {
    rowsAfter: number;
    groupsWritten: number;
    applied: { rewritten: number };
  };
  assert.equal(applied.rewritten, groupsWritten);
  const { rows } = await db.query<{ count: string }>(
    'SELECT count(*) FROM state_groups_state WHERE room_id = $1',
    [LARGE_ROOM],
  );
  assert.equal(Number(rows[0].count), rowsAfter);
  expectSameStates(await readAllStates(db), states);

  const all = await runCli(['-p', db.url, '--all-rooms', '-c', '--pace=50%']);
  assert.equal(all.code, 0, all.stderr);
  assert.match(all.stderr, /\nRewrote \d+ state groups: /);
  expectSameStates(await readAllStates(db), states);
});

test('while another compressor writes, -c and apply end before they read anything', async (t) => {
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const changes = Readable.from([await script(await planRoom(db))]);
  const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
  t.after(() => rewriter.close());
  for (const run of [
    await runCli(['-p', db.url, '-r', ROOM, '-c']),
    await runCli(['apply', '-', '-p', db.url], { stdin: changes }),
  ]) {
    assert.equal(run.code, 10);
    assert.match(run.stderr, /Another compressor is writing to database/);
    assert.doesNotMatch(run.stderr, /Fetching/);
  }
});

const NO_CHANGES: readonly (readonly [what: string, contents: string, message: RegExp])[] = [
  [
    'SQL of an other version',
    '-- Written by synapse_compress_state 9.\nBEGIN;\n',
    /Line 2 of .* is not what/,
  ],
  ['something else', 'hello\n', /Line 1 of .* is not how changes begin/],
  ['JSON of something else', '{"a": []}', /Line 1 of .* is no change/],
  ['nothing', '', /Line 1 of .* is empty/],
];

for (const [what, contents, message] of NO_CHANGES) {
  test(`${what} is refused before the database is asked`, async (t) => {
    const file = join(await temporaryFolder(t), 'changes');
    await writeFile(file, contents);
    const { code, stderr } = await runCli(['apply', file, '-p', 'host=127.0.0.1 port=1']);
    assert.equal(code, 3, stderr);
    assert.match(stderr, message);
  });
}

test(
  'an error of the server ends it though its standard input is silent',
  { timeout: 60_000 },
  async (t) => {
    const db = await testDatabase(t);
    await store(db, ROOM_GROUPS);
    const changes = await script(await planRoom(db));
    await db.query(`
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'nothing is deleted here'; END $$;
    CREATE TRIGGER refuse BEFORE DELETE ON state_groups_state EXECUTE FUNCTION refuse()`);
    // With this pace the first group is a batch.
    const child = spawn(process.execPath, [CLI, 'apply', '-', '-p', db.url, '--pace=1'], {
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    t.after(() => child.kill());
    const stderr = text(child.stderr);
    child.stdin.write(changes.subarray(0, changes.lastIndexOf('\n\\.\n') + 1));
    const [code] = (await once(child, 'close')) as [number];
    assert.notEqual(code, 0, await stderr);
    assert.match(await stderr, /nothing is deleted here/);
  },
);

const room = '!OGEhHVWSdvArJzumhm:example.org';
for (const [name, command, toGoOn] of [
  ['apply', (file: string) => ['apply', file], /Apply the same changes again to go on/],
  ['-c', () => ['-r', room, '-c'], /The same command plans anew what is left; --rebase-deep/],
] as const) {
  test(`SIGINT lets the transaction of ${name} end, and the rest is done by the next run`, async (t) => {
    const db = await testDatabase(t);
    await loadTables(db, 'golden/one-level/before');
    const states = await readAllStates(db);
    const file = join(await temporaryFolder(t), 'changes.copy');
    await writeFile(file, await planned(db, room));
    const args = [...command(file), '-p', db.url];
    // So slow that it would take minutes.
    const child = spawn(process.execPath, [CLI, ...args, '--pace=50'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const stderr = text(child.stderr);
    const stored = await rowsOf(db);
    while ((await rowsOf(db)) === stored) assert.equal(child.exitCode, null);
    child.kill('SIGINT');
    const [code] = (await once(child, 'close')) as [number];
    assert.equal(code, 130, await stderr);
    assert.match(await stderr, /\nRewrote \d+ state groups?: /);
    assert.match(
      await stderr,
      /Stopped by SIGINT\. What was applied stands, and the rest is as it was\./,
    );
    assert.match(await stderr, toGoOn);
    expectSameStates(await readAllStates(db), states);

    const rest = await runCli(args);
    assert.equal(rest.code, 0, rest.stderr);
    if (name === 'apply')
      assert.match(rest.stderr, /\nAs it should be already: \d+ state groups?\.\n/);
    assert.match(rest.stderr, /\nRewrote \d+ state groups?: /);
    assert.doesNotMatch(rest.stderr, /as stored/);
    expectSameStates(await readAllStates(db), states);
  });
}

test('SIGINT ends a VACUUM, and it is said that all was applied', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const file = join(await temporaryFolder(t), 'changes.copy');
  await writeFile(file, await planned(db, LARGE_ROOM));
  const other = new pg.Client(db.url);
  await other.connect();
  // What another VACUUM holds; changes do not wait for it.
  await other.query('BEGIN; LOCK TABLE state_groups_state IN SHARE UPDATE EXCLUSIVE MODE');
  const child = spawn(process.execPath, [CLI, 'apply', file, '-p', db.url, '--vacuum'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const stderr = text(child.stderr);
  const vacuums = async () => {
    const { rows } = await db.query(
      "SELECT FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND state = 'active' AND datname = current_database()",
    );
    return rows.length;
  };
  while ((await vacuums()) === 0) assert.equal(child.exitCode, null);
  child.kill('SIGINT');
  const [code] = (await once(child, 'close')) as [number];
  assert.equal(code, 130, await stderr);
  assert.match(
    await stderr,
    /Stopped by SIGINT\. All changes were applied, but what was to follow/,
  );
  assert.equal(await vacuums(), 0);
  await other.end();
});

test('the figures do not take the place of the changes', async (t) => {
  const db = await testDatabase(t);
  const file = join(await temporaryFolder(t), 'changes.copy');
  await writeFile(file, await script(await planRoom(db)));
  const { code, stderr } = await runCli(['apply', file, '-p', db.url, '--stats-file', file]);
  assert.equal(code, 2);
  assert.match(stderr, /changes\.copy is read, and would be overwritten/);
});

test('a connection that is lost again and again is made again, and all is done in the end', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const states = await readAllStates(db);
  const bytes = await planned(db, LARGE_ROOM);
  let losses = 0;
  const rewriter = await Rewriter.open({
    dsn: db.url,
    env: {},
    onTrouble: (sentence) => void (losses += sentence.startsWith('The connection') ? 1 : 0),
  });
  t.after(() => rewriter.close());
  const applied = nothingApplied();
  const cuts: Promise<unknown>[] = [];
  await applyChanges(
    {
      changes: changesIn(bytes),
      rewriter,
      pace: { rowsPerSecond: 2000 },
      onProgress({ batches }) {
        if (batches % 2 !== 0) return;
        cuts.push(
          db.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'synapse_compress_state' AND datname = current_database()",
          ),
        );
      },
    },
    applied,
  );
  await Promise.all(cuts);
  assert.ok(losses >= 2, `${losses}`);
  assert.equal(applied.skipped, 0);
  expectSameStates(await readAllStates(db), states);
});
