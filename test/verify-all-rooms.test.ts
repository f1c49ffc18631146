import assert from 'node:assert/strict';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { applySql } from './support/apply-sql.js';
import { LARGE_ROOM, loadTables, STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { runCli } from './support/run-cli.js';

const SMALL = '!MlmO6RiERMEwPQNvXSAjqHDDQP-s6jpT6UOy23RaJOY';

/** In the order of their bytes; as COPY text they would be in another one. */
const ROOMS = ["!a\tb'", '!aZ', '!a\\', '!é'];

/** State groups of ROOMS, from 9000001 on: each room's share of ids, each group a snapshot with one key more. */
const GROUPS = 10;
const firstOf = (room: string): number => 9_000_001 + ROOMS.indexOf(room) * GROUPS;

/** Rooms whose groups are all snapshots. */
async function addRooms(db: TestDatabase, rooms: readonly string[]): Promise<void> {
  for (const room of rooms) {
    const [first, last] = [firstOf(room), firstOf(room) + GROUPS - 1];
    await db.query(
      'INSERT INTO state_groups SELECT id, $1, $2 FROM generate_series($3::int, $4::int) AS id',
      [room, '$e', first, last],
    );
    await db.query(
      'INSERT INTO state_group_edges SELECT id, id - 1 FROM generate_series($1::int, $2::int) AS id',
      [first + 1, last],
    );
    await db.query(
      `INSERT INTO state_groups_state SELECT id, $1, 'm.room.member', '@' || key, '$' || key
       FROM generate_series($2::int, $3::int) AS id, generate_series(0, id - $2 + 3) AS key`,
      [room, first, last],
    );
  }
}

async function fewRooms(t: TestContext): Promise<TestDatabase> {
  const db = await testDatabase(t);
  await addRooms(db, ROOMS);
  return db;
}

async function manyRooms(t: TestContext): Promise<TestDatabase> {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  await addRooms(db, ROOMS);
  return db;
}

async function exported(t: TestContext, db: TestDatabase): Promise<string> {
  const folder = join(await temporaryFolder(t), 'exports');
  await mkdir(folder);
  for (const table of STATE_TABLES) {
    await writeFile(join(folder, `${table}.copy`), await buffer(db.copyOut(`TABLE ${table}`)));
  }
  return folder;
}

async function compressed(source: readonly string[], ...options: string[]): Promise<void> {
  const { code, stderr } = await runCli([...source, '--all-rooms', ...options]);
  assert.equal(code, 0, stderr);
}

const verify = (...args: string[]) => runCli(['verify', ...args, '--all-rooms']);

const ALL = 'All rooms: 6 rooms with 6054 state groups compared, all states are equal.\n';
const FEW = 'All rooms: 4 rooms with 40 state groups compared, all states are equal.\n';

for (const options of [
  ['--format=copy'],
  ['--format=sql'],
  ['--format=sql', '-t'],
  ['--format=jsonl'],
]) {
  test(`all rooms are equal before and after, and with changes made with ${options.join(' ')}`, async (t) => {
    const db = await manyRooms(t);
    const exports = await exported(t, db);
    const [file, packed] = [join(exports, '..', 'out'), join(exports, '..', 'out.gz')];
    await compressed(['-i', exports], ...options, '-o', file);
    await compressed(['-p', db.url], ...options, '-o', packed);
    for (const before of [exports, db.url]) {
      for (const changes of [file, packed]) {
        const { code, stdout, stderr } = await verify(before, '--changes', changes);
        assert.equal(code, 0, stderr);
        assert.equal(stdout, ALL);
      }
    }
    if (options.includes('--format=jsonl')) {
      const applied = await runCli(['apply', file, '-p', db.url]);
      assert.equal(applied.code, 0, applied.stderr);
    } else {
      const oneTransaction = !options.includes('-t') && !options.includes('--format=copy');
      await applySql(db, file, { oneTransaction });
    }
    for (const sides of [
      [exports, db.url],
      [db.url, exports],
      [exports, await exported(t, db)],
    ]) {
      const { code, stdout, stderr } = await verify(...sides);
      assert.equal(code, 0, stderr);
      assert.equal(stdout, ALL);
    }
  });
}

test('all rooms are equal in new tables, beside which the groups are', async (t) => {
  const exports = await exported(t, await manyRooms(t));
  const tables = join(exports, '..', 'tables');
  await compressed(['-i', exports], '--format', 'tables', '-o', tables);
  const lacking = await verify(exports, tables);
  assert.match(lacking.stderr, /Warning: AFTER: Without the table state_groups only groups/);
  await symlink(join(exports, 'state_groups.copy'), join(tables, 'state_groups.copy'));
  const { code, stdout, stderr } = await verify(exports, tables);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, ALL);
});

