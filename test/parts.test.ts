/** One table in several files. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, it, type TestContext } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { InputError } from '../src/errors.js';
import { copyText, dump, FORMATS } from './support/export-formats.js';
import type { Format, Row, Table, Tables } from './support/export-formats.js';
import { fixture, LARGE_ROOM, STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import { readRoom } from './support/read-room.js';
import { runCli } from './support/run-cli.js';

const DATABASE: Tables = {
  state_groups: [
    ['12', '!a', '$1'],
    ['13', '!b', '$2'],
    ['112', '!a', '$3'],
  ],
  state_group_edges: [
    ['112', '12'],
    ['212', '112'],
    ['13', '2'],
  ],
  state_groups_state: [
    ['12', '!a', 't', '', '$1'],
    ['13', '!b', 't', '\n', '$2'],
    ['112', '!a', 't', 'k', '$3'],
  ],
};

/** The room `!a`; temporary files lie in the folder. */
function readRoomA(tmpdir: string, inputs: readonly string[], stdin = Readable.from([])) {
  return readRoom({ tmpdir, inputs, stdin, room: '!a' });
}

/** Writes each of `files` into a folder, and gives their paths. */
async function written(
  folder: string,
  files: Readonly<Record<string, Buffer | string>>,
): Promise<string[]> {
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(folder, name), bytes);
  return Object.keys(files).map((name) => join(folder, name));
}

/** The tables as COPY text, one file each. */
async function exported(folder: string, tables: readonly Table[]): Promise<string[]> {
  const files = tables.map((table) => [`whole-${table}`, copyText(DATABASE[table])] as const);
  return written(folder, Object.fromEntries(files));
}

async function refused(reading: Promise<unknown>, message: RegExp): Promise<void> {
  await assert.rejects(reading, (error: unknown) => {
    assert.ok(error instanceof InputError, `${error as Error}`);
    assert.match(error.message, message);
    return true;
  });
}

const otherThan = (table: Table): Table[] => STATE_TABLES.filter((other) => other !== table);

