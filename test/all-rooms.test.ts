import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { test } from 'node:test';
import fc from 'fast-check';
import { compressRooms, type CompressRoomsSettings } from '../src/compress-rooms.js';
import { compressRoom } from '../src/compress.js';
import { OutputError, RoomNotFoundError } from '../src/errors.js';
import { LevelsPlanner } from '../src/planner/levels.js';
import { NO_CHANGES } from '../src/sinks/no-changes.js';
import { guardSummary } from '../src/sinks/sql-guard.js';
import { openStreamedOutput } from '../src/sinks/streamed-output.js';
import { openFilesRooms } from '../src/sources/files/files-rooms.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import { openPostgresRooms } from '../src/sources/postgres/postgres-rooms.js';
import { openPostgresSource } from '../src/sources/postgres/postgres-source.js';
import type { RoomSource } from '../src/sources/room-source.js';
import { applySql } from './support/apply-sql.js';
import { copyText, type Row } from './support/export-formats.js';
import { fixture, LARGE_ROOM, loadTables, temporaryFolder } from './support/fixtures.js';
import { memoryOutput } from './support/memory-output.js';
import { rooms as roomsOf, type Room } from './support/naive-room.js';
import { testDatabase } from './support/postgres.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates, readAllStates } from './support/states.js';

const SMALL = '!MlmO6RiERMEwPQNvXSAjqHDDQP-s6jpT6UOy23RaJOY';

/** Small enough for small rooms, and good enough for a real one. */
const planner = () => new LevelsPlanner([3, 2, 100, 50]);

/** The changes of all rooms at once, and the groups and rows that there are said to be. */
async function allWithTotals(source: CompressRoomsSettings['source'], tmpdir: string) {
  const output = memoryOutput();
  const totals = await compressRooms({ source, planner, output, tmpdir, transactions: true });
  return { sql: output.text(), totals: [totals.stateGroups, totals.rowsBefore] };
}

async function allAtOnce(source: CompressRoomsSettings['source'], tmpdir: string): Promise<string> {
  return (await allWithTotals(source, tmpdir)).sql;
}

/** A room's script, and the groups that it changes. */
interface RoomScript {
  readonly room: string;
  readonly sql: string;
  readonly groups: number;
}

/** No script if it is not worth it. */
async function alone(source: RoomSource): Promise<RoomScript[]> {
  const output = memoryOutput();
  const { room, outcome, groupsWritten } = await compressRoom({
    source,
    planner: planner(),
    output,
    transactions: true,
  });
  return outcome === 'written' ? [{ room, sql: output.text(), groups: groupsWritten }] : [];
}

/** The scripts of rooms as one: what they begin and end with stands once. */
function together(scripts: readonly RoomScript[]): string {
  let groups = 0;
  let all = '';
  for (const script of scripts) {
    groups += script.groups;
    const begin = all === '' ? 0 : script.sql.indexOf(CHANGES);
    if (all !== '') all += `\n-- Room ${JSON.stringify(script.room)}\n`;
    all += script.sql.slice(begin, script.sql.lastIndexOf(COUNTS));
  }
  return all === '' ? '' : all + guardSummary(groups);
}

/** What the changes of a room and what follows them begin with. */
const CHANGES = '\nBEGIN ISOLATION LEVEL';
const COUNTS = '\nWITH counts';

/** Rooms that take turns with ids, and edges and rows that lead from one to another. */
const databases = fc
  .tuple(
    fc.array(roomsOf(25, { regular: false }), { minLength: 1, maxLength: 4 }),
    fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 4 }),
    fc.infiniteStream(fc.nat()),
  )
  .map(([rooms, crossings, random]) => {
    const name = (room: number) => `!${'zabm'[room]}\t:x`;
    const idOf = (room: number, id: number) => id * rooms.length + room;
    const groups: Row[] = [];
    const edges: Row[] = [];
    const rows: Row[] = [];
    const ids: number[] = [];
    rooms.forEach((groupsOfRoom: Room, room) => {
      for (const { id, reason, predecessors, rows: own } of groupsOfRoom) {
        const global = idOf(room, id);
        ids.push(global);
        if (reason !== 'missing-group') groups.push([String(global), name(room), '$e']);
        for (const prev of predecessors) edges.push([String(global), String(idOf(room, prev))]);
        for (const [key, event] of own) {
          const [type, stateKey] = key.split('\t');
          rows.push([String(global), name(room), type, stateKey, event]);
        }
      }
    });
    for (const [a, b] of crossings) {
      edges.push([String(ids[a % ids.length]), String(ids[b % ids.length])]);
    }
    const shuffled = (list: Row[]) =>
      list
        .map((row) => [random.next().value as number, row] as const)
        .sort(([a], [b]) => a - b)
        .map(([, row]) => row);
    const names = rooms.map((_, room) => name(room)).sort();
    return { names, groups, edges, rows: shuffled(rows) };
  });

