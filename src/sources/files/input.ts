import { open } from 'node:fs/promises';
import { addAbortSignal, pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { CompressStateError, InputError } from '../../errors.js';
import type { TemporaryFile } from '../sort/temporary-file.js';

const CHUNK = 256 * 1024;
const LINE_FEED = 10;
/** A first line is looked for in so many bytes. */
const LONGEST_FIRST_LINE = 64 * 1024;

/** Where one table's COPY text comes from. */
export interface Input {
  /** What to call it in a sentence. */
  readonly name: string;
  /** Whether `read()` may be called again. */
  readonly rereadable: boolean;
  /**
   * The table's bytes, unpacked if they are gzipped. Each chunk is valid until the next is asked for.
   *
   * @throws InputError if they can't be read or unpacked
   */
  read(): AsyncIterable<Buffer>;
}

/** A file that can be read as often as needed. */
export class FileInput implements Input {
  readonly rereadable = true;

  constructor(
    readonly name: string,
    readonly signal: AbortSignal,
  ) {}

  read(): AsyncGenerator<Buffer> {
    return unpacked(fileChunks(this.name, this.signal), this.name);
  }

  head(): Promise<Buffer> {
    return headOf(this.read());
  }
}

/** Standard input, a FIFO: it can be read once. */
export class StreamInput implements Input {
  readonly rereadable = false;
  readonly #chunks: AsyncGenerator<Buffer>;
  #head: Buffer | undefined;

  constructor(
    readonly name: string,
    stream: Readable,
    signal: AbortSignal,
  ) {
    // Nobody may be reading when the signal comes.
    stream.on('error', () => {});
    addAbortSignal(signal, stream);
    this.#chunks = unpacked(stream, name);
  }

  async *read(): AsyncGenerator<Buffer> {
    if (this.#head !== undefined) yield this.#head;
    yield* this.#chunks;
  }

  async head(): Promise<Buffer> {
    this.#head = await headOf(keptOpen(this.#chunks));
    return this.#head;
  }
}

/** What was copied from a stream. */
export class CopiedInput implements Input {
  readonly rereadable = true;

  constructor(
    readonly name: string,
    readonly file: TemporaryFile,
  ) {}

  read(): AsyncGenerator<Buffer> {
    return this.file.chunks();
  }
}

/** Reads a file through two buffers: one is filled while the other's bytes are worked on. */
async function* fileChunks(
  path: string,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  const handle = await open(path);
  try {
    let buffer = Buffer.allocUnsafeSlow(CHUNK);
    let other = Buffer.allocUnsafeSlow(CHUNK);
    const fill = (): Promise<{ bytesRead: number }> => {
      const reading = handle.read(other, 0, CHUNK, null);
      // It is awaited when the next chunk is asked for, but may fail before that.
      reading.catch(() => {});
      return reading;
    };
    let reading = fill();
    for (;;) {
      const { bytesRead } = await reading;
      signal.throwIfAborted();
      if (bytesRead === 0) return;
      [buffer, other] = [other, buffer];
      reading = fill();
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

/** The one place where what is read is opened: unpacks what begins as gzip does. */
async function* unpacked(
  source: AsyncIterable<Buffer>,
  name: string,
): AsyncGenerator<Buffer, void, undefined> {
  const chunks = source[Symbol.asyncIterator]() as AsyncIterableIterator<Buffer>;
  try {
    let head = Buffer.alloc(0);
    while (head.length < 2) {
      const { done, value } = await chunks.next();
      if (done === true) break;
      head = Buffer.concat([head, value]);
    }
    const all = async function* () {
      yield head;
      yield* chunks;
    };
    if (head[0] !== 0x1f || head[1] !== 0x8b) {
      yield* all();
      return;
    }
    const kept = async function* () {
      for await (const chunk of all()) yield Buffer.from(chunk);
    };
    // Its errors come out where its chunks do.
    yield* pipeline(kept, createGunzip({ chunkSize: CHUNK }), () => {});
  } catch (error) {
    throw explained(name, error);
  } finally {
    await chunks.return?.();
  }
}

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission is denied',
  EISDIR: 'it is a folder',
  ENOENT: 'there is no such file',
  EPERM: 'permission is denied',
  Z_BUF_ERROR: 'it begins as gzip, but is cut off. Copy it again',
  Z_DATA_ERROR: 'it begins as gzip, but is damaged. Copy it again',
};

/** Says in a sentence why something can't be read; aborts and what is a sentence already stay as they are. */
export function explained(name: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if (error instanceof CompressStateError || error.name === 'AbortError') return error;
  const code = 'code' in error ? String(error.code) : '';
  const reason = REASONS[code] ?? error.message;
  return new InputError(`Can't read ${name}: ${reason}.`, { cause: error });
}

/** Chunks up to the one in which the first line ends. */
async function headOf(chunks: AsyncIterable<Buffer>): Promise<Buffer> {
  let head = Buffer.alloc(0);
  for await (const chunk of chunks) {
    head = Buffer.concat([head, chunk]);
    if (chunk.includes(LINE_FEED) || head.length > LONGEST_FIRST_LINE) break;
  }
  return head;
}

/** The same, but leaving a loop over it early does not end it. */
function keptOpen(chunks: AsyncIterator<Buffer>): AsyncIterable<Buffer> {
  return { [Symbol.asyncIterator]: () => ({ next: () => chunks.next() }) };
}
