import type { ChunkPool } from './chunk-pool.js';
import { Merge } from './merge.js';
import { OrderedPart, OrderedPartReader } from './ordered-part.js';
import type { Pieces } from './pieces.js';
import { RunChunks } from './run-chunks.js';
import type { Run } from './run.js';
import { RunWriter, StoredRunReader, type StoredRun } from './run-file.js';
import { SortBuffer } from './sort-buffer.js';
import { TemporaryFile } from '../../temporary-file.js';

/** The part of the memory that lines are sorted in; input, output and what waits to be collected take the rest. */
const SORT_SHARE = 3 / 4;
/** The memory is divided by it while the lines come out, for then others work too. */
const MERGE_SHARE = 4;
/** A disk is read in pieces of at least this size, where the memory allows. */
const SMALLEST_READ = 64 * 1024;
/** Places in the sort's buffer are 32 bits wide; more memory saves no pass over the files either. */
const MOST_MEMORY = 2 ** 31;
const SMALLEST_BUFFER = 512;
const LARGEST_BUFFER = 256 * 1024;

export interface SortInput {
  /** The lines to sort. */
  read(): AsyncIterable<Pieces>;
  /** The same bytes again, if they are to be read again; then what is in order is left where it is. */
  readonly readAgain?: () => AsyncIterable<Uint8Array>;
}

export interface SortSettings {
  /** Bytes for buffers; a quarter of it while the lines come out, for then others work too. */
  readonly memory: number;
  /** Folder for temporary files. */
  readonly tmpdir: string;
}

/**
 * Sorts lines by state group with an `ExternalSort`. The first part of an input, as
 * far as it is in order, is not sorted, and not stored either if it can be read again. Yields the lines'
 * bytes in chunks cut anywhere, of `pool` if one is given.
 *
 * @throws OutputError if a temporary file can't be written
 * @throws InputError if the input is a shorter one when it is read again
 */
export async function* sortLines(
  input: SortInput,
  settings: SortSettings,
  pool?: ChunkPool,
): AsyncGenerator<Buffer, void, undefined> {
  const sort = new ExternalSort(input, settings);
  try {
    yield* new RunChunks(await sort.run(), pool).between(-Infinity, Infinity);
  } finally {
    await sort.close();
  }
}

/** An external merge sort, stable, on bytes. Must be closed, whatever happens. */
export class ExternalSort {
  readonly #input: SortInput;
  readonly #memory: number;
  readonly #tmpdir: string;
  readonly #bufferSize: number;
  #buffer: SortBuffer | undefined;
  #file: TemporaryFile | undefined;
  #writer: RunWriter | undefined;
  #ordered: OrderedPartReader | undefined;

  constructor(input: SortInput, { memory, tmpdir }: SortSettings) {
    this.#input = input;
    this.#memory = Math.min(memory, MOST_MEMORY);
    this.#tmpdir = tmpdir;
    this.#bufferSize = bufferSize(this.#memory / 16);
  }

  /** Reads everything, and returns it as one run. */
  async run(): Promise<Run> {
    const { readAgain } = this.#input;
    const part = new OrderedPart(this.#memory / MERGE_SHARE);
    let isOrdered = readAgain !== undefined;
    for await (const pieces of this.#input.read()) {
      let at = isOrdered ? part.add(pieces) : 0;
      isOrdered &&= at === pieces.count;
      while (at < pieces.count) {
        this.#buffer ??= new SortBuffer(this.#memory * SORT_SHARE);
        at = this.#buffer.add(pieces, at);
        if (at < pieces.count) await this.#store(this.#buffer);
      }
    }
    const runs: Run[] = [];
    if (readAgain !== undefined && part.count > 0) {
      this.#ordered = new OrderedPartReader(part, readAgain());
      runs.push(this.#ordered);
    }
    if (this.#buffer !== undefined) {
      if (this.#writer === undefined && this.#buffer.length <= this.#memory / MERGE_SHARE) {
        runs.push(this.#buffer.sorted());
      } else {
        await this.#store(this.#buffer);
        runs.push(...(await this.#storedRuns()));
      }
      this.#buffer = undefined;
    }
    return runs.length === 1 ? runs[0] : new Merge(runs);
  }

  async close(): Promise<void> {
    await this.#ordered?.close();
    await this.#file?.close();
  }

  async #store(buffer: SortBuffer): Promise<void> {
    this.#file ??= await TemporaryFile.create(this.#tmpdir);
    this.#writer ??= new RunWriter(this.#file, this.#bufferSize);
    await this.#writer.write(buffer.sorted());
    buffer.clear();
  }

  /** What was stored, in no more runs than can be read at once beside one other. */
  async #storedRuns(): Promise<Run[]> {
    const fanIn = Math.max(2, Math.floor(this.#memory / MERGE_SHARE / SMALLEST_READ));
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
    const size = bufferSize(this.#memory / MERGE_SHARE / runs.length);
    return runs.map((run) => new StoredRunReader(file, run, size));
  }
}

function bufferSize(share: number): number {
  return Math.floor(Math.min(LARGEST_BUFFER, Math.max(SMALLEST_BUFFER, share)));
}