test('a reader may keep what it was given, however much the changes of a room are', async (t) => {
  const tmpdir = await temporaryFolder(t);
  const inputs = [fixture('golden/default/before')];
  const from = { inputs, stdin: Readable.from([]), memory: 1_000_000, tmpdir };
  const levels = () => new LevelsPlanner();
  const reader = new PassThrough({ highWaterMark: 100_000_000 });
  const output = openStreamedOutput(reader, 'standard output');
  await compressRooms({ source: await openFilesRooms(from), planner: levels, output, tmpdir });
  reader.end();
  const changes = await text(reader);

  const room = '!OGEhHVWSdvArJzumhm:example.org';
  const source = await openFilesSource({ ...from, room, range: {} });
  const expected = memoryOutput();
  await compressRoom({ source, planner: levels(), output: expected });
  assert(expected.text().length > 500_000);
  assert(changes === expected.text(), 'other changes than those of the room by itself');
});

test('an output that failed while a room was planned says why', async (t) => {
  const source = await openFilesRooms({
    inputs: [fixture('golden/auto/before')],
    stdin: process.stdin,
    memory: 2 ** 24,
    tmpdir: await temporaryFolder(t),
  });
  const full = new OutputError('The disk is full.');
  const output = memoryOutput();
  const onRoom = (): void => void output.stream.destroy(full);
  const levels = () => new LevelsPlanner([100, 50, 25]);
  const tmpdir = await temporaryFolder(t);
  await assert.rejects(compressRooms({ source, planner: levels, output, tmpdir, onRoom }), full);
});

test('all rooms from files give what each room gives by itself', async (t) => {
  const folder = await temporaryFolder(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(databases, fc.constantFrom(500, 64_000), async (database, memory) => {
      const exports = join(folder, String(run++));
      await mkdir(exports);
      const { names, groups, edges, rows } = database;
      for (const [table, list] of [
        ['state_groups', groups],
        ['state_group_edges', edges],
        ['state_groups_state', rows],
      ] as const) {
        await writeFile(join(exports, `${table}.copy`), copyText(list));
      }
      const from = { inputs: [exports], stdin: Readable.from([]), memory, tmpdir: folder };
      const expected: RoomScript[] = [];
      for (const room of names) {
        if (!groups.some(([, name]) => name === room)) continue;
        expected.push(...(await alone(await openFilesSource({ ...from, room, range: {} }))));
      }
      assert.equal(await allAtOnce(await openFilesRooms(from), folder), together(expected));
    }),
    { numRuns: 60 },
  );
});

test('all rooms from a database give what each room gives by itself, and keep every state', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const folder = await temporaryFolder(t);
  const from = { dsn: db.url, env: {} };
  const withoutTime = (sql: string) => sql.replaceAll(/^-- The tables are as they were.*$/gm, '');
  const expected: RoomScript[] = [];
  for (const room of [SMALL, LARGE_ROOM]) {
    expected.push(...(await alone(await openPostgresSource({ ...from, room, range: {} }))));
  }
  const sql = await allAtOnce(await openPostgresRooms(from), folder);
  assert.equal(withoutTime(sql), withoutTime(together(expected)));
  assert.ok(sql.includes(LARGE_ROOM));

  const states = await readAllStates(db);
  await writeFile(join(folder, 'out.sql'), sql);
  await applySql(db, join(folder, 'out.sql'), { oneTransaction: false });
  expectSameStates(await readAllStates(db), states);
});

/** Rooms of so many groups; only those of 200 and fewer are read together. */
const LENGTHS = [200, 201];

