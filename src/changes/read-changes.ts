import { InputError } from '../errors.js';
import { readCopyScript, roomOfCopyScript } from './copy-script.js';
import { readJsonLines } from './json-lines.js';
import { NO_CHANGES, NO_CHANGES_IN_JSON } from '../sinks/no-changes.js';
import type { ChangeInput, NewEncoding, RoomChange } from './room-change.js';
import { ScriptLines } from './script-lines.js';
import { readSqlScript, SQL_FIRST_LINE } from './sql-script.js';

const OPENING_BRACE = 123;

/**
 * Reads changes that can be applied beside a running Synapse: those of `readEncodings`, unless they are
 * SQL without guards.
 *
 * @throws InputError as `readEncodings`, and for such SQL before anything is given
 */
export async function* readChanges(input: ChangeInput): AsyncGenerator<RoomChange> {
  for await (const change of readEncodings(input)) {
    if (!isGuarded(change)) {
      throw new InputError(
        `${input.place(0)} begins changes that are for a stopped Synapse and psql: psql -1 -v ON_ERROR_STOP=1 -f FILE. Changes for apply are made with -t, or with --format copy or jsonl.`,
      );
    }
    yield change;
  }
}

function isGuarded(change: RoomChange | NewEncoding): change is RoomChange {
  return 'oldRows' in change.group;
}

/**
 * Reads changes as sql, copy or jsonl, which the content tells; of several rooms, one after the other, if
 * need be. Gives each change when its rows are complete; no more is held than the changes of a batch
 * without their rows, and one group's rows.
 *
 * @throws InputError that names the line where the text is not what it should be, or says that it is cut
 *   off; what was given before is complete
 */
export async function* readEncodings(input: ChangeInput): AsyncGenerator<RoomChange | NewEncoding> {
  const chunks = input.read()[Symbol.asyncIterator]();
  const place = (index: number): string => input.place(index);
  try {
    let head: IteratorResult<Buffer, unknown>;
    do head = await chunks.next();
    while (head.done !== true && head.value.length === 0);
    if (head.done === true) {
      throw new InputError(`${place(0)} is empty: there are no changes in it.`);
    }
    const all = beginning(head.value, chunks);
    if (head.value[0] === OPENING_BRACE) yield* readJsonLines(all, place);
    else yield* readScripts(new ScriptLines(all, place));
  } finally {
    await chunks.return?.();
  }
}

async function* readScripts(lines: ScriptLines): AsyncGenerator<RoomChange | NewEncoding> {
  for (;;) {
    const first = (await lines.nextIfAny())?.toString();
    if (first === undefined) return;
    const room = roomOfCopyScript(first);
    if (room !== undefined) yield* readCopyScript(room, lines);
    else if (first.startsWith(SQL_FIRST_LINE)) yield* readSqlScript(lines);
    else if (first !== NO_CHANGES && first !== NO_CHANGES_IN_JSON) {
      throw lines.wrong(
        'is not how changes begin that synapse_compress_state writes as sql, copy or jsonl: it is another kind of file, or of another version.',
      );
    }
  }
}

async function* beginning(head: Buffer, rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer> {
  yield head;
  for (;;) {
    const chunk = await rest.next();
    if (chunk.done === true) return;
    yield chunk.value;
  }
}
