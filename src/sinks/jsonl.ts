import { isUtf8 } from 'node:buffer';
import { transform } from 'through2';
import type { Transform } from 'node:stream';
import { isChanged } from '../planner/planned-group.js';
import type { ChangedGroup, PlannedGroup } from '../planner/planned-group.js';
import { decodedField } from '../state/copy-text.js';
import { ByteWriter } from './byte-writer.js';
import { LEAST_PIECE, PIECE } from './output-writer.js';

const LINE_FEED = 10;
const TAB = 9;
const QUOTE = 34;
const LETTER_V = 118;
const BACKSLASH = 92;
const SPACE = 32;

/** The most bytes that one byte of a row becomes. */
const WIDEST = 6;

/**
 * The sink that writes changes as lines of JSON, one a changed group: arrays of planned groups in, bytes
 * out. A line is
 *
 *     {"room_id": …, "state_group": …, "old_predecessor": …, "new_predecessor": …, "old_rows": …,
 *      "old_hash": …, "new_rows_hash": …, "rows": [[type, state_key, event_id], …]}
 *
 * where a predecessor may be null, `old_rows` counts the stored rows, and the hashes are those of `Change`
 * as strings, since they are beyond JSON's numbers. A text that is not UTF-8, which a database in SQL_ASCII
 * may hold, is `{"base64": …}` instead of a string. A line comes in pieces.
 */
export function jsonlSink({ room }: { readonly room: string }): Transform {
  return transform(
    { writableObjectMode: true, writableHighWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      const json = new JsonWriter();
      for await (const planned of source) {
        for (const group of planned) {
          if (isChanged(group)) yield* writeLine(json, room, group);
        }
        if (json.length >= LEAST_PIECE) yield json.take();
      }
      if (json.length > 0) yield json.take();
    },
  ) as Transform;
}

function* writeLine(
  json: JsonWriter,
  room: string,
  { stateGroup, oldPredecessor, newPredecessor, oldRows, change }: ChangedGroup,
): Generator<Buffer> {
  const { oldHash, newRowsHash, rows } = change;
  const head = JSON.stringify({
    room_id: room,
    state_group: stateGroup,
    old_predecessor: oldPredecessor ?? null,
    new_predecessor: newPredecessor ?? null,
    old_rows: oldRows,
    old_hash: String(oldHash),
    new_rows_hash: String(newRowsHash),
  });
  json.write(`${head.slice(0, -1)},"rows":[`);
  const isText = isUtf8(rows);
  for (let at = 0; at < rows.length;) {
    if (at > 0) json.write(',');
    at = isText ? json.row(rows, at) : json.rowOfBytes(rows, at);
    if (json.length >= PIECE) yield json.take();
  }
  json.write(']}\n');
}

/** JSON text as bytes. */
class JsonWriter extends ByteWriter {
  constructor() {
    super(2 * LEAST_PIECE);
  }

  /** Writes the row of COPY text, all UTF-8, that begins at `start`. Returns where the next one begins. */
  row(rows: Buffer, start: number): number {
    const end = rows.indexOf(LINE_FEED, start);
    this.reserve(WIDEST * (end - start) + 16);
    const { bytes } = this;
    let at = this.end;
    at += bytes.write('["', at);
    for (let i = start; i < end;) {
      const byte = rows[i++];
      if (byte === TAB) {
        at += bytes.write('","', at);
      } else if (byte === BACKSLASH) {
        // COPY's escapes are JSON's, but for the vertical tab.
        const letter = rows[i++];
        at += bytes.write(letter === LETTER_V ? '\\u000b' : `\\${String.fromCharCode(letter)}`, at);
      } else if (byte === QUOTE) {
        at += bytes.write('\\"', at);
      } else if (byte < SPACE) {
        at += bytes.write(`\\u${byte.toString(16).padStart(4, '0')}`, at);
      } else {
        bytes[at++] = byte;
      }
    }
    at += bytes.write('"]', at);
    this.end = at;
    return end + 1;
  }

  /** As `row`, where some text is not UTF-8. */
  rowOfBytes(rows: Buffer, start: number): number {
    const end = rows.indexOf(LINE_FEED, start);
    const fields = rows
      .toString('latin1', start, end)
      .split('\t')
      .map((field) => {
        const text = decodedField(Buffer.from(field, 'latin1'));
        return isUtf8(text) ? text.toString() : { base64: text.toString('base64') };
      });
    this.write(JSON.stringify(fields));
    return end + 1;
  }
}
