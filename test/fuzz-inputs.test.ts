/**
 * Inputs that are damaged in every way. Each property runs on the same inputs, or on new ones for as many
 * seconds as FUZZ_SECONDS says: `FUZZ_SECONDS=60 npm test -- test/fuzz-inputs.test.ts`. A failure prints the
 * seed and path with which fast-check finds it again.
 */
import assert from 'node:assert/strict';
import { isUtf8 } from 'node:buffer';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { compressRoom } from '../src/compress.js';
import { CompressStateError, InputError, VerificationError } from '../src/errors.js';
import { binaryToCopyText } from '../src/sources/files/binary.js';
import { copyLines } from '../src/sources/files/copy-lines.js';
import { csvToCopyText } from '../src/sources/files/csv.js';
import { DumpReader } from '../src/sources/files/dump-reader.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import { jsonToCopyText } from '../src/sources/files/json.js';
import { BINARY_HEADER, COLUMNS, copyText, dump, FORMATS } from './support/export-formats.js';
import type { Format, Row, Table, Tables } from './support/export-formats.js';
import { STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import { cut, decoded, lengths } from './support/naive-copy-text.js';
import { limits } from './support/property-seeds.js';

/** What takes as long as this hangs. */
const HANG = 20_000;

const text = fc.oneof(
  fc.constantFrom('', 'k', '"', ',', '\\', '\n', '\t', '\\.', '}', 'ü😀', '"\r\n,'),
  fc.string({ maxLength: 6 }).map((given) => given.replaceAll('\0', '')),
);
const id = fc.integer({ min: 1, max: 12 }).map(String);
const tables: fc.Arbitrary<Tables> = fc.record({
  state_groups: fc.array(fc.tuple(id, fc.constant('!a'), text), { minLength: 1, maxLength: 8 }),
  state_group_edges: fc.array(fc.tuple(id, id), { minLength: 1, maxLength: 8 }),
  state_groups_state: fc.array(fc.tuple(id, fc.constantFrom('!a', '!b'), text, text, text), {
    minLength: 1,
    maxLength: 20,
  }),
});

interface Damage {
  readonly at: number;
  readonly drop: number;
  readonly insert: Buffer;
}
const WORDS = [
  '\t \n \r \0 \\ " , { } [ ] :',
  '\\N null 1 -1 0 9007199254740993 1e3 \\ud800 \xff \xff\xff \0\0\0\x08',
  '\\.\n \n\\.\n PGCOPY\n !a "state_group": state_group,prev_state_group\n \x1f\x8b (\xb5/\xfd',
]
  .flatMap((words) => words.split(' '))
  .concat('COPY ', 'COPY public.state_groups (id, room_id, event_id) FROM stdin;\n', 'INSERT INTO ')
  .map((word) => Buffer.from(word, 'latin1'));
const damages: fc.Arbitrary<readonly Damage[]> = fc.array(
  fc.record({
    at: fc.nat(),
    drop: fc.oneof(fc.constant(0), fc.constant(0), fc.nat(3), fc.nat(300)),
    insert: fc.oneof(
      fc.constant(Buffer.alloc(0)),
      fc.constantFrom(...WORDS),
      fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
    ),
  }),
  { maxLength: 4 },
);

function damaged(bytes: Buffer, all: readonly Damage[]): Buffer {
  for (const { at, drop, insert } of all) {
    const start = at % (bytes.length + 1);
    bytes = Buffer.concat([bytes.subarray(0, start), insert, bytes.subarray(start + drop)]);
  }
  return bytes;
}

/** The table's lines, or nothing if it is refused as it should be. */
async function linesOf(chunks: AsyncIterable<Buffer>, table: Table): Promise<Buffer | undefined> {
  const input = {
    name: 'x',
    rereadable: false,
    read: () => chunks,
    place: (index: number) => `Line ${index + 1} of x`,
  };
  const parts: Buffer[] = [];
  try {
    for await (const { bytes, count, starts } of copyLines(input, table)) {
      parts.push(Buffer.from(bytes.subarray(0, starts[count])));
    }
    const lines = Buffer.concat(parts);
    // Whoever reads the edges looks at their second column.
    return table === 'state_group_edges' && !/^(?:\d+\t\d{1,15}\n)*$/.test(lines.toString())
      ? undefined
      : lines;
  } catch (error) {
    assert.ok(error instanceof InputError, (error as Error).stack);
    assert.match(error.message, /\bx\b.*\.$/s);
    return undefined;
  }
}

/** Damages the tables' exports in a format; `check` gets what was made of each, and of what. */
function damagedFormat(
  format: Format,
  convert: (chunks: AsyncIterable<Buffer>, table: Table, name: string) => AsyncIterable<Buffer>,
  check: (lines: Buffer, bytes: Buffer, table: Table) => void,
): void {
  test(`no damaged ${format} is read as something else`, async () => {
    const given = fc.record({
      db: tables,
      table: fc.constantFrom(...STATE_TABLES),
      damage: damages,
      chunks: lengths,
    });
    let intact = 0;
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(given, async ({ db, table, damage, chunks }) => {
        const whole = FORMATS[format](table, db[table]);
        const bytes = damaged(whole, damage);
        const pieces = cut(bytes, chunks).map((chunk) => Buffer.from(chunk));
        const lines = await linesOf(convert(Readable.from(pieces), table, 'x'), table);
        if (bytes.equals(whole)) {
          assert.equal(lines?.toString(), copyText(db[table]));
          intact++;
        } else if (lines === undefined) {
          refused++;
        } else {
          check(lines, bytes, table);
        }
      }),
      limits(3000),
    );
    assert.ok(intact > 0 && refused > 0);
  });
}