describe('files that hold parts of one table', () => {
  for (const table of STATE_TABLES) {
    it(`give what the whole gives, wherever it is cut: ${table}`, async (t) => {
      const folder = await temporaryFolder(t);
      const others = await exported(folder, otherThan(table));
      const [whole] = await exported(folder, [table]);
      const expected = await readRoomA(folder, [...others, whole]);
      assert.deepEqual(expected.ids, [12, 112]);
      const bytes = Buffer.from(copyText(DATABASE[table]));
      // The first part tells which table it is, if it has the first row.
      for (let i = bytes.indexOf('\n'); i < bytes.length; i++) {
        for (let j = i + 1; j <= bytes.length; j++) {
          const parts = [bytes.subarray(0, i), bytes.subarray(i, j), bytes.subarray(j)];
          const names = parts.flatMap((part, n) => (part.length === 0 ? [] : [[`${n}`, part]]));
          const inputs = await written(folder, Object.fromEntries(names) as Record<string, Buffer>);
          const read = await readRoomA(folder, [...inputs, ...others]);
          const warnings = read.warnings.filter((warning) => !/ends within a line/.test(warning));
          assert.deepEqual({ ...read, warnings }, expected, `cut at ${i} and ${j}`);
        }
      }
    });
  }

  it('may come in any order, format and packing', async (t) => {
    const folder = await temporaryFolder(t);
    const formats = (Object.keys(FORMATS) as Format[]).filter((name) => !/backwards/.test(name));
    const part = fc.record({
      groups: fc.array(fc.constantFrom('12', '112', '13'), { minLength: 1, maxLength: 4 }),
      format: fc.constantFrom(...formats),
      isPacked: fc.boolean(),
    });
    const given = fc.record({
      parts: fc.array(part, { minLength: 2, maxLength: 4 }),
      stdin: fc.option(fc.nat(3), { nil: undefined }),
    });
    const others = await exported(folder, otherThan('state_groups_state'));
    await fc.assert(
      fc.asyncProperty(given, async ({ parts, stdin }) => {
        const all: Row[] = [];
        const inputs: string[] = [];
        let piped = Readable.from([]);
        for (const [n, { groups, format, isPacked }] of parts.entries()) {
          const rows = groups.map((group, i): Row => {
            return [group, group === '13' ? '!b' : '!a', 't\\', `${n}-${i}, "\n`, '$ü'];
          });
          all.push(...rows);
          const plain = FORMATS[format]('state_groups_state', rows);
          const bytes = isPacked ? gzipSync(plain) : plain;
          if (n === stdin) {
            piped = Readable.from([bytes]);
            inputs.push('-');
          } else {
            inputs.push(...(await written(folder, { [`part-${n}`]: bytes })));
          }
        }
        const read = await readRoomA(folder, [...inputs, ...others], piped);
        const own = all.filter(([, room]) => room === '!a');
        assert.equal(read.rows, copyText(own.toSorted(([a], [b]) => Number(a) - Number(b))));
        assert.deepEqual(read.warnings, []);
      }),
      { numRuns: 100 },
    );
  });

  it('may be CSV of which each names its columns, in any order', async (t) => {
    const folder = await temporaryFolder(t);
    const others = await exported(folder, otherThan('state_group_edges'));
    const backwards = FORMATS['CSV, all quoted, columns backwards'];
    const [first, ...rest] = DATABASE.state_group_edges;
    const inputs = await written(folder, {
      a: backwards('state_group_edges', [first]),
      b: backwards('state_group_edges', rest),
    });
    const read = await readRoomA(folder, [...inputs, ...others]);
    assert.deepEqual(
      [read.ids, read.prev],
      [
        [12, 112],
        [-1, 0],
      ],
    );

    // Cut by lines, only the first part says in which order the columns stand.
    const [header, ...lines] = backwards('state_group_edges', DATABASE.state_group_edges)
      .toString()
      .split(/(?<=\n)/);
    const cut = await written(folder, { a: header + lines[0], b: lines.slice(1).join('') });
    await refused(readRoomA(folder, [...cut, ...others]), /only one begins with the names .* cat /);
  });

  it('name their own lines', async (t) => {
    const folder = await temporaryFolder(t);
    const others = await exported(folder, otherThan('state_groups_state'));
    const row = '12\t!a\tt\tk\t$\n';
    const json = FORMATS['JSON lines']('state_groups_state', [['12', '!a', 't', 'k', '$']]);
    for (const [parts, message] of [
      [{ a: row.repeat(7), b: `${row}${row}oops\n` }, /^Line 3 of \S+\/b has 1 column/],
      [{ a: `${row}oops\n`, b: row.repeat(3) }, /^Line 2 of \S+\/a has 1 column/],
      [{ a: json, b: json, c: `${row}oops\n${row}` }, /^Line 2 of \S+\/c has 1 column/],
      [{ a: row, b: `${json.toString()}{"state_group":7}\n` }, /^Record 2 of \S+\/b is not/],
      // Cut within a line, which is named where it begins; the next file's first line is its rest.
      [{ a: `${row}12\t!a\t`, b: `t\tk\t$\n${row}oops\n` }, /^Line 3 of \S+\/b has 1 column/],
      [{ a: `${row}12\t!a\t`, b: `k\t$\n${row}` }, /^Line 2 of \S+\/a has 4 columns/],
      [{ a: `${row}12\t`, b: '!a\t', c: `t\tk\t$\noops\n` }, /^Line 2 of \S+\/c has 1 column/],
      [{ a: row, b: `${row}12\t!a` }, /^Line 2 of \S+\/b has no line feed at its end/],
    ] as const) {
      const inputs = await written(folder, parts);
      await refused(readRoomA(folder, [...inputs, ...others]), message);
    }
  });

  it('are joined within a line only where that is known to be right', async (t) => {
    const folder = await temporaryFolder(t);
    const others = await exported(folder, otherThan('state_groups_state'));
    const row = '12\t!a\tt\tk\t$\n';
    const begun = `${row}12\t!a\tt`;
    const rest = `\tk\t$\n${row}`;
    for (const [parts, message] of [
      // Of what is packed it is not known how it ends.
      [{ a: gzipSync(begun), b: rest }, /b holds no rows .* cat PARTS/],
      [{ a: gzipSync(begun), b: row }, /^Line 2 of \S+\/a has no line feed .* goes on in .* cat /],
      [{ a: `12,!a,t,k,$\n12,!a,t`, b: `,k,$\n` }, /b holds no rows .* cat PARTS/],
      [{ a: rest, b: begun }, /a holds no rows .* cat PARTS/],
      // An export that is cut off, and one that has nothing to do with it.
      [
        { a: begun, b: copyText(DATABASE.state_groups) },
        /Both .*b and .* hold state_groups|cut off/,
      ],
      [
        { a: begun, b: FORMATS['JSON array']('state_groups_state', [['12', '!a', 't', '', '']]) },
        /a has no line feed/,
      ],
    ] as const) {
      const inputs = await written(folder, parts);
      await refused(readRoomA(folder, [...inputs, ...others]), message);
    }
    const cut = await written(folder, { a: `${row}1`, b: row });
    const read = await readRoomA(folder, [...cut, ...others]);
    assert.match(
      read.warnings[0],
      /a ends within a line, and .*b was read as what it goes on with/,
    );
  });

  it('must be named, each once, and hold something', async (t) => {
    const folder = await temporaryFolder(t);
    const others = await exported(folder, otherThan('state_groups_state'));
    const rows = copyText(DATABASE.state_groups_state);
    const [a, b, empty, sql, moreSql] = await written(folder, {
      a: rows,
      b: rows,
      'state_groups_state.copy': '',
      'dump.sql': dump(DATABASE),
      'more.sql': dump(DATABASE),
    });
    const link = join(folder, 'link');
    await symlink(a, link);
    const tables = join(folder, 'tables');
    await mkdir(tables);
    await written(tables, {
      'state_groups_state.copy': rows,
      'state_groups_state.old.copy': rows,
    });
    const both = /^Both .* hold state_groups_state\. Name the one .* each is named with -i/;
    for (const [inputs, message] of [
      [[...others, tables], both],
      [[...others, a, join(tables, '..', 'tables')], both],
      [[...others, a, a], /a and .*a are one file/],
      [[...others, a, b, link], /a and .*link are one file/],
      [[...others, a, empty], /state_groups_state\.copy is empty, as a failed export/],
      [[a, sql], both],
      [[sql, moreSql], /^Both .*dump\.sql and .*more\.sql hold/],
    ] as const) {
      await refused(readRoomA(folder, inputs), message);
    }
    const named = await readRoomA(folder, [
      ...others,
      tables,
      join(tables, 'state_groups_state.copy'),
      join(tables, 'state_groups_state.old.copy'),
    ]);
    assert.equal(named.rows.split('\n').length, 5);
  });
});