test('all rooms from a database give what each gives by itself, whatever leads from one to another', async (t) => {
  const db = await testDatabase(t);
  // Edges may come twice here.
  await db.query(
    'DROP INDEX state_group_edges_unique_idx; CREATE INDEX ON state_group_edges (state_group)',
  );
  const folder = await temporaryFolder(t);
  const from = { dsn: db.url, env: {} };
  const withoutTime = (sql: string) => sql.replaceAll(/^-- The tables are as they were.*$/gm, '');
  await fc.assert(
    fc.asyncProperty(databases, async ({ names, groups, edges, rows }) => {
      const lines: Row[] = [];
      const links: Row[] = [];
      for (const length of LENGTHS) {
        const first = length * 1000;
        const ids = Array.from({ length }, (_, i) => String(first + i));
        lines.push(...ids.map((id): Row => [id, `!${length}'`, '$e']));
        links.push(...ids.slice(1).map((id): Row => [id, String(Number(id) - 1)]));
        links.push([ids[0], edges[0]?.[0] ?? '1'], [groups[0][0], ids[9]]);
      }
      await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
      for (const [table, list] of [
        ['state_groups', [...groups, ...lines]],
        ['state_group_edges', [...edges, ...links]],
        ['state_groups_state', rows],
      ] as const) {
        await db.copyIn(table, Readable.from([Buffer.from(copyText(list))]));
      }
      const expected: RoomScript[] = [];
      for (const room of [...LENGTHS.map((length) => `!${length}'`), ...names]) {
        if (![...groups, ...lines].some(([, name]) => name === room)) continue;
        expected.push(...(await alone(await openPostgresSource({ ...from, room, range: {} }))));
      }
      const { sql, totals } = await allWithTotals(await openPostgresRooms(from), folder);
      assert.equal(withoutTime(sql), withoutTime(together(expected)));
      const known = new Set([...groups, ...lines].map(([id]) => id));
      const rowsOfGroups = rows.filter(([group]) => known.has(group)).length;
      assert.deepEqual(totals, [known.size, rowsOfGroups]);

      const exports = join(folder, 'exports');
      await mkdir(exports, { recursive: true });
      for (const table of ['state_groups', 'state_group_edges', 'state_groups_state']) {
        await writeFile(join(exports, `${table}.copy`), await buffer(db.copyOut(`TABLE ${table}`)));
      }
      const files = { inputs: [exports], stdin: Readable.from([]), memory: 64_000, tmpdir: folder };
      const fromFiles = await allWithTotals(await openFilesRooms(files), folder);
      assert.equal(withoutTime(fromFiles.sql), withoutTime(sql));
      assert.deepEqual(fromFiles.totals, totals);
    }),
    { numRuns: 40 },
  );
});

test('what a room far away reads through stays as it is, from files as from a database', async (t) => {
  const folder = await temporaryFolder(t);
  const rowsOf = (group: string): Row[] =>
    ['a', 'b', 'c', 'd'].map((key) => [group, '!A:x', 't', key, `$${key}`]);
  // Group 8 has two predecessors, of which one leads to group 6 of another room through group 7.
  const tables: Record<string, Row[]> = {
    state_groups: [
      ...['2', '3', '6'].map((id): Row => [id, '!A:x', '$']),
      ...['4', '7', '8', '9'].map((id): Row => [id, '!B:x', '$']),
    ],
    state_group_edges: [
      ['3', '2'],
      ['7', '6'],
      ['9', '7'],
      ['8', '9'],
      ['8', '4'],
    ],
    state_groups_state: [
      ...rowsOf('2'),
      ['3', '!A:x', 't', 'e', '$e'],
      ['4', '!B:x', 't', 'a', '$other'],
      ...rowsOf('6'),
    ],
  };
  const write = async (): Promise<void> => {
    for (const [table, rows] of Object.entries(tables)) {
      await writeFile(join(folder, `${table}.copy`), copyText(rows));
    }
  };
  await write();
  const saved = async (...args: string[]): Promise<number> => {
    const { stdout } = await runCli(['-i', folder, ...args, '--stats-file', '-']);
    interface Rows {
      readonly rowsBefore: number;
      readonly rowsAfter: number;
    }
    const figures = JSON.parse(stdout) as Rows & { readonly totals?: Rows };
    const { rowsBefore, rowsAfter } = figures.totals ?? figures;
    return rowsBefore - rowsAfter;
  };
  assert.deepEqual([await saved('-r', '!A:x'), await saved('--all-rooms')], [0, 0]);
  // Where nobody reads through it, group 6 is like group 2.
  tables.state_group_edges.splice(1, 1);
  await write();
  assert.deepEqual([await saved('-r', '!A:x'), await saved('--all-rooms')], [4, 4]);
});

