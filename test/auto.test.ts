import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import pg from 'pg';
import { Rewriter } from '../src/apply/rewriter.js';
import { nothingDone } from '../src/auto/auto-settings.js';
import { BusyError, OutputError, RoomNotFoundError } from '../src/errors.js';
import { assertGolden, GOLDEN_ROOMS, goldenDatabase, readTables, run } from './support/auto-run.js';
import { temporaryFolder } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

const LEVELS = { strategy: { name: 'levels', sizes: [100, 50, 25] } } as const;

/** The old tool's second program, built. */
const AUTO_CLI = fileURLToPath(new URL('../dist/cli/synapse-auto-compressor.js', import.meta.url));

test("by levels all tables come out as the old tool's do, its own included", async (t) => {
  const db = await goldenDatabase(t);
  const before = await readAllStates(db);
  const args = ['auto', '-p', db.url, '-c500', '-n', '1000', '-l', '100,50,25'];
  const { code, stderr } = await runCli([...args, '--log-format', 'json']);
  assert.equal(code, 0, stderr);
  const lines = stderr.trim().split('\n');
  const summary = JSON.parse(lines.at(-1)!) as Record<string, unknown>;
  const { chunks, withoutGain, failed } = summary;
  assert.deepEqual({ chunks, withoutGain, failed }, { chunks: 11, withoutGain: 0, failed: [] });
  assert.equal(Number(summary['rowsDeleted']) - Number(summary['rowsInserted']), 25765);
  await assertGolden(db);
  expectSameStates(await readAllStates(db), before);

  const again = await run(db, LEVELS);
  assert.deepEqual([again.rooms, again.chunks, again.rowsDeleted], [0, 0, 0]);
  await assertGolden(db);
});

test('a run that ends after any chunk is gone on with as if it had not', async (t) => {
  const db = await goldenDatabase(t);
  for (let chunks = 0; chunks < 11; chunks++) {
    const summary = await run(db, { ...LEVELS, chunks: 1 });
    assert.equal(summary.chunks, 1);
  }
  await assertGolden(db);
});

