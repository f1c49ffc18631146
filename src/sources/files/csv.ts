import { InputError } from '../../errors.js';
import { escapeLetter, LONGEST_ROW } from '../../state/copy-text.js';
import { reorderFields } from './column-order.js';
import {
  columnOrder,
  tableOfColumns,
  tableOfLine,
  type StateTable,
  type Told,
} from './state-table.js';

const TAB = 9;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const QUOTE = 34;
const COMMA = 44;
const BACKSLASH = 92;
/** Programs on Windows begin a text with it. */
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** Bytes that stand for themselves in CSV, quoted or not, and in COPY text. */
const PLAIN = new Uint8Array(256).map((_, byte) =>
  escapeLetter(byte) === 0 && byte !== QUOTE && byte !== COMMA ? 1 : 0,
);

/** What the next byte belongs to. */
const AT_FIELD = 0;
const IN_FIELD = 1;
const IN_QUOTES = 2;
const BEHIND_QUOTE = 3;
const BEHIND_RETURN = 4;

/** The table that CSV is of, told by its first record: the names of the columns, or a row. */
export function tableOfCsv(head: Buffer): Told {
  try {
    const line = firstRecord(head);
    if (line === undefined) return 'incomplete';
    return tableOfLine(line) ?? tableOfColumns(line.split('\t')) ?? 'other';
  } catch {
    return 'other';
  }
}

/** Whether CSV of a table names its columns, in another order than they have there. */
export function isReordered(head: Buffer, table: StateTable): boolean {
  const order = columnOrder(table, firstRecord(head)?.split('\t') ?? []);
  return order?.some((column, i) => column !== i) === true;
}

/**
 * The first record that is not empty, as COPY text without its line feed.
 *
 * @throws InputError if it is no CSV
 */
function firstRecord(head: Buffer): string | undefined {
  const records = new CsvRecords('');
  head = withoutMark(head);
  // What is wrong behind the first record is told with its place when it is read.
  for (let start = 0, end: number; (end = head.indexOf(LINE_FEED, start) + 1) > 0; start = end) {
    const record = records.copyText(head.subarray(start, end)).toString();
    if (record !== '') return record.slice(0, -1);
  }
  return undefined;
}

/**
 * Turns CSV into COPY text: as COPY writes it with CSV, with HEADER or without
 * (https://www.postgresql.org/docs/current/sql-copy.html), or another program by RFC 4180. The columns
 * may stand in any order if the first record names them.
 *
 * No column of the tables holds NULL, so a field that is empty is an empty string, in quotes or not:
 * `psql --csv` writes it without. But COPY text with commas does so too, where a backslash is half of an
 * escape; what has both is refused.
 *
 * @throws InputError that names the line, if it is no CSV, may be none, or is cut off
 */
export async function* csvToCopyText(
  chunks: AsyncIterable<Buffer>,
  table: StateTable,
  name: string,
): AsyncGenerator<Buffer> {
  const records = new CsvRecords(name);
  let order: readonly number[] | undefined;
  let isFirst = true;
  for await (const chunk of chunksWithoutMark(chunks)) {
    let lines = records.copyText(chunk);
    records.checkEscapes();
    if (lines.length === 0) continue;
    if (isFirst) {
      isFirst = false;
      const end = lines.indexOf(LINE_FEED);
      order = columnOrder(table, lines.toString('utf8', 0, end).split('\t'));
      if (order !== undefined) lines = lines.subarray(end + 1);
      if (order?.every((column, i) => column === i)) order = undefined;
    }
    if (order !== undefined) reorderFields(lines, order);
    yield lines;
  }
  records.end();
}

async function* chunksWithoutMark(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let head: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of chunks) {
    if (head === undefined) {
      yield chunk;
      continue;
    }
    head = Buffer.concat([head, chunk]);
    if (head.length < BYTE_ORDER_MARK.length) continue;
    yield withoutMark(head);
    head = undefined;
  }
  if (head !== undefined) yield head;
}

function withoutMark(head: Buffer): Buffer {
  const { length } = BYTE_ORDER_MARK;
  return head.subarray(0, length).equals(BYTE_ORDER_MARK) ? head.subarray(length) : head;
}

