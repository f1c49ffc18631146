import { InputError } from '../../errors.js';
import { Merge } from './merge.js';
import type { Pieces } from './pieces.js';
import type { Run } from './run.js';
import { RunWriter, StoredRunReader, type StoredRun } from './run-file.js';
import { SortBuffer } from './sort-buffer.js';
import { TemporaryFile } from './temporary-file.js';

/** Size of the chunks that come out. */
const CHUNK = 64 * 1024;
/** A disk is read in pieces of at least this size, where the memory allows. */
const SMALLEST_READ = 64 * 1024;
const SMALLEST_BUFFER = 512;
const LARGEST_BUFFER = 256 * 1024;

export interface SortSettings {
  /** Bytes for buffers. Merging takes a quarter of it, for then others work too. */
  readonly memory: number;
  /** Folder for temporary files. */
  readonly tmpdir: string;
  /** Whether the input can be read a second time. Then its first part, as far as it is in order, is left where it is. */
  readonly rereadable: boolean;
}

/**
 * Sorts lines by state group: an external merge sort, stable, on bytes. Input that is in order is not
 * sorted, and not stored either if it can be read again or fits the memory. Yields the lines' bytes in
 * chunks cut anywhere.
 *
 * @throws OutputError if a temporary file can't be written
 * @throws InputError if the input is another one when it is read again
 */
export async function* sortLines(
  read: () => AsyncIterable<Pieces>,
  settings: SortSettings,
): AsyncGenerator<Buffer, void, undefined> {
  const sort = new ExternalSort(read, settings);
  try {
    yield* chunksOf(await sort.run());
  } finally {
    await sort.close();
  }
}

class ExternalSort {
  readonly #read: () => AsyncIterable<Pieces>;
  readonly #memory: number;
  readonly #tmpdir: string;
  readonly #bufferSize: number;
  /** Whether the input was in order so far, and is left where it is. */
  #isInOrder: boolean;
  /** How many bytes of the input, from its beginning, are in order and will be read again. */
  #inOrder = 0;
  #inOrderKey = -Infinity;
  #buffer: SortBuffer | undefined;
  #file: TemporaryFile | undefined;
  #writer: RunWriter | undefined;
  #again: FirstBytes | undefined;

  constructor(read: () => AsyncIterable<Pieces>, { memory, tmpdir, rereadable }: SortSettings) {
    this.#read = read;
    this.#memory = memory;
    this.#tmpdir = tmpdir;
    this.#bufferSize = bufferSize(memory / 16);
    this.#isInOrder = rereadable;
  }