test('a run that is killed anywhere is gone on with as if it had not been', async (t) => {
  const db = await goldenDatabase(t);
  let killed = 0;
  for (let wait = 300; ; wait += 80) {
    const child = spawn(
      process.execPath,
      [AUTO_CLI, '-p', db.url, '-c', '500', '-n', '1000', '-l', '100,50,25'],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const ended = once(child, 'exit') as Promise<[number | null]>;
    const messages = text(child.stderr);
    const inTime = await Promise.race([ended, setTimeout(wait)]);
    child.kill('SIGKILL');
    await ended;
    if (inTime !== undefined) {
      assert.equal(inTime[0], 0, await messages);
      break;
    }
    killed++;
  }
  assert.ok(killed > 0);
  await assertGolden(db);
});

test('a run whose connections are cut goes on, or the next one does', async (t) => {
  const db = await goldenDatabase(t);
  const ended = new AbortController();
  let cutting: Promise<void> | undefined;
  let cut = 0;
  const cutAgainAndAgain = async () => {
    // Not for ever: on a slow machine no chunk might be done between two cuts.
    while (!ended.signal.aborted && cut < 6) {
      const { rowCount } = await db.query(`
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'synapse_compress_state'`);
      cut += rowCount ?? 0;
      await setTimeout(400);
    }
  };
  // Once a chunk is done.
  const { failed } = await run(db, { ...LEVELS, log: () => void (cutting ??= cutAgainAndAgain()) });
  ended.abort();
  await cutting;
  assert.ok(cut > 0);
  await run(db, LEVELS);
  // Where a room was set aside, the second run began at it, and the search for the next begins there.
  await assertGolden(db, failed.length > 0 ? ['state_compressor_total_progress'] : []);
});

test('a signal ends a run after the transaction under way, and the next one goes on', async (t) => {
  const db = await goldenDatabase(t);
  const child = spawn(
    process.execPath,
    [AUTO_CLI, '-p', db.url, '-c', '50', '-l', '100,50,25', '--log-format', 'json'],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const ended = once(child, 'exit') as Promise<[number | null]>;
  const lines: { message: string }[] = [];
  for await (const line of createInterface(child.stderr)) {
    lines.push(JSON.parse(line) as { message: string });
    if (lines.length === 1) child.kill('SIGINT');
  }
  const [code] = await ended;
  assert.equal(code, 130);
  assert.match(lines.at(-1)!.message, /Stopped by SIGINT\. What was done stands/);
  const { rows } = await db.query<{ count: string }>(
    'SELECT count(*) FROM state_compressor_progress',
  );
  assert.ok(Number(rows[0].count) < GOLDEN_ROOMS.length);
  await run(db, { ...LEVELS, chunkSize: 50 });
  const uninterrupted = await goldenDatabase(t);
  await run(uninterrupted, { ...LEVELS, chunkSize: 50 });
  assert.deepEqual(await readTables(db), await readTables(uninterrupted));
});

test('a room that a signal leaves midway is taken up again by the next run', async (t) => {
  const db = await goldenDatabase(t);
  const before = await readAllStates(db);
  const [room] = GOLDEN_ROOMS;
  const progress = async () => (await db.query('SELECT FROM state_compressor_progress')).rowCount;
  const rowsOf = async () =>
    (await db.query('SELECT FROM state_groups_state WHERE room_id = $1', [room])).rowCount;
  const rows = await rowsOf();
  const stop = new AbortController();
  // The signal comes in the pause behind the first of many batches.
  const pace = { rowsPerSecond: 500 };
  const running = run(db, { rooms: [room], pace, signal: stop.signal });
  while ((await rowsOf()) === rows) await setTimeout(20);
  stop.abort();
  assert.equal((await running).stoppedBy, 'signal');
  assert.equal(await progress(), 0);

  assert.ok((await run(db, { rooms: [room] })).groupsRewritten > 0);
  assert.equal(await progress(), 1);
  expectSameStates(await readAllStates(db), before);
});

test('adaptive takes whole rooms, keeps every state, and finds nothing to do a second time', async (t) => {
  const db = await goldenDatabase(t);
  const before = await readAllStates(db);
  const summary = await run(db);
  assert.deepEqual([summary.rooms, summary.chunks, summary.failed], [3, 3, []]);
  assert.ok(summary.rowsDeleted - summary.rowsInserted > 26_000, summary.lines.join('\n'));
  expectSameStates(await readAllStates(db), before);

  const tables = await readTables(db);
  assert.match(tables['state_compressor_progress'], /^!room0:example.org\t10848\n/);
  const again = await run(db);
  assert.deepEqual([again.rooms, again.rowsDeleted], [0, 0]);
  const forced = await run(db, { rooms: GOLDEN_ROOMS });
  assert.deepEqual([forced.rooms, forced.rowsDeleted, forced.withoutGain], [3, 0, 3]);
  assert.deepEqual(await readTables(db), tables);
});

test('columns that the tables have more do not matter, whatever they are called', async (t) => {
  const db = await goldenDatabase(t);
  for (const table of ['state_groups_state', 'state_group_edges']) {
    await db.query(
      `ALTER TABLE ${table} ADD id bigserial, ADD room text, ADD locked text, ADD change text`,
    );
  }
  const summary = await run(db);
  assert.deepEqual([summary.rooms, summary.failed], [3, []]);
  assert.ok(summary.rowsDeleted - summary.rowsInserted > 26_000, summary.lines.join('\n'));
});

test('a room that levels compressed is compressed by adaptive, and the other way round', async (t) => {
  const db = await goldenDatabase(t);
  const before = await readAllStates(db);
  await run(db, LEVELS);
  const adaptive = await run(db, { rooms: GOLDEN_ROOMS });
  assert.equal(adaptive.rooms, 3);
  // New groups: copies of the last states, as snapshots.
  await db.query(`
    INSERT INTO state_groups SELECT 100000 + i, '!room1:example.org', '$e' FROM generate_series(1, 30) AS i;
    INSERT INTO state_groups_state
      SELECT 100000 + i, '!room1:example.org', 'm.room.member', '@' || n, '$' || n
      FROM generate_series(1, 30) AS i, generate_series(1, 200) AS n`);
  const grown = await readAllStates(db);
  const levels = await run(db, LEVELS);
  assert.deepEqual([levels.rooms, levels.chunks], [1, 1]);
  assert.equal(levels.rowsDeleted, 29 * 200);
  expectSameStates(await readAllStates(db), grown);
  assert.ok([...before].every(([group, state]) => grown.get(group) === state));
});

test('new groups make a room worth another look once they promise a tenth of its rows', async (t) => {
  const db = await goldenDatabase(t);
  await run(db);
  const grow = (first: number, count: number) =>
    db.query(`
      INSERT INTO state_groups
        SELECT i, '!room1:example.org', '$e' FROM generate_series(${first}, ${first + count - 1}) AS i;
      INSERT INTO state_groups_state
        SELECT i, '!room1:example.org', 'm.room.member', '@' || n, '$' || n
        FROM generate_series(${first}, ${first + count - 1}) AS i, generate_series(1, 500) AS n`);
  await grow(100_000, 1);
  assert.equal((await run(db)).rooms, 0);
  await grow(100_001, 20);
  const before = await readAllStates(db);
  const summary = await run(db);
  assert.deepEqual([summary.rooms, summary.rowsDeleted], [1, 20 * 500]);
  expectSameStates(await readAllStates(db), before);
});

test('only the rooms that are asked for are touched', async (t) => {
  const db = await goldenDatabase(t);
  const [room0, room1, room2] = GOLDEN_ROOMS;
  const progress = async () => {
    const { rows } = await db.query<{ room_id: string }>(
      'SELECT room_id FROM state_compressor_progress ORDER BY 1',
    );
    return rows.map(({ room_id }) => room_id);
  };
  const lowest = async () =>
    (
      await db.query<{ l: string }>(
        'SELECT lowest_uncompressed_group AS l FROM state_compressor_total_progress',
      )
    ).rows[0].l;
  await run(db, { ...LEVELS, rooms: [room1] });
  assert.deepEqual(await progress(), [room1]);
  assert.equal(await lowest(), '0');
  await run(db, { rooms: [room0, '!none:example.org'], except: [room0] });
  assert.deepEqual(await progress(), [room1]);
  await run(db, { ...LEVELS, maxRooms: 1, chunks: 1 });
  assert.deepEqual(await progress(), [room0, room1]);
  await run(db, { ...LEVELS, except: [room2] });
  assert.deepEqual(await progress(), [room0, room1]);
  const { lines } = await run(db, { order: 'id', rooms: [room2, '!none:example.org'] });
  assert.deepEqual(await progress(), GOLDEN_ROOMS);
  assert.match(lines.join('\n'), /Room '!none:example\.org' has no state groups/);
  await run(db, { ...LEVELS });
  assert.equal(await lowest(), '3');
});

test('progress that lies in the future, as after the tables were restored, is forgotten and told', async (t) => {
  const db = await goldenDatabase(t);
  await run(db, { ...LEVELS, chunks: 0 });
  await db.query(`
    INSERT INTO state_compressor_progress SELECT room_id, 99999999 FROM state_groups GROUP BY room_id;
    INSERT INTO state_compressor_state SELECT room_id, 1, 100, 7, 99999999 FROM state_groups GROUP BY room_id;
    UPDATE state_compressor_total_progress SET lowest_uncompressed_group = 100000000`);
  const { lines } = await run(db, LEVELS);
  assert.match(
    lines[0],
    /^The saved progress of 3 rooms is of state groups that are not there yet/,
  );
  await assertGolden(db);
});

test('a room that is named and not there is an error, unless another one is there', async (t) => {
  const db = await goldenDatabase(t);
  for (const settings of [{}, LEVELS, { dryRun: true }]) {
    await assert.rejects(run(db, { ...settings, rooms: ['!none:x'] }), RoomNotFoundError);
    await assert.rejects(run(db, { ...settings, rooms: ['!no:x', '!none:x'] }), RoomNotFoundError);
  }
});

test('groups with two events for one key are left as they are, and told', async (t) => {
  const db = await testDatabase(t);
  await db.query(`
    INSERT INTO state_groups SELECT id, '!a:x', '$' || id FROM generate_series(1, 3) AS id;
    INSERT INTO state_group_edges VALUES (3, 2);
    INSERT INTO state_groups_state VALUES (1, '!a:x', 't', 'a', '$1'), (2, '!a:x', 't', 'a', '$2'),
      (2, '!a:x', 't', 'a', '$other'), (3, '!a:x', 't', 'a', '$3')`);
  for (const settings of [LEVELS, { rooms: ['!a:x'] }]) {
    const { lines } = await run(db, settings);
    assert.match(lines.join('\n'), /^Room '!a:x': 1 state group has two events for one key/m);
  }
});

test('rooms are taken by their gain or by their first group', async (t) => {
  const db = await goldenDatabase(t);
  const order = (lines: readonly string[]) =>
    lines.flatMap((line) => /^Room '(.room\d).* could be/.exec(line)?.[1] ?? []);
  const gain = await run(db, { dryRun: true });
  assert.deepEqual(order(gain.lines), ['!room2', '!room1', '!room0']);
  const id = await run(db, { dryRun: true, order: 'id' });
  assert.deepEqual(order(id.lines), ['!room0', '!room1', '!room2']);
  assert.ok(gain.rowsToSave > 26_000);
  assert.equal(id.rowsToSave, gain.rowsToSave);
  const few = await run(db, { dryRun: true, chunkSize: 100, chunks: 1 });
  assert.deepEqual(order(few.lines), ['!room2']);
  const levels = await run(db, { ...LEVELS, order: 'gain', dryRun: true });
  assert.deepEqual(order(levels.lines), ['!room2', '!room1', '!room0']);
  // Nothing was written, not even tables made.
  const { rows } = await db.query("SELECT to_regclass('state_compressor_progress') AS made");
  assert.deepEqual(rows, [{ made: null }]);
  const chunks = await run(db, { ...LEVELS, order: 'gain' });
  assert.deepEqual([chunks.rooms, chunks.chunks], [3, 11]);
});

test('a room that fails is set aside, and the others are done', async (t) => {
  const db = await goldenDatabase(t);
  // An id that is beyond what JavaScript's numbers hold.
  await db.query(`
    INSERT INTO state_groups VALUES (2, '!broken:example.org', '$e'), (9007199254740993, '!broken:example.org', '$e')`);
  const before = await readAllStates(db);
  for (const options of [
    ['-l', '100,50,25', '-c', '500'],
    ['-r', '!broken:example.org', '-r', '!room0:example.org'],
  ]) {
    const { code, stderr } = await runCli(['auto', '-p', db.url, ...options]);
    assert.equal(code, 11, stderr);
    assert.match(
      stderr,
      /Warning: Room '!broken:example\.org' failed and is set aside: .*9007199254740993/,
    );
    assert.match(stderr, /A room failed, .*: !broken:example\.org\. The others are done\./);
  }
  const { rows } = await db.query<{ rooms: string[] }>(
    'SELECT array_agg(room_id ORDER BY room_id) AS rooms FROM state_compressor_progress',
  );
  assert.deepEqual(rows[0].rooms, GOLDEN_ROOMS);
  expectSameStates(await readAllStates(db), before);
});

test('a room that another transaction is in the way of is due again', async (t) => {
  const db = await goldenDatabase(t);
  const before = await readAllStates(db);
  const other = new pg.Client({ connectionString: db.url });
  // The database goes first, and takes the connection with it.
  other.on('error', () => {});
  await other.connect();
  await other.query('BEGIN; SELECT FROM state_groups FOR UPDATE');
  const settings = { ...LEVELS, rooms: [GOLDEN_ROOMS[0]], chunkSize: 5000 };
  const held = await run(db, settings);
  assert.equal(held.groupsRewritten, 0);
  assert.match(held.failed[0].reason, /another transaction was in the way of (\d+) of \1 changes/);
  const { rows } = await db.query('SELECT FROM state_compressor_progress');
  assert.equal(rows.length, 0);
  await other.query('COMMIT');
  const free = await run(db, settings);
  assert.deepEqual([free.failed, free.groupsSkipped, free.rooms], [[], 0, 1]);
  assert.ok(free.groupsRewritten > 0);
  expectSameStates(await readAllStates(db), before);
});

test('what Synapse has written in full since is due again, though no group is new', async (t) => {
  const db = await goldenDatabase(t);
  const [room] = GOLDEN_ROOMS;
  await run(db, {});
  const settled = await run(db, {});
  assert.equal(settled.rooms, 0);
  const before = await readAllStates(db);
  // As a purge leaves the groups whose predecessors it deletes.
  await db.query(`
    CREATE TEMPORARY TABLE state AS
      SELECT g.id, s.type, s.state_key, s.event_id
      FROM (SELECT id FROM state_groups WHERE room_id = '${room}' ORDER BY id OFFSET 300 LIMIT 200) AS g
      CROSS JOIN LATERAL (
        WITH RECURSIVE chain (member) AS (
          SELECT g.id UNION ALL SELECT prev_state_group FROM chain JOIN state_group_edges ON state_group = member)
        SELECT DISTINCT ON (type, state_key) type, state_key, event_id
        FROM state_groups_state WHERE state_group IN (SELECT member FROM chain)
        ORDER BY type, state_key, state_group DESC) AS s;
    DELETE FROM state_group_edges WHERE state_group IN (SELECT id FROM state);
    DELETE FROM state_groups_state WHERE state_group IN (SELECT id FROM state);
    INSERT INTO state_groups_state SELECT id, '${room}', type, state_key, event_id FROM state`);
  expectSameStates(await readAllStates(db), before);
  const again = await run(db, {});
  assert.deepEqual([again.rooms, again.failed], [1, []]);
  assert.ok(again.groupsRewritten >= 190, String(again.groupsRewritten));
  expectSameStates(await readAllStates(db), before);
  const after = await run(db, {});
  assert.equal(after.rooms, 0);
});

for (const strategy of [{ name: 'adaptive', settings: {} }, LEVELS.strategy] as const) {
  test(`what Synapse is about to delete stays, and is no base for others, by ${strategy.name}`, async (t) => {
    const db = await goldenDatabase(t);
    const before = await readAllStates(db);
    await db.query(
      'INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) SELECT id, 1 FROM state_groups WHERE id % 7 < 3',
    );
    const ofPending = async () => {
      const encoding = await Promise.all(
        ['state_group_edges', 'state_groups_state'].map((table) =>
          text(
            db.copyOut(
              `SELECT t.* FROM ${table} AS t JOIN state_groups_pending_deletion USING (state_group) ORDER BY t`,
            ),
          ),
        ),
      );
      const { rows } = await db.query<{ edges: string[] }>(
        `SELECT array_agg(e.state_group || ' on ' || e.prev_state_group) AS edges
          FROM state_group_edges AS e JOIN state_groups_pending_deletion AS p ON p.state_group = prev_state_group`,
      );
      return { encoding, onThem: new Set(rows[0].edges) };
    };
    const stored = await ofPending();
    const summary = await run(db, { strategy, chunkSize: 5000 });
    assert.deepEqual([summary.rooms, summary.groupsSkipped, summary.failed], [3, 0, []]);
    assert.ok(summary.groupsRewritten > 0);
    assert.match(
      summary.lines.join('\n'),
      /\d+ state groups .* are marked for deletion by Synapse/,
    );
    const kept = await ofPending();
    assert.deepEqual(kept.encoding, stored.encoding);
    for (const edge of kept.onThem) assert.ok(stored.onThem.has(edge), edge);
    expectSameStates(await readAllStates(db), before);
    const again = await run(db, { strategy, chunkSize: 5000 });
    assert.equal(again.rooms, 0);
  });
}

test('a chunk that would grow keeps its groups, and the run goes on with empty levels', async (t) => {
  const db = await testDatabase(t);
  // Two branches take turns, and each has a key that the other has not; then snapshots that are all the same.
  await db.query(`
    INSERT INTO state_groups SELECT i, '!odd:example.org', '$e' FROM generate_series(1, 120) AS i;
    INSERT INTO state_group_edges SELECT i, greatest(1, i - 2) FROM generate_series(2, 100) AS i;
    INSERT INTO state_groups_state
      SELECT 1, '!odd:example.org', 'm.room.member', '@' || n, '$' || n FROM generate_series(1, 5) AS n
      UNION ALL SELECT 2, '!odd:example.org', 'even', '', '$e' UNION ALL SELECT 3, '!odd:example.org', 'odd', '', '$o'
      UNION ALL SELECT i, '!odd:example.org', 'm.room.topic', '@' || i, '$' || i FROM generate_series(4, 100) AS i
      UNION ALL SELECT i, '!odd:example.org', 'm.room.member', '@' || n, '$' || n
        FROM generate_series(101, 120) AS i, generate_series(1, 5) AS n`);
  const before = await readAllStates(db);
  const rows = () =>
    text(db.copyOut('SELECT * FROM state_groups_state WHERE state_group <= 100 ORDER BY 1, 3, 4'));
  const kept = await rows();
  const first = await run(db, { ...LEVELS, chunkSize: 100, chunks: 1 });
  assert.deepEqual([first.chunks, first.withoutGain, first.rowsDeleted], [1, 1, 0]);
  const tables = await readTables(db);
  assert.equal(tables['state_compressor_progress'], '!odd:example.org\t100\n');
  assert.equal(
    tables['state_compressor_state'],
    [
      [1, 100],
      [2, 50],
      [3, 25],
    ]
      .map(([level, size]) => `!odd:example.org\t${level}\t${size}\t0\t\\N\n`)
      .join(''),
  );
  const rest = await run(db, { ...LEVELS, chunkSize: 100 });
  assert.deepEqual([rest.chunks, rest.withoutGain, rest.rowsDeleted], [1, 0, 19 * 5]);
  assert.equal(await rows(), kept);
  expectSameStates(await readAllStates(db), before);
});

test('a time budget ends a run, which is no failure', async (t) => {
  const db = await goldenDatabase(t);
  const summary = await run(db, { timeBudget: 1 });
  assert.equal(summary.stoppedBy, 'time');
  assert.equal(summary.rowsDeleted, 0);
  const options = ['--time-budget', '1h30m', '--pace', '90%', '--vacuum'];
  const { code, stderr } = await runCli(['auto', '-p', db.url, ...options]);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^Vacuumed the tables\.$/m);
  assert.match(stderr, /^Done after .*: in 3 rooms \d+ rows were saved/m);
});

test('a time budget ends a run also after memory was collected', async (t) => {
  const db = await goldenDatabase(t);
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  let isLate = false;
  const onProgress = (): void => {
    if (isLate) return;
    isLate = true;
    collect();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1600);
  };
  const summary = await run(db, { ...LEVELS, chunkSize: 20, timeBudget: 1500, onProgress });
  assert.equal(summary.stoppedBy, 'time');
});

test('what was done is told also where an error ends a run', async (t) => {
  const db = await goldenDatabase(t);
  const summary = nothingDone();
  const log = (_level: string, message: string): void => {
    if (!/to be compressed/.test(message)) throw new Error('The log is full.');
  };
  await assert.rejects(run(db, { log }, summary), /The log is full/);
  assert.equal(summary.rooms, 1);
  assert.ok(summary.rowsDeleted > 0 && summary.seconds > 0);
});

test('an error that meets a run which is stopped already is told all the same', async (t) => {
  const db = await goldenDatabase(t);
  const stop = new AbortController();
  const log = (_level: string, message: string): void => {
    if (!message.includes('up to state group')) return;
    stop.abort();
    throw new OutputError('The disk is full.');
  };
  await assert.rejects(run(db, { signal: stop.signal, log }), /The disk is full/);
});

test('of a room that takes longer to plan than there is time, a part is compressed in each run', async (t) => {
  const db = await goldenDatabase(t);
  const before = await readAllStates(db);
  const rows = async () => {
    const result = await db.query('SELECT count(*)::int AS rows FROM state_groups_state');
    return (result.rows[0] as { rows: number }).rows;
  };
  const settings = {
    rooms: [GOLDEN_ROOMS[2]],
    timeBudget: 1500,
    // As if each piece of the room came from a slow disk.
    onProgress: () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60),
  };
  const inParts: string[] = [];
  for (let runs = 1, isWhole = false; !isWhole; runs++) {
    assert.ok(runs < 30, 'it was to be done by now');
    const rowsBefore = await rows();
    const { lines, failed, groupsSkipped, rowsDeleted, rowsInserted } = await run(db, settings);
    assert.deepEqual([failed, groupsSkipped], [[], 0]);
    assert.equal(await rows(), rowsBefore - rowsDeleted + rowsInserted);
    inParts.push(
      ...lines.filter((line) => /is planned up to state group \d+, which is/.test(line)),
    );
    isWhole = lines.some((line) => line.includes('up to state group 17678:'));
  }
  assert.ok(inParts.length > 0);
  expectSameStates(await readAllStates(db), before);
});

