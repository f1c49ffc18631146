import { transform } from 'through2';
import type { Transform } from 'node:stream';
import type { PlannedGroup } from '../planner/planned-group.js';
import { literal, SqlWriter } from './sql-literal.js';
import { GUARD_DEFINITION, GUARD_SUMMARY, PASSED } from './sql-guard.js';

/** Rows of one INSERT: few enough that a small server parses it with ease. */
const ROWS_PER_INSERT = 1000;

export interface SqlSettings {
  readonly room: string;
  /** Wraps each group's statements in a transaction that skips the group if it is no longer as read. */
  readonly transactions: boolean;
  /** Lines for the comment at the top: what made the file, from what. */
  readonly header: readonly string[];
}

/**
 * The sink that writes changes as SQL for psql or any other client: arrays of planned groups in, bytes
 * out. Nothing is written for a group that stays as it is.
 */
export function sqlSink(settings: SqlSettings): Transform {
  const sql = new SqlWriter();
  const room = literal(settings.room);
  for (const line of settings.header) sql.write(`-- ${line.replace(/[\r\n]/g, ' ')}\n`);
  sql.write("\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n");
  if (settings.transactions) sql.write(GUARD_DEFINITION);

  return transform(
    { writableObjectMode: true, writableHighWaterMark: 4 },
    (planned: readonly PlannedGroup[], _encoding, done) => {
      for (const group of planned) {
        if (group.change === undefined) continue;
        if (settings.transactions) writeGuarded(sql, room, group);
        else writeBare(sql, room, group);
      }
      done(null, sql.length > 0 ? sql.take() : undefined);
    },
    function (this: Transform, done: (error?: Error | null) => void) {
      if (settings.transactions) sql.write(GUARD_SUMMARY);
      if (sql.length > 0) this.push(sql.take());
      done();
    },
  ) as unknown as Transform;
}

function writeBare(sql: SqlWriter, room: string, group: PlannedGroup): void {
  const { stateGroup, newPredecessor } = group;
  sql.write(`\nDELETE FROM state_group_edges WHERE state_group = ${stateGroup};\n`);
  if (newPredecessor !== undefined) {
    sql.write(
      `INSERT INTO state_group_edges (state_group, prev_state_group) VALUES (${stateGroup}, ${newPredecessor});\n`,
    );
  }
  sql.write(`DELETE FROM state_groups_state WHERE state_group = ${stateGroup};\n`);
  writeRows(sql, room, group, ';\n');
}

function writeGuarded(sql: SqlWriter, room: string, group: PlannedGroup): void {
  const { stateGroup, oldPredecessor, newPredecessor, oldRows } = group;
  sql.write(
    `\nBEGIN ISOLATION LEVEL REPEATABLE READ;\nCALL pg_temp.take_state_group(${stateGroup}, ${room}, ${oldPredecessor ?? 'NULL'}, ${newPredecessor ?? 'NULL'}, ${oldRows}, ${group.change!.oldRowsHash});\n`,
  );
  writeRows(sql, room, group, `\nWHERE ${PASSED};\n`);
  sql.write('COMMIT;\n');
}

function writeRows(sql: SqlWriter, room: string, group: PlannedGroup, end: string): void {
  const { rows } = group.change!;
  let at = 0;
  for (let row = 0; row < group.newRows; row++) {
    if (row % ROWS_PER_INSERT === 0) {
      if (row > 0) sql.write(`)\n) AS rows (type, state_key, event_id)${end}`);
      sql.write(
        `INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)\nSELECT ${group.stateGroup}, ${room}, type, state_key, event_id FROM (VALUES\n(`,
      );
    } else {
      sql.write('),\n(');
    }
    at = sql.row(rows, at);
  }
  if (group.newRows > 0) sql.write(`)\n) AS rows (type, state_key, event_id)${end}`);
}