test('rooms with ancestors elsewhere are read one after the other, however many', async (t) => {
  const db = await testDatabase(t);
  await db.query(`
    INSERT INTO state_groups SELECT id, '!room' || id, '$e' FROM generate_series(1, 12) AS id;
    INSERT INTO state_group_edges SELECT id, id + 100 FROM state_groups`);
  const { code, stderr } = await runCli(['-p', db.url, '--all-rooms']);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /Number of rooms: 12,/);
});

for (const source of ['files', 'Postgres']) {
  test(`a room whose data is wrong is left out, told, and the rest is done, from ${source}`, async (t) => {
    const folder = await temporaryFolder(t);
    const exports = join(folder, 'exports');
    await mkdir(exports);
    const db = await testDatabase(t);
    await loadTables(db, 'synapse');
    await db.query(
      "INSERT INTO state_groups VALUES (7000001, '!N:x', '$e'), (7000002, '!P', '$e')",
    );
    // No table of Synapse's holds a NULL here.
    await db.query('ALTER TABLE state_groups_state ALTER event_id DROP NOT NULL');
    await db.query("INSERT INTO state_groups_state VALUES (7000001, '!N:x', 'a', '', NULL)");
    for (const table of ['state_groups', 'state_group_edges', 'state_groups_state']) {
      await writeFile(join(exports, `${table}.copy`), await buffer(db.copyOut(`TABLE ${table}`)));
    }
    const args = source === 'files' ? ['-i', exports] : ['-p', db.url];
    const [output, figures] = [join(folder, 'out.sql'), join(folder, 'figures.json')];
    const { code, stderr } = await runCli([
      ...args,
      '--all-rooms',
      '-o',
      output,
      '--stats-file',
      figures,
      '-t',
    ]);
    const { rooms, totals } = JSON.parse(await readFile(figures, 'utf8')) as {
      rooms: { room: string; rowsBefore?: number; reason?: string }[];
      totals: { rooms: number; roomsFailed: number; outcome: string; rowsBefore: number };
    };
    assert.equal(code, 3, stderr);
    assert.match(stderr, /Room '!N:x' was left out: /);
    assert.match(stderr, /1 of 4 rooms was left out/);
    assert.deepEqual(
      rooms.map(({ room }) => room),
      [SMALL, '!N:x', LARGE_ROOM, '!P'],
    );
    assert.equal(totals.roomsFailed, 1);
    assert.equal(totals.rowsBefore, 1128 + 18351);
    const sql = await readFile(output, 'utf8');
    for (const room of [SMALL, LARGE_ROOM]) {
      const one = await runCli([...args, '-r', room, '-o', '-', '-t']);
      const [begin, end] = [CHANGES, COUNTS].map((line) => one.stdout.indexOf(line));
      assert.ok(begin > 0 && sql.includes(one.stdout.slice(begin, end)));
    }
  });
}

test('what one room alone can have is refused, and nothing worth it is said', async (t) => {
  for (const option of [['-b', '1'], ['-n', '1'], ['-s', '9'], ['-r', SMALL], ['-g']]) {
    const { code, stderr } = await runCli(['-i', fixture('synapse'), '--all-rooms', ...option]);
    assert.equal(code, 2, stderr);
    assert.match(stderr, /is about one room, and --all-rooms is given/);
  }
  const output = join(await temporaryFolder(t), 'out.sql');
  await writeFile(output, 'earlier');
  const args = ['-i', fixture('synapse'), '--all-rooms', '-o', output, '--stats-file', '-'];
  const { code, stdout } = await runCli([...args, '-m', '20000']);
  assert.equal(code, 0);
  const { totals } = JSON.parse(stdout) as { totals: { outcome: string; roomsChanged: number } };
  assert.deepEqual([totals.outcome, totals.roomsChanged], ['nothing-to-change', 0]);
  assert.equal(await readFile(output, 'utf8'), `${NO_CHANGES}\n`);
});

test('of rooms that are named those are opened, and one that has gone is told', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const gone = '!gone:example.org';
  const all = await openPostgresRooms({ dsn: db.url, env: {}, rooms: [SMALL, gone] });
  t.after(() => all.close());
  assert.equal(all.count, 2);
  const found: string[] = [];
  for await (const room of all.rooms()) {
    if (room.name === gone) {
      await assert.rejects(room.open(), RoomNotFoundError);
    } else {
      const { groupsVerified } = await compressRoom({
        source: await room.open(),
        planner: planner(),
      });
      found.push(`${room.name} ${groupsVerified > 0}`);
    }
  }
  assert.deepEqual(found, [`${SMALL} true`]);
});