test('each room that differs is told with its first difference, and a room of one side is one', async (t) => {
  const db = await manyRooms(t);
  const exports = await exported(t, db);
  const [tab, z, backslash] = ROOMS;
  const group = firstOf(tab) + 4;
  await db.query(`
    UPDATE state_groups_state SET event_id = '$other' WHERE state_group = ${group} AND state_key = '@2';
    DELETE FROM state_groups_state WHERE state_group = ${firstOf(backslash) + 1};
    DELETE FROM state_group_edges WHERE state_group = ${firstOf(backslash) + 1};`);
  for (const [table, column] of [
    ['state_groups', 'id'],
    ['state_group_edges', 'state_group'],
    ['state_groups_state', 'state_group'],
  ]) {
    await db.query(`DELETE FROM ${table} WHERE ${column} BETWEEN $1::int AND $1 + 9`, [firstOf(z)]);
  }
  await db.query(`
    INSERT INTO state_groups VALUES (9000100, '!new', '$e'), (9000101, '!é', '$e');`);
  const after = await exported(t, db);
  for (const [left, right, was, is, one, other] of [
    [exports, db.url, '"$2"', '"$other"', 'BEFORE', 'AFTER'],
    [exports, after, '"$2"', '"$other"', 'BEFORE', 'AFTER'],
    [db.url, exports, '"$other"', '"$2"', 'AFTER', 'BEFORE'],
  ]) {
    const { code, stdout, stderr } = await verify(left, right);
    assert.equal(code, 8, stderr);
    const found = [
      `Room '${tab}': 5 state groups compared, the last state differs.`,
      `State group ${group} differs in one key:`,
      '  type:      "m.room.member"',
      '  state_key: "@2"',
      `  before:    ${was}`,
      `  after:     ${is}`,
      `Room '${z}': only in ${one}.`,
      `Room '${backslash}': 2 state groups compared, the last state differs.`,
    ].join('\n');
    assert.ok(stdout.includes(found), stdout);
    assert.ok(stdout.includes(`Room '!new': only in ${other}.\n`), stdout);
    const lost = one === 'AFTER';
    const differing = lost ? 5 : 4;
    // A group that one room has more is no difference in the later side, and is one in the earlier.
    assert.equal(stdout.includes(`Room '!é': `), lost);
    const totals = `All rooms: 5 rooms with ${5 + 2 + GROUPS + 6014} state groups compared, ${differing} rooms differ.\n`;
    assert.ok(
      stdout.endsWith(
        lost ? totals : `${totals}Only in AFTER: 1 state group of rooms that both have.\n`,
      ),
      stdout,
    );
    assert.match(stderr, new RegExp(`: ${differing} of 7 rooms are not the same in AFTER`));
  }
});

test('ten rooms are told, and how many more there are', async (t) => {
  const db = await testDatabase(t);
  await db.query(
    `INSERT INTO state_groups SELECT id, '!' || to_char(id, 'FM00'), '$e' FROM generate_series(1, 13) AS id`,
  );
  const { code, stdout } = await verify(db.url, (await testDatabase(t)).url);
  assert.equal(code, 8);
  const names = Array.from({ length: 10 }, (_, i) => String(i + 1).padStart(2, '0'));
  assert.equal(
    stdout,
    `${names.map((name) => `Room '!${name}': only in BEFORE.\n`).join('')}And 3 rooms more.\n` +
      'All rooms: 0 rooms with 0 state groups compared, 13 rooms differ.\n',
  );
});

