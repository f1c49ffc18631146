import { transform } from 'through2';
import type { Transform } from 'node:stream';
import type { PlannedGroup } from '../planner/planned-group.js';
import { LEAST_PIECE, PIECE } from './output-writer.js';
import { literal, SqlWriter } from './sql-literal.js';
import { GUARD_DEFINITION, GUARD_SUMMARY, PASSED } from './sql-guard.js';

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
}

/**
 * The sink that writes changes as SQL for psql or any other client: arrays of planned groups in, bytes
 * out. Nothing is written for a group that stays as it is. A group's SQL comes in pieces, each when it
 * is asked for, so that no more than a piece and a statement is held however large the group is.
 */
export function sqlSink({ room, transactions, header }: SqlSettings): Transform {
  return transform(
    { writableObjectMode: true, writableHighWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      const sql = new SqlWriter();
      const roomLiteral = literal(room);
      const write = transactions ? writeGuarded : writeBare;
      let begun = false;
      for await (const planned of source) {
        for (const group of planned) {
          if (group.change === undefined) continue;
          if (!begun) writeHeader(sql, header, transactions);
          begun = true;
          yield* write(sql, roomLiteral, group, group.change.rows);
        }
        if (sql.length >= LEAST_PIECE) yield sql.take();
      }
      if (begun && transactions) sql.write(GUARD_SUMMARY);
      if (sql.length > 0) yield sql.take();
    },
  ) as Transform;
}

function writeHeader(sql: SqlWriter, header: readonly string[], transactions: boolean): void {
  for (const line of header) sql.write(`-- ${line.replace(/[\r\n]/g, ' ')}\n`);
  // In a transaction, so that it stands also where a client opens one before the first statement.
  if (transactions) sql.write('\nBEGIN;');
  sql.write("\nSET client_encoding = 'UTF8';\n");
  sql.write(
    transactions
      ? `${GUARD_DEFINITION}COMMIT;\n`
      : `CREATE TEMPORARY TABLE IF NOT EXISTS ${LARGE} (type text, state_key text, event_id text);\n`,
  );
}

const INSERT = 'INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)';
/** A table of the session's own, for the rows of a bare change that are too many for one statement. */
const LARGE = 'synapse_compress_state_rows';

/**
 * One statement swaps a group's edge and rows, and is no statement wherever it is cut off: psql runs what
 * it has at the end of its input, and `psql -1` commits it.
 */
function* writeBare(
  sql: SqlWriter,
  room: string,
  group: PlannedGroup,
  rows: Buffer,
): Generator<Buffer> {
  const { stateGroup, oldPredecessor, newPredecessor, newRows } = group;
  // Quoting can double a row, so half the bytes make one statement for certain.
  const isLarge = newRows > ROWS_PER_STATEMENT || 2 * rows.length > BYTES_PER_STATEMENT;
  if (isLarge) {
    sql.write('\n');
    yield* writeRows(sql, group, rows, `INSERT INTO ${LARGE} VALUES`, ';\n');
  }
  sql.write('\nWITH ');
  if (newPredecessor === undefined) {
    sql.write(`old_edge AS (DELETE FROM state_group_edges WHERE state_group = ${stateGroup}),\n`);
  } else if (newPredecessor !== oldPredecessor) {
    sql.write(
      `old_edge AS (DELETE FROM state_group_edges WHERE state_group = ${stateGroup} AND prev_state_group <> ${newPredecessor}),
new_edge AS (INSERT INTO state_group_edges (state_group, prev_state_group) VALUES (${stateGroup}, ${newPredecessor}) ON CONFLICT DO NOTHING),\n`,
    );
  }
  sql.write(
    `old_rows AS (DELETE FROM state_groups_state WHERE state_group = ${stateGroup} RETURNING *)\n${INSERT}\n`,
  );
  if (newRows === 0) {
    sql.write(
      'SELECT state_group, room_id, type, state_key, event_id FROM old_rows WHERE false;\n',
    );
  } else if (isLarge) {
    sql.write(
      `SELECT ${stateGroup}, ${room}, type, state_key, event_id FROM ${LARGE};\nTRUNCATE ${LARGE};\n`,
    );
  } else {
    const select = `SELECT ${stateGroup}, ${room}, type, state_key, event_id FROM (VALUES`;
    yield* writeRows(sql, group, rows, select, '\n) AS rows (type, state_key, event_id);\n');
  }
}

/** A transaction a group, whose statements do nothing if the guard lets the group alone. */
function* writeGuarded(
  sql: SqlWriter,
  room: string,
  group: PlannedGroup,
  rows: Buffer,
): Generator<Buffer> {
  const { stateGroup, oldPredecessor, newPredecessor, oldRows, change } = group;
  sql.write(
    `\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nCALL pg_temp.take_state_group(${stateGroup}, ${room}, ${oldPredecessor ?? 'NULL'}, ${newPredecessor ?? 'NULL'}, ${oldRows}, ${change?.oldRowsHash});\n`,
  );
  yield* writeRows(
    sql,
    group,
    rows,
    `${INSERT}\nSELECT ${stateGroup}, ${room}, type, state_key, event_id FROM (VALUES`,
    `\n) AS rows (type, state_key, event_id)\nWHERE ${PASSED};\n`,
  );
  sql.write('COMMIT;\n');
}

/** Writes all rows in statements of bounded size, each with `before` and `after` around its rows. */
function* writeRows(
  sql: SqlWriter,
  { newRows }: PlannedGroup,
  rows: Buffer,
  before: string,
  after: string,
): Generator<Buffer> {
  let at = 0;
  for (let row = 0; row < newRows;) {
    const full = sql.length + BYTES_PER_STATEMENT;
    const last = Math.min(row + ROWS_PER_STATEMENT, newRows);
    sql.write(`${before}\n(`);
    at = sql.row(rows, at);
    for (row++; row < last && sql.length < full; row++) {
      sql.write('),\n(');
      at = sql.row(rows, at);
    }
    sql.write(`)${after}`);
    if (sql.length >= PIECE) yield sql.take();
  }
}