test('a second compressor is told of the first', async (t) => {
  const db = await goldenDatabase(t);
  const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
  t.after(() => rewriter.close());
  await assert.rejects(run(db), BusyError);
  const { code, stderr } = await runCli(['auto', '-p', db.url]);
  assert.equal(code, 10, stderr);
});

test('the metrics file adds runs up', async (t) => {
  const db = await goldenDatabase(t);
  const file = join(await temporaryFolder(t), 'synapse.prom');
  const figures = async () =>
    Object.fromEntries(
      (await readFile(file, 'utf8'))
        .split('\n')
        .filter((line) => line !== '' && !line.startsWith('#'))
        .map((line) => line.replace('synapse_compress_state_', '').split(' ')),
    ) as Record<string, string>;
  await runCli(['auto', '-p', db.url, '--max-rooms', '1', '--metrics-file', file]);
  const first = await figures();
  await runCli(['auto', '-p', db.url, '--metrics-file', file]);
  const second = await figures();
  assert.deepEqual([first['runs_total'], second['runs_total']], ['1', '2']);
  assert.ok(Number(second['rows_saved_total']) > Number(first['rows_saved_total']));
  const { rows } = await db.query<{ count: string }>('SELECT count(*) FROM state_groups_state');
  const { rows: fresh } = await (
    await goldenDatabase(t)
  ).query<{ count: string }>('SELECT count(*) FROM state_groups_state');
  assert.equal(Number(second['rows_saved_total']), Number(fresh[0].count) - Number(rows[0].count));
  await runCli(['auto', '-p', `${db.url}_gone`, '--metrics-file', file]);
  const third = await figures();
  assert.deepEqual([third['runs_total'], third['last_run_exit_code']], ['3', '5']);
  assert.equal(third['rows_saved_total'], second['rows_saved_total']);
  // A FIFO has no totals to go on with.
  const fifo = `${file}.fifo`;
  execFileSync('mkfifo', [fifo]);
  const [metrics] = await Promise.all([
    readFile(fifo, 'utf8'),
    runCli(['auto', '-p', db.url, '--metrics-file', fifo]),
  ]);
  assert.match(metrics, /^synapse_compress_state_runs_total 1$/m);
});