test('a room whose data is wrong is told, and the others are compared', async (t) => {
  const db = await fewRooms(t);
  const whole = await exported(t, db);
  // No table of Synapse's holds a NULL here.
  await db.query('ALTER TABLE state_groups_state ALTER event_id DROP NOT NULL');
  await db.query(
    `UPDATE state_groups_state SET event_id = NULL WHERE state_group = ${firstOf('!aZ')} AND state_key = '@1'`,
  );
  for (const sides of [
    [await exported(t, db), whole],
    [whole, db.url],
  ]) {
    const { code, stdout, stderr } = await verify(...sides);
    assert.equal(code, 3, stderr);
    assert.match(stdout, /^Room '!aZ' can't be compared: /);
    assert.ok(
      stdout.endsWith("All rooms: 3 rooms with 30 state groups compared, 1 room can't be read.\n"),
      stdout,
    );
    assert.match(stderr, /1 of 4 rooms could not be compared, .* All others are equal\./);
  }
  await db.query(`DELETE FROM state_groups_state WHERE state_group = ${firstOf('!é')}`);
  const { code, stdout } = await verify(whole, db.url);
  assert.equal(code, 8);
  assert.match(stdout, /compared, 1 room differs, 1 room can't be read\.\n$/);
});

test('changes that spoil a room, or are of a room that is not there, are told', async (t) => {
  const db = await fewRooms(t);
  const exports = await exported(t, db);
  const file = join(exports, '..', 'out');
  await compressed(['-i', exports], '--format', 'jsonl', '-o', file);
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
  const roomOf = (line: string) => (JSON.parse(line) as { room_id: string }).room_id;
  const verifyLines = async (changed: readonly string[]) => {
    await writeFile(file, changed.map((line) => `${line}\n`).join(''));
    const fromFiles = await verify(exports, '--changes', file);
    const fromDatabase = await verify(db.url, '--changes', file);
    assert.deepEqual([fromDatabase.code, fromDatabase.stdout], [fromFiles.code, fromFiles.stdout]);
    return fromFiles;
  };
  assert.deepEqual([...new Set(lines.map(roomOf))], ROOMS);
  assert.equal((await verifyLines(lines)).stdout, FEW);

  const spoilt = lines.map((line) =>
    roomOf(line) === '!aZ' ? line.replace(/"\$(\d+)"\]\]/, '"$x"]]') : line,
  );
  const wrong = await verifyLines(spoilt);
  assert.equal(wrong.code, 8);
  assert.match(wrong.stdout, /^Room '!aZ': \d+ state groups? compared, the last state differs\.\n/);
  assert.match(wrong.stdout, /All rooms: 4 rooms .* compared, 1 room differs\.\n$/);

  const gone = lines.map((line) => line.replace('"!aZ"', '"!a["'));
  const moved = await verifyLines(gone);
  assert.equal(moved.code, 8);
  assert.match(moved.stdout, /^Room '!a\[': only in AFTER\.\n/);
  assert.match(moved.stdout, /1 room differs\.\nWithout changes, and not compared: 1 room\.\n$/);

  const foreign = lines.map((line) => line.replace('"!aZ"', '"!a\\\\"'));
  const mistaken = await verifyLines(foreign);
  assert.equal(mistaken.code, 8);
  assert.match(
    mistaken.stdout,
    /^Room '!a\\' can't be compared: State group \d+ is changed, and room '!a\\' has none of that id\.\n/,
  );

  const twice = await verifyLines([lines[0], ...lines]);
  assert.equal(twice.code, 3);
  assert.match(twice.stdout, /^Room '!a\tb'' can't be compared: .* is changed twice/);
  assert.match(twice.stdout, /^All rooms: 3 rooms with 30 state groups/m);

  const some = await verifyLines(lines.filter((line) => roomOf(line) === '!é'));
  assert.equal(some.code, 0, some.stderr);
  assert.equal(
    some.stdout,
    'All rooms: 1 room with 10 state groups compared, all states are equal.\nWithout changes, and not compared: 3 rooms.\n',
  );
});

