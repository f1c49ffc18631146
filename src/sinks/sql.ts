import { transform } from 'through2';
import type { Transform } from 'node:stream';
import type { PlannedGroup } from '../planner/planned-group.js';
import { PIECE } from './output-writer.js';
import { literal, SqlWriter } from './sql-literal.js';
import { GUARD_DEFINITION, GUARD_SUMMARY, PASSED } from './sql-guard.js';

/** Rows of one INSERT: few enough that a small server parses it with ease. */
const ROWS_PER_INSERT = 1000;
/** Bytes after which an INSERT takes no further row, for the same reason. */
const BYTES_PER_INSERT = PIECE;

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
      for (const line of header) sql.write(`-- ${line.replace(/[\r\n]/g, ' ')}\n`);
      // In a transaction, so that it stands also where a client opens one before the first statement.
      if (transactions) sql.write('\nBEGIN;');
      sql.write("\nSET client_encoding = 'UTF8';\n");
      if (transactions) sql.write(`${GUARD_DEFINITION}COMMIT;\n`);

      const roomLiteral = literal(room);
      const write = transactions ? writeGuarded : writeBare;
      for await (const planned of source) {
        for (const group of planned) {
          if (group.change !== undefined) yield* write(sql, roomLiteral, group);
        }
        if (sql.length > 0) yield sql.take();
      }
      if (transactions) sql.write(GUARD_SUMMARY);
      if (sql.length > 0) yield sql.take();
    },
  ) as Transform;
}

function* writeBare(sql: SqlWriter, room: string, group: PlannedGroup): Generator<Buffer> {
  const { stateGroup, newPredecessor } = group;
  sql.write(`\nDELETE FROM state_group_edges WHERE state_group = ${stateGroup};\n`);
  if (newPredecessor !== undefined) {
    sql.write(
      `INSERT INTO state_group_edges (state_group, prev_state_group) VALUES (${stateGroup}, ${newPredecessor});\n`,
    );
  }
  sql.write(`DELETE FROM state_groups_state WHERE state_group = ${stateGroup};\n`);
  yield* writeRows(sql, room, group, ';\n');
}

function* writeGuarded(sql: SqlWriter, room: string, group: PlannedGroup): Generator<Buffer> {
  const { stateGroup, oldPredecessor, newPredecessor, oldRows } = group;
  sql.write(
    `\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nCALL pg_temp.take_state_group(${stateGroup}, ${room}, ${oldPredecessor ?? 'NULL'}, ${newPredecessor ?? 'NULL'}, ${oldRows}, ${group.change!.oldRowsHash});\n`,
  );
  yield* writeRows(sql, room, group, `\nWHERE ${PASSED};\n`);
  sql.write('COMMIT;\n');
}

function* writeRows(
  sql: SqlWriter,
  room: string,
  group: PlannedGroup,
  end: string,
): Generator<Buffer> {
  const { rows } = group.change!;
  let at = 0;
  for (let row = 0; row < group.newRows;) {
    const full = sql.length + BYTES_PER_INSERT;
    const last = Math.min(row + ROWS_PER_INSERT, group.newRows);
    sql.write(
      `INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)\nSELECT ${group.stateGroup}, ${room}, type, state_key, event_id FROM (VALUES\n(`,
    );
    at = sql.row(rows, at);
    for (row++; row < last && sql.length < full; row++) {
      sql.write('),\n(');
      at = sql.row(rows, at);
    }
    sql.write(`)\n) AS rows (type, state_key, event_id)${end}`);
    if (sql.length >= PIECE) yield sql.take();
  }
}
