import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, it } from 'node:test';
import type { TestContext } from 'node:test';
import * as zlib from 'node:zlib';
import fc from 'fast-check';
import { InputError } from '../src/errors.js';
import { binaryToCopyText } from '../src/sources/files/binary.js';
import { csvToCopyText } from '../src/sources/files/csv.js';
import { jsonToCopyText } from '../src/sources/files/json.js';
import { recognize } from '../src/sources/files/recognize.js';
import { zstdFrames } from '../src/sources/files/zstd-frames.js';
import { BINARY_HEADER, copyText, FORMATS } from './support/export-formats.js';
import type { Format, Row, Table, Tables } from './support/export-formats.js';
import { LARGE_ROOM, loadTables, STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import { overwritten } from './support/naive-copy-text.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql, psql } from './support/psql.js';
import { readRoom } from './support/read-room.js';
import { runCli } from './support/run-cli.js';

const formats = Object.keys(FORMATS) as Format[];

const hasZstd = spawnSync('zstd', ['--version']).status === 0;
const hasZstdInZlib = 'createZstdDecompress' in zlib;

const PACKINGS = {
  plain: (bytes: Buffer) => bytes,
  gzip: (bytes: Buffer) => zlib.gzipSync(bytes),
  // In two frames, behind one that is to be skipped.
  zstd: (bytes: Buffer) => {
    const half = bytes.length >> 1;
    const frames = [bytes.subarray(0, half), bytes.subarray(half)].map(
      (part) => spawnSync('zstd', ['-qc'], { input: part }).stdout,
    );
    return Buffer.concat([Buffer.from('502a4d1803000000616263', 'hex'), ...frames]);
  },
};
const packings = hasZstd ? (['plain', 'gzip', 'zstd'] as const) : (['plain', 'gzip'] as const);

/** State keys, types and rooms that some format writes in a way of its own. */
const AWKWARD = [
  '',
  '"',
  '""quoted""',
  ',',
  'a,b',
  '\n',
  'two\nlines, "quoted"\r\n',
  '\r',
  '\t',
  '\\',
  '\\N',
  '\\.',
  'back\\\\slashes\\n',
  "it's",
  '}],{"a":[',
  'ünï😀',
  ' spaces ',
  '\u0001\b\f\v\u007f\u2028',
  '\u{1fffe}',
];

/** A database of two rooms, with every awkward text as a state key. */
const database: Tables = {
  state_groups: [
    ['1', '!a:x', '$1'],
    ['2', '!a:x', '$2'],
    ['3', '!b,"\n:x', '$3'],
    ['9007199254740991', '!a:x', '$4'],
  ],
  state_group_edges: [
    ['2', '1'],
    ['9007199254740991', '2'],
  ],
  state_groups_state: [
    ...AWKWARD.map((text, i) => ['1', '!a:x', `m.type${i % 3}`, text, `$${text}`]),
    ['2', '!a:x', 'm', AWKWARD.join(), '$2'],
    ['3', '!b,"\n:x', 'm', 'x', '$3'],
    ['9007199254740991', '!a:x', 'm', 'x', '$4'],
  ],
};

interface Given {
  readonly inputs?: readonly string[];
  readonly tables?: Partial<Record<Table, string>>;
  readonly stdin?: Readable;
  readonly room?: string;
}

/** What `readRoom` gives; no temporary file is left. */
async function readAndTidy(t: TestContext | string, given: Given) {
  const tmpdir = typeof t === 'string' ? t : await temporaryFolder(t);
  try {
    return await readRoom({ ...given, tmpdir });
  } finally {
    assert.deepEqual(
      readdirSync(tmpdir).filter((name) => name.endsWith('.tmp')),
      [],
    );
  }
}

const roomA = copyText(database.state_groups_state.filter(([, room]) => room === '!a:x'));

describe('an export in any format', () => {
  for (const format of formats) {
    it(`is read as COPY text is: ${format}`, async (t) => {
      const folder = await temporaryFolder(t);
      for (const packing of packings) {
        const inputs = STATE_TABLES.map((table) => join(folder, `${table}.${packing}`));
        for (const [i, table] of STATE_TABLES.entries()) {
          await writeFile(inputs[i], PACKINGS[packing](FORMATS[format](table, database[table])));
        }
        const read = await readAndTidy(t, { inputs });
        assert.deepEqual(read, {
          ids: [1, 2, Number.MAX_SAFE_INTEGER],
          prev: [-1, 0, 1],
          rows: roomA,
          warnings: [],
        });
        // Without state_groups, and with rows that go by once.
        const piped = await readAndTidy(t, {
          inputs: [inputs[1], '-'],
          stdin: Readable.from([await readFile(inputs[2])]),
        });
        assert.deepEqual({ ...piped, warnings: [] }, read);
      }
    });
  }

  it('may have another format, packing and place for each table', async (t) => {
    const folder = await temporaryFolder(t);
    const text = fc.oneof(fc.constantFrom(...AWKWARD), fc.string({ unit: 'binary', maxLength: 8 }));
    const sound = text.map((given) => given.replaceAll('\0', ''));
    const given = fc.record({
      rows: fc.array(fc.tuple(fc.constantFrom('1', '2', '3'), sound, sound, sound), {
        minLength: 1,
        maxLength: 20,
      }),
      room: sound,
      formats: fc.tuple(...STATE_TABLES.map(() => fc.constantFrom(...formats))),
      // Starting zstd for each would take its time.
      packings: fc.tuple(...STATE_TABLES.map(() => fc.constantFrom('plain' as const, 'gzip'))),
      stdin: fc.constantFrom(undefined, ...STATE_TABLES),
      chunk: fc.integer({ min: 1, max: 200 }),
    });
    await fc.assert(
      fc.asyncProperty(given, async (db) => {
        const room = `!${db.room}`;
        const rows = db.rows.map(([group, ...texts]): Row => [group, room, ...texts]);
        const tables: Tables = {
          state_groups: ['1', '2', '3'].map((id) => [id, room, `$${id}`]),
          state_group_edges: [['3', '1']],
          state_groups_state: rows,
        };
        const inputs: string[] = [];
        let stdin = Readable.from([]);
        for (const [i, table] of STATE_TABLES.entries()) {
          const bytes = FORMATS[db.formats[i]](table, tables[table]);
          const packed = PACKINGS[db.packings[i]](bytes);
          if (table === db.stdin) {
            stdin = Readable.from(pieces(packed, db.chunk));
            inputs.push('-');
          } else {
            inputs.push(join(folder, table));
            await writeFile(join(folder, table), packed);
          }
        }
        const read = await readAndTidy(folder, { inputs, stdin, room });
        const sorted = rows.toSorted(([a], [b]) => Number(a) - Number(b));
        assert.equal(read.rows, copyText(sorted));
        assert.deepEqual([read.ids, read.prev, read.warnings], [[1, 2, 3], [-1, -1, 0], []]);
      }),
      { numRuns: 150 },
    );
  });

  for (const [what, toCopyText, format] of [
    ['CSV', csvToCopyText, 'CSV'],
    ['CSV with a header', csvToCopyText, 'CSV, all quoted, columns backwards'],
    ['CSV with a byte order mark', csvToCopyText, 'CSV with a byte order mark'],
    ['CSV with Windows line ends', csvToCopyText, 'CSV with Windows line ends'],
    ['binary COPY data', binaryToCopyText, 'binary COPY data'],
    ['JSON', jsonToCopyText, 'JSON array'],
  ] as const) {
    it(`may be cut at any two places: ${what}`, async () => {
      const rows = [
        ['1', '!a', 'm', 'a"\r\n\\,ü', ''],
        ['22', '!a', '', '', '$'],
      ];
      const bytes = FORMATS[format]('state_groups_state', rows);
      const expected = copyText(rows);
      for (let i = 0; i <= bytes.length; i++) {
        for (let j = i; j <= bytes.length; j++) {
          const chunks = [bytes.subarray(0, i), bytes.subarray(i, j), bytes.subarray(j)];
          let text = '';
          for await (const lines of toCopyText(overwritten(chunks), 'state_groups_state', 'x')) {
            text += lines.toString('latin1');
          }
          assert.equal(Buffer.from(text, 'latin1').toString(), expected, `cut at ${i} and ${j}`);
        }
      }
    });
  }

  it('may have any character where JSON is parsed in pieces', async () => {
    for (const text of ['\u{1f600}', '\\', '\t\u00fc']) {
      for (let shift = 0; shift < 4; shift++) {
        const row = (id: number): Row => [`${id}`, '!a', 'm', '-'.repeat(shift), text.repeat(9)];
        const rows = Array.from({ length: 1000 }, (_, id) => row(id));
        const bytes = FORMATS['JSON array']('state_groups_state', rows);
        const lines = jsonToCopyText(Readable.from([bytes]), 'state_groups_state', 'x');
        assert.equal((await buffer(lines)).toString(), copyText(rows));
      }
    }
  });

  it('is recognized by as few bytes as there are, and by no fewer', () => {
    for (const format of formats) {
      for (const table of STATE_TABLES) {
        const bytes = FORMATS[format](table, database[table]);
        const whole = recognize(bytes, true);
        assert.equal(whole?.told, table, format);
        for (let length = 0; length < bytes.length; length++) {
          const told = recognize(bytes.subarray(0, length), false);
          assert.ok(
            told === undefined || (told.told === table && told.format === whole.format),
            `${length} bytes of ${format}`,
          );
        }
      }
    }
  });
});

describe('zstd data', { skip: !hasZstd && 'there is no zstd' }, () => {
  async function framesOf(chunks: readonly Buffer[]): Promise<string[]> {
    const frames: string[] = [];
    for await (const frame of zstdFrames(Readable.from(chunks))) {
      frames.push((await buffer(frame)).toString('hex'));
    }
    return frames;
  }

  it('is parted into frames, wherever it is cut', async () => {
    const made = [
      // A single byte and an empty text, repeated bytes, what can't be packed, and several blocks.
      ...['', 'x', 'y'.repeat(300_000), zlib.gzipSync('abc'), roomA.repeat(1000)].map(
        (text) => spawnSync('zstd', ['-qc'], { input: text }).stdout,
      ),
      spawnSync('zstd', ['-qc', '--no-check', '--content-size'], { input: roomA }).stdout,
      Buffer.from('5f2a4d1800000000', 'hex'),
    ];
    const bytes = Buffer.concat(made);
    const expected = made.map((frame) => frame.toString('hex'));
    for (const size of [1, 2, 3, 7, 100, bytes.length]) {
      assert.deepEqual(await framesOf(pieces(bytes, size)), expected);
    }
    const ends = new Set(made.map((_, i) => Buffer.concat(made.slice(0, i)).length));
    for (let length = 1; length < bytes.length; length++) {
      if (ends.has(length)) continue;
      await assert.rejects(framesOf([bytes.subarray(0, length)]), /is cut off/);
    }
    await assert.rejects(framesOf([bytes, Buffer.from('more')]), /goes on as something else/);
  });
});

describe('an input that is not as it should be', () => {
  /** Reads the tables with other rows of `state_groups_state`; resolves to the error's message. */
  async function refused(t: TestContext, bytes: Buffer | string): Promise<string> {
    const folder = await temporaryFolder(t);
    for (const table of STATE_TABLES) {
      const good = copyText(database[table]);
      await writeFile(join(folder, table), table === 'state_groups_state' ? bytes : good);
    }
    const reading = readAndTidy(t, { inputs: STATE_TABLES.map((table) => join(folder, table)) });
    const error: unknown = await reading.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof InputError, `${error as Error}`);
    assert.match(error.message, /state_groups_state/);
    return error.message.replaceAll(`${folder}/`, '');
  }

  const copyRow = '1\t!a:x\tt\tk\t$1\n';
  const csvRow = '1,!a:x,t,k,$1\n';
  const jsonRow = (change: object = {}): string => {
    const row = { state_group: 1, room_id: '!a:x', type: 't', state_key: 'k', event_id: '$' };
    return `${JSON.stringify({ ...row, ...change })}\n`;
  };
  const binary = FORMATS['binary COPY data'];
  const binaryRow = binary('state_groups_state', [['1', '!a:x', 't', 'k', '$1']]);
  const binaryRows = (...rows: Buffer[]): Buffer =>
    Buffer.concat([BINARY_HEADER, ...rows, Buffer.from([255, 255])]);
  const row = binaryRow.subarray(BINARY_HEADER.length, -2);
  const nullRow = Buffer.from(row);
  nullRow.writeInt32BE(-1, 14);
  const longRow = Buffer.from(row);
  longRow.writeInt32BE(2 ** 30, 14);

  const tarred = (text: string): Buffer => {
    const header = Buffer.alloc(512);
    header.write('state_groups_state.copy');
    header.write('ustar\x0000', 257);
    return Buffer.concat([header, Buffer.from(text.padEnd(512, '\0'))]);
  };

  const cases: readonly [what: string, bytes: Buffer | string, message: RegExp][] = [
    ['COPY text with a byte order mark', `\ufeff${copyRow}`, /byte order mark.* tail -c \+4/],
    [
      'COPY text with a header',
      `state_group\troom_id\n${copyRow}`,
      /names of its.* without HEADER/,
    ],
    [
      'CSV with other columns',
      'state_group,room_id,type,state_key,event_id,xmin\n1,!a:x,t,k,$1,7\n',
      /Of state_groups_state these columns are read, alone/,
    ],
    [
      'JSON with other columns',
      jsonRow({ xmin: 7 }),
      /Of state_groups_state these columns are read/,
    ],
    ['other delimiters', '1|!a:x|t|k|$1\n', /stand between signs that are not read/],
    [
      'CSV with tabs',
      `${copyRow}1\t!a:x\tm.room.create\t""\t$2\n`,
      /with tabs .* COPY state_groups_state TO/,
    ],
    ['UTF-16', Buffer.from(`\ufeff${copyRow}`, 'utf16le'), /is in UTF-16\. .*iconv/],
    ['packed twice', zlib.gzipSync(zlib.gzipSync(copyRow)), /packed with gzip twice\. .*gunzip -c/],
    ['tar', tarred(copyRow), /files that tar made\. .*tar -xf/],
    ['SQLite', `SQLite format 3\0\x10\0\n`, /database of SQLite\. .*synapse_port_db/],
    ['CSV: a quote inside a field', `${csvRow}1,!a:x,t,k"k,$1\n`, /^Line 2 of .* quote inside/],
    [
      'CSV: text behind a quote',
      `${csvRow}1,!a:x,t,"k"k,$1\n`,
      /^Line 2 .* behind a closing quote/,
    ],
    ['CSV: a carriage return', `${csvRow}1,!a:x,t\rt,k,$1\n`, /^Line 2 .* carriage return/],
    ['CSV: no line feed at the end', `${csvRow}1,!a:x,t,k,$`, /^Line 2 .* no line feed .*cut off/],
    ['CSV: no quote at the end', `${csvRow}1,!a:x,t,"k\n\n,$1\n`, /^Line 5 .*quotes.*cut off/],
    ['CSV: nothing behind the first quote', `${csvRow}"`, /^Line 2 .*quotes.*cut off/],
    [
      'COPY text with commas',
      `${csvRow}1,!a:x,m.room.create,,$1\n1,!a:x,t,k\\tk,$1\n`,
      /^Line 3 .* may be COPY text with commas\. .* COPY state_groups_state TO/,
    ],
    [
      'CSV: a column too few',
      `"1",!a:x,t,"\n",$1\n1,!a:x,t,k\n`,
      /^Record 2 .* has 4 columns, where/,
    ],
    ['CSV: a group that is no number', `${csvRow}"1\t",!a:x,t,k,$1\n`, /^Record 2 .*'1\\t'/],
    ['CSV: a NUL byte', `${csvRow}1,!a:x,t,\0,$1\n`, /^Record 2 .* NUL/],
    ['CSV: a quote missing, and far', `${csvRow}1,!a:x,t,"${csvRow.repeat(4e5)}`, /a quote may be/],
    [
      'CSV: other columns',
      'state_group,room,type,state_key,event_id\n',
      /begins with 'state_group,/,
    ],
    ['binary: the end is missing', binaryRows(row, row).subarray(0, -2), /^Record 3 .* cut off/],
    ['binary: half a row', binaryRows(row, row).subarray(0, -9), /^Record 2 .* cut off/],
    ['binary: more than its end', Buffer.concat([binaryRow, row]), /^Record 2 .* followed by/],
    ['binary: NULL', binaryRows(row, nullRow), /^Record 2 .* NULL for room_id/],
    ['binary: a length', binaryRows(row, longRow), /^Record 2 .* 1073741824 bytes for room_id/],
    [
      'binary: fields of another table',
      binaryRows(row, binary('state_group_edges', [['2', '1']]).subarray(19, -2)),
      /^Record 2 .* has 2 columns, where state_groups_state has 5/,
    ],
    [
      'binary: a group beyond 2^53 - 1',
      binary('state_groups_state', [['9007199254740992', '!a:x', 't', 'k', '$']]),
      /^Record 1 .*'9007199254740992'/,
    ],
    [
      'JSON: a key is missing',
      `${jsonRow()}${jsonRow({ type: undefined })}`,
      /^Record 2 .* type, /,
    ],
    [
      'JSON: a key too much',
      `${jsonRow()}${jsonRow({ more: '' })}`,
      /^Record 2 .* is not an object/,
    ],
    ['JSON: null', `${jsonRow()}${jsonRow({ type: null })}`, /^Record 2 .* each as Postgres/],
    ['JSON: an array in a row', `${jsonRow()}${jsonRow({ type: [] })}`, /^Record 2 .* is not an/],
    ['JSON: an object in a row', `${jsonRow()}${jsonRow({ type: {} })}`, /^Record 2 .* is not an/],
    ['JSON: no row', `${jsonRow()}7\n`, /^Record 2 .* is not an object/],
    [
      'JSON: a column twice',
      `${jsonRow()}{"type":"a",${jsonRow().slice(1)}`,
      /^Record 2 .* is not/,
    ],
    ['JSON: half a row', `${jsonRow()}{"state_group":1`, /behind record 1/],
    ['JSON: an array without end', `[${jsonRow()}`, /cut off/],
    ['JSON: half a character', `${jsonRow()}"\u00fc`.replace('ü', '\ud800'), /no JSON|surrogate/],
    ['JSON: an escaped half of a pair', jsonRow({ type: '\ud800' }), /^Record 1 .* surrogate/],
    ['JSON: a NUL byte', jsonRow({ type: '\0' }), /^Record 1 .* NUL/],
    [
      'JSON: not in UTF-8',
      Buffer.concat([Buffer.from(jsonRow()), Buffer.from(jsonRow({ type: 'ü' }), 'latin1')]),
      /^Record 1 .* not in UTF-8/,
    ],
    [
      'JSON: a group beyond 2^53 - 1',
      jsonRow({ state_group: 'x' }).replace('"x"', '9007199254740993'),
      /^Record 1 .*'9007199254740993'/,
    ],
    ['JSON: a string without end', `${jsonRow()}{"type":"${'x'.repeat(5e6)}`, /is longer than/],
    ['an archive', 'PGDMP\x01\x0e\n', /pg_dump -Fc made\. .*pg_restore -f - /],
    ['something that is packed', Buffer.from('fd377a585a000004', 'hex'), /xz -dc FILE \|/],
    ['anything else', 'state;groups\u0007\n', /holds no rows .*'state;groups\ufffd'/],
    [
      'gzip that is cut off',
      zlib.gzipSync(csvRow).subarray(0, -9),
      /begins as gzip, but is cut off/,
    ],
  ];
  for (const [what, bytes, message] of cases) {
    it(`is told, with its place: ${what}`, async (t) => {
      assert.match(await refused(t, bytes), message);
    });
  }

  it('is zstd that is cut off or damaged', { skip: !hasZstd && 'there is no zstd' }, async (t) => {
    const packed = PACKINGS.zstd(Buffer.from(csvRow.repeat(10_000)));
    assert.match(await refused(t, packed.subarray(0, -9)), /^Can't read state_groups_state: /);
    packed.fill(7, 20, 40);
    assert.match(await refused(t, packed), /^Can't read state_groups_state: /);
  });

  it('is zstd that takes too much memory', { skip: !hasZstd && 'there is no zstd' }, async (t) => {
    // A frame with a window of 2 GB and an empty block.
    const packed = Buffer.from('28b52ffd00a8010000', 'hex');
    assert.match(await refused(t, packed), /Unpack it in a pipe, with zstd -dc --long=31\./);
  });

  it('is zstd where nothing unpacks it', async (t) => {
    if (hasZstdInZlib) return t.skip('this Node.js unpacks zstd itself');
    const { code, stderr } = await runCli(['-i', '-', '-r', '!a:x'], {
      stdin: Buffer.from('28b52ffd0000', 'hex'),
      env: { PATH: '/nowhere' },
    });
    assert.equal(code, 3);
    assert.match(stderr, /Node\.js 20.* no program zstd\. Install zstd, or Node\.js 22\.15/);
  });

  it('is zstd, and what unpacks it is killed', async (t) => {
    if (hasZstdInZlib) return t.skip('this Node.js unpacks zstd itself');
    const folder = await temporaryFolder(t);
    await writeFile(join(folder, 'zstd'), '#!/bin/sh\nkill -9 $$\n', { mode: 0o755 });
    const { code, stderr } = await runCli(['-i', '-', '-r', '!a:x'], {
      stdin: Buffer.from('28b52ffd0000', 'hex'),
      env: { PATH: `${folder}:/usr/bin:/bin` },
    });
    assert.equal(code, 3);
    assert.match(stderr, /zstd can't unpack it: it ended with SIGKILL/);
  });

  it('is a folder that pg_dump -Fd made', async (t) => {
    const folder = await temporaryFolder(t);
    await writeFile(join(folder, 'toc.dat'), 'PGDMP');
    await assert.rejects(readAndTidy(t, { inputs: [folder] }), /pg_restore -f - /);
  });
});

describe('--table', () => {
  it('says what a file without rows holds', async (t) => {
    const folder = await temporaryFolder(t);
    const path = (name: string): string => join(folder, name);
    await writeFile(path('e'), '');
    await writeFile(path('g'), copyText(database.state_groups));
    await writeFile(path('r'), copyText(database.state_groups_state));
    const rest = ['-r', '!a:x', '--stats-file=-'];
    const run = (...args: string[]) => runCli([...args, ...rest]);
    const unknown = await run('-i', path('e'), '-i', path('g'), '-i', path('r'));
    assert.equal(unknown.code, 3);
    assert.match(unknown.stderr, /e is empty, .* --table/);

    const known = await run(
      `--table=state_group_edges=${path('e')}`,
      `--table=state_groups=${path('g')}`,
      `-i${path('r')}`,
    );
    assert.equal(known.code, 0, known.stderr);
    assert.equal((JSON.parse(known.stdout) as { stateGroups: number }).stateGroups, 3);
  });

  it('must not contradict the content', async (t) => {
    const folder = await temporaryFolder(t);
    const edges = join(folder, 'edges');
    await writeFile(edges, copyText(database.state_group_edges));
    await assert.rejects(readAndTidy(t, { tables: { state_groups: edges } }), {
      name: 'InputError',
      message: /edges holds state_group_edges, and not state_groups/,
    });
  });

  it('is refused where it makes no sense', async () => {
    for (const [args, message] of [
      [['--table', 'edges.copy'], /--table takes NAME=PATH/],
      [['--table', 'edges=x'], /one of state_groups_state, state_group_edges, state_groups/],
      [['--table', 'state_groups=x', '--table', 'state_groups=y'], /twice for state_groups/],
      [['--table', 'state_groups=x', '--table', 'state_group_edges=x'], /twice for x/],
      [['--table', 'state_groups=-', '-i', '-'], /one standard input/],
      [['--table', 'state_groups=x', '-p', 'y'], /-p and --table are both given/],
    ] as const) {
      const { code, stderr } = await runCli([...args, '-r', '!a:x']);
      assert.equal(code, 2, stderr);
      assert.match(stderr, message);
    }
  });
});

describe('exports of a real Postgres', () => {
  /** The tables of a Synapse, with awkward keys in one group of the large room. */
  async function synapse(t: TestContext): Promise<TestDatabase> {
    const db = await testDatabase(t);
    await loadTables(db, 'synapse');
    for (const text of AWKWARD) {
      await db.query(
        `INSERT INTO state_groups_state
         SELECT id, room_id, $1, $1, '$' || $1 FROM state_groups
         WHERE room_id = $2 ORDER BY id OFFSET 2000 LIMIT 1`,
        [text, LARGE_ROOM],
      );
    }
    return db;
  }

  /** The SQL for the large room, without its header. */
  async function sqlOf(
    args: readonly string[],
    options: Parameters<typeof runCli>[1] = {},
  ): Promise<string> {
    const { code, stdout, stderr } = await runCli(
      [...args, '-r', LARGE_ROOM, '-o', '-', '-t', '--strategy', 'levels'],
      options,
    );
    assert.equal(code, 0, stderr);
    return stdout.replaceAll(/^--.*\n/gm, '');
  }

  it('give the same SQL in each format', async (t) => {
    const db = await synapse(t);
    const folder = await temporaryFolder(t);
    const exported = async (options: string) => {
      const path = join(folder, options);
      await mkdir(path);
      for (const table of STATE_TABLES) {
        await writeFile(join(path, table), db.copyOut(`SELECT * FROM ${table}`, options));
      }
      return path;
    };
    const baseline = await sqlOf(['-i', await exported('(FORMAT text)')]);
    assert.match(baseline, /""quoted""/);

    for (const options of [
      '(FORMAT csv)',
      '(FORMAT csv, HEADER)',
      '(FORMAT csv, FORCE_QUOTE *, HEADER)',
      '(FORMAT binary)',
    ]) {
      assert.equal(await sqlOf(['-i', await exported(options)]), baseline, options);
    }

    const array = join(folder, 'array');
    await mkdir(array);
    for (const table of STATE_TABLES) {
      const { rows } = await db.query<{ json: string }>(
        `SELECT json_agg(row_to_json(t))::text AS json FROM ${table} t`,
      );
      await writeFile(join(array, `${table}.json`), rows[0].json);
    }
    assert.equal(await sqlOf(['-i', array]), baseline);
  });

  it("give the same SQL as JSON that the README's command makes", async (t) => {
    if (!hasPsql) return t.skip('there is no psql');
    const db = await synapse(t);
    const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8');
    const [, statement] = /^psql -c "(COPY \(SELECT row_to_json.*?)" synapse >/ms.exec(readme)!;
    const folder = await temporaryFolder(t);
    for (const format of ['text', 'json']) {
      const path = join(folder, format);
      await mkdir(path);
      for (const table of STATE_TABLES) {
        const copy =
          format === 'text'
            ? `COPY ${table} TO STDOUT`
            : statement.replace('FROM state_groups_state', `FROM ${table}`);
        const { code, stdout, stderr } = await psql(db, Readable.from([`${copy};`]), []);
        assert.equal(code, 0, stderr);
        await writeFile(join(path, table), stdout);
      }
    }
    const baseline = await sqlOf(['-i', join(folder, 'text')]);
    assert.ok(baseline.includes('\u{1fffe}'));
    assert.equal(await sqlOf(['-i', join(folder, 'json')]), baseline);
  });
});

/** Chunks of the size given. */
function pieces(bytes: Buffer, size: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
  return chunks;
}
