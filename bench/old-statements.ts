import { transform } from 'through2';
import type { Transform } from 'node:stream';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import { literal, SqlWriter } from '../src/sinks/sql-literal.js';

const PIECE = 256 * 1024;

/**
 * A sink that writes changes in the form of the tool that came before, as a measure of ours: for each
 * group four statements, with one row after the other in the last, and, with its -t, a transaction around
 * them.
 */
export function oldStatementsSink(
  room: string,
  { transactions }: { readonly transactions: boolean },
): Transform {
  return transform(
    { writableObjectMode: true, writableHighWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      const sql = new SqlWriter();
      const roomLiteral = literal(room);
      for await (const planned of source) {
        for (const { stateGroup, newPredecessor, newRows, change } of planned) {
          if (change === undefined) continue;
          if (transactions) sql.write('BEGIN;\n');
          sql.write(`DELETE FROM state_group_edges WHERE state_group = ${stateGroup};\n`);
          if (newPredecessor !== undefined) {
            sql.write(
              `INSERT INTO state_group_edges (state_group, prev_state_group) VALUES (${stateGroup}, ${newPredecessor});\n`,
            );
          }
          sql.write(`DELETE FROM state_groups_state WHERE state_group = ${stateGroup};\n`);
          const insert =
            'INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id) VALUES\n';
          for (let row = 0, at = 0; row < newRows; row++) {
            sql.write(`${row === 0 ? insert : ',\n'}(${stateGroup}, ${roomLiteral}, `);
            at = sql.row(change.rows, at);
            sql.write(row + 1 === newRows ? ');\n' : ')');
          }
          if (transactions) sql.write('COMMIT;\n');
          if (sql.length >= PIECE) yield sql.take();
        }
      }
      if (sql.length > 0) yield sql.take();
    },
  ) as Transform;
}
