import { Writable } from 'node:stream';
import type { ChangedGroup, PlannedGroup } from '../planner/planned-group.js';
import { PIECE } from '../sinks/output-writer.js';
import { TemporaryFile } from '../sources/sort/temporary-file.js';

const LINE_FEED = 10;

/** A change without its rows, as a line of the file has it; the rows follow. */
interface Header {
  readonly group: Omit<ChangedGroup, 'change'>;
  readonly oldRowsHash: string;
  readonly newRowsHash: string;
  readonly bytes: number;
}

/**
 * Keeps a plan's changes in a temporary file until it is known that they are worth it. It also lets the
 * snapshot end that they were planned in: applying may take hours, in which VACUUM could clean up nothing.
 */
export class ChangeSpool extends Writable {
  /** How many there are. */
  changes = 0;
  readonly #file: TemporaryFile;
  #pieces: Buffer[] = [];
  #bytes = 0;

  private constructor(file: TemporaryFile) {
    super({ objectMode: true, highWaterMark: 2 });
    this.#file = file;
  }

  /** @throws OutputError if no file can be made in the folder */
  static async create(folder: string): Promise<ChangeSpool> {
    return new ChangeSpool(await TemporaryFile.create(folder));
  }

  /** The changes in ascending order of group. */
  async *read(): AsyncGenerator<ChangedGroup> {
    let bytes = Buffer.alloc(0);
    let header: Header | undefined;
    for await (const chunk of this.#file.chunks()) {
      bytes = Buffer.concat([bytes, chunk]);
      for (;;) {
        if (header === undefined) {
          const end = bytes.indexOf(LINE_FEED);
          if (end < 0) break;
          header = JSON.parse(bytes.toString('latin1', 0, end)) as Header;
          bytes = bytes.subarray(end + 1);
        }
        if (bytes.length < header.bytes) break;
        const rows = bytes.subarray(0, header.bytes);
        bytes = bytes.subarray(header.bytes);
        yield {
          ...header.group,
          change: {
            oldRowsHash: BigInt(header.oldRowsHash),
            newRowsHash: BigInt(header.newRowsHash),
            rows,
          },
        };
        header = undefined;
      }
    }
  }

  /** Gives the space back. Safe to call twice. */
  async close(): Promise<void> {
    this.destroy();
    await this.#file.close();
  }

  override _write(
    planned: readonly PlannedGroup[],
    _: string,
    done: (error?: Error) => void,
  ): void {
    for (const { change, ...group } of planned) {
      if (change === undefined) continue;
      const { rows, oldRowsHash, newRowsHash } = change;
      const header: Header = {
        group,
        oldRowsHash: String(oldRowsHash),
        newRowsHash: String(newRowsHash),
        bytes: rows.length,
      };
      const line = Buffer.from(`${JSON.stringify(header)}\n`);
      this.#pieces.push(line, rows);
      this.#bytes += line.length + rows.length;
      this.changes++;
    }
    if (this.#bytes < PIECE) done();
    else this.#flush(done);
  }

  override _final(done: (error?: Error) => void): void {
    this.#flush(done);
  }

  #flush(done: (error?: Error) => void): void {
    const bytes = Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#bytes = 0;
    this.#file.append(bytes).then(() => done(), done);
  }
}
