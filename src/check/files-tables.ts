import type { Readable } from 'node:stream';
import { InputError } from '../errors.js';
import { copyLines } from '../sources/files/copy-lines.js';
import { findInputs } from '../sources/files/find-inputs.js';
import type { Input } from '../sources/files/input.js';
import { RoomColumn } from '../sources/files/room-column.js';
import { Work } from '../sources/files/work.js';
import { IdFinder } from '../sources/id-list.js';
import { Pieces } from '../sources/sort/pieces.js';
import { sortLines } from '../sources/sort/sort-lines.js';
import type { StateTables } from './check-tables.js';

export interface FilesTablesSettings {
  /** Files, folders, and `-` for standard input, as `openFilesSource` takes them. */
  readonly inputs: readonly string[];
  readonly stdin: Readable;
  readonly room: string | undefined;
  /** Bytes for the sort's buffers. */
  readonly memory: number;
  /** Folder for temporary files. */
  readonly tmpdir: string;
  readonly signal: AbortSignal;
}

/**
 * Opens exports of the three tables. Rows that are not in order of state group are sorted.
 *
 * @throws InputError if the inputs are not these tables, OutputError if a temporary file can't be written
 */
export async function openFilesTables(settings: FilesTablesSettings): Promise<StateTables> {
  const { inputs, stdin, room, memory, tmpdir, signal } = settings;
  const work = new Work(tmpdir, signal);
  try {
    const temporaryFile = () => work.temporaryFile();
    const given = { inputs, tables: {}, stdin };
    const { tables } = await findInputs(given, temporaryFile, work.signal);
    const { state_groups, state_group_edges, state_groups_state: rows } = tables;
    if (state_groups === undefined) {
      throw new InputError(
        `None of the inputs (${inputs.join(', ')}) holds state_groups, without which it is not known which groups there are. Export it as well.`,
      );
    }
    return {
      groups: state_groups,
      edges: state_group_edges,
      rows: (wanted) => ({
        name: rows.name,
        rereadable: false,
        place: (index) => `Row ${index + 1} of ${rows.name}, in order,`,
        read: () =>
          sortLines(
            {
              read: () => wantedLines(rows, room, wanted),
              ...(rows.rereadable && !rows.isSlow && { readAgain: () => rows.read() }),
            },
            { memory, tmpdir },
          ),
      }),
      close: () => work.end(),
    };
  } catch (error) {
    await work.end();
    throw error;
  }
}

/** The lines of the wanted groups and those that name the room; without a room all lines. */
async function* wantedLines(
  rows: Input,
  room: string | undefined,
  wanted: Float64Array | undefined,
): AsyncGenerator<Pieces, void, undefined> {
  const finder = wanted && new IdFinder(wanted);
  const column = room === undefined ? undefined : new RoomColumn(room);
  const pieces = new Pieces();
  for await (const lines of copyLines(rows, 'state_groups_state')) {
    const { bytes, count, starts, groups } = lines;
    pieces.reset(bytes, lines.position);
    for (let i = 0; i < count; i++) {
      const isWanted = finder?.has(groups[i]) ?? true;
      if (isWanted || column?.holdsRoom(bytes, starts[i])) {
        pieces.add(groups[i], starts[i], starts[i + 1]);
      }
    }
    if (pieces.count > 0) yield pieces;
  }
}