damagedFormat(
  'COPY text',
  (chunks) => chunks,
  (lines, bytes) => {
    const end = `\n${bytes.toString('latin1')}`.search(/\n\\\.(?:\n|$)/);
    const rest = bytes.toString('latin1', lines.length);
    assert.equal(lines.toString('latin1'), bytes.toString('latin1', 0, end < 0 ? undefined : end));
    assert.match(rest, /^(?:\\\.(?:\n|$)|$)/);
  },
);

for (const format of ['CSV', 'CSV, all quoted, columns backwards'] as const) {
  damagedFormat(format, csvToCopyText, (lines, bytes, table) => {
    const records = naiveCsv(bytes.toString('latin1'));
    assert.ok(records !== undefined, 'this is no CSV');
    const order = COLUMNS[table].map((column) => records[0]?.indexOf(column) ?? -1);
    const isNamed = records[0]?.length === order.length && !order.includes(-1);
    const rows = isNamed ? records.slice(1).map((row) => order.map((i) => row[i])) : records;
    assert.equal(lines.toString('latin1'), copyText(rows));
  });
}

/** Records of bytes as characters; undefined if it is no CSV, or has no line feed at its end. */
function naiveCsv(csv: string): string[][] | undefined {
  const field = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n)/y;
  const records: string[][] = [];
  let record: string[] = [];
  while (field.lastIndex < csv.length) {
    const found = field.exec(csv) as [string, string | undefined, string, string] | null;
    if (found === null) return undefined;
    record.push(found[1]?.replaceAll('""', '"') ?? found[2]);
    if (found[3] === ',') continue;
    records.push(record);
    record = [];
  }
  return record.length === 0 ? records : undefined;
}

damagedFormat('binary COPY data', binaryToCopyText, (lines, bytes, table) => {
  // A text that is no UTF-8 any more is passed on as it is, and can't be compared as a string.
  if (!isUtf8(lines)) return;
  const again = FORMATS['binary COPY data'](table, rowsOf(lines.toString()));
  const header = BINARY_HEADER.length + bytes.readUInt32BE(BINARY_HEADER.length - 4);
  assert.deepEqual(bytes.subarray(header), again.subarray(BINARY_HEADER.length));
});

damagedFormat('JSON array', jsonToCopyText, (lines, bytes, table) => {
  const values = parsed(bytes.toString()) as Record<string, unknown>[] | undefined;
  // Several arrays one after the other are read as well.
  if (values === undefined) return;
  assert.equal(
    lines.toString(),
    copyText([values].flat().map((value) => COLUMNS[table].map((column) => String(value[column])))),
  );
});

damagedFormat('JSON lines', jsonToCopyText, (lines, bytes, table) => {
  const values = bytes.toString().trim().split('\n').map(parsed);
  if (values.includes(undefined)) return;
  const rows = (values as Record<string, unknown>[]).flat();
  assert.equal(
    lines.toString(),
    copyText(rows.map((value) => COLUMNS[table].map((column) => String(value[column])))),
  );
});

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

function rowsOf(lines: string): Row[] {
  return lines
    .split('\n')
    .slice(0, -1)
    .map((line) => line.split('\t').map(decoded));
}

test('binary data and a JSON array that are cut off are refused', async () => {
  await fc.assert(
    fc.asyncProperty(tables, fc.constantFrom(...STATE_TABLES), fc.nat(), async (db, table, at) => {
      const binary = FORMATS['binary COPY data'](table, db[table]);
      const json = FORMATS['JSON array'](table, db[table]);
      // The last bytes are a line feed, without which the array is whole.
      for (const [bytes, least, convert] of [
        [binary, 1, binaryToCopyText],
        [json, 2, jsonToCopyText],
      ] as const) {
        const part = bytes.subarray(0, at % (bytes.length - least + 1));
        if (convert === jsonToCopyText && part.length === 0) continue;
        const lines = await linesOf(convert(Readable.from([part]), table, 'x'), table);
        assert.equal(lines, undefined, `${part.length} bytes of ${bytes.length}`);
      }
    }),
    limits(3000),
  );
});

