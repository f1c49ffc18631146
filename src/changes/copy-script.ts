import type { ChangedGroup } from '../planner/planned-group.js';
import { changeLine } from '../sinks/batch-text.js';
import { roomOfLine } from '../sinks/among-rooms.js';
import { COPY_CHANGES, COPY_ROWS } from '../sinks/rewrite-procedure.js';
import {
  END_OF_COPY,
  FIRST_LINE,
  LAST_LINE,
  lastLine,
  REWRITE,
  rewriteRoom,
} from '../sinks/copy.js';
import type { RoomChange } from './room-change.js';
import { RowsWriter } from './rows-writer.js';
import type { ScriptLines } from './script-lines.js';

/**
 * Reads a script that `copySink` wrote, whose first line was taken, and gives each change when its rows are
 * complete. No more is held than the changes of a batch without their rows, and one group's rows.
 */
export async function* readCopyScript(
  firstRoom: string,
  lines: ScriptLines,
): AsyncGenerator<RoomChange> {
  let room = firstRoom;
  let groups = 0;
  let rows = 0;
  const newRows = new RowsWriter();
  for (;;) {
    const line = (lines.ready() ?? (await lines.next())).toString();
    if (line.startsWith(LAST_LINE)) {
      if (line === lastLine(groups, rows)) return;
      throw lines.wrong(
        `says how many changes there are, and ${groups} state groups with ${rows} rows were found: parts of the file are missing.`,
      );
    }
    if (line.startsWith(FIRST_LINE)) {
      throw lines.wrong(
        `begins other changes, before those of room '${room}' have come to their end.`,
      );
    }
    room = roomOfLine(line) ?? room;
    if (line.startsWith(REWRITE) && line !== rewriteRoom(room)) {
      throw lines.wrong(`is for another room than '${room}', of which the changes before it are.`);
    }
    if (line === `${COPY_CHANGES};\r`) {
      throw lines.wrong('ends with a carriage return, as on Windows: copy the file as it is.');
    }
    // What stands between batches is for psql.
    if (line !== `${COPY_CHANGES};`) continue;

    const batch: ChangedGroup[] = [];
    for (;;) {
      const listed = (lines.ready() ?? (await lines.next())).toString();
      if (listed === END_OF_COPY) break;
      const change = parseChange(listed);
      if (change === undefined) throw lines.wrong('is no change of a state group.');
      batch.push(change);
    }
    if (!(await lines.next()).equals(ROWS_BEGIN))
      throw lines.wrong('should begin the rows of the changes.');
    for (const group of batch) {
      const prefix = Buffer.from(`${group.stateGroup}\t`);
      for (let row = 0; row < group.newRows; row++) {
        const rowLine = lines.ready() ?? (await lines.next());
        const isOfGroup =
          rowLine.length >= prefix.length && prefix.compare(rowLine, 0, prefix.length) === 0;
        if (!isOfGroup || !newRows.addCopyText(rowLine, prefix.length)) {
          throw lines.wrong(`is no row of state group ${group.stateGroup}.`);
        }
      }
      groups++;
      rows += group.newRows;
      yield { room, group: { ...group, change: { ...group.change, rows: newRows.take() } } };
    }
    if (!(await lines.next()).equals(ROWS_END))
      throw lines.wrong('should end the rows of the changes.');
  }
}

const ROWS_BEGIN = Buffer.from(`${COPY_ROWS};`);
const ROWS_END = Buffer.from(END_OF_COPY);

const NO_ROWS = Buffer.alloc(0);
const CHANGE =
  /^(\d{1,16})\t(\d{1,16}|\\N)\t(\d{1,16}|\\N)\t(\d{1,10})\t(-?\d{1,30})\t(\d{1,10})\t(-?\d{1,30})$/;

/** A change without its rows. */
function parseChange(line: string): ChangedGroup | undefined {
  const fields = CHANGE.exec(line);
  if (fields === null) return undefined;
  const [, stateGroup, oldPredecessor, newPredecessor, oldRows, oldHash, newRows, newHash] = fields;
  const group = {
    stateGroup: Number(stateGroup),
    oldPredecessor: oldPredecessor === '\\N' ? undefined : Number(oldPredecessor),
    newPredecessor: newPredecessor === '\\N' ? undefined : Number(newPredecessor),
    oldRows: Number(oldRows),
    newRows: Number(newRows),
    change: { oldHash: BigInt(oldHash), newRowsHash: BigInt(newHash), rows: NO_ROWS },
  };
  // A number that is too large would be another one here.
  return changeLine(group) === `${line}\n` ? group : undefined;
}

/** The room that a script's first line names; undefined if it is no such line. */
export function roomOfCopyScript(line: string): string | undefined {
  if (!line.startsWith(FIRST_LINE)) return undefined;
  try {
    const room: unknown = JSON.parse(line.slice(FIRST_LINE.length));
    return typeof room === 'string' ? room : undefined;
  } catch {
    return undefined;
  }
}
