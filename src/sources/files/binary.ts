import { InputError } from '../../errors.js';
import { encodeField, LONGEST_ROW } from '../../state/copy-text.js';
import { COLUMNS, isStateGroup, STATE_TABLES, type StateTable, type Told } from './state-table.js';

const TAB = 9;
const LINE_FEED = 10;
/** What binary COPY data begins with. */
export const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
/** The signature, flags, and the length of an extension. */
const HEADER = SIGNATURE.length + 4 + 4;
/** Flags of which a reader must know what they mean; Postgres sets none of them any more. */
const CRITICAL_FLAGS = 0xffff0000;
const BIGINT = 8;
const NULL = -1;
const TRAILER = -1;

/** The table that binary COPY data is of, told by its first row. */
export function tableOfBinary(head: Buffer): Told {
  if (head.length < HEADER) return 'incomplete';
  let at = HEADER + head.readUInt32BE(HEADER - 4);
  if (head.length < at + 2) return 'incomplete';
  const fields = head.readInt16BE(at);
  at += 2;
  const table = STATE_TABLES.find((name) => COLUMNS[name].length === fields);
  if (table === undefined) return fields === TRAILER ? 'empty' : 'other';
  for (let field = 0; field < fields; field++) {
    if (head.length < at + 4) return 'incomplete';
    const length = head.readInt32BE(at);
    at += 4;
    if (length < 0) return 'other';
    // Up to 2^56 a number has a zero byte at its beginning, and a text has none.
    if (head.length === at) return 'incomplete';
    const isNumber = length === BIGINT && head[at] === 0;
    if (isNumber !== isStateGroup(table, field)) return 'other';
    at += length;
  }
  return table;
}

/**
 * Turns COPY's binary format (https://www.postgresql.org/docs/current/sql-copy.html) into COPY text.
 *
 * @throws InputError that names the record, if the data is not of the table or is cut off
 */
export async function* binaryToCopyText(
  chunks: AsyncIterable<Buffer>,
  table: StateTable,
  name: string,
): AsyncGenerator<Buffer> {
  const rows = new BinaryRows(table, name);
  for await (const chunk of chunks) {
    const lines = rows.copyText(chunk);
    if (lines.length > 0) yield lines;
  }
  rows.end();
}

/** Reads binary rows, cut anywhere, and writes them as lines of COPY text. */
class BinaryRows {
  readonly #table: StateTable;
  readonly #fields: number;
  readonly #name: string;
  #left = Buffer.alloc(0);
  #out = Buffer.alloc(0);
  #isBehindHeader = false;
  #hasEnded = false;
  #records = 0;
  /** The last state group, and its digits: most rows are of the same group as the one before. */
  #high = 0;
  #low = 0;
  #digits = Buffer.from('0');

  constructor(table: StateTable, name: string) {
    this.#table = table;
    this.#fields = COLUMNS[table].length;
    this.#name = name;
  }

  /** The rows that end in `chunk`. They are valid until the next call. */
  copyText(chunk: Buffer): Buffer {
    const bytes = this.#left.length === 0 ? chunk : Buffer.concat([this.#left, chunk]);
    // A byte may need an escape; a number's twelve bytes become no more than twenty and a tab.
    if (this.#out.length < 2 * bytes.length) this.#out = Buffer.allocUnsafeSlow(4 * bytes.length);
    let start = 0;
    let written = 0;
    if (!this.#isBehindHeader) {
      start = this.#headerEnd(bytes);
      this.#isBehindHeader = start > 0;
    }
    while (this.#isBehindHeader && !this.#hasEnded) {
      const end = this.#rowEnd(bytes, start);
      if (end === undefined) break;
      if (end > start + 2) written = this.#write(bytes, start, written);
      start = end;
    }
    if (this.#hasEnded && start < bytes.length) {
      throw this.#error('is followed by more than the end of the data');
    }
    this.#left = Buffer.from(bytes.subarray(start));
    return this.#out.subarray(0, written);
  }

  end(): void {
    if (!this.#hasEnded) {
      throw this.#error('is cut off, or the end of the data is missing. Export the table again');
    }
  }

  /** Where the first row begins; 0 if that is not known yet. */
  #headerEnd(bytes: Buffer): number {
    if (bytes.length < HEADER) return 0;
    if ((bytes.readUInt32BE(SIGNATURE.length) & CRITICAL_FLAGS) !== 0) {
      throw new InputError(
        `${this.#name} is binary COPY data of a kind that is not known here, for example with OIDs. Export the table again as text.`,
      );
    }
    const end = HEADER + bytes.readUInt32BE(HEADER - 4);
    if (end > LONGEST_ROW) throw this.#error('has a header that is too long');
    return end <= bytes.length ? end : 0;
  }

  /** Where the row at `start` ends, once it is all there. */
  #rowEnd(bytes: Buffer, start: number): number | undefined {
    if (bytes.length < start + 2) return undefined;
    const fields = bytes.readInt16BE(start);
    let at = start + 2;
    if (fields === TRAILER) {
      this.#hasEnded = true;
      return at;
    }
    if (fields !== this.#fields) {
      throw this.#error(`has ${fields} columns, where ${this.#table} has ${this.#fields}`);
    }
    for (let field = 0; field < fields; field++) {
      if (bytes.length < at + 4) return undefined;
      const length = bytes.readInt32BE(at);
      if (length === NULL) {
        throw this.#error(`has NULL for ${COLUMNS[this.#table][field]}`);
      }
      if (
        isStateGroup(this.#table, field) ? length !== BIGINT : length < 0 || length > LONGEST_ROW
      ) {
        throw this.#error(`has ${length} bytes for ${COLUMNS[this.#table][field]}`);
      }
      at += 4 + length;
    }
    return at <= bytes.length ? at : undefined;
  }

  #write(bytes: Buffer, start: number, to: number): number {
    let at = start + 2;
    let written = to;
    for (let field = 0; field < this.#fields; field++) {
      const length = bytes.readInt32BE(at);
      at += 4;
      if (isStateGroup(this.#table, field)) {
        written += this.#digitsAt(bytes, at).copy(this.#out, written);
      } else {
        written = encodeField(bytes, at, at + length, this.#out, written);
      }
      at += length;
      this.#out[written++] = TAB;
    }
    this.#out[written - 1] = LINE_FEED;
    this.#records++;
    return written;
  }

  #digitsAt(bytes: Buffer, at: number): Buffer {
    const high = bytes.readInt32BE(at);
    const low = bytes.readUInt32BE(at + 4);
    if (high !== this.#high || low !== this.#low) {
      this.#digits = Buffer.from(String(bytes.readBigInt64BE(at)));
      this.#high = high;
      this.#low = low;
    }
    return this.#digits;
  }

  #error(what: string): InputError {
    return new InputError(`Record ${this.#records + 1} of ${this.#name} ${what}.`);
  }
}
