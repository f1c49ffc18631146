import { InputError } from '../errors.js';
import type { ChangedGroup } from '../planner/planned-group.js';
import { END_OF_COPY, FIRST_LINE, LAST_LINE, lastLine } from '../sinks/copy.js';
import type { Input } from '../sources/files/input.js';
import { LineReader } from './line-reader.js';
import { COPY_CHANGES, COPY_ROWS } from './rewrite-procedure.js';

const LINE_FEED = 10;

/** A change as a file has it, and the room that it is of. */
export interface RoomChange {
  readonly room: string;
  readonly group: ChangedGroup;
}

/**
 * Reads scripts that `copySink` wrote, one or several after each other, and gives each change when its
 * rows are complete. No more is held than the changes of a batch without their rows, and one group's rows.
 *
 * @throws InputError that names the line where the text is not what it should be, or says that it is cut
 *   off; what was given before is complete
 */
export async function* readChanges(
  input: Pick<Input, 'read' | 'place'>,
): AsyncGenerator<RoomChange> {
  const lines = new LineReader(input.read());
  const wrong = (what: string): InputError =>
    new InputError(`${input.place(Math.max(0, lines.count - 1))} ${what}`);
  try {
    for (;;) {
      const line = await lines.next();
      if (line === undefined) {
        if (lines.hasRest) throw wrong('is the last whole line: the file was cut off after it.');
        if (lines.count === 0) throw notOurs(input.place(0), '');
        return;
      }
      if (line.length === 0 && lines.count > 1) continue;
      const room = roomOf(line.toString());
      if (room === undefined)
        throw notOurs(input.place(lines.count - 1), line.toString('utf8', 0, 80));
      yield* readScript(room, lines, wrong);
    }
  } finally {
    await lines.close();
  }
}

async function* readScript(
  room: string,
  lines: LineReader,
  wrong: (what: string) => InputError,
): AsyncGenerator<RoomChange> {
  const next = async (): Promise<Buffer> => {
    const line = await lines.next();
    if (line !== undefined) return line;
    throw wrong(
      `is the last, but the changes of room '${room}' go on after it: the file was cut off. Make it or copy it again.`,
    );
  };
  let groups = 0;
  let rows = 0;
  for (;;) {
    const line = (lines.ready() ?? (await next())).toString();
    if (line.startsWith(LAST_LINE)) {
      if (line === lastLine(groups, rows)) return;
      throw wrong(
        `says how many changes of room '${room}' there are, and ${groups} state groups with ${rows} rows were found: parts of the file are missing.`,
      );
    }
    if (line.startsWith(FIRST_LINE)) {
      throw wrong(`begins other changes, before those of room '${room}' have come to their end.`);
    }
    // What stands between batches is for psql.
    if (line !== `${COPY_CHANGES};`) continue;

    const batch: PlannedChange[] = [];
    for (;;) {
      const text = (lines.ready() ?? (await next())).toString();
      if (text === END_OF_COPY) break;
      const change = parseChange(text);
      if (change === undefined) throw wrong('is no change of a state group.');
      batch.push(change);
    }
    if (!(await next()).equals(ROWS_BEGIN)) throw wrong('should begin the rows of the changes.');
    for (const { oldRowsHash, newRowsHash, ...group } of batch) {
      const text = new RowText(group.stateGroup);
      for (let row = 0; row < group.newRows; row++) {
        const rowLine = lines.ready() ?? (await next());
        if (!text.add(rowLine)) throw wrong(`is no row of state group ${group.stateGroup}.`);
      }
      groups++;
      rows += group.newRows;
      yield { room, group: { ...group, change: { oldRowsHash, newRowsHash, rows: text.bytes() } } };
    }
    if (!(await next()).equals(ROWS_END)) throw wrong('should end the rows of the changes.');
  }
}

const ROWS_BEGIN = Buffer.from(`${COPY_ROWS};`);
const ROWS_END = Buffer.from(END_OF_COPY);

/** Rows of a group, without the state group that each line begins with. */
class RowText {
  readonly #prefix: Buffer;
  #bytes = Buffer.alloc(0);
  #length = 0;

  constructor(stateGroup: number) {
    this.#prefix = Buffer.from(`${stateGroup}\t`);
  }

  /** False if the line is of another group. */
  add(line: Buffer): boolean {
    const prefix = this.#prefix;
    if (line.length < prefix.length || prefix.compare(line, 0, prefix.length) !== 0) return false;
    const needed = this.#length + line.length - prefix.length + 1;
    if (needed > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(Math.max(1024, 2 * needed));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    line.copy(this.#bytes, this.#length, prefix.length);
    this.#bytes[needed - 1] = LINE_FEED;
    this.#length = needed;
    return true;
  }

  bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }
}

type PlannedChange = Omit<ChangedGroup, 'change'> &
  Pick<ChangedGroup['change'], 'oldRowsHash' | 'newRowsHash'>;

const CHANGE =
  /^(\d{1,16})\t(\d{1,16}|\\N)\t(\d{1,16}|\\N)\t(\d{1,10})\t(-?\d{1,30})\t(\d{1,10})\t(-?\d{1,30})$/;

function parseChange(line: string): PlannedChange | undefined {
  const fields = CHANGE.exec(line);
  if (fields === null) return undefined;
  const [, stateGroup, oldPredecessor, newPredecessor, oldRows, oldHash, newRows, newHash] = fields;
  return {
    stateGroup: Number(stateGroup),
    oldPredecessor: oldPredecessor === '\\N' ? undefined : Number(oldPredecessor),
    newPredecessor: newPredecessor === '\\N' ? undefined : Number(newPredecessor),
    oldRows: Number(oldRows),
    newRows: Number(newRows),
    oldRowsHash: BigInt(oldHash),
    newRowsHash: BigInt(newHash),
  };
}

function roomOf(line: string): string | undefined {
  if (!line.startsWith(FIRST_LINE)) return undefined;
  try {
    const room: unknown = JSON.parse(line.slice(FIRST_LINE.length));
    return typeof room === 'string' ? room : undefined;
  } catch {
    return undefined;
  }
}

function notOurs(place: string, line: string): InputError {
  const advice = 'Changes are made with --format copy, or applied at once with -c.';
  if (line.startsWith('-- Written by synapse_compress_state')) {
    return new InputError(
      `${place} begins changes in the format sql, which psql applies. For apply they have to be in the format copy. ${advice}`,
    );
  }
  if (line === '') {
    return new InputError(`${place} is empty: there are no changes in it. ${advice}`);
  }
  return new InputError(
    `${place} is not how changes in the format copy begin: it is another kind of file, or of another version of this program. ${advice}`,
  );
}