/** Splits CSV, cut anywhere, into records, and writes them as lines of COPY text. */
class CsvRecords {
  readonly #name: string;
  #state = AT_FIELD;
  /** Number of the line being read. */
  #line = 1;
  /** Lines, of which the last may not have its end yet. */
  #out = Buffer.alloc(0);
  #length = 0;
  /** Where the line without end begins, once the lines before it are given away. */
  #unended = 0;
  /** Whether a field was empty without quotes, and the first line with a backslash outside of quotes. */
  #hasBareEmpty = false;
  #bareBackslash: number | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  /** The records that end in `chunk`. They are valid until the next call. */
  copyText(chunk: Buffer): Buffer {
    this.#makeRoom(chunk.length);
    const out = this.#out;
    let at = this.#length;
    let end = 0;
    let state = this.#state;
    for (let i = 0; i < chunk.length; i++) {
      let byte = chunk[i];
      // Most bytes, with as little ado as can be.
      if (state <= IN_QUOTES && PLAIN[byte] === 1) {
        if (state === AT_FIELD) state = IN_FIELD;
        do {
          out[at++] = byte;
          if (++i === chunk.length) break;
          byte = chunk[i];
        } while (PLAIN[byte] === 1);
        if (i === chunk.length) break;
      }
      if (byte === LINE_FEED) this.#line++;
      if (state === IN_QUOTES) {
        if (byte === QUOTE) state = BEHIND_QUOTE;
        else at = put(out, at, byte);
      } else if (byte === QUOTE && state !== BEHIND_RETURN) {
        if (state === IN_FIELD) throw this.#error('has a quote inside a field that is not quoted');
        if (state === BEHIND_QUOTE) out[at++] = QUOTE;
        state = IN_QUOTES;
      } else if (byte === LINE_FEED) {
        out[at++] = LINE_FEED;
        end = at;
        state = AT_FIELD;
      } else if (state === BEHIND_RETURN) {
        throw this.#error('has a carriage return inside a field that is not quoted');
      } else if (byte === COMMA) {
        if (state === AT_FIELD) this.#hasBareEmpty = true;
        out[at++] = TAB;
        state = AT_FIELD;
      } else if (byte === CARRIAGE_RETURN) {
        state = BEHIND_RETURN;
      } else if (state === BEHIND_QUOTE) {
        throw this.#error('goes on behind a closing quote without a comma');
      } else {
        if (byte === BACKSLASH) this.#bareBackslash ??= this.#line;
        at = put(out, at, byte);
        state = IN_FIELD;
      }
    }
    this.#state = state;
    this.#length = at;
    this.#unended = end;
    return out.subarray(0, end);
  }

  /** Refuses what may be COPY text with commas. */
  checkEscapes(): void {
    if (!this.#hasBareEmpty || this.#bareBackslash === undefined) return;
    this.#line = this.#bareBackslash;
    throw this.#error(
      'has a backslash outside of quotes, and there are empty fields without quotes: this may be COPY text with commas. Export the table again, with COPY state_groups_state TO STDOUT',
    );
  }

  end(): void {
    if (this.#length > this.#unended || this.#state !== AT_FIELD) {
      throw this.#error(
        this.#state === IN_QUOTES
          ? 'ends within quotes: the export is cut off. Export the table again'
          : 'has no line feed at its end: the export is cut off. Export the table again',
      );
    }
  }

  #makeRoom(length: number): void {
    const left = this.#out.subarray(this.#unended, this.#length);
    if (left.length > LONGEST_ROW) {
      throw this.#error(
        `is in a record of more than ${LONGEST_ROW} bytes, as no row is: a quote may be missing`,
      );
    }
    // Each byte may need an escape.
    const needed = left.length + 2 * length;
    if (needed > this.#out.length) this.#out = Buffer.allocUnsafeSlow(2 * needed);
    this.#out.set(left);
    this.#length = left.length;
    this.#unended = 0;
  }

  #error(what: string): InputError {
    return new InputError(`Line ${this.#line} of ${this.#name} ${what}.`);
  }
}

function put(out: Buffer, at: number, byte: number): number {
  const letter = escapeLetter(byte);
  if (letter === 0) {
    out[at] = byte;
    return at + 1;
  }
  out[at] = BACKSLASH;
  out[at + 1] = letter;
  return at + 2;
}
