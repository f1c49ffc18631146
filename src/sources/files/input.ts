import { constants, createReadStream, openSync, type Stats } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { Socket } from 'node:net';
import { addAbortSignal, type Readable } from 'node:stream';
import { ChangedInputError, codeOf, CompressStateError, InputError } from '../../errors.js';
import type { TemporaryFile } from '../../temporary-file.js';
import { collected } from './collected.js';
import { LONGEST_MAGIC, packingOf, unpack, WINDOW_TOO_LARGE } from './unpack.js';

const LINE_FEED = 10;
/** With less, waiting for the next bytes takes as long as working on them. */
const CHUNK = 2 ** 20;
/** What an input holds is told by so many bytes, or not at all. */
const LONGEST_HEAD = 64 * 1024;

/** Where one table's COPY text comes from. */
export interface Input {
  /** What to call it in a sentence. */
  readonly name: string;
  /** Whether `read()` may be called again. */
  readonly rereadable: boolean;
  /** Whether reading it again takes longer than storing what was read. */
  readonly isSlow?: boolean;
  /**
   * The table's text, unpacked. Each chunk is valid until the next is asked for.
   *
   * @throws InputError if it can't be read or unpacked
   */
  read(): AsyncIterable<Buffer>;
  /** What to call line number `index`, from 0, where a sentence begins: `Line 1 of …`. */
  place(index: number): string;
}

/**
 * Tells what begins so; undefined if that takes more bytes, and never undefined when `isAll` says
 * that there will be no more.
 */
export type Recognize<T> = (head: Buffer, isAll: boolean) => T | undefined;

/** A file that can be read as often as needed, and must not change meanwhile. */
export class FileInput implements Input {
  readonly rereadable = true;
  /** What tells the file, as it was when it was first opened, from any other. */
  #version: string | undefined;

  constructor(
    readonly name: string,
    readonly signal: AbortSignal,
  ) {}

  read(): AsyncGenerator<Buffer> {
    return unpacked(this.readFrom(0), this.name, this.signal);
  }

  /** The bytes from `position` on, as they are. */
  async *readFrom(position: number): AsyncGenerator<Buffer> {
    try {
      yield* fileChunks(this.name, position, this.signal, (handle) => this.#checkVersion(handle));
    } catch (error) {
      throw explained(this.name, error);
    }
  }

  /** An export that is still being written, or written anew, may end anywhere, also between two rows. */
  async #checkVersion(handle: FileHandle): Promise<void> {
    const { ino, size, mtimeNs } = await handle.stat({ bigint: true });
    const version = `${ino} ${size} ${mtimeNs}`;
    this.#version ??= version;
    if (version !== this.#version) {
      throw new ChangedInputError(
        `${this.name} was changed while it was read. Run again when nothing writes to it any more.`,
      );
    }
  }

  async isPacked(): Promise<boolean> {
    const head = await headOf(this.readFrom(0), LONGEST_MAGIC);
    return packingOf(head) !== undefined;
  }

  /** Whether its last byte is no line feed. */
  async endsWithinLine(): Promise<boolean> {
    const { size } = await kindOf(this.name);
    let last = LINE_FEED;
    for await (const chunk of this.readFrom(Math.max(0, size - 1))) last = chunk.at(-1) ?? last;
    return last !== LINE_FEED;
  }

  place(index: number): string {
    return lineOf(this, index);
  }

  async look<T>(recognize: Recognize<T>): Promise<T> {
    return (await lookAt(this.read(), recognize)).seen;
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
    this.#chunks = unpacked(collected(stream), name, signal);
  }

