import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { InputError, OutputError } from '../src/errors.js';
import { Pieces } from '../src/sources/sort/pieces.js';
import { sortLines } from '../src/sources/sort/sort-lines.js';
import { temporaryFolder } from './support/fixtures.js';

type Line = readonly [key: number, text: string];

/** The key of a line that is there, but that no reader picks. */
const NONE = -1;

/** Lines as a reader gives them: `linesAtOnce` of them in bytes that are overwritten afterwards. */
async function* piecesOf(lines: readonly Line[], linesAtOnce: number): AsyncGenerator<Pieces> {
  const pieces = new Pieces();
  let position = 0;
  for (let from = 0; from < lines.length; from += linesAtOnce) {
    const some = lines.slice(from, from + linesAtOnce);
    const bytes = Buffer.from(some.map(([, text]) => `${text}\n`).join(''));
    pieces.reset(bytes, position);
    let at = 0;
    for (const [key, text] of some) {
      const start = at;
      at += Buffer.byteLength(text) + 1;
      if (key !== NONE) pieces.add(key, start, at);
    }
    yield pieces;
    position += bytes.length;
    bytes.fill('x');
  }
}

/** Their bytes, in chunks of `size`. */
async function* bytesOf(lines: readonly Line[], size: number): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(lines.map(([, text]) => `${text}\n`).join(''));
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function textOf(chunks: AsyncIterable<Buffer>): Promise<string> {
  const all: Buffer[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all).toString();
}

function sortedText(lines: readonly Line[]): string {
  const picked = lines.filter(([key]) => key !== NONE);
  const sorted = picked.sort(([a], [b]) => a - b);
  return sorted.map(([, text]) => `${text}\n`).join('');
}

/** What this process has open in a folder, also files that lost their names. */
function openFilesIn(folder: string): string[] {
  return readdirSync('/proc/self/fd')
    .map((descriptor) => {
      try {
        return readlinkSync(`/proc/self/fd/${descriptor}`);
      } catch {
        return '';
      }
    })
    .filter((path) => path.startsWith(folder));
}

const scattered = (count: number): Line[] =>
  Array.from({ length: count }, (_, i) => [(i * 7919) % 1000, `line ${i}`]);

const hasProc = process.platform === 'linux';