  /** Reads everything, and returns it as one run. */
  async run(): Promise<Run> {
    for await (const pieces of this.#read()) {
      let at = this.#isInOrder ? this.#passInOrder(pieces) : 0;
      while (at < pieces.count) {
        this.#buffer ??= new SortBuffer(this.#memory - 2 * this.#bufferSize);
        at = this.#buffer.add(pieces, at);
        if (at < pieces.count) await this.#store(this.#buffer);
      }
    }
    const runs: Run[] = [];
    if (this.#inOrder > 0) {
      this.#again = new FirstBytes(this.#read(), this.#inOrder);
      runs.push(this.#again);
    }
    if (this.#buffer !== undefined && this.#writer === undefined) {
      runs.push(this.#buffer.sorted());
    } else if (this.#buffer !== undefined) {
      await this.#store(this.#buffer);
      runs.push(...(await this.#storedRuns()));
    }
    this.#buffer = undefined;
    return runs.length === 1 ? runs[0]! : new Merge(runs);
  }

  async close(): Promise<void> {
    await this.#again?.close();
    await this.#file?.close();
  }

  /** Returns the number of the first piece that is not in order. */
  #passInOrder({ keys, starts, ends, count }: Pieces): number {
    for (let i = 0; i < count; i++) {
      if (keys[i]! < this.#inOrderKey) {
        this.#isInOrder = false;
        return i;
      }
      this.#inOrderKey = keys[i]!;
      this.#inOrder += ends[i]! - starts[i]!;
    }
    return count;
  }

  async #store(buffer: SortBuffer): Promise<void> {
    this.#file ??= await TemporaryFile.create(this.#tmpdir);
    this.#writer ??= new RunWriter(this.#file, this.#bufferSize);
    await this.#writer.write(buffer.sorted());
    buffer.clear();
  }

  /** What was stored, in no more runs than can be read at once beside one other. */
  async #storedRuns(): Promise<Run[]> {
    const fanIn = Math.max(2, Math.floor(this.#memory / 4 / SMALLEST_READ));
    while (this.#writer!.runs.length > fanIn) await this.#mergeSome(fanIn);
    return this.#readers(this.#writer!.runs);
  }

  /** Merges each `fanIn` neighbouring runs into one, in a new file. */
  async #mergeSome(fanIn: number): Promise<void> {
    const before = this.#file!;
    const { runs } = this.#writer!;
    const file = await TemporaryFile.create(this.#tmpdir);
    try {
      const writer = new RunWriter(file, this.#bufferSize);
      for (let from = 0; from < runs.length; from += fanIn) {
        await writer.write(new Merge(this.#readers(runs.slice(from, from + fanIn))));
      }
      this.#writer = writer;
      this.#file = file;
    } catch (error) {
      await file.close();
      throw error;
    }
    await before.close();
  }

  #readers(runs: readonly StoredRun[]): Run[] {
    const file = this.#file!;
    const size = bufferSize(this.#memory / 4 / runs.length);
    return runs.map((run) => new StoredRunReader(file, run, size));
  }
}

function bufferSize(share: number): number {
  return Math.floor(Math.min(LARGEST_BUFFER, Math.max(SMALLEST_BUFFER, share)));
}

/** The first `length` bytes of the pieces of an input that are in order. */
class FirstBytes implements Run {
  key = 0;
  bytes: Uint8Array = new Uint8Array(0);
  start = 0;
  end = 0;
  readonly #input: AsyncIterator<Pieces>;
  #pieces: Pieces | undefined;
  #next = 0;
  #left: number;

  constructor(input: AsyncIterable<Pieces>, length: number) {
    this.#input = input[Symbol.asyncIterator]();
    this.#left = length;
  }

  next(): boolean {
    const pieces = this.#pieces;
    if (pieces === undefined || this.#next === pieces.count || this.#left === 0) return false;
    const at = this.#next++;
    this.key = pieces.keys[at]!;
    this.bytes = pieces.bytes;
    this.start = pieces.starts[at]!;
    // Read again, a piece may be longer: it is cut where chunks are.
    this.end = Math.min(pieces.ends[at]!, this.start + this.#left);
    this.#left -= this.end - this.start;
    return true;
  }

  async more(): Promise<boolean> {
    if (this.#left === 0) return false;
    const { done, value } = await this.#input.next();
    if (done) {
      throw new InputError('The rows changed while they were read. Export them again.');
    }
    this.#pieces = value;
    this.#next = 0;
    return true;
  }

  async close(): Promise<void> {
    await this.#input.return?.();
  }
}

async function* chunksOf(run: Run): AsyncGenerator<Buffer, void, undefined> {
  let chunk = Buffer.allocUnsafeSlow(CHUNK);
  let used = 0;
  for (;;) {
    while (run.next()) {
      for (let at = run.start; at < run.end;) {
        const end = Math.min(run.end, at + CHUNK - used);
        chunk.set(run.bytes.subarray(at, end), used);
        used += end - at;
        at = end;
        if (used === CHUNK) {
          yield chunk;
          chunk = Buffer.allocUnsafeSlow(CHUNK);
          used = 0;
        }
      }
    }
    if (!(await run.more())) break;
  }
  if (used > 0) yield chunk.subarray(0, used);
}
