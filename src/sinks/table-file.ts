import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { PIECE } from './output-writer.js';

/** A new file that is written from its beginning to its end, in pieces however small what is added is. */
export class TableFile {
  length = 0;
  readonly #handle: FileHandle;
  readonly #buffer = Buffer.allocUnsafeSlow(PIECE);
  #used = 0;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  static async create(folder: string, name: string): Promise<TableFile> {
    return new TableFile(await open(join(folder, name), 'wx'));
  }

  async add(bytes: Uint8Array): Promise<void> {
    this.length += bytes.length;
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + PIECE - this.#used);
      this.#buffer.set(bytes.subarray(at, end), this.#used);
      this.#used += end - at;
      at = end;
      if (this.#used === PIECE) await this.#flush();
    }
  }

  /** All of it is on the disk when this resolves. */
  async end(): Promise<void> {
    await this.#flush();
    await this.#handle.sync();
  }

  /** May be called at any time. An error of it says nothing: what is to stay was on the disk with `end()`. */
  async close(): Promise<void> {
    await this.#handle.close().catch(() => {});
  }

  async #flush(): Promise<void> {
    // `writeFile` goes on where the last one ended, and writes again what a short write left.
    await this.#handle.writeFile(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }
}
