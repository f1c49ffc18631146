import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { compressRoom } from '../src/compress.js';
import { InputError } from '../src/errors.js';
import { copyLines, copyStretches, type CopyStretches } from '../src/sources/files/copy-lines.js';
import { countTabs } from '../src/sources/files/count-tabs.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import type { Input } from '../src/sources/files/input.js';

/** Few, so that neighbours are often of one group, and of groups whose numbers begin alike. */
const groups = fc.constantFrom('1', '2', '12', '123456', '1234567', '9007199254740991');
const row = fc.tuple(groups, fc.constantFrom('!a:x', '!b:x'), fc.constantFrom('t', 'm.é'));
const intact = fc
  .tuple(fc.array(fc.tuple(row, fc.nat(9)), { maxLength: 60 }), fc.constantFrom('', '\\.\n'))
  .map(
    ([rows, end]) => rows.map(([fields, n]) => `${fields.join('\t')}\t${n}\t$\n`).join('') + end,
  );
const damage = fc.record({
  at: fc.nat(),
  insert: fc.constantFrom('', '\t', '\n', '\r', '\0', 'x', '\\.\n', '1\t', '\t1\n'),
  drop: fc.nat(2),
});
const damaged = fc
  .tuple(intact, fc.array(damage, { maxLength: 2 }))
  .map(([text, all]) =>
    all.reduce(
      (before, { at, insert, drop }) =>
        before.slice(0, at % (before.length + 1)) +
        insert +
        before.slice((at % (before.length + 1)) + drop),
      text,
    ),
  );

interface Read {
  /** Group and text of each line, of neighbours of one group together. */
  readonly stretches: readonly (readonly [group: number, text: string])[];
  readonly error: string | undefined;
}

/** Reads the text in chunks of one length, each gone when the next comes. */
async function read(
  lines: (input: Input) => AsyncIterable<CopyStretches>,
  text: string,
  length: number,
): Promise<Read> {
  const input = {
    name: 'x',
    rereadable: false,
    place: (index: number) => `Line ${index + 1}`,
    async *read() {
      const bytes = Buffer.from(text);
      for (let at = 0; at < bytes.length; at += length) {
        const chunk = Buffer.from(bytes.subarray(at, at + length));
        yield chunk;
        chunk.fill(0);
      }
    },
  };
  const stretches: [number, string][] = [];
  let end = 0;
  try {
    for await (const { bytes, position, count, starts, groups: ids } of lines(input)) {
      for (let i = 0; i < count; i++) {
        const of = bytes.toString('utf8', starts[i], starts[i + 1]);
        assert.equal(position + starts[i], end);
        end = position + starts[i + 1];
        const last = stretches.at(-1);
        if (last !== undefined && last[0] === ids[i]) last[1] += of;
        else stretches.push([ids[i], of]);
      }
    }
  } catch (error) {
    assert.ok(error instanceof InputError, (error as Error).stack);
    return { stretches, error: error.message };
  }
  return { stretches, error: undefined };
}

test('stretches are the lines, neighbours of one group together, and errors are the same', async () => {
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(damaged, fc.integer({ min: 1, max: 3000 }), async (text, length) => {
      const lines = await read((input) => copyLines(input, 'state_groups_state'), text, length);
      const stretches = await read(copyStretches, text, length);
      if (lines.error !== undefined) refused++;
      // Lines that make up for each other's columns may pass, and only those.
      if (stretches.error !== lines.error) {
        assert.match(lines.error!, /columns?, where/);
        const fields = text.split('\n').map((line) => line.split('\t').length);
        assert.ok(Math.min(...fields.slice(0, -1)) < 5 && Math.max(...fields) > 5, text);
      } else if (lines.error === undefined) {
        assert.deepEqual(stretches, lines);
      }
    }),
    { numRuns: 2000 },
  );
  assert.ok(refused > 0);
});

test('tabs are counted wherever the bytes begin and end in memory', () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(9, 10, 8, 0, 0x89, 0xff, 65), { maxLength: 3000 }),
      fc.nat(3),
      (bytes, offset) => {
        const all = Buffer.alloc(offset + bytes.length + 4, 9);
        all.set(bytes, offset);
        const part = all.subarray(offset, offset + bytes.length);
        assert.equal(countTabs(part), bytes.filter((byte) => byte === 9).length);
      },
    ),
  );
  assert.equal(countTabs(Buffer.alloc(100_001, 9)), 100_001);
  assert.equal(countTabs(Buffer.alloc(100_001, 0x89)), 0);
});

test('a row of too few columns, for which another makes up, is refused when it is parsed', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'stretches-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'state_groups.copy'), '1\t!a:x\t$\n2\t!a:x\t$\n');
  writeFileSync(join(folder, 'state_group_edges.copy'), '2\t1\n');
  const rows = '1\t!a:x\tt\t\t$\n2\t!a:x\tt\t$\n2\t!a:x\tt\ta\tb\t$\n';
  writeFileSync(join(folder, 'state_groups_state.copy'), rows);
  const source = await openFilesSource({
    inputs: [folder],
    stdin: Readable.from([]),
    room: '!a:x',
    range: {},
    memory: 2 ** 20,
    tmpdir: folder,
  });
  await assert.rejects(
    compressRoom({ source }),
    /^InputError: Row 2 of the sorted state_groups_state, near state group \d+, does not have 5 columns/,
  );
});
