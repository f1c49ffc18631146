import { transform } from 'through2';
import type { Transform } from 'node:stream';
import { roomLine, type AmongRooms } from './among-rooms.js';
import { isChanged } from '../planner/planned-group.js';
import type { ChangedGroup, PlannedGroup } from '../planner/planned-group.js';
import { LEAST_PIECE, PIECE } from './output-writer.js';
import { guardSummary } from './sql-guard.js';
import { comment, literal, SqlWriter } from './sql-literal.js';
import {
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
} from './sql-statements.js';
import type { List } from './sql-statements.js';

/** Rows of one statement: few enough that a small server parses it with ease. */
const ROWS_PER_STATEMENT = 1000;
/** Bytes after which a statement takes no further row, for the same reason. */
const BYTES_PER_STATEMENT = PIECE;

export interface SqlSettings {
  readonly room: string;
  /** Wraps each group's statements in a transaction that skips the group if it is no longer as read. */
  readonly transactions: boolean;
  /** Lines for the comment at the top: what made the file, from what. */
  readonly header: readonly string[];
  /** If the script is of several rooms: then with transactions it ends with `guardSummary`, which the sink does not write. */
  readonly amongRooms?: AmongRooms;
}

/**
 * The sink that writes changes as SQL for psql or any other client: arrays of planned groups in, bytes
 * out. Nothing is written for a group that stays as it is. A group's SQL comes in pieces, each when it
 * is asked for, so that no more than a piece and a statement is held however large the group is.
 */
export function sqlSink({ room, transactions, header, amongRooms }: SqlSettings): Transform {
  return transform(
    { writableObjectMode: true, writableHighWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      const sql = new SqlWriter();
      const roomLiteral = literal(room);
      const write = transactions ? writeGuarded : writeBare;
      let groups = 0;
      for await (const planned of source) {
        for (const group of planned) {
          if (!isChanged(group)) continue;
          if (groups === 0) {
            sql.write(
              amongRooms === 'further'
                ? `\n${roomLine(room)}`
                : comment(header) + setup(transactions),
            );
          }
          groups++;
          yield* write(sql, roomLiteral, group);
        }
        if (sql.length >= LEAST_PIECE) yield sql.take();
      }
      if (groups > 0 && transactions && amongRooms === undefined) sql.write(guardSummary(groups));
      if (sql.length > 0) yield sql.take();
    },
  ) as Transform;
}

/**
 * One statement swaps a group's edges and rows, and is no statement wherever it is cut off: psql runs what
 * it has at the end of its input, and `psql -1` commits it.
 */
function* writeBare(sql: SqlWriter, room: string, group: ChangedGroup): Generator<Buffer> {
  const { newRows, change } = group;
  // Quoting can double a row, so half the bytes make one statement for certain.
  const isLarge = newRows > ROWS_PER_STATEMENT || 2 * change.rows.length > BYTES_PER_STATEMENT;
  sql.write(isLarge ? `\n${BEGIN_LARGE}` : '\n');
  yield* writeRows(sql, group, isLarge ? LARGE_LIST : LIST);
  sql.write(`${isLarge ? '\n' : ''}${swap(group, room, isLarge ? LARGE : LISTED)}`);
}

/** A transaction a group, whose statements do nothing if the guard lets the group alone. */
function* writeGuarded(sql: SqlWriter, room: string, group: ChangedGroup): Generator<Buffer> {
  const { stateGroup, newRows, change } = group;
  sql.write(`\n${takeGroup(group, change.oldHash, room)}`);
  yield* writeRows(sql, group, guardedList(stateGroup, room));
  sql.write(endGroup(stateGroup, newRows, change.newRowsHash));
}

/** Writes all rows in lists of bounded size. */
function* writeRows(
  sql: SqlWriter,
  { newRows, change: { rows } }: ChangedGroup,
  { begin, end }: List,
): Generator<Buffer> {
  let at = 0;
  for (let row = 0; row < newRows;) {
    const full = sql.length + BYTES_PER_STATEMENT;
    const last = Math.min(row + ROWS_PER_STATEMENT, newRows);
    sql.write(`${begin}(`);
    at = sql.row(rows, at);
    for (row++; row < last && sql.length < full; row++) {
      sql.write('),\n(');
      at = sql.row(rows, at);
    }
    sql.write(`)${end}`);
    if (sql.length >= PIECE) yield sql.take();
  }
}
