import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createReadStream, readdirSync, readFileSync } from 'node:fs';
import { appendFile, mkdir, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { describe, it, type TestContext } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { ChangedInputError, InputError, OutputError, RoomNotFoundError } from '../src/errors.js';
import { collectEdges } from '../src/sources/files/room-edges.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import { IN_RANGE, NO_PREDECESSOR, UNREADABLE } from '../src/sources/group-table.js';
import type { GroupRange } from '../src/sources/group-range.js';
import type { RoomSource } from '../src/sources/room-source.js';
import { fixture, LARGE_ROOM, STATE_TABLES, temporaryFolder } from './support/fixtures.js';

type Table = (typeof STATE_TABLES)[number];

interface Given {
  readonly inputs: readonly string[];
  readonly room: string;
  readonly tmpdir: string;
  readonly range?: GroupRange;
  readonly memory?: number;
  readonly onTrust?: boolean;
  readonly stdin?: Readable;
  readonly signal?: AbortSignal;
}

function open(given: Given): Promise<RoomSource> {
  return openFilesSource({
    range: {},
    memory: 2 ** 20,
    stdin: Readable.from([]),
    ...given,
  });
}

async function rowsOf(source: RoomSource): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of source.rows()) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** Headers, rows and warnings of a room, with the source closed behind them. */
async function readAll(given: Given) {
  const source = await open(given);
  try {
    const rows = await rowsOf(source);
    const { ids, prev, flags } = source.groups;
    return {
      ids: [...ids],
      prev: [...prev].map((index) => (index === NO_PREDECESSOR ? undefined : ids[index])),
      inRange: [...ids].filter((_, i) => (flags[i] & IN_RANGE) !== 0),
      unreadable: [...ids].filter((_, i) => (flags[i] & UNREADABLE) !== 0),
      rows,
      warnings: source.warnings,
    };
  } finally {
    await source.close();
  }
}

/** Files of the three tables in a folder of their own. */
async function tableFolder(
  t: TestContext,
  tables: Partial<Record<Table, string>>,
): Promise<{ folder: string; tmpdir: string; path: (table: Table) => string }> {
  const root = await temporaryFolder(t);
  const folder = join(root, 'tables');
  const tmpdir = join(root, 'tmp');
  await mkdir(folder);
  await mkdir(tmpdir);
  const path = (table: Table): string => join(folder, `${table}.copy`);
  for (const table of STATE_TABLES) {
    if (tables[table] !== undefined) await writeFile(path(table), tables[table]);
  }
  return { folder, tmpdir, path };
}

const escapes: Record<string, string> = {
  '\\': '\\\\',
  '\t': '\\t',
  '\n': '\\n',
  '\r': '\\r',
  '\b': '\\b',
  '\f': '\\f',
  '\v': '\\v',
};
const copyText = (text: string): string => text.replace(/[\\\t\n\r\b\f\v]/g, (c) => escapes[c]);

const lines = (rows: readonly (readonly (string | number)[])[]): string =>
  rows.map((row) => `${row.join('\t')}\n`).join('');

/** A small sound database: two rooms of ten groups each, their ids interleaved. */
const small = {
  state_groups: lines(
    Array.from({ length: 20 }, (_, i) => [i + 1, i % 2 ? '!b:x' : '!a:x', `$${i}`]),
  ),
  state_group_edges: lines(Array.from({ length: 18 }, (_, i) => [i + 3, i + 1])),
  state_groups_state: lines(
    Array.from({ length: 20 }, (_, i) => [i + 1, i % 2 ? '!b:x' : '!a:x', 'm.x', `k${i}`, `$${i}`]),
  ),
};
const odd = Array.from({ length: 10 }, (_, i) => 2 * i + 1);
const roomA = small.state_groups_state.replace(/.*!b:x.*\n/g, '');

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

