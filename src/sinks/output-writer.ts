import type { FileHandle } from 'node:fs/promises';
import { Writable } from 'node:stream';
import type { OutputError } from '../errors.js';
import { outputError } from '../output-error.js';

/** Disks and pipes like pieces of this size; it is also what may wait in memory. */
export const PIECE = 256 * 1024;

/** Small changes wait for so many bytes: each write to a file costs a fifth of a millisecond. */
export const LEAST_PIECE = 64 * 1024;

/**
 * Follows what was sent of an output that is cut short. It is no SQL, wherever it is put, so that
 * psql does not run the statement before it, and a transaction around all of it rolls back.
 */
const CUT_SHORT = '\nthe rest is missing because synapse_compress_state was stopped here\n;\n';

/** Writes to a file, counts, and says in a sentence what went wrong. */
export class FileWriter extends Writable {
  bytes = 0;
  readonly #handle: FileHandle;
  readonly #explained: (error: unknown) => OutputError;

  constructor(handle: FileHandle, explained: (error: unknown) => OutputError) {
    super({ highWaterMark: PIECE });
    this.#handle = handle;
    this.#explained = explained;
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    // `writeFile` goes on where the last one ended, and writes again what a short write left.
    this.#handle.writeFile(chunk).then(
      () => {
        this.bytes += chunk.length;
        done();
      },
      (error: unknown) => done(this.#explained(error)),
    );
  }
}

/** Passes bytes on to a stream that may outlive it, counts, and says in a sentence what went wrong. */
export class StreamWriter extends Writable {
  bytes = 0;
  /** Whether what was sent may end anywhere. */
  isCutOff = false;
  readonly #name: string;
  readonly #target: Writable;
  readonly #end: boolean;

  constructor(name: string, target: Writable, end: boolean) {
    super({ highWaterMark: PIECE });
    this.#name = name;
    this.#target = target;
    this.#end = end;
    // Each write's callback has the error already.
    target.on('error', () => {});
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.bytes += chunk.length;
    this.#target.write(chunk, (error) => (error ? done(this.#explained(error)) : done()));
  }

  override _final(done: (error?: Error) => void): void {
    if (this.#end) {
      this.#target.end((error?: Error | null) => (error ? done(this.#explained(error)) : done()));
    } else {
      done();
    }
  }

  /** Makes sure that what was sent does not pass for all. Resolves when it is sent, or can't be. */
  async cutShort(): Promise<void> {
    if (this.bytes > 0) {
      await new Promise((resolve) => this.#target.write(CUT_SHORT, resolve));
    }
    if (this.#end) {
      this.#target.destroy();
    }
  }

  #explained(error: unknown): OutputError {
    this.isCutOff = true;
    return outputError(this.#name, error, 'Free some, or write to another place.');
  }
}
