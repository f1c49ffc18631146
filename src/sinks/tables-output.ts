import { rmSync } from 'node:fs';
import { mkdir, readdir, rename, writeFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { copyLines, numberAt } from '../sources/files/copy-lines.js';
import type { Input } from '../sources/files/input.js';
import type { StateTable } from '../sources/files/state-table.js';
import { IdFinder, IdList } from '../sources/id-list.js';
import { TemporaryFile } from '../temporary-file.js';
import type { StoredTables } from '../sources/stored-tables.js';
import { codeOf, OutputError } from '../errors.js';
import { outputError } from '../output-error.js';
import { hiddenBeside } from './file-output.js';
import type { OpenOutput, SpoolSettings } from './output.js';
import { swapScript, type TableSwap } from './swap-script.js';
import { TableDigest } from './table-digest.js';
import { TableFile } from './table-file.js';
import { CHANGED } from './tables.js';

const LINE_FEED = 10;
const TAB = 9;

export interface TablesSettings extends SpoolSettings {
  /** Asked when the output is kept, for the tables as they are stored. */
  readonly stored: () => StoredTables;
  /** Lines for the comment at the top of the script. */
  readonly header: readonly string[];
}

/**
 * Opens a folder that appears with `keep()`, with a new `state_group_edges.copy` and
 * `state_groups_state.copy` and a script, `swap.sql`, that puts them in the place of what is stored. Takes
 * what `tablesSink` writes. What is stored passes through line by line, but for the edges and rows of
 * groups that change; the new ones come behind. Holds 8 bytes for each changed group.
 *
 * @throws OutputError if the folder is there already, or can't be made
 */
export async function openTablesOutput(
  path: string,
  { tmpdir, signal, stored, header }: TablesSettings,
): Promise<OpenOutput> {
  const target = resolve(path);
  const hidden = hiddenBeside(target);
  let spool: TemporaryFile;
  try {
    await checkFree(target);
    await mkdir(hidden);
    spool = await TemporaryFile.create(tmpdir);
  } catch (error) {
    rmSync(hidden, { recursive: true, force: true });
    throw explained(path, error);
  }
  let bytes = 0;
  let done = false;
  const stream = spool.writable();
  return {
    name: path,
    isFile: false,
    stream,
    get bytes() {
      return bytes;
    },
    sentBytes: 0,
    isCutOff: false,
    async keep() {
      try {
        const tables = new NewTables(hidden, spool, stored(), signal);
        bytes = await tables.write();
        const script = Buffer.from(swapScript(basename(target), header, tables.swaps));
        await writeFile(join(hidden, 'swap.sql'), script, { flush: true });
        bytes += script.length;
        await rename(hidden, target);
        done = true;
        await spool.close();
      } catch (error) {
        throw explained(path, error);
      }
    },
    async discard() {
      if (done) return;
      done = true;
      // Before anything is awaited: this also runs when the process is about to exit.
      rmSync(hidden, { recursive: true, force: true });
      stream.destroy();
      await spool.close();
      // A file that was about to be made may have been made since.
      rmSync(hidden, { recursive: true, force: true });
    },
  };
}

/** @throws OutputError unless nothing or an empty folder is there */
async function checkFree(path: string): Promise<void> {
  let entries: string[];
  try {
    entries = await readdir(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return;
    if (codeOf(error) !== 'ENOTDIR') throw error;
    throw new OutputError(`Can't write ${path}: it is a file, and --format tables makes a folder.`);
  }
  if (entries.length > 0) {
    throw new OutputError(`Can't write ${path}: the folder is there already. Name a new one.`);
  }
}

/** Only what the system says of the folder is explained: errors of the tables are sentences already. */
function explained(path: string, error: unknown): unknown {
  const isSystems = error instanceof Error && 'syscall' in error;
  return isSystems ? outputError(path, error, 'Free some, or name another disk.') : error;
}

/** Writes the two files. */
class NewTables {
  /** What the tables were and are. */
  readonly swaps: TableSwap[] = [];
  readonly #folder: string;
  readonly #changes: TemporaryFile;
  readonly #stored: StoredTables;
  readonly #signal: AbortSignal | undefined;
  #changed: Float64Array = new Float64Array(0);

  constructor(
    folder: string,
    changes: TemporaryFile,
    stored: StoredTables,
    signal: AbortSignal | undefined,
  ) {
    this.#folder = folder;
    this.#changes = changes;
    this.#stored = stored;
    this.#signal = signal;
  }

  /** Returns the bytes that the files have. */
  async write(): Promise<number> {
    const changed = new IdList();
    for await (const { bytes, starts, count } of linesOf(this.#changes)) {
      for (let i = 0; i < count; i++) {
        if (bytes[starts[i]] === CHANGED) changed.add(groupAt(bytes, starts[i] + 1));
      }
    }
    this.#changed = changed.sorted();
    const { edges, rows } = this.#stored;
    return (
      (await this.#table('state_group_edges', edges)) +
      (await this.#table('state_groups_state', rows))
    );
  }

  async #table(table: 'state_group_edges' | 'state_groups_state', stored: Input): Promise<number> {
    const file = await TableFile.create(this.#folder, `${table}.copy`);
    try {
      const before = new TableDigest();
      const after = new TableDigest();
      await this.#copyUnchanged(table, stored, file, before, after);
      await this.#addNew(table, file, after);
      this.swaps.push({ table, before, after });
      await file.end();
      return file.length;
    } finally {
      await file.close();
    }
  }

  /** Copies the lines of groups that do not change. */
  async #copyUnchanged(
    table: StateTable,
    stored: Input,
    file: TableFile,
    before: TableDigest,
    after: TableDigest,
  ): Promise<void> {
    const changed = new IdFinder(this.#changed);
    let group = NaN;
    let isKept = false;
    for await (const { bytes, count, starts, groups } of copyLines(stored, table)) {
      this.#signal?.throwIfAborted();
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      // Neighbours are copied in one go.
      let from = starts[0];
      for (let i = 0; i < count; i++) {
        const start = starts[i];
        if (groups[i] !== group) {
          group = groups[i]!;
          const wasKept: boolean = isKept;
          isKept = !changed.has(group);
          if (isKept !== wasKept) {
            if (wasKept) await file.add(bytes.subarray(from, start));
            from = start;
          }
        }
        before.add(group, bytes, view, start, starts[i + 1] - 1);
        if (isKept) after.add(group, bytes, view, start, starts[i + 1] - 1);
      }
      if (isKept) await file.add(bytes.subarray(from, starts[count]));
    }
  }

  /** Adds the edges or rows that changed groups have now. */
  async #addNew(table: StateTable, file: TableFile, after: TableDigest): Promise<void> {
    const isOfEdges = table === 'state_group_edges';
    for await (const { bytes, count, starts } of linesOf(this.#changes)) {
      this.#signal?.throwIfAborted();
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (let i = 0; i < count; i++) {
        const isEdge = bytes[starts[i]] === CHANGED;
        if (isEdge !== isOfEdges) continue;
        const start = isEdge ? starts[i] + 1 : starts[i];
        const end = starts[i + 1];
        // A group that has no predecessor has no edge.
        if (isEdge && !bytes.subarray(start, end).includes(TAB)) continue;
        await file.add(bytes.subarray(start, end));
        after.add(groupAt(bytes, start), bytes, view, start, end - 1);
      }
    }
  }
}

/** The number that begins at `start`. */
function groupAt(bytes: Uint8Array, start: number): number {
  let end = start;
  while (bytes[end] !== TAB && bytes[end] !== LINE_FEED) end++;
  return numberAt(bytes, start, end);
}

/** Whole lines of a file that ends with one. All of it is used again for the next lines. */
async function* linesOf(
  file: TemporaryFile,
): AsyncGenerator<{ bytes: Buffer; count: number; starts: number[] }> {
  let left = Buffer.alloc(0);
  for await (const chunk of file.chunks()) {
    const bytes = Buffer.concat([left, chunk]);
    const starts = [0];
    for (let at = 0; (at = bytes.indexOf(LINE_FEED, at) + 1) > 0;) starts.push(at);
    yield { bytes, count: starts.length - 1, starts };
    left = bytes.subarray(starts.at(-1));
  }
}