describe('the files source', () => {
  for (const [folder, room] of [
    ['synapse', LARGE_ROOM],
    ['synapse', undefined],
    ['golden/branchy/before', '!OGEhHVWSdvArJzumhm:example.org'],
    ['golden/auto/before', undefined],
  ] as const) {
    it(`reads ${room ?? 'the last room'} of fixtures/${folder}`, async (t) => {
      const tmpdir = await temporaryFolder(t);
      const table = (name: Table): string[] =>
        gunzipSync(readFileSync(fixture(folder, `${name}.copy.gz`)))
          .toString()
          .split('\n')
          .slice(0, -1);
      const headers = table('state_groups').map((line) => line.split('\t'));
      const chosen = room ?? headers.at(-1)![1];
      const ids = new Set(headers.filter((line) => line[1] === chosen).map((line) => +line[0]));
      const edges = new Map(
        table('state_group_edges')
          .map((line) => line.split('\t').map(Number))
          .filter(([group]) => ids.has(group)) as [number, number][],
      );
      const rows = table('state_groups_state')
        .filter((line) => ids.has(parseInt(line)))
        .sort((a, b) => parseInt(a) - parseInt(b));
      for (const memory of [64 * 1024, 64 * 2 ** 20]) {
        const read = await readAll({ inputs: [fixture(folder)], room: chosen, tmpdir, memory });
        assert.deepEqual(
          read.ids,
          [...ids].sort((a, b) => a - b),
        );
        assert.deepEqual(read.inRange, read.ids);
        assert.deepEqual(
          read.prev,
          read.ids.map((id) => edges.get(id)),
        );
        assert.equal(read.rows, rows.map((line) => `${line}\n`).join(''));
        assert.deepEqual(read.warnings, []);
      }
      assert.deepEqual(readdirSync(tmpdir), []);
    });
  }

  it('gives the same however the tables come', async (t) => {
    const text = fc.string({
      unit: fc.constantFrom('a', 'b', ' ', '\t', '\n', '\\', 'ü', '\r', 'N', '.'),
      maxLength: 5,
    });
    const given = fc.record({
      rooms: fc.uniqueArray(text, { minLength: 2, maxLength: 3 }),
      groups: fc.uniqueArray(
        fc.record({
          id: fc.oneof(fc.integer({ min: 0, max: 60 }), fc.maxSafeNat()),
          room: fc.nat(2),
          prev: fc.nat(),
          rows: fc.array(fc.tuple(text, text, text), { maxLength: 4 }),
          at: fc.nat(),
        }),
        { minLength: 1, maxLength: 30, selector: ({ id }) => id },
      ),
      min: fc.option(fc.nat(60), { nil: undefined }),
      max: fc.option(fc.nat(60), { nil: undefined }),
      count: fc.option(fc.nat(10), { nil: undefined }),
      isShuffled: fc.boolean(),
      stdin: fc.option(fc.constantFrom(...STATE_TABLES), { nil: undefined }),
      gzipped: fc.subarray([...STATE_TABLES]),
      cut: fc.integer({ min: 1, max: 40 }),
      memory: fc.constantFrom(500, 5000, 2 ** 20),
    });
    const { folder, tmpdir, path } = await tableFolder(t, {});
    const before = process.platform === 'linux' ? descriptors() : 0;
    await fc.assert(
      fc.asyncProperty(given, async (db) => {
        const room = (index: number): string => `!${db.rooms[index % db.rooms.length]}`;
        // Each group may have a predecessor of its room among those with smaller ids.
        const groups = db.groups.toSorted((a, b) => a.id - b.id);
        const prev = new Map<number, number>();
        for (const [i, group] of groups.entries()) {
          const older = groups.slice(0, i).filter((other) => room(other.room) === room(group.room));
          const chosen = older[group.prev % (older.length + 1)];
          if (chosen !== undefined) prev.set(group.id, chosen.id);
        }
        const stored = db.isShuffled ? groups.toSorted((a, b) => a.at - b.at) : groups;
        const rowLines = stored.flatMap(({ id, room: r, rows }) =>
          rows.map((row) => [id, ...[room(r), ...row].map(copyText)]),
        );
        const tables = {
          state_groups: lines(stored.map(({ id, room: r }) => [id, copyText(room(r)), '$e'])),
          state_group_edges: lines(
            stored.filter(({ id }) => prev.has(id)).map(({ id }) => [id, prev.get(id)!]),
          ),
          state_groups_state: lines(rowLines),
        };
        for (const table of STATE_TABLES) {
          const bytes = Buffer.from(tables[table]);
          await writeFile(path(table), db.gzipped.includes(table) ? gzipSync(bytes) : bytes);
        }
        const { stdin } = db;
        // An empty stream can't be recognized by a name.
        const isPiped = stdin !== undefined && tables[stdin] !== '';
        const inputs = STATE_TABLES.map((table) =>
          isPiped && table === stdin ? '-' : path(table),
        );
        const piped = isPiped
          ? Readable.from(cutUp(readFileSync(path(stdin)), db.cut))
          : Readable.from([]);
        const range: GroupRange = {
          ...(db.min !== undefined && { minStateGroup: db.min }),
          ...(db.max !== undefined && { maxStateGroup: db.max }),
          ...(db.count !== undefined && { groupsToCompress: db.count }),
        };

        const chosen = room(0);
        const own = groups.filter((group) => room(group.room) === chosen).map(({ id }) => id);
        const inRange = own
          .filter((id) => id > (db.min ?? -1) && id <= (db.max ?? Infinity))
          .slice(0, db.count);
        const wanted = new Set<number>();
        for (const id of inRange) {
          for (let at: number | undefined = id; at !== undefined; at = prev.get(at)) wanted.add(at);
        }
        const reading = readAll({
          inputs,
          room: chosen,
          tmpdir,
          range,
          memory: db.memory,
          stdin: piped,
        });
        if (inRange.length === 0) {
          await assert.rejects(reading, RoomNotFoundError);
          return;
        }
        if (rowLines.length === 0 && (prev.size > 0 || own.length > 1)) {
          await assert.rejects(reading, /^InputError: The table state_groups_state has no rows/);
          return;
        }
        const read = await reading;
        const ids = [...wanted].sort((a, b) => a - b);
        assert.deepEqual(read.ids, ids);
        assert.deepEqual(read.inRange, inRange);
        assert.deepEqual(
          read.prev,
          ids.map((id) => prev.get(id)),
        );
        const rows = rowLines.filter(([id]) => wanted.has(id as number));
        assert.equal(read.rows, lines(rows.sort(([a], [b]) => (a as number) - (b as number))));
        assert.deepEqual(read.warnings, []);
      }),
      { numRuns: 200 },
    );
    assert.deepEqual(readdirSync(tmpdir), []);
    assert.deepEqual(
      readdirSync(folder).sort(),
      STATE_TABLES.map((table) => `${table}.copy`).sort(),
    );
    if (process.platform === 'linux') assert.equal(descriptors(), before);
  });

  describe('without state_groups', () => {
    it('knows the groups that have rows, and reads through those that have none', async (t) => {
      const { folder, tmpdir, path } = await tableFolder(t, {
        state_group_edges: lines([
          [3, 1],
          [5, 3],
          [7, 5],
          [4, 2],
        ]),
        state_groups_state: lines([
          [3, '!a:x', 't', '', '$3'],
          [2, '!b:x', 't', '', '$2'],
          [7, '!a:x', 't', '', '$7'],
        ]),
      });
      const expected = {
        ids: [1, 3, 5, 7],
        prev: [undefined, 1, 3, 5],
        inRange: [3, 7],
        unreadable: [],
        rows: '3\t!a:x\tt\t\t$3\n7\t!a:x\tt\t\t$7\n',
      };
      const { warnings, ...read } = await readAll({ inputs: [folder], room: '!a:x', tmpdir });
      assert.deepEqual(read, expected);
      assert.equal(warnings.length, 1);
      assert.match(warnings[0], /state_groups/);

      const piped = await readAll({
        inputs: [path('state_group_edges'), '-'],
        stdin: createReadStream(path('state_groups_state')),
        room: '!a:x',
        tmpdir,
      });
      assert.deepEqual(piped, { ...expected, warnings });
    });

    it('leaves groups alone that read through another room whose rows have gone by', async (t) => {
      const { tmpdir, path } = await tableFolder(t, {
        state_group_edges: lines([
          [5, 2],
          [6, 5],
          [9, 3],
        ]),
        state_groups_state: lines([
          [2, '!b:x', 't', '', '$2'],
          [3, '!a:x', 't', '', '$3'],
          [5, '!a:x', 't', '', '$5'],
          [6, '!a:x', 't', '', '$6'],
          [9, '!a:x', 't', '', '$9'],
        ]),
      });
      const file = await readAll({
        inputs: [path('state_group_edges'), path('state_groups_state')],
        room: '!a:x',
        tmpdir,
      });
      assert.deepEqual(file.unreadable, []);
      assert.match(file.rows, /^2\t!b:x/);
      const piped = await readAll({
        inputs: [path('state_group_edges'), '-'],
        stdin: createReadStream(path('state_groups_state')),
        room: '!a:x',
        tmpdir,
      });
      assert.deepEqual(piped.ids, [2, 3, 5, 6, 9]);
      assert.deepEqual(piped.unreadable, [2, 5, 6]);
      assert.ok(piped.warnings.some((warning) => /State group 2 .*as a file/.test(warning)));
    });
  });

  it('follows edges to groups that are missing or of another room', async (t) => {
    const { folder, tmpdir } = await tableFolder(t, {
      state_groups: lines([
        [9, '!a:x', '$'],
        [10, '!a:x', '$'],
        [5, '!b:x', '$'],
        [6, '!b:x', '$'],
      ]),
      state_group_edges: lines([
        [9, 8],
        [8, 5],
        [5, 2],
        [6, 5],
        [10, 9],
      ]),
      state_groups_state: lines([
        [10, '!a:x', 't', '', '$10'],
        [8, '!a:x', 't', '', '$8'],
        [5, '!b:x', 't', '', '$5'],
        [6, '!b:x', 't', '', '$6'],
        [7, '!a:x', 't', '', '$7'],
        [7, '!a:x', 't', 'k', '$7'],
        [4, '!a:x', 't', '', '$4'],
      ]),
    });
    const read = await readAll({ inputs: [folder], room: '!a:x', tmpdir });
    assert.deepEqual(read.ids, [2, 5, 8, 9, 10]);
    assert.deepEqual(read.inRange, [9, 10]);
    assert.deepEqual(read.prev, [undefined, 2, 5, 8, 9]);
    assert.deepEqual(
      read.rows.split('\n').map((line) => line.split('\t')[0]),
      ['5', '8', '10', ''],
    );
    const [missing, other, strays] = read.warnings;
    assert.match(missing, /^2 state groups \(2, 8\) .*not in state_groups/);
    assert.match(other, /^State group 5 .*another room/);
    assert.match(strays, /^3 rows .*\(7, 4\)/);
  });

  it('freezes what another room reads through in an irregular way', async (t) => {
    const { folder, tmpdir } = await tableFolder(t, {
      ...small,
      state_group_edges: `${small.state_group_edges}40\t7\n40\t5\n`,
    });
    const source = await open({ inputs: [folder], room: '!a:x', tmpdir });
    assert.deepEqual([...source.groups.ids], odd);
    const frozen = odd.filter((_, i) => source.groups.flags[i] !== IN_RANGE);
    assert.deepEqual(frozen, [1, 3, 5, 7]);
    await source.close();
  });

  it('reads the edges a few times, however long the chain that leaves the room', async () => {
    const hops = 3000;
    const chain = lines(Array.from({ length: hops }, (_, i) => [i + 2, i + 1]));
    for (const text of [
      chain,
      chain
        .split(/(?<=\n)/)
        .toReversed()
        .join(''),
    ]) {
      let reads = 0;
      const edges = {
        name: 'edges',
        place: (index: number) => `Line ${index + 1} of edges`,
        rereadable: true,
        read() {
          reads++;
          return Readable.from([Buffer.from(text)]);
        },
      };
      const seen: number[] = [];
      const { beside } = await collectEdges(edges, Float64Array.of(hops + 1), (group) => {
        seen.push(group);
      });
      assert.equal(seen.length, hops);
      assert.equal(new Set(seen).size, hops);
      assert.equal(beside.size, hops);
      assert.equal(reads, 2);
    }
  });

  it('follows a chain whose ids lie far apart', async () => {
    const ids = [1, 5, 2 ** 30, 2 ** 40, 2 ** 50, Number.MAX_SAFE_INTEGER];
    const text = lines(ids.slice(1).map((id, i) => [id, ids[i]]));
    const edges = {
      name: 'edges',
      place: (index: number) => `Line ${index + 1} of edges`,
      rereadable: true,
      read: () => Readable.from([Buffer.from(text)]),
    };
    const seen: number[] = [];
    await collectEdges(edges, Float64Array.from(ids.slice(5)), (group) => void seen.push(group));
    assert.deepEqual(
      seen.sort((a, b) => a - b),
      ids.slice(1),
    );
  });

  it('leaves what a folder holds besides the tables, and says what it did not understand', async (t) => {
    const { folder, tmpdir } = await tableFolder(t, small);
    await writeFile(join(folder, 'state_groups_pending_deletion.copy'), '1\t2\t3\n');
    await writeFile(join(folder, 'README.md'), 'the export of Friday\n');
    await mkdir(join(folder, 'state_groups.old'));
    const read = await readAll({ inputs: [folder], room: '!a:x', tmpdir });
    assert.equal(read.rows, roomA);
    assert.equal(read.warnings.length, 1);
    assert.match(read.warnings[0], /pending_deletion/);
  });

  it('takes a file for what it holds, and an empty one for what it is called', async (t) => {
    for (const empty of ['', '\\.\n']) {
      const { folder, tmpdir } = await tableFolder(t, {
        state_groups: small.state_groups_state,
        state_group_edges: empty,
        state_groups_state: small.state_groups,
      });
      const read = await readAll({ inputs: [folder, folder], room: '!a:x', tmpdir });
      assert.equal(read.rows, roomA);
      assert.deepEqual(read.ids, odd);
      assert.equal(read.warnings.filter((warning) => /is named after/.test(warning)).length, 2);
    }
  });

  it('reads a FIFO and a link', async (t) => {
    if (process.platform === 'win32') return t.skip('there are no FIFOs');
    const { folder, tmpdir, path } = await tableFolder(t, small);
    const fifo = join(folder, 'fifo');
    const link = join(folder, 'link');
    execFileSync('mkfifo', [fifo]);
    await symlink(path('state_group_edges'), link);
    const writing = writeFile(fifo, small.state_groups_state);
    const inputs = [path('state_groups'), link, fifo];
    const read = await readAll({ inputs, room: '!a:x', tmpdir });
    await writing;
    assert.equal(read.rows, roomA);
  });

  it("ends at COPY's end marker", async (t) => {
    const { folder, tmpdir } = await tableFolder(t, {
      ...small,
      state_group_edges: `${small.state_group_edges}\\.`,
      state_groups_state: `${small.state_groups_state}\\.\n\n\r\n`,
    });
    const read = await readAll({ inputs: [folder], room: '!a:x', tmpdir });
    assert.equal(read.rows, roomA);
  });

  describe('says what is wrong, and where', () => {
    const change =
      (table: Table, edit: (text: string) => string | Buffer) =>
      (tables: typeof small): Record<string, string | Buffer> => ({
        ...tables,
        [table]: edit(tables[table]),
      });
    const replaceLine = (number: number, line: string) => (text: string) =>
      text
        .split('\n')
        .with(number - 1, line)
        .join('\n');
    const cases: readonly [
      what: string,
      (tables: typeof small) => Record<string, string | Buffer>,
      message: RegExp,
    ][] = [
      [
        'a state group that is no number',
        change('state_groups_state', replaceLine(7, 'x7\t!a:x\tt\t\t$')),
        /^Line 7 of .*state_groups_state\.copy .*'x7'/,
      ],
      [
        'a negative state group',
        change('state_groups', replaceLine(3, '-3\t!a:x\t$')),
        /^Line 3 of .*state_groups\.copy .*'-3'/,
      ],
      [
        'a state group beyond 2^53 - 1',
        change('state_groups_state', replaceLine(20, '9007199254740992\t!a:x\tt\t\t$')),
        /^Line 20 of .*'9007199254740992'/,
      ],
      [
        'a predecessor that is no number',
        change('state_group_edges', replaceLine(5, '7\t\\N')),
        /^Line 5 of .*state_group_edges\.copy .*'\\N'/,
      ],
      [
        'a column too few',
        change('state_groups_state', replaceLine(11, '11\t!a:x\tt\t$')),
        /^Line 11 of .* has 4 columns, where state_groups_state has 5/,
      ],
      [
        'a column too many',
        change('state_groups', replaceLine(2, '2\t!a:x\t$\tx')),
        /^Line 2 of .* has 4 columns, where state_groups has 3/,
      ],
      ['an empty line', change('state_group_edges', replaceLine(4, '')), /^Line 4 of .* is empty/],
      [
        'a cut-off end',
        change('state_groups_state', (text) => text.slice(0, -1)),
        /^Line 20 of .* cut off/,
      ],
      [
        'a NUL',
        change('state_groups_state', replaceLine(9, '9\t!a:x\tt\t\0\t$')),
        /^Line 9 of .* NUL/,
      ],
      [
        'line ends as on Windows',
        change('state_groups_state', (text) => text.replaceAll('\n', '\r\n')),
        /^Line 1 of .* carriage return, as on Windows/,
      ],
      [
        'a carriage return within a line',
        change('state_groups_state', replaceLine(2, '2\t!b:x\tt\ta\rb\t$')),
        /^Line 2 of .* carriage return, which/,
      ],
      [
        'rows behind the end marker',
        change('state_groups_state', (text) => `${text}\\.\n${text}`),
        /^Line 21 of .* ends the rows with \\\., but more follows/,
      ],
      [
        'half a row behind the end marker',
        change('state_group_edges', (text) => `${text}\\.\n\n7`),
        /^Line 19 of .* ends the rows with \\\., but more follows/,
      ],
      [
        'gzip that is cut off',
        change('state_groups_state', (text) => gzipSync(text.repeat(50)).subarray(0, -20)),
        /^Can't read .*state_groups_state\.copy: .*cut off/,
      ],
      [
        'gzip that is damaged',
        change('state_groups_state', (text) => {
          const bytes = gzipSync(text.repeat(50));
          return bytes.fill(0xaa, bytes.length >> 1, (bytes.length >> 1) + 8);
        }),
        /^Can't read .*state_groups_state\.copy: .*damaged/,
      ],
    ];
    for (const [what, tables, message] of cases) {
      it(what, async (t) => {
        const { folder, tmpdir } = await tableFolder(t, tables(small));
        await assert.rejects(
          readAll({ inputs: [folder], room: '!a:x', tmpdir }),
          (error: unknown) => {
            assert.ok(error instanceof InputError);
            assert.match(error.message, message);
            return true;
          },
        );
      });
    }

    it('a line number in a large file, wherever chunks are cut', async (t) => {
      const rows = Array.from({ length: 40_000 }, (_, i) => `${i + 1}\t!a:x\tt\t${i}\t$`);
      rows[37_000] = 'oops';
      const { tmpdir, path } = await tableFolder(t, small);
      const stdin = Readable.from(cutUp(Buffer.from(`${rows.join('\n')}\n`), 4999));
      const inputs = [path('state_groups'), path('state_group_edges'), '-'];
      await assert.rejects(
        readAll({ inputs, stdin, room: '!a:x', tmpdir }),
        /^InputError: Line 37001 of standard input has 1 column,/,
      );
    });

    it('rows behind the end marker, wherever chunks are cut', async (t) => {
      const { tmpdir, path } = await tableFolder(t, small);
      const inputs = [path('state_groups'), path('state_group_edges'), '-'];
      for (const row of ['1\t!a:x\tt\t\t$', '1\t!a:x\tt\t\t$\n']) {
        const bytes = Buffer.from(`${small.state_groups_state}\\.\n\n\n${row}`);
        for (let size = 1; size <= bytes.length; size += 7) {
          const stdin = Readable.from(cutUp(bytes, size));
          await assert.rejects(
            readAll({ inputs, stdin, room: '!a:x', tmpdir }),
            /^InputError: Line 21 of standard input ends the rows with \\\., but more follows/,
          );
        }
      }
    });

    it('why no file of a folder holds a table', async (t) => {
      const { state_groups_state, ...others } = small;
      const { folder, tmpdir, path } = await tableFolder(t, others);
      await writeFile(path('state_groups_state'), state_groups_state.replaceAll('\t', ';'));
      await assert.rejects(
        readAll({ inputs: [folder], room: '!a:x', tmpdir }),
        /holds state_groups_state\. .*state_groups_state\.copy holds no rows of .* begins with '1;!a:x;/,
      );
    });

    it('inputs that are not the three tables, each once', async (t) => {
      const { folder, tmpdir, path } = await tableFolder(t, small);
      const other = join(folder, 'other.txt');
      const empty = join(folder, 'empty');
      await writeFile(other, '1;!a:x;t;;$\n');
      await writeFile(empty, '');
      await writeFile(join(tmpdir, 'edges'), small.state_group_edges);
      for (const [inputs, message] of [
        [[join(folder, 'none')], /Can't read .*none: there is no such file/],
        [[path('state_groups_state')], /holds state_group_edges\. Export/],
        [[path('state_group_edges')], /holds state_groups_state\. Export/],
        [[folder, other], /other\.txt holds no rows .*'1;!a:x;t;;\$'/],
        [[folder, empty], /empty is empty/],
        [
          [folder, join(tmpdir, 'edges')],
          /^InputError: Both .* hold state_group_edges.*named with -i/,
        ],
      ] as const) {
        await assert.rejects(readAll({ inputs, room: '!a:x', tmpdir }), message);
      }
    });

    it('a room that is not there, or not in range', async (t) => {
      const { folder, tmpdir, path } = await tableFolder(t, small);
      const missing = { name: 'RoomNotFoundError', message: /'!c:x'.*'!a:x', '!b:x'/ };
      await assert.rejects(readAll({ inputs: [folder], room: '!c:x', tmpdir }), missing);
      const inputs = [path('state_group_edges'), path('state_groups_state')];
      await assert.rejects(readAll({ inputs, room: '!c:x', tmpdir }), missing);
      await assert.rejects(
        readAll({ inputs: [folder], room: '!a:x', tmpdir, range: { minStateGroup: 19 } }),
        { name: 'RoomNotFoundError', message: /10 state groups .*from 1 to 19, is above 19/ },
      );
    });

    it('a folder for temporary files that is not there', async (t) => {
      const { folder, tmpdir } = await tableFolder(t, {
        ...small,
        state_groups_state: small.state_groups_state
          .split(/(?<=\n)/)
          .toReversed()
          .join(''),
      });
      const missing = join(tmpdir, 'missing');
      await assert.rejects(
        readAll({ inputs: [folder], room: '!a:x', tmpdir: missing, memory: 100 }),
        (error: unknown) => error instanceof OutputError && error.message.includes(missing),
      );
    });
  });

  it('takes no file for complete that changes while it is read', async (t) => {
    const rows = small.state_groups_state;
    const changes: Record<string, (path: string) => Promise<void>> = {
      'is begun again': (path) => truncate(path),
      'is cut off between rows': (path) =>
        truncate(path, rows.lastIndexOf('\n', rows.length - 2) + 1),
      'is written on': (path) => appendFile(path, '21\t!a:x\tm.x\tk\t$\n'),
      'is written over': (path) => writeFile(path, rows.replaceAll('k0', 'k1')),
    };
    for (const [what, change] of Object.entries(changes)) {
      for (const onTrust of [true, false]) {
        const { folder, tmpdir, path } = await tableFolder(t, small);
        const source = await open({ inputs: [folder], room: '!a:x', tmpdir, onTrust });
        await change(path('state_groups_state'));
        await assert.rejects(rowsOf(source), ChangedInputError, what);
        await source.close();
      }
    }
    // Several times what is read at once.
    const { folder, tmpdir, path } = await tableFolder(t, {
      ...small,
      state_groups_state: rows.replaceAll(/.*\n/g, (row) => row.repeat(20_000)),
    });
    const source = await open({ inputs: [folder], room: '!a:x', tmpdir, onTrust: true });
    await assert.rejects(async () => {
      for await (const _ of source.rows()) await truncate(path('state_groups_state'), 1);
    }, ChangedInputError);
    await source.close();
  });

  it('gives its rows once', async (t) => {
    const { folder, tmpdir } = await tableFolder(t, small);
    const source = await open({ inputs: [folder], room: '!a:x', tmpdir });
    source.rows();
    assert.throws(() => source.rows());
    await source.close();
    await source.close();
  });

  it('leaves nothing open when it is closed before the rows were read', async (t) => {
    if (process.platform !== 'linux') return t.skip('open files are looked at in /proc');
    const { tmpdir, path } = await tableFolder(t, {
      ...small,
      state_groups_state: small.state_groups_state
        .split(/(?<=\n)/)
        .toReversed()
        .join('')
        .repeat(2000),
    });
    const inputs = STATE_TABLES.map(path);
    const before = descriptors();
    const source = await open({ inputs, room: '!a:x', tmpdir, memory: 50_000 });
    for await (const _ of source.rows()) {
      assert.ok(descriptors() > before);
      break;
    }
    await source.close();
    assert.equal(descriptors(), before);

    const unread = await open({ inputs: inputs.slice(1), room: '!a:x', tmpdir });
    unread.rows();
    await unread.close();
    assert.equal(descriptors(), before);
  });

  it('can be closed while it waits for standard input', async (t) => {
    const { tmpdir, path } = await tableFolder(t, small);
    const stdin = new PassThrough();
    stdin.write(small.state_groups_state);
    const inputs = [path('state_groups'), path('state_group_edges'), '-'];
    const source = await open({ inputs, stdin, room: '!a:x', tmpdir });
    const rows = source.rows();
    rows.resume();
    await new Promise((resolve) => setImmediate(resolve));
    await source.close();
    assert.ok(rows.destroyed);
    assert.ok(stdin.destroyed);
  });

  it('is stopped by a signal, before and after it is open', async (t) => {
    const { tmpdir, path } = await tableFolder(t, small);
    const inputs = [path('state_groups'), path('state_group_edges'), '-'];
    for (const parts of [[], [small.state_groups_state]]) {
      const stop = new AbortController();
      const reason = new Error('stopped');
      const stdin = new Readable({
        read() {
          const part = parts.shift();
          if (part === undefined) setImmediate(() => stop.abort(reason));
          else this.push(part);
        },
      });
      await assert.rejects(
        readAll({ inputs, stdin, room: '!a:x', tmpdir, signal: stop.signal }),
        reason,
      );
      assert.ok(stdin.destroyed);
    }
    assert.deepEqual(readdirSync(tmpdir), []);
  });
});

function* cutUp(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