test('no damaged dump is read as something else', async () => {
  let complete = 0;
  let refused = 0;
  const orders = fc.shuffledSubarray([...STATE_TABLES], { minLength: 3 });
  await fc.assert(
    fc.asyncProperty(tables, orders, damages, lengths, async (db, order, damage, chunks) => {
      const bytes = damaged(dump(db, order), damage);
      const pieces = cut(bytes, chunks).map((chunk) => Buffer.from(chunk));
      const reader = new DumpReader('x', Readable.from(pieces));
      const found: [name: string, rows: string][] = [];
      try {
        for (let block; (block = await reader.nextBlock()) !== undefined;) {
          let rows = '';
          for await (const lines of reader.rows(block)) rows += lines.toString('latin1');
          // Other columns' order is tried elsewhere; here it would have to be undone.
          if (block.order !== undefined) return;
          found.push([block.table, rows]);
        }
      } catch (error) {
        assert.ok(error instanceof InputError, (error as Error).stack);
        refused++;
        return;
      }
      const blocks = /(?<=^|\n)COPY ([^\n]*) FROM stdin;\n((?:(?!\\\.\n)[^\n]*\n)*)\\\.\n/g;
      const expected: [string, string][] = [];
      for (const [, table, rows] of bytes.toString('latin1').matchAll(blocks)) {
        const name = /^(?:[^\s"(),.]+\.)?([^\s"(),.]+) \(.*\)$/s.exec(
          Buffer.from(table, 'latin1').toString(),
        )?.[1];
        if (STATE_TABLES.some((known) => known === name)) expected.push([name!, rows]);
      }
      assert.deepEqual(found, expected);
      if (found.length === 3) complete++;
    }),
    limits(3000),
  );
  assert.ok(complete > 0 && refused > 0);
});

test('no input ends a run in another way than with a result or a sentence', async (t) => {
  const folder = await temporaryFolder(t);
  const magics = fc.constantFrom(
    '',
    '\n',
    '\\.',
    '"',
    '[',
    '{"state_group":',
    '1\t',
    '1,',
    'id,',
    '--\n',
    'COPY public.state_groups_state (state_group',
    'PGCOPY\n\xff\r\n\0',
    'PGDMP',
    '\x1f\x8b\x08',
    '\xef\xbb\xbf',
  );
  const noise = fc
    .tuple(magics, fc.uint8Array({ maxLength: 300 }))
    .map(([magic, rest]) => Buffer.concat([Buffer.from(magic, 'latin1'), rest]));
  const formats = Object.keys(FORMATS) as Format[];
  const given = fc.record({
    db: tables,
    formats: fc.tuple(...STATE_TABLES.map(() => fc.constantFrom(...formats, 'dump', 'noise'))),
    noise,
    packed: fc.boolean(),
    damaged: fc.constantFrom(...STATE_TABLES),
    damage: damages,
    isPiped: fc.boolean(),
    chunks: lengths,
    memory: fc.constantFrom(1000, 2 ** 20),
  });
  let finished = 0;
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(given, async (run) => {
      const inputs: string[] = [];
      let stdin = Readable.from([]);
      for (const [i, table] of STATE_TABLES.entries()) {
        const format = run.formats[i];
        const isDamaged = table === run.damaged;
        let bytes =
          format === 'noise' && isDamaged
            ? run.noise
            : format === 'dump' || format === 'noise'
              ? dump(run.db, [table])
              : FORMATS[format](table, run.db[table]);
        if (isDamaged) {
          bytes = damaged(bytes, run.damage);
          if (run.packed) bytes = damaged(gzipSync(bytes), run.damage.slice(1));
        }
        if (isDamaged && run.isPiped) {
          stdin = Readable.from(cut(bytes, run.chunks));
          inputs.push('-');
        } else {
          inputs.push(join(folder, table));
          await writeFile(join(folder, table), bytes);
        }
      }
      const settings = { inputs, stdin, room: '!a', range: {}, memory: run.memory, tmpdir: folder };
      try {
        const source = await openFilesSource(settings);
        await compressRoom({ source });
        finished++;
      } catch (error) {
        assert.ok(error instanceof CompressStateError, (error as Error).stack);
        assert.ok(!(error instanceof VerificationError), error.message);
        assert.match(error.message, /[.…]$/);
        refused++;
      }
    }),
    { ...limits(300), plugins: [fc.timeout(HANG)] },
  );
  assert.ok(finished > 0 && refused > 0);
});
