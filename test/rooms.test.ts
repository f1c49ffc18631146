import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RoomEstimate } from '../src/auto/room-estimates.js';
import { GOLDEN_ROOMS, goldenDatabase, run } from './support/auto-run.js';
import { loadTables } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { runCli } from './support/run-cli.js';

interface Result {
  readonly exact: boolean;
  readonly tableBytes: number;
  readonly rooms: readonly RoomEstimate[];
}

async function listed(db: TestDatabase, ...options: string[]): Promise<Result> {
  const { code, stdout, stderr } = await runCli(['rooms', '-p', db.url, '--json', ...options]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as Result;
}

function assertNear(actual: number, expected: number, what: string): void {
  const tolerance = 0.3 * expected + 100;
  assert.ok(Math.abs(actual - expected) <= tolerance, `${what}: ${actual}, not ${expected}`);
}

for (const folder of ['golden/auto/before', 'synapse']) {
  test(`estimates are near to what counting and planning give, for ${folder}`, async (t) => {
    const db = await testDatabase(t);
    await loadTables(db, folder);
    const estimated = await listed(db);
    const exact = await listed(db, '--exact');
    assert.deepEqual([estimated.exact, exact.exact], [false, true]);
    const { rows } = await db.query<{ room: string; rows: number; groups: number }>(`
      SELECT room_id AS room, count(*)::int AS groups,
        (SELECT count(*) FROM state_groups_state AS s WHERE s.room_id = g.room_id)::int AS rows
      FROM state_groups AS g GROUP BY room_id`);
    assert.equal(estimated.rooms.length, rows.length);
    for (const { room, rows: count, groups } of rows) {
      const estimate = estimated.rooms.find((found) => found.room === room)!;
      const found = exact.rooms.find((other) => other.room === room)!;
      assert.deepEqual([estimate.stateGroups, estimate.newGroups], [groups, groups]);
      assert.equal(found.rows, count);
      assertNear(estimate.rows, found.rows, `rows of ${room}`);
      assertNear(estimate.gain, found.gain, `gain of ${room}`);
    }
    const gains = exact.rooms.map(({ gain }) => gain);
    assert.deepEqual(
      gains,
      [...gains].sort((a, b) => b - a),
    );
  });
}

test('the gain of rooms whose snapshots are small or come often is estimated too', async (t) => {
  const db = await testDatabase(t);
  const rooms = [
    { room: '!small:x', keys: 8, groupsEach: 2 },
    { room: '!full:x', keys: 20, groupsEach: 1 },
    { room: '!often:x', keys: 60, groupsEach: 7 },
  ];
  for (const [i, { room, keys, groupsEach }] of rooms.entries()) {
    // Each group changes the key whose turn it is.
    const group = `${i} * 10000 + n`;
    await db.query(`
      INSERT INTO state_groups SELECT ${group}, '${room}', '$' || n FROM generate_series(0, 2999) AS n;
      INSERT INTO state_group_edges SELECT ${group}, ${group} - 1
        FROM generate_series(0, 2999) AS n WHERE n % ${groupsEach} > 0;
      INSERT INTO state_groups_state
        SELECT ${group}, '${room}', 't', key::text, '$' || key || '-' || (n - (n - key + ${keys}) % ${keys})
        FROM generate_series(0, 2999) AS n, generate_series(0, ${keys - 1}) AS key
        WHERE n % ${groupsEach} = 0 OR n % ${keys} = key`);
  }
  const estimated = await listed(db);
  const exact = await listed(db, '--exact');
  for (const { room } of rooms) {
    const [estimate, found] = [estimated, exact].map((result) =>
      result.rooms.find((listedRoom) => listedRoom.room === room)!,
    );
    assert.ok(
      estimate.gain > found.gain / 3 && estimate.gain < 1.5 * found.gain,
      `${room}: about ${estimate.gain}, exactly ${found.gain}`,
    );
  }
});

test('an estimate reads the rows by their index alone, and writes nothing', async (t) => {
  const db = await goldenDatabase(t);
  const figures = async () => {
    await db.query('SELECT pg_stat_clear_snapshot()');
    const { rows } = await db.query<{ scans: string; rows: string; reads: string }>(`
      SELECT seq_scan AS scans, n_tup_ins + n_tup_upd + n_tup_del AS rows, idx_scan AS reads
      FROM pg_stat_user_tables WHERE relname = 'state_groups_state'`);
    return rows[0];
  };
  // The server counts what was loaded a little later.
  let before = await figures();
  while (before.rows === '0') before = await figures();
  // Statistics that are as wrong as can be.
  await db.query(`
    UPDATE pg_class SET reltuples = 0, relpages = 0 WHERE relname IN ('state_groups', 'state_groups_state', 'state_group_edges');
    DELETE FROM pg_statistic`);
  const { rooms } = await listed(db, '--room', GOLDEN_ROOMS[1], '-r', GOLDEN_ROOMS[2]);
  assert.deepEqual(rooms.map(({ room }) => room).sort(), GOLDEN_ROOMS.slice(1));
  for (;;) {
    const after = await figures();
    assert.deepEqual([after.scans, after.rows], [before.scans, before.rows]);
    // So it does what was read.
    if (Number(after.reads) > Number(before.reads)) break;
  }
});

test('what was compressed is not promised again', async (t) => {
  const db = await goldenDatabase(t);
  await run(db, { rooms: [GOLDEN_ROOMS[0]] });
  await run(db, { strategy: { name: 'levels', sizes: undefined }, rooms: [GOLDEN_ROOMS[1]] });
  const { rooms } = await listed(db);
  const seen = GOLDEN_ROOMS.map((name) => {
    const { newGroups, compressedBy, gain } = rooms.find(({ room }) => room === name)!;
    return [newGroups, compressedBy, gain > 0];
  });
  assert.deepEqual(seen[0], [0, 'adaptive', false]);
  assert.deepEqual(seen[1].slice(0, 2), [0, 'levels']);
  assert.deepEqual(seen[2], [2000, undefined, true]);
});

test('rooms are listed in a table to read', async (t) => {
  const db = await goldenDatabase(t);
  const { code, stdout, stderr } = await runCli(['rooms', '-p', db.url, '--exact']);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^3 rooms with [\d,]+ rows in [\d.]+ MB; [\d,]+ of them can be saved\.$/m);
  assert.match(stdout, /^ +gain +rows +state groups +new ones +room$/m);
  assert.match(stdout, /^ *[\d,]+ +[\d,]+ +2,000 +2,000 +!room2:example\.org$/m);
  const help = await runCli(['rooms', '--help']);
  assert.match(help.stdout, /^Usage: synapse_compress_state rooms -p DSN/);
  for (const [args, exitCode, message] of [
    [[], 2, /Which database\?/],
    [['-p', db.url, 'x'], 2, /'x' belongs to no option/],
    [['-p', `${db.url}_gone`], 5, /has no database/],
  ] as const) {
    const result = await runCli(['rooms', ...args]);
    assert.equal(result.code, exitCode, result.stderr);
    assert.match(result.stderr, message);
  }
});

test('a room that is not there is told', async (t) => {
  const db = await goldenDatabase(t);
  const gone = '!gone:example.com';
  const alone = await runCli(['rooms', '-p', db.url, '-r', gone]);
  assert.deepEqual([alone.code, alone.stdout], [4, '']);
  assert.match(alone.stderr, /Room '!gone:example\.com' has no state groups in this database\./);
  const among = await runCli(['rooms', '-p', db.url, '-r', gone, '-r', GOLDEN_ROOMS[0]]);
  assert.deepEqual([among.code, among.stdout.split('\n').length], [0, 4], among.stderr);
  assert.match(among.stderr, /^Warning: Room '!gone:example\.com'/);
});
