import { isUtf8 } from 'node:buffer';
import { fieldOf } from '../state/copy-text.js';
import { JsonPieces } from './json-pieces.js';
import type { ChangeInput, RoomChange } from './room-change.js';
import { RowsWriter } from './rows-writer.js';

const OPENING_BRACKET = 91;
const CLOSING_BRACKET = 93;
const CLOSING_BRACE = 125;

/** No text in Postgres has half of a pair, or the character 0. */
const NO_TEXT = /\p{Surrogate}|\0/u;

/**
 * Reads what `jsonlSink` wrote, and gives each change when its rows are complete. Spaces may be others,
 * and there may be more keys, but the rows come last. No more is held than the rows of one group.
 *
 * @throws InputError that names the line; what was given before is complete
 */
export async function* readJsonLines(
  chunks: AsyncIterable<Buffer>,
  place: ChangeInput['place'],
): AsyncGenerator<RoomChange> {
  const pieces = new JsonPieces(chunks, place);
  const rows = new RowsWriter();
  while (await pieces.hasMore()) {
    const head = headOf(textOf(await pieces.next(OPENING_BRACKET)));
    if (head === undefined) {
      throw pieces.wrong('is no change as synapse_compress_state writes it. Make the file again.');
    }
    const newRows = await readRows(pieces, rows, head.state_group);
    if (textOf(await pieces.next(CLOSING_BRACE)) !== '}') {
      throw pieces.wrong(`goes on after the rows of state group ${head.state_group}.`);
    }
    yield {
      room: head.room_id,
      group: {
        stateGroup: head.state_group,
        oldPredecessor: head.old_predecessor ?? undefined,
        newPredecessor: head.new_predecessor ?? undefined,
        oldRows: head.old_rows,
        newRows,
        change: {
          oldHash: BigInt(head.old_hash),
          newRowsHash: BigInt(head.new_rows_hash),
          rows: rows.take(),
        },
      },
    };
  }
}

/** Returns how many there are. */
async function readRows(pieces: JsonPieces, rows: RowsWriter, stateGroup: number): Promise<number> {
  for (let count = 0; ; count++) {
    const piece = textOf(await pieces.next(CLOSING_BRACKET));
    if (piece === ']') return count;
    const fields = fieldsOf(count === 0 ? piece : afterComma(piece));
    if (fields === undefined) {
      throw pieces.wrong(
        `has something that is no row after ${count} rows of state group ${stateGroup}.`,
      );
    }
    rows.addFields(fields);
  }
}

/** Without JSON's space before it; empty, which no JSON is, where it is not UTF-8. */
function textOf(piece: Buffer): string {
  return isUtf8(piece) ? piece.toString().replace(/^[ \t\n\r]+/, '') : '';
}

function afterComma(text: string): string {
  return text.startsWith(',') ? text.slice(1) : '';
}

interface Head {
  readonly room_id: string;
  readonly state_group: number;
  readonly old_predecessor: number | null;
  readonly new_predecessor: number | null;
  readonly old_rows: number;
  readonly old_hash: string;
  readonly new_rows_hash: string;
}

/** What stands before the rows, if it is what should. */
function headOf(text: string): Head | undefined {
  const head = parsed(`${text}]}`) as Record<keyof Head | 'rows', unknown> | undefined | null;
  if (typeof head !== 'object' || head === null) return undefined;
  const predecessors = [head.old_predecessor, head.new_predecessor];
  const isHead =
    Array.isArray(head.rows) &&
    typeof head.room_id === 'string' &&
    !NO_TEXT.test(head.room_id) &&
    [head.state_group, head.old_rows].every(isNumber) &&
    predecessors.every((id) => id === null || isNumber(id)) &&
    [head.old_hash, head.new_rows_hash].every(isHash);
  return isHead ? (head as Head) : undefined;
}

function isNumber(value: unknown): boolean {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function isHash(value: unknown): boolean {
  return typeof value === 'string' && /^(0|-?[1-9]\d{0,29})$/.test(value);
}

/** The fields of a row as COPY text. */
function fieldsOf(text: string): Buffer[] | undefined {
  const row = parsed(text);
  if (!Array.isArray(row) || row.length !== 3) return undefined;
  const fields = row.map(fieldOfValue);
  return fields.includes(undefined) ? undefined : (fields as Buffer[]);
}

function fieldOfValue(value: unknown): Buffer | undefined {
  if (typeof value === 'string') {
    return NO_TEXT.test(value) ? undefined : fieldOf(value);
  }
  const base64 = (value as { base64?: unknown } | null)?.base64;
  if (typeof base64 !== 'string') return undefined;
  const bytes = Buffer.from(base64, 'base64');
  return bytes.includes(0) || bytes.toString('base64') !== base64 ? undefined : fieldOf(bytes);
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
