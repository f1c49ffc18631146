import type { Transform } from 'node:stream';
import { transform } from 'through2';
import { roomLine, type AmongRooms } from './among-rooms.js';
import { changeLine, rowLines } from './batch-text.js';
import { DEFINE_GIVING_WAY } from './giving-way.js';
import { BEGIN_BATCH, COPY_CHANGES, COPY_ROWS, DEFINE_REWRITING } from './rewrite-procedure.js';
import { isChanged } from '../planner/planned-group.js';
import type { ChangedGroup, PlannedGroup } from '../planner/planned-group.js';
import { comment, literal } from './sql-literal.js';

/** Groups of one transaction, unless another number is asked for. */
export const DEFAULT_BATCH = 500;
/** After so many rows, deleted and inserted, or bytes of new ones, a batch takes no further group. */
const ROWS_PER_BATCH = 200_000;
const BYTES_PER_BATCH = 4 * 1024 * 1024;

/** How the first line begins. The room follows, as a JSON string. */
export const FIRST_LINE = '-- Changes for synapse_compress_state apply, or psql; format 1; room ';

/** The line that ends COPY text. */
export const END_OF_COPY = '\\.';

/** How the last line begins. */
export const LAST_LINE = '-- End of the changes: ';

export function lastLine(groups: number, rows: number): string {
  return `${LAST_LINE}${groups} state groups, ${rows} rows.`;
}

/** What a script ends with that has changes of so many groups, with so many new rows. */
export function endOfScript(groups: number, rows: number): string {
  return `${SUMMARY}${lastLine(groups, rows)}\n`;
}

/** How the statement begins that rewrites a batch, and names the room for psql. */
export const REWRITE = 'CALL pg_temp.rewrite_state_groups(';

/** That statement. */
export function rewriteRoom(room: string): string {
  return `${REWRITE}${literal(room)}, true);`;
}

export interface CopySettings {
  readonly room: string;
  /** Lines for the comment at the top: what made the file, from what. */
  readonly header: readonly string[];
  /** The most groups of one transaction; `DEFAULT_BATCH` unless it is given. */
  readonly batch?: number;
  /** If the script is of several rooms: then it ends with `endOfScript`, which the sink does not write. */
  readonly amongRooms?: AmongRooms;
}

/**
 * The sink that writes changes as COPY text in guarded batches, for psql and for `apply`: arrays of planned
 * groups in, bytes out. Nothing is written for a group that stays as it is, and nothing at all if all do.
 *
 * A script is complete by itself, and several of them, one after the other, are one as well. Wherever it
 * is cut off, no group is left without its state: a batch is applied by its last statements, in one
 * transaction, and by number and hash of each group's rows. A batch is held in memory, and its text comes
 * in pieces.
 */
export function copySink({
  room,
  header,
  batch = DEFAULT_BATCH,
  amongRooms,
}: CopySettings): Transform {
  return transform(
    { writableObjectMode: true, writableHighWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      let collected: ChangedGroup[] = [];
      let rows = 0;
      let bytes = 0;
      let totalGroups = 0;
      let totalRows = 0;
      for await (const planned of source) {
        for (const group of planned) {
          if (!isChanged(group)) continue;
          if (totalGroups === 0) {
            yield Buffer.from(amongRooms === 'further' ? furtherHead(room) : head(room, header));
          }
          totalGroups++;
          totalRows += group.newRows;
          collected.push(group);
          rows += group.oldRows + group.newRows;
          bytes += group.change.rows.length;
          if (collected.length < batch && rows < ROWS_PER_BATCH && bytes < BYTES_PER_BATCH)
            continue;
          yield* batchText(room, collected);
          collected = [];
          rows = 0;
          bytes = 0;
        }
      }
      if (collected.length > 0) yield* batchText(room, collected);
      if (totalGroups > 0 && amongRooms === undefined) {
        yield Buffer.from(endOfScript(totalGroups, totalRows));
      }
    },
  ) as Transform;
}

const COUNTS = ['rewritten', 'done', 'skipped'].map((name) => `synapse_compress_state.${name}`);

const STOP_ON_ERROR = '\\set ON_ERROR_STOP on\n';

/** In a transaction, so that it stands also where a client opens one before the first statement. */
function head(room: string, header: readonly string[]): string {
  return `${FIRST_LINE}${JSON.stringify(room)}
${comment(header)}
${STOP_ON_ERROR}BEGIN;
SET client_encoding = 'UTF8';
${DEFINE_REWRITING}${DEFINE_GIVING_WAY}
${COUNTS.map((count) => `SET ${count} = '0';\n`).join('')}SET client_min_messages = 'notice';
COMMIT;
`;
}

/** If what stands before it was cut away by hand, psql has to stop: it would take rows for commands. */
function furtherHead(room: string): string {
  return `\n${roomLine(room)}${STOP_ON_ERROR}`;
}

function* batchText(room: string, groups: readonly ChangedGroup[]): Generator<Buffer> {
  yield Buffer.from(
    `\nBEGIN;\n${COPY_CHANGES};\n${groups.map(changeLine).join('')}${END_OF_COPY}\n${COPY_ROWS};\n`,
  );
  yield* rowLines(groups);
  yield Buffer.from(
    `${END_OF_COPY}\nCOMMIT;\n${BEGIN_BATCH};\n${rewriteRoom(room)}\n${COMMIT_AND_GIVE_WAY}`,
  );
}

const COMMIT_AND_GIVE_WAY =
  'CALL pg_temp.note_who_goes_first();\nCOMMIT;\nCALL pg_temp.let_them_go_first();\n';

const SUMMARY = `
SELECT current_setting('${COUNTS[0]}') AS "state groups rewritten",
    current_setting('${COUNTS[1]}') AS "rewritten before",
    current_setting('${COUNTS[2]}') AS "left as they were";
`;
