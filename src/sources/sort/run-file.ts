import type { Run } from './run.js';
import type { TemporaryFile } from '../../temporary-file.js';

/** Before each piece stand its key, 8 bytes, and its length, 4 bytes. Buffers are no smaller. */
const HEADER = 12;

/** Bytes, and a view to read and write headers among them. */
class RunBuffer {
  readonly bytes: Uint8Array;
  readonly header: DataView;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.header = new DataView(this.bytes.buffer);
  }
}

/** A stretch of a file in which pieces stand in ascending order of key. */
export interface StoredRun {
  readonly start: number;
  end: number;
  lastKey: number;
}

/** Writes runs behind one another into a temporary file, through two buffers of `bufferSize` bytes. */
export class RunWriter {
  readonly runs: StoredRun[] = [];
  readonly #file: TemporaryFile;
  #buffer: RunBuffer;
  #other: RunBuffer;
  #used = 0;
  /** Bytes given to the file, also those that it is still writing. */
  #sent = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(file: TemporaryFile, bufferSize: number) {
    this.#file = file;
    this.#buffer = new RunBuffer(bufferSize);
    this.#other = new RunBuffer(bufferSize);
  }

  /** Stores a run; one that continues the last run becomes part of it. */
  async write(run: Run): Promise<void> {
    let stored: StoredRun | undefined;
    for (;;) {
      while (run.next()) {
        stored ??= this.#begin(run.key);
        stored.lastKey = run.key;
        if (this.#buffer.bytes.length - this.#used < HEADER) await this.#flush();
        const header = this.#buffer.header;
        header.setFloat64(this.#used, run.key);
        header.setUint32(this.#used + 8, run.end - run.start);
        this.#used += HEADER;
        for (let at = run.start; at < run.end;) {
          if (this.#used === this.#buffer.bytes.length) await this.#flush();
          const end = Math.min(run.end, at + this.#buffer.bytes.length - this.#used);
          this.#buffer.bytes.set(run.bytes.subarray(at, end), this.#used);
          this.#used += end - at;
          at = end;
        }
      }
      if (!(await run.more())) break;
    }
    await this.#flush();
    await this.#writing;
    if (stored !== undefined) stored.end = this.#sent;
  }

  #begin(key: number): StoredRun {
    const last = this.runs.at(-1);
    if (last !== undefined && key >= last.lastKey) return last;
    const run = { start: this.#sent, end: this.#sent, lastKey: key };
    this.runs.push(run);
    return run;
  }

  async #flush(): Promise<void> {
    await this.#writing;
    const full = this.#buffer;
    this.#sent += this.#used;
    this.#writing = this.#file.append(full.bytes.subarray(0, this.#used));
    // It is awaited before the next one, but may fail before that.
    this.#writing.catch(() => {});
    this.#buffer = this.#other;
    this.#other = full;
    this.#used = 0;
  }
}

/** Reads a stored run through a buffer of its own. */
export class StoredRunReader implements Run {
  key = 0;
  start = 0;
  end = 0;
  readonly bytes: Uint8Array;
  readonly #header: DataView;
  readonly #file: TemporaryFile;
  readonly #fileEnd: number;
  #position: number;
  #filled = 0;
  /** Bytes of the piece that were not handed over yet: a long one is handed over in several. */
  #left = 0;

  constructor(file: TemporaryFile, run: StoredRun, bufferSize: number) {
    this.#file = file;
    this.#position = run.start;
    this.#fileEnd = run.end;
    const { bytes, header } = new RunBuffer(Math.min(bufferSize, run.end - run.start));
    this.bytes = bytes;
    this.#header = header;
  }

  next(): boolean {
    let at = this.end;
    if (this.#left === 0) {
      if (this.#filled - at < HEADER) return false;
      this.key = this.#header.getFloat64(at);
      this.#left = this.#header.getUint32(at + 8);
      at += HEADER;
      this.end = at;
    }
    if (at === this.#filled) return false;
    this.start = at;
    this.end = Math.min(at + this.#left, this.#filled);
    this.#left -= this.end - at;
    return true;
  }

  async more(): Promise<boolean> {
    const kept = this.#filled - this.end;
    this.bytes.copyWithin(0, this.end, this.#filled);
    const length = Math.min(this.bytes.length - kept, this.#fileEnd - this.#position);
    if (length === 0) return false;
    await this.#file.read(this.bytes.subarray(kept, kept + length), this.#position);
    this.#position += length;
    this.#filled = kept + length;
    this.start = 0;
    this.end = 0;
    return true;
  }
}