test('a metrics file that can not be written is told before anything is done', async (t) => {
  const file = join(await temporaryFolder(t), 'missing', 'synapse.prom');
  const db = await goldenDatabase(t);
  const { code, stderr } = await runCli(['auto', '-p', db.url, '--metrics-file', file]);
  assert.equal(code, 7, stderr);
  assert.match(stderr, /^synapse_compress_state: Can't write .*: its folder does not exist\.$/m);
  assert.doesNotMatch(stderr, /Done/);
});

test('what makes no sense on the command line is told', async () => {
  for (const [args, message] of [
    [['--order', 'size', '-p', 'x'], /--order takes gain or id/],
    [['--time-budget', '2 hours', '-p', 'x'], /--time-budget takes a time/],
    [['--time-budget', '0s', '-p', 'x'], /--time-budget takes a time/],
    [['--log-format', 'xml', '-p', 'x'], /--log-format takes text or json/],
    [['-n', '0', '-p', 'x'], /-n \(--chunks\) takes a whole number from 1/],
    [['-p', 'x', 'y'], /'y' belongs to no option/],
    [['-p', 'x', '--dry-run', '--vacuum'], /--dry-run changes nothing/],
    [['-p', 'x', '--max-hops', '5', '-l', '3'], /about adaptive, and levels are asked for/],
    [[], /Which database\?/],
  ] as const) {
    const { code, stderr } = await runCli(['auto', ...args]);
    assert.equal(code, 2, stderr);
    assert.match(stderr, message);
  }
});