  async *read(): AsyncGenerator<Buffer> {
    if (this.#head !== undefined) yield this.#head;
    yield* this.#chunks;
  }

  place(index: number): string {
    return lineOf(this, index);
  }

  /** May be called once. */
  async look<T>(recognize: Recognize<T>): Promise<T> {
    const { head, seen } = await lookAt(keptOpen(this.#chunks), recognize);
    this.#head = head;
    return seen;
  }
}

/** What a path names: `-` is standard input; a file can be read again, and nothing else, such as a FIFO. */
export async function openInput(
  path: string,
  stdin: Readable,
  signal: AbortSignal,
): Promise<FileInput | StreamInput> {
  if (path === '-') return new StreamInput('standard input', stdin, signal);
  const kind = await kindOf(path);
  if (kind.isFile() || kind.isDirectory()) return new FileInput(path, signal);
  return new StreamInput(path, kind.isFIFO() ? fifoStream(path) : createReadStream(path), signal);
}

/**
 * A thread that waits for a FIFO's writer, or for what it writes, would keep the process from ending. Nothing is
 * taken for the end before there was a writer, as Linux says nothing until then.
 */
function fifoStream(path: string): Readable {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    return new Socket({ fd, readable: true, writable: false });
  } catch (error) {
    throw explained(path, error);
  }
}

/** @throws InputError if there is nothing under this path, or it can't be looked at */
export async function kindOf(path: string): Promise<Stats> {
  try {
    return await stat(path);
  } catch (error) {
    throw explained(path, error);
  }
}

/** What was copied, all or a part, of an input that can be read once. */
export class CopiedInput implements Input {
  readonly rereadable = true;

  constructor(
    readonly original: Pick<Input, 'name' | 'place'>,
    readonly file: TemporaryFile,
  ) {}

  get name(): string {
    return this.original.name;
  }

  read(): AsyncGenerator<Buffer> {
    return this.file.chunks();
  }

  place(index: number): string {
    return this.original.place(index);
  }
}

/** The input, or a copy of one that can be read only once. */
export async function rereadable(
  input: Input,
  temporaryFile: () => Promise<TemporaryFile>,
): Promise<Input> {
  if (input.rereadable) return input;
  const file = await temporaryFile();
  for await (const chunk of input.read()) await file.append(chunk);
  return new CopiedInput(input, file);
}

/**
 * Reads a file through two buffers: one is filled while the other's bytes are worked on. `check` is called
 * before the first byte and behind the last one.
 */
async function* fileChunks(
  path: string,
  start: number,
  signal: AbortSignal,
  check: (handle: FileHandle) => Promise<void>,
): AsyncGenerator<Buffer, void, undefined> {
  const handle = await open(path);
  try {
    await check(handle);
    let buffer = Buffer.allocUnsafeSlow(CHUNK);
    let other = Buffer.allocUnsafeSlow(CHUNK);
    let position = start;
    const fill = (): Promise<{ bytesRead: number }> => {
      const reading = handle.read(other, 0, CHUNK, position);
      // It is awaited when the next chunk is asked for, but may fail before that.
      reading.catch(() => {});
      return reading;
    };
    let reading = fill();
    for (;;) {
      const { bytesRead } = await reading;
      signal.throwIfAborted();
      if (bytesRead === 0) return await check(handle);
      position += bytesRead;
      [buffer, other] = [other, buffer];
      reading = fill();
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

/** The one place where what is read is opened: unpacks what begins as gzip or zstd does. */
async function* unpacked(
  source: AsyncIterable<Buffer>,
  name: string,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  const chunks = source[Symbol.asyncIterator]() as AsyncIterableIterator<Buffer>;
  try {
    const head = await headOf(keptOpen(chunks), LONGEST_MAGIC);
    const all = async function* () {
      yield head;
      yield* chunks;
    };
    const packing = packingOf(head);
    yield* packing === undefined ? all() : collected(unpack(all(), packing, signal));
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
  [WINDOW_TOO_LARGE]:
    'it was packed by zstd --long, and unpacking it takes more than 128 MB. Unpack it in a pipe, with zstd -dc --long=31',
};

/** Says in a sentence why something can't be read; aborts and what is a sentence already stay as they are. */
export function explained(name: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if (error instanceof CompressStateError || error.name === 'AbortError') return error;
  const reason = REASONS[codeOf(error)] ?? error.message;
  return new InputError(`Can't read ${name}: ${reason}.`, { cause: error });
}

function lineOf({ name }: { name: string }, index: number): string {
  return `Line ${index + 1} of ${name}`;
}

/** Chunks until there are `length` bytes of them. */
async function headOf(chunks: AsyncIterable<Buffer>, length: number): Promise<Buffer> {
  const { head } = await lookAt(
    chunks,
    (bytes, isAll) => isAll || bytes.length >= length || undefined,
  );
  return head;
}

/** Takes chunks until it is recognized what they are; the head is valid until the next is asked for. */
async function lookAt<T>(
  chunks: AsyncIterable<Buffer>,
  recognize: Recognize<T>,
): Promise<{ head: Buffer; seen: T }> {
  let head = Buffer.alloc(0);
  for await (const chunk of chunks) {
    const bytes = head.length === 0 ? chunk : Buffer.concat([head, chunk]);
    const seen = recognize(bytes.subarray(0, LONGEST_HEAD), bytes.length > LONGEST_HEAD);
    if (seen !== undefined) return { head: bytes, seen };
    head = Buffer.from(bytes);
  }
  return { head, seen: recognize(head, true)! };
}

/** The same, but leaving a loop over it early does not end it. */
function keptOpen(chunks: AsyncIterator<Buffer>): AsyncIterable<Buffer> {
  return { [Symbol.asyncIterator]: () => ({ next: () => chunks.next() }) };
}