test('changes whose rooms are in another order, and a file that is cut off, end the run', async (t) => {
  const exports = await exported(t, await fewRooms(t));
  const file = join(exports, '..', 'out');
  for (const form of ['copy', 'jsonl', 'sql']) {
    const texts: string[] = [];
    for (const room of ['!aZ', ROOMS[0]]) {
      const { code, stderr } = await runCli(
        ['-i', exports, '-r', room, '--format', form].concat('-o', file),
      );
      assert.equal(code, 0, stderr);
      texts.push(await readFile(file, 'utf8'));
    }
    await writeFile(file, texts.toReversed().join(''));
    const inOrder = await verify(exports, '--changes', file);
    assert.equal(inOrder.code, 0, inOrder.stderr);
    assert.match(inOrder.stdout, /^All rooms: 2 rooms .*\nWithout changes, .*: 2 rooms\.\n$/);

    for (const text of [texts.join(''), [...texts.toReversed(), texts[1]].join('')]) {
      await writeFile(file, text);
      const { code, stdout, stderr } = await verify(exports, '--changes', file);
      assert.equal(code, 3);
      assert.equal(stdout, '');
      assert.match(stderr, /The changes of room '!a\tb'' stand behind those of room '!aZ'\. /);
    }
    await writeFile(file, texts.toReversed().join('').slice(0, -20));
    const { code, stdout, stderr } = await verify(exports, '--changes', file);
    assert.equal(code, 3);
    assert.doesNotMatch(stdout, /All rooms/);
    assert.match(stderr, /the file was cut off/);
  }
});

test('where irregular groups of another room read through what is changed, that is no equal room', async (t) => {
  const db = await testDatabase(t);
  await db.query(`
    INSERT INTO state_groups VALUES (1, '!x', '$'), (5, '!x', '$'), (3, '!b', '$'), (6, '!b', '$');
    INSERT INTO state_group_edges VALUES (6, 5), (6, 3);
    INSERT INTO state_groups_state VALUES
      (1, '!x', 'k', '', '$1'), (5, '!x', 'k', '', '$1'), (5, '!x', 'j', '', '$2'), (3, '!b', 'k', '', '$3');`);
  const exports = await exported(t, db);
  // Group 5 stays as it is, and group 6 now has its key of group 3.
  const change = {
    room_id: '!x',
    state_group: 5,
    old_predecessor: null,
    new_predecessor: 1,
    old_rows: 2,
    old_hash: '0',
    new_rows_hash: '0',
    rows: [['j', '', '$2']],
  };
  const file = join(exports, '..', 'out');
  await writeFile(file, `${JSON.stringify(change)}\n`);
  for (const before of [exports, db.url]) {
    const { code, stdout } = await verify(before, '--changes', file);
    assert.equal(code, 8);
    assert.match(
      stdout,
      /^Room '!b' can't be compared: Groups of room '!b' with several predecessors .*\nAll rooms: 1 room with 2 state groups compared, 1 room differs\.\n/,
    );
  }
  await db.query(`
    DELETE FROM state_groups_state WHERE state_group = 5 AND type = 'k';
    INSERT INTO state_group_edges VALUES (5, 1);`);
  const { code, stdout } = await verify(exports, db.url);
  assert.equal(code, 8);
  assert.match(stdout, /^Room '!b': 2 state groups compared, the last state differs\.$/m);
});

test('one room or all, and some room', async (t) => {
  const db = await testDatabase(t);
  const room = await verify(db.url, db.url, '-r', LARGE_ROOM);
  assert.equal(room.code, 2);
  assert.match(room.stderr, /-r \(--room-id\) is about one room, and --all-rooms is given\./);
  const none = await verify(db.url, db.url);
  assert.equal(none.code, 4);
  assert.match(none.stderr, /There are no rooms to compare\./);
  await loadTables(db, 'synapse');
  assert.match((await verify(db.url, db.url)).stdout, /^All rooms: 2 rooms with 6014 /);
  assert.equal((await runCli(['verify', db.url, db.url, '-r', SMALL])).code, 0);
});
