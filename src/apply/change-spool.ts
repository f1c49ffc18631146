import type { Writable } from 'node:stream';
import { readChanges } from '../changes/read-changes.js';
import type { RoomChange } from '../changes/room-change.js';
import type { Output } from '../sinks/output.js';
import { TemporaryFile } from '../temporary-file.js';

/**
 * Keeps changes, in the format copy, in a temporary file until it is known that they are worth it. It also
 * lets the snapshot end that they were planned in: applying may take hours, in which VACUUM could clean up
 * nothing.
 */
export class ChangeSpool implements Output {
  readonly stream: Writable;
  readonly #file: TemporaryFile;

  private constructor(file: TemporaryFile) {
    this.#file = file;
    this.stream = file.writable();
  }

  /** @throws OutputError if no file can be made in the folder */
  static async create(folder: string): Promise<ChangeSpool> {
    return new ChangeSpool(await TemporaryFile.create(folder));
  }

  get bytes(): number {
    return this.#file.length;
  }

  /** The changes in the order in which they were planned; there must be some. */
  read(): AsyncGenerator<RoomChange> {
    return readChanges({
      read: () => this.#file.chunks(),
      place: (index) => `Line ${index + 1} of the temporary file`,
    });
  }

  /** The file has no name to appear under: it is there to be read. */
  async keep(): Promise<void> {}

  async discard(): Promise<void> {
    await this.close();
  }

  /** Gives the space back. Safe to call twice. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}
