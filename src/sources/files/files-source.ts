import type { Readable } from 'node:stream';
import { chunkStream } from '../chunk-stream.js';
import { describeIrregularities } from '../describe-irregularities.js';
import { UNREADABLE, type GroupTable } from '../group-table.js';
import { IdFinder } from '../id-list.js';
import type { GroupRange } from '../group-range.js';
import type { RoomSource } from '../room-source.js';
import { ChunkPool } from '../sort/chunk-pool.js';
import { piecesInOrder } from '../sort/pieces-in-order.js';
import { sortLines } from '../sort/sort-lines.js';
import type { TemporaryFile } from '../../temporary-file.js';
import type { StoredTables } from '../stored-tables.js';
import { findInputs, type FoundInputs, type TableInputs } from './find-inputs.js';
import { rereadable } from './input.js';
import { RoomColumn } from './room-column.js';
import { readHeaders, type RoomHeaders } from './room-headers.js';
import { RoomRows } from './room-rows.js';
import type { StateTable } from './state-table.js';
import { Work } from './work.js';

export interface FilesSourceSettings {
  /**
   * Files, folders, and `-` for standard input: plain SQL of pg_dump, or the tables, as COPY text, CSV,
   * binary COPY data or JSON. All of it may be packed with gzip or zstd. Files that are named and hold the
   * same table are parts of it, in their order.
   */
  readonly inputs: readonly string[];
  /** Inputs, beside those, whose table neither content nor name tell. */
  readonly tables?: Readonly<Partial<Record<StateTable, string>>>;
  readonly stdin: Readable;
  readonly room: string;
  readonly range: GroupRange;
  /** Bytes for the sort's buffers. */
  readonly memory: number;
  /** Folder for temporary files. */
  readonly tmpdir: string;
  /**
   * Takes it that the rows are in order, and reads them but once, if all of the inputs are files, which
   * can be opened again: see `RoomSource.isOnTrust`.
   */
  readonly onTrust?: boolean;
  /** Lets `storedTables()` be asked: what can be read only once is copied to temporary files, all of it. */
  readonly keepTables?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * Opens a room in exports of `state_group_edges`, `state_groups_state` and, if there, `state_groups`,
 * and reads the headers. Rows that are not in order of state group are sorted when they are read. What
 * can be read only once goes through temporary files, as far as it is needed again.
 *
 * @throws InputError if the inputs are not these tables, RoomNotFoundError if the room has no groups or
 *   none in range, OutputError if a temporary file can't be written, and the signal's reason when it is
 *   aborted
 */
export async function openFilesSource(settings: FilesSourceSettings): Promise<RoomSource> {
  const { inputs, tables: givenTables = {}, stdin, room, range, tmpdir, signal } = settings;
  const work = new Work(tmpdir, signal);
  try {
    const temporaryFile = () => work.temporaryFile();
    const given = { inputs, tables: givenTables, stdin };
    const found = await findInputs(given, temporaryFile, work.signal);
    const tables = settings.keepTables
      ? await rereadableTables(found.tables, temporaryFile)
      : found.tables;
    const headers = await readHeaders(tables, room, range, temporaryFile);
    return new FilesSource(settings, work, { ...found, tables }, headers);
  } catch (error) {
    await work.end();
    signal?.throwIfAborted();
    throw error;
  }
}

class FilesSource implements RoomSource {
  readonly room: string;
  readonly groups: GroupTable;
  readonly snapshotTime = undefined;
  readonly rowColumns = 'with-room';
  readonly warnings: string[];
  readonly isOnTrust: boolean;
  readonly #settings: FilesSourceSettings;
  readonly #work: Work;
  readonly #tables: TableInputs;
  readonly #headers: RoomHeaders;
  readonly #chunks = new ChunkPool();
  #rows: Readable | undefined;

  constructor(
    settings: FilesSourceSettings,
    work: Work,
    { tables, isRepeatable, warnings }: FoundInputs,
    headers: RoomHeaders,
  ) {
    this.room = settings.room;
    this.groups = headers.groups;
    this.warnings = [...warnings, ...headers.warnings, ...describeIrregularities(headers.groups)];
    this.isOnTrust = isRepeatable && settings.onTrust === true;
    this.#settings = settings;
    this.#work = work;
    this.#tables = tables;
    this.#headers = headers;
  }

  rows(): Readable {
    if (this.#rows !== undefined) throw new Error('The rows can be read once.');
    this.#rows = chunkStream(this.#orderedRows());
    return this.#rows;
  }

  giveBack(chunk: Buffer): void {
    this.#chunks.giveBack(chunk);
  }

  storedTables(): StoredTables {
    if (!this.#settings.keepTables) throw new Error('The tables were not kept.');
    return { edges: this.#tables.state_group_edges, rows: this.#tables.state_groups_state };
  }

  async close(): Promise<void> {
    const rows = this.#rows;
    if (rows !== undefined && !rows.closed) {
      rows.destroy();
      this.#work.stop();
      await new Promise((resolve) => rows.once('close', resolve));
    }
    await this.#work.end();
  }

  async *#orderedRows(): AsyncGenerator<Buffer, void, undefined> {
    const { room, signal } = this.#settings;
    const column = new RoomColumn(room);
    const { rows: input, roomIds, emptyTables } = this.#headers;
    const rows = new RoomRows(input, column, this.groups.ids, roomIds, emptyTables);
    try {
      yield* this.isOnTrust ? this.#rowsOnTrust(rows) : this.#sortedRows(rows);
      this.warnings.push(...rows.warnings());
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }

  #sortedRows(rows: RoomRows): AsyncGenerator<Buffer, void, undefined> {
    const { memory, tmpdir } = this.#settings;
    const input = this.#headers.rows;
    const read = () => rows.read();
    const readAgain = () => input.read();
    const sortInput = input.rereadable && !input.isSlow ? { read, readAgain } : { read };
    return sortLines(sortInput, { memory, tmpdir }, this.#chunks);
  }

  #rowsOnTrust(rows: RoomRows): AsyncGenerator<Buffer, void, undefined> {
    const { ids, flags } = this.groups;
    const finder = new IdFinder(ids);
    // Who takes the rows may skip those of a group that is unreadable.
    const isLookedAt = (group: number): boolean => {
      const index = finder.indexOf(group);
      return index >= 0 && (flags[index] & UNREADABLE) === 0;
    };
    return piecesInOrder(rows.read(isLookedAt), this.#chunks);
  }
}

async function rereadableTables(
  tables: TableInputs,
  temporaryFile: () => Promise<TemporaryFile>,
): Promise<TableInputs> {
  return {
    ...tables,
    state_group_edges: await rereadable(tables.state_group_edges, temporaryFile),
    state_groups_state: await rereadable(tables.state_groups_state, temporaryFile),
  };
}