describe('the external sort', () => {
  it('agrees with a sort in memory, with any memory', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const key = fc.oneof(
      { weight: 4, arbitrary: fc.nat(20) },
      { weight: 2, arbitrary: fc.nat(100_000) },
      { weight: 1, arbitrary: fc.maxSafeNat() },
    );
    const input = fc.record({
      lines: fc.array(fc.tuple(key, fc.string({ maxLength: 60 })), { maxLength: 120, size: 'max' }),
      linesAtOnce: fc.integer({ min: 1, max: 40 }),
      againAtOnce: fc.integer({ min: 1, max: 400 }),
      passedBy: fc.array(fc.nat(), { maxLength: 20 }),
      inOrder: fc.double({ min: 0, max: 1, noNaN: true }),
      memory: fc.constantFrom(1, 1500, 5000, 2 ** 20),
      rereadable: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(input, async (given) => {
        // The lines' numbers show whether the sort is stable.
        const lines = given.lines.map(([k, text], i): Line => [
          k,
          `${i} ${text.replace(/\n/g, '')}`,
        ]);
        const part = Math.round(given.inOrder * lines.length);
        const ordered = lines.slice(0, part).sort(([a], [b]) => a - b);
        const all = [...ordered, ...lines.slice(part)];
        for (const place of given.passedBy) all.splice(place % (all.length + 1), 0, [NONE, 'x']);
        const { memory, rereadable, linesAtOnce, againAtOnce } = given;
        const read = () => piecesOf(all, linesAtOnce);
        const readAgain = () => bytesOf(all, againAtOnce);
        const sortInput = rereadable ? { read, readAgain } : { read };
        assert.equal(await textOf(sortLines(sortInput, { memory, tmpdir })), sortedText(all));
      }),
      { numRuns: 100 },
    );
    assert.deepEqual(readdirSync(tmpdir), []);
    if (hasProc) assert.deepEqual(openFilesIn(tmpdir), []);
  });

  it('takes no more memory than it can address, however much it is given', async (t) => {
    const lines = Array.from({ length: 100 }, (_, i): Line => [100 - i, `line ${i}`]);
    const settings = { memory: Number.MAX_SAFE_INTEGER, tmpdir: await temporaryFolder(t) };
    const sorted = sortLines({ read: () => piecesOf(lines, 7) }, settings);
    assert.equal(await textOf(sorted), sortedText(lines));
  });

  it('merges more runs than it can read at once', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const lines = scattered(5000);
    const read = () => piecesOf(lines, 100);
    const sorted = await textOf(sortLines({ read }, { memory: 8192, tmpdir }));
    assert.equal(sorted, sortedText(lines));
  });

  it('needs no temporary file for what fits, or is in order and can be read again', async () => {
    const tmpdir = '/no/such/folder';
    const ordered = scattered(20_000).sort(([a], [b]) => a - b);
    const again = { read: () => piecesOf(ordered, 100), readAgain: () => bytesOf(ordered, 1000) };
    assert.equal(await textOf(sortLines(again, { tmpdir, memory: 100_000 })), sortedText(ordered));
    const shuffled = scattered(1000);
    const once = { read: () => piecesOf(shuffled, 100) };
    assert.equal(await textOf(sortLines(once, { tmpdir, memory: 2 ** 20 })), sortedText(shuffled));
  });

  it('takes a line that is larger than its memory', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const lines: Line[] = [
      [3, 'c'.repeat(200_000)],
      [2, 'b'],
      [1, 'a'.repeat(300_000)],
    ];
    const read = () => piecesOf(lines, 1);
    const sorted = await textOf(sortLines({ read }, { memory: 1000, tmpdir }));
    assert.equal(sorted, sortedText(lines));
  });

  it('names the folder in which it can make no temporary file', async (t) => {
    const folder = await temporaryFolder(t);
    await rm(folder, { recursive: true });
    const read = () => piecesOf(scattered(1000), 10);
    await assert.rejects(
      textOf(sortLines({ read }, { memory: 1000, tmpdir: folder })),
      (error: unknown) => error instanceof OutputError && error.message.includes(folder),
    );
  });

  it('says that the disk takes no more', async (t) => {
    if (process.platform === 'win32') return t.skip('there is no limit to set');
    const tmpdir = await temporaryFolder(t);
    const program = `
      import { Pieces } from './src/sources/sort/pieces.js';
      import { sortLines } from './src/sources/sort/sort-lines.js';
      const pieces = new Pieces();
      const read = async function* () {
        for (let key = 5000; key > 0; key--) {
          pieces.reset(Buffer.alloc(1000, 'x'), 0);
          pieces.add(key, 0, 1000);
          yield pieces;
        }
      };
      try {
        for await (const _ of sortLines({ read }, { memory: 65536, tmpdir: process.argv[1] }));
      } catch (error) {
        console.log(error.name + ': ' + error.message);
      }`;
    // A limit on the size of files is a full disk that anybody can have.
    const node = `exec "$0" --import tsx --input-type=module -e "$1" "$2"`;
    const { stdout } = await promisify(execFile)(
      'sh',
      ['-c', `ulimit -f 2000; ${node}`, process.execPath, program, tmpdir],
      { cwd: fileURLToPath(new URL('..', import.meta.url)) },
    );
    assert.match(stdout, /^OutputError: Can't write a temporary file in .*larger than/);
    assert.ok(stdout.includes(tmpdir));
    assert.deepEqual(readdirSync(tmpdir), []);
  });

  it('says that input is another one when it is read again', async () => {
    const ordered = scattered(1000).sort(([a], [b]) => a - b);
    const read = () => piecesOf(ordered, 10);
    const readAgain = () => bytesOf(ordered.slice(0, 100), 10);
    const settings = { memory: 100_000, tmpdir: '/no/such/folder' };
    await assert.rejects(textOf(sortLines({ read, readAgain }, settings)), InputError);
  });

  it('leaves no file behind, open or not, when it is cut short or fails', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const settings = { memory: 8192, tmpdir };
    const filesWhileMerging = new Set<number>();
    for await (const _ of sortLines({ read: () => piecesOf(scattered(5000), 100) }, settings)) {
      filesWhileMerging.add(openFilesIn(tmpdir).length);
      break;
    }
    if (hasProc) assert.deepEqual([...filesWhileMerging], [1]);

    const failing = async function* () {
      yield* piecesOf(scattered(5000), 100);
      throw new Error('the input fails');
    };
    await assert.rejects(textOf(sortLines({ read: failing }, settings)), /the input fails/);
    assert.deepEqual(readdirSync(tmpdir), []);
    if (hasProc) assert.deepEqual(openFilesIn(tmpdir), []);
    else t.diagnostic('open files were not looked at: there is no /proc');
  });
});
