import { randomBytes } from 'node:crypto';
import { unlinkSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import type { Readable } from 'node:stream';
import { temporaryFileError } from './output-error.js';

const CHUNK = 256 * 1024;

/**
 * A file that has no name, so that nothing of it is left however this process ends. It is written from
 * its beginning to its end, and read anywhere.
 */
export class TemporaryFile {
  readonly #folder: string;
  readonly #handle: FileHandle;
  #length = 0;

  private constructor(folder: string, handle: FileHandle) {
    this.#folder = folder;
    this.#handle = handle;
  }

  /** @throws OutputError if no file can be made in the folder */
  static async create(folder: string): Promise<TemporaryFile> {
    const name = `synapse_compress_state-${randomBytes(6).toString('hex')}.tmp`;
    const path = join(folder, name);
    try {
      const handle = await open(path, 'wx+', 0o600);
      unlinkSync(path);
      return new TemporaryFile(folder, handle);
    } catch (error) {
      throw temporaryFileError(folder, error);
    }
  }

  /** Bytes written. */
  get length(): number {
    return this.#length;
  }

  /** @throws OutputError, for example if the disk is full */
  async append(bytes: Uint8Array): Promise<void> {
    let at = 0;
    try {
      while (at < bytes.length) {
        const position = this.#length;
        const { bytesWritten } = await this.#handle.write(bytes, at, bytes.length - at, position);
        at += bytesWritten;
        this.#length += bytesWritten;
      }
    } catch (error) {
      throw temporaryFileError(this.#folder, error);
    }
  }

  /** A stream that appends what is written to it. */
  writable(): Writable {
    return new Writable({
      highWaterMark: CHUNK,
      write: (chunk: Buffer, _encoding, done) => {
        this.append(chunk).then(() => done(), done);
      },
    });
  }

  /** Fills `into` with the bytes at `position`, which must have been written. */
  async read(into: Uint8Array, position: number): Promise<void> {
    let at = 0;
    while (at < into.length) {
      const length = into.length - at;
      const { bytesRead } = await this.#handle.read(into, at, length, position + at);
      if (bytesRead === 0) {
        throw temporaryFileError(
          this.#folder,
          new Error('it is shorter than what was written to it'),
        );
      }
      at += bytesRead;
    }
  }

  /** All bytes from the beginning; each chunk is valid until the next is asked for. */
  async *chunks(): AsyncGenerator<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK, this.#length));
    for (let at = 0; at < this.#length; at += buffer.length) {
      const chunk = buffer.subarray(0, this.#length - at);
      await this.read(chunk, at);
      yield chunk;
    }
  }

  /** The same bytes for who keeps chunks for longer, as a stream may that they are written to. */
  readable(): Readable {
    return this.#handle.createReadStream({ start: 0, autoClose: false, highWaterMark: CHUNK });
  }

  /** Gives the space back. May be called twice. An error of it says nothing of what was read. */
  async close(): Promise<void> {
    await this.#handle.close().catch(() => {});
  }
}
