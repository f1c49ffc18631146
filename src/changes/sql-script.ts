import { roomOfLine } from '../sinks/among-rooms.js';
import { guardSummary } from '../sinks/sql-guard.js';
import { literal } from '../sinks/sql-literal.js';
import {
  BEGIN,
  BEGIN_LARGE,
  endGroup,
  guardedList,
  LARGE,
  LARGE_LIST,
  LIST,
  LISTED,
  setup,
  swap,
  takeGroup,
} from '../sinks/sql-statements.js';
import type { List } from '../sinks/sql-statements.js';
import type { NewEncoding, RoomChange } from './room-change.js';
import { RowsWriter } from './rows-writer.js';
import type { ScriptLines } from './script-lines.js';

/** How the first line begins. */
export const SQL_FIRST_LINE = '-- Written by synapse_compress_state ';

const COMMENT = '-- ';
const ROOM = /^-- Room ("(?:[^"\\]|\\.)*"), state groups /s;

/**
 * Reads a script that `sqlSink` wrote, of one room or several, and gives each change when its rows are
 * complete. It takes nothing but the sink's own words, so that no statement can be missed or taken for
 * another one.
 */
export async function* readSqlScript(lines: ScriptLines): AsyncGenerator<RoomChange | NewEncoding> {
  const room = await readComment(lines);
  const begin = (await lines.next()).toString();
  lines.back();
  const isGuarded = setup(true).startsWith(`\n${begin}\n`);
  await lines.expect(setup(isGuarded).slice(1));
  yield* isGuarded ? readGuarded(lines, room) : readBare(lines, room);
}

/** Reads the lines at the top and the empty one after them; tells the room. */
async function readComment(lines: ScriptLines): Promise<string> {
  let room: string | undefined;
  for (;;) {
    const line = (await lines.next()).toString();
    if (line === '') break;
    if (!line.startsWith(COMMENT)) throw lines.notAsWritten();
    room ??= roomOf(line);
  }
  if (room === undefined) throw lines.wrong('should follow the name of the room.');
  return room;
}

function roomOf(line: string): string | undefined {
  const [, name] = ROOM.exec(line) ?? [];
  try {
    return name === undefined ? undefined : (JSON.parse(name) as string);
  } catch {
    return undefined;
  }
}

const TAKE =
  /^CALL pg_temp\.take_state_group\((\d{1,16}), .*, (\d{1,16}|NULL), (\d{1,16}|NULL), (\d{1,10}), (-?\d{1,30})\);$/s;
const CHECK = /^CALL pg_temp\.check_state_group\(\d{1,16}, (\d{1,10}), (-?\d{1,30})\);$/;

async function* readGuarded(lines: ScriptLines, firstRoom: string): AsyncGenerator<RoomChange> {
  let room = firstRoom;
  const rows = new RowsWriter();
  for (let groups = 0; ; groups++) {
    await lines.expect('\n');
    room = await roomOfNext(lines, room);
    const name = literal(room);
    const summary = guardSummary(groups).slice(1);
    if (await isNext(lines, summary)) return lines.expect(summary);
    await lines.expect(BEGIN);
    const call = (await lines.next()).toString();
    const group = takenGroup(call);
    if (group === undefined || takeGroup(group, group.oldHash, name) !== `${BEGIN}${call}\n`) {
      throw lines.notAsWritten();
    }
    const { oldHash, ...taken } = group;
    const { stateGroup } = taken;
    const list = guardedList(stateGroup, name);
    let count = 0;
    while (await isNext(lines, list.begin)) count += await readList(lines, list, rows);
    const check = CHECK.exec((await lines.next()).toString());
    if (check === null) throw lines.notAsWritten();
    lines.back();
    const newRows = Number(check[1]);
    const newRowsHash = BigInt(check[2]);
    await lines.expect(endGroup(stateGroup, newRows, newRowsHash));
    if (count !== newRows) {
      throw lines.wrong(
        `ends the changes of state group ${stateGroup} after ${count} of ${newRows} new rows.`,
      );
    }
    const change = { oldHash, newRowsHash, rows: rows.take() };
    yield { room, group: { ...taken, newRows: count, change } };
  }
}

function takenGroup(
  call: string,
): (Parameters<typeof takeGroup>[0] & { readonly oldHash: bigint }) | undefined {
  const fields = TAKE.exec(call);
  if (fields === null) return undefined;
  const [, stateGroup, oldPredecessor, newPredecessor, oldRows, oldHash] = fields;
  return {
    stateGroup: Number(stateGroup),
    oldPredecessor: oldPredecessor === 'NULL' ? undefined : Number(oldPredecessor),
    newPredecessor: newPredecessor === 'NULL' ? undefined : Number(newPredecessor),
    oldRows: Number(oldRows),
    oldHash: BigInt(oldHash),
  };
}

const SWAP =
  /^(?:WITH )?there AS \(SELECT FROM state_groups WHERE id IN \((\d{1,16})(?:, (\d{1,16}))?\)/;

/** Without a guard nothing says where the changes end, other than between two of them. */
async function* readBare(lines: ScriptLines, firstRoom: string): AsyncGenerator<NewEncoding> {
  let room = firstRoom;
  const rows = new RowsWriter();
  for (;;) {
    const line = await lines.nextIfAny();
    if (line === undefined) return;
    lines.back();
    if (line.toString('latin1', 0, COMMENT.length) === COMMENT) return;
    await lines.expect('\n');
    room = await roomOfNext(lines, room);
    const name = literal(room);
    const isLarge = await isNext(lines, BEGIN_LARGE);
    let newRows = 0;
    if (isLarge) {
      await lines.expect(BEGIN_LARGE);
      do newRows += await readList(lines, LARGE_LIST, rows);
      while (await isNext(lines, LARGE_LIST.begin));
      await lines.expect('\n');
    } else if (await isNext(lines, LIST.begin)) {
      newRows = await readList(lines, LIST, rows);
    }
    const [, group, predecessor] = SWAP.exec((await lines.next()).toString()) ?? [];
    lines.back();
    const stateGroup = Number(group);
    const newPredecessor = predecessor === undefined ? undefined : Number(predecessor);
    const change = { stateGroup, newPredecessor, newRows };
    await lines.expect(swap(change, name, isLarge ? LARGE : LISTED));
    yield { room, group: { stateGroup, newPredecessor, change: { rows: rows.take() } } };
  }
}

/** Reads the line before the changes of a further room and the empty one after it, if it comes; tells the room. */
async function roomOfNext(lines: ScriptLines, room: string): Promise<string> {
  const next = roomOfLine((await lines.next()).toString());
  if (next === undefined) lines.back();
  else await lines.expect('\n');
  return next ?? room;
}

/** Whether the next line is the text's first one. */
async function isNext(lines: ScriptLines, text: string): Promise<boolean> {
  const line = (await lines.next()).toString();
  lines.back();
  return text.startsWith(`${line}\n`);
}

/** Returns how many rows the list has. */
async function readList(
  lines: ScriptLines,
  { begin, end }: List,
  rows: RowsWriter,
): Promise<number> {
  await lines.expect(begin);
  const [last] = end.split('\n', 1);
  for (let count = 1; ; count++) {
    const line = lines.ready() ?? (await lines.next());
    const rest = rows.addLiterals(line);
    if (rest < 0) throw lines.notAsWritten();
    const follows = line.toString('latin1', rest);
    if (follows === ',') continue;
    if (follows !== last) throw lines.notAsWritten();
    if (last.length + 1 < end.length) await lines.expect(end.slice(last.length + 1));
    return count;
  }
}