/** The room's table in parts, of bytes or of lines, each in a file. */
async function partsOf(t: TestContext, table: Table, where: 'anywhere' | 'at lines') {
  const folder = await temporaryFolder(t);
  const bytes = gunzipSync(readFileSync(fixture('synapse', `${table}.copy.gz`)));
  const cuts = [0.3, 0.7].map((share) => {
    const at = Math.floor(bytes.length * share);
    return where === 'anywhere' ? at : bytes.indexOf('\n', at) + 1;
  });
  return written(folder, {
    aa: bytes.subarray(0, cuts[0]),
    ab: bytes.subarray(cuts[0], cuts[1]),
    ac: bytes.subarray(cuts[1]),
  });
}

it('compresses what comes in parts as it does the whole', async (t) => {
  const other = ['state_groups', 'state_group_edges'].map((table) =>
    fixture('synapse', `${table}.copy.gz`),
  );
  const rows = fixture('synapse', 'state_groups_state.copy.gz');
  const bytes = await partsOf(t, 'state_groups_state', 'anywhere');
  const lines = await partsOf(t, 'state_groups_state', 'at lines');
  const edges = await partsOf(t, 'state_group_edges', 'anywhere');
  for (const room of [['-r', LARGE_ROOM], ['--all-rooms']]) {
    const run = async (inputs: readonly string[], ...args: string[]): Promise<string> => {
      const named = inputs.flatMap((input) => ['-i', input]);
      const { code, stdout, stderr } = await runCli([...named, ...room, '-o', '-', ...args]);
      assert.equal(code, 0, stderr);
      return stdout;
    };
    const expected = await run([...other, rows]);
    assert.match(expected, /INSERT/);
    assert.equal(await run([...other, ...bytes]), expected);
    assert.equal(await run([...lines.toReversed(), ...other]), expected);
    assert.equal(await run([...lines, ...other], '--memory', '1'), expected);
    assert.equal(await run([other[0], ...edges, rows]), expected);
    // Without the groups' own table the rows are read twice.
    assert.equal(await run([other[1], ...bytes]), await run([other[1], rows]));
  }
});
