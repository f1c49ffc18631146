/** Files whose rows are read on trust that they are in order: what is told and written is as without trust. */
import assert from 'node:assert/strict';
import { createReadStream, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { writeRoomFiles } from '../bench/room-files.js';
import { roomName } from '../bench/room-tables.js';
import { compressRoom } from '../src/compress.js';
import { InputError } from '../src/errors.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import { STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import { memoryOutput } from './support/memory-output.js';
import { limits } from './support/property-seeds.js';
import { runCli } from './support/run-cli.js';

const ROOM = '!a:example.org';
const OTHER = '!b:example.org';

const lines = (rows: readonly (readonly (string | number)[])[]): string =>
  rows.map((row) => `${row.join('\t')}\n`).join('');

/** What compressing the room of a folder gives: the changes and what is told of them, or the error. */
async function outcome(folder: string, tmpdir: string, onTrust: boolean) {
  const output = memoryOutput();
  try {
    const source = await openFilesSource({
      inputs: [folder],
      stdin: Readable.from([]),
      room: ROOM,
      range: {},
      memory: 2 ** 20,
      tmpdir,
      onTrust,
    });
    assert.equal(source.isOnTrust, onTrust);
    const { seconds: _, ...statistics } = await compressRoom({ source, output });
    return { statistics, changes: output.text() };
  } catch (error) {
    // The table itself is not told where it is the first row that is damaged.
    assert.ok(error instanceof InputError, (error as Error).stack);
    return error;
  }
}

/** A line of so many bytes, so that groups of a few lines are leapt over. */
const row = (group: number, room: string, key: number, event: number): string =>
  lines([[group, room, 'm.room.member', `@member${key}:example.org`, `$${`${event}`.repeat(40)}`]]);

type Damage = (rows: string[], at: number, to: number) => unknown;
const DAMAGES: Readonly<Record<string, Damage>> = {
  nothing: () => {},
  'a row elsewhere': (rows, at, to) => rows.splice(to, 0, ...rows.splice(at, 1)),
  'a row again': (rows, at, to) => rows.splice(to, 0, rows[at]),
  'a row less': (rows, at) => rows.splice(at, 1),
  'a row of no group': (rows, at) => rows.splice(at, 0, row(1000, ROOM, 1, 1)),
  'a row of a group of no rows': (rows, at) => rows.splice(at, 0, row(7, ROOM, 1, 1)),
  'a row of the other room': (rows, at) => rows.splice(at, 0, row(8, OTHER, 1, 1)),
  'the end': (rows, at) => rows.splice(at, 0, '\\.\n'),
  'an empty line': (rows, at) => rows.splice(at, 0, '\n'),
  'a column less': (rows, at) => (rows[at] = rows[at].replace('m.room.member\t', '')),
  'a column more': (rows, at) => (rows[at] = rows[at].replace('\n', '\tx\n')),
  'a carriage return': (rows, at, to) =>
    (rows[at] = rows[at].replace(['\n', '@', 'e', '$'][to % 4], '\r$&')),
  'a NUL': (rows, at, to) => (rows[at] = rows[at].replace(['\n', '@', '$'][to % 3], '\0$&')),
  'another spelling': (rows, at) => (rows[at] = rows[at].replace('@', '\\@')),
  'a zero before the group': (rows, at) => (rows[at] = `0${rows[at]}`),
  'another event': (rows, at) => (rows[at] = rows[at].replace('$', '$$x')),
  'the end cut off': (rows) => (rows[rows.length - 1] = rows.at(-1)!.slice(0, -1)),
};

test('on trust, rows that are not as they should be are refused, and others read alike', async (t) => {
  const folder = await temporaryFolder(t);
  const tables = join(folder, 'tables');
  mkdirSync(tables);
  const groups = Array.from({ length: 20 }, (_, i) => i + 1);
  const roomOf = (group: number): string => (group % 4 === 0 ? OTHER : ROOM);
  const write = (table: string, text: string | Buffer): void =>
    writeFileSync(join(tables, `${table}.copy`), text);
  write('state_groups', lines(groups.map((group) => [group, roomOf(group), '$e'])));
  const edge = fc.record({ group: fc.constantFrom(...groups), back: fc.nat(19) });
  const given = fc.record({
    sizes: fc.array(fc.oneof(fc.nat(3), fc.nat(40)), { minLength: 20, maxLength: 20 }),
    edges: fc.array(edge, { maxLength: 12 }),
    damage: fc.constantFrom(...Object.keys(DAMAGES)),
    at: fc.nat(),
    to: fc.nat(),
    isPacked: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(given, async ({ sizes, edges, damage, at, to, isPacked }) => {
      // Some edges lead upward or to themselves, some groups have several: they are irregular.
      write(
        'state_group_edges',
        lines(edges.map(({ group, back }) => [group, Math.max(1, group + 3 - back)])) || '1\t2\n',
      );
      const rows = groups.flatMap((group) =>
        Array.from({ length: group === 7 ? 0 : sizes[group - 1] }, (_, key) =>
          row(group, roomOf(group), key, key % 7 === 0 ? group : 0),
        ),
      );
      fc.pre(rows.length > 0);
      DAMAGES[damage](rows, at % rows.length, to % rows.length);
      const text = Buffer.from(rows.join(''));
      write('state_groups_state', isPacked ? gzipSync(text) : text);
      const trusting = await outcome(tables, folder, true);
      const careful = await outcome(tables, folder, false);
      if ('changes' in trusting) assert.deepEqual(trusting, careful);
      else assert.notEqual(damage, 'nothing');
    }),
    limits(100),
  );
  assert.deepEqual(readdirSync(folder), ['tables']);
});

test('on trust, no rows go through a temporary file, in whatever form they come', async (t) => {
  const folder = await temporaryFolder(t);
  const room = { kind: 'branching', groups: 3000, keys: 300, seed: 1 } as const;
  const counts = writeRoomFiles([room], folder);
  const path = join(folder, 'state_groups_state.copy');
  writeFileSync(path, gzipSync(readFileSync(path)));
  const source = await openFilesSource({
    inputs: [folder],
    stdin: Readable.from([]),
    room: roomName(1, 0),
    range: {},
    memory: 1,
    tmpdir: join(folder, 'missing'),
    onTrust: true,
  });
  assert.equal((await compressRoom({ source })).rowsBefore, counts.rows);
});

/** A room of some megabytes in a folder, whose rows `change` may change. */
async function roomFolder(t: TestContext, change: (rows: string[]) => unknown) {
  const root = await temporaryFolder(t);
  const folder = join(root, 'tables');
  writeRoomFiles([{ kind: 'branching', groups: 4000, keys: 700, seed: 3 }], folder);
  const path = join(folder, 'state_groups_state.copy');
  const rows = readFileSync(path, 'utf8').split(/(?<=\n)/);
  change(rows);
  writeFileSync(path, rows.join(''));
  const run = (inputs: readonly string[], out: string, ...options: readonly string[]) =>
    runCli(
      ['-r', roomName(3, 0), '--tmpdir', root, '-o', out, ...options].concat(
        inputs.flatMap((input) => ['-i', input]),
      ),
      { cwd: root, stdin: createReadStream(path) },
    );
  return {
    root,
    folder,
    path,
    run,
    read: (file: string) => readFileSync(join(root, file), 'utf8'),
  };
}

for (const [what, change] of [
  ['in the last row', (rows) => rows.push(rows.shift()!)],
  ['late', (rows) => rows.splice(rows.length - 200, 0, ...rows.splice(100, 1))],
  ['in the second row', (rows) => rows.unshift(rows.pop()!)],
  ['everywhere', (rows) => rows.splice(0, rows.length, ...rows.toReversed())],
] as const satisfies [string, (rows: string[]) => unknown][]) {
  test(`what is written does not show that order breaks ${what}`, async (t) => {
    const inOrder = await roomFolder(t, () => {});
    const expected = await inOrder.run([inOrder.folder], 'out', '-t');
    assert.equal(expected.code, 0, expected.stderr);
    const { run, read, root, folder } = await roomFolder(t, change);
    const written = await run([folder], 'out', '-t', '--stats-file', 'stats');
    assert.equal(written.code, 0, written.stderr);
    assert.equal(written.stderr, expected.stderr);
    assert.equal(read('out'), inOrder.read('out'));
    assert.deepEqual(readdirSync(root).sort(), ['out', 'stats', 'tables']);

    const toStdout = await run([folder], '-', '-t');
    assert.equal(toStdout.stdout, read('out'));
    const unbuffered = await run([folder], '-', '-t', '--unbuffered');
    assert.equal(unbuffered.stdout, read('out'));
    const tables = await run([folder], 'new', '--format', 'tables');
    assert.equal(tables.code, 0, tables.stderr);
    // What can be read only once is sorted at once.
    const headers = STATE_TABLES.slice(0, 2).map((table) => join(folder, `${table}.copy`));
    const piped = await run([...headers, '-'], 'piped', '-t');
    assert.equal(piped.code, 0, piped.stderr);
    assert.equal(read('piped'), read('out'));
    assert.deepEqual(readdirSync(root).sort(), ['new', 'out', 'piped', 'stats', 'tables']);
  });
}

test('a bad row is told with its line, though the rows before it were read on trust', async (t) => {
  let line = 0;
  const { run, root, folder, path } = await roomFolder(t, (rows) => {
    line = rows.length - 100;
    rows[line - 1] = rows[line - 1].replace('\n', '\tmore\n');
  });
  const { code, stderr } = await run([folder], 'out');
  assert.equal(code, 3);
  assert.equal(
    stderr.split('\n').slice(1).join('\n'),
    `synapse_compress_state: Line ${line} of ${path} has 6 columns, where state_groups_state has 5.\n`,
  );
  assert.deepEqual(readdirSync(root), ['tables']);
});

test('a group that only a late row tells of is left out and told', async (t) => {
  const { run, folder } = await roomFolder(t, (rows) =>
    rows.push(rows.at(-1)!.replace(/^\d+/, '99999'), rows[0].replace(/^\d+/, '99998')),
  );
  const { code, stderr } = await run([folder], 'out');
  assert.equal(code, 0, stderr);
  assert.match(stderr, /2 rows of the room belong to state groups that state_groups does not have/);
});
