import { InputError } from '../../errors.js';
import { reorderFields } from './column-order.js';
import { columnOrder, COLUMNS, STATE_TABLES, type StateTable } from './state-table.js';
import { LONGEST_ROW } from '../../state/copy-text.js';

const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
/** Ends a table's rows: the line feed before it, and the marker's own. */
const END_OF_ROWS = Buffer.from('\n\\.\n');
/** A statement that names as many columns as a table can have, with long names, is shorter. */
const LONGEST_STATEMENT = 256 * 1024;

const COPY = Buffer.from('COPY ');
const INSERT = Buffer.from('INSERT INTO ');
const ENCODING = Buffer.from('SET client_encoding = ');
const LONGEST_BEGINNING = ENCODING.length;

const NAME = String.raw`"(?:[^"]|"")*"|[^\s"(),.]+`;
const TABLE = String.raw`(?<table>(?:(?:${NAME})\.)?(?<name>${NAME}))`;
/** What rows follow. The list of columns is missing where a table has none. */
const COPY_STATEMENT = /^COPY .* FROM stdin;\r?$/s;
const COPY_TABLE = new RegExp(`^COPY ${TABLE} \\((?<columns>.*)\\) FROM stdin;$`, 's');
const INSERT_STATEMENT = new RegExp(`^INSERT INTO ${TABLE} `);
const ENCODING_STATEMENT = /^SET client_encoding = '(.*)';$/;

/** The rows of one of the three tables in a dump. */
export interface DumpBlock {
  readonly table: StateTable;
  /** The table as the dump calls it, with its schema. */
  readonly tableName: string;
  /** Where each column stands; undefined if they stand in their order. */
  readonly order: readonly number[] | undefined;
  /** Offset of the first row in the dump. */
  readonly position: number;
  /** Number of the first row's line, from 1. */
  readonly line: number;
}

/** What was read of a dump ends with a line feed at this offset; the next line has this number. */
interface Whereabouts {
  readonly position: number;
  readonly line: number;
}

/**
 * Reads plain SQL as pg_dump writes it, from its beginning to its end: finds the COPY statements of the
 * three tables and gives their rows, and skips everything else by looking for line feeds in the
 * statements, and for the line that ends them in the rows of other tables.
 *
 * What is dumped is told by how lines begin, as they stand in what pg_dump writes. A line in the body
 * of a function that reads just as the beginning of a table's rows would be mistaken for one.
 */
export class DumpReader {
  readonly #name: string;
  readonly #chunks: AsyncIterator<Buffer>;
  /** Holds `#bytes`, with room for the next chunk. */
  #room = Buffer.from('\n');
  #bytes = this.#room;
  /** Offset of `#bytes` in the dump. */
  #position: number;
  /** Where the line feed before the next line stands in `#bytes`. */
  #at = 0;
  /** The next line's number, from 1. */
  #line: number;
  /** Whether the next line is a table's row, or the end marker. */
  #isInRows = false;

  /** `chunks` may be cut anywhere, and begin at any line: `start` says at which. */
  constructor(
    name: string,
    chunks: AsyncIterable<Buffer>,
    start: Whereabouts = { position: 0, line: 1 },
  ) {
    this.#name = name;
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#position = start.position - 1;
    this.#line = start.line;
  }

  /**
   * Goes on to the next rows of one of the tables; to the end of the dump if there are none.
   *
   * @throws InputError if a table is not dumped in a way that can be read, or the dump is cut off
   */
  async nextBlock(): Promise<DumpBlock | undefined> {
    do {
      // Rows of other tables, or of one that nobody read; a statement may follow at once.
      if (this.#isInRows) {
        await this.#skipRows();
        await this.#refuseStrayRow();
      }
      while (this.#bytes.length - this.#at <= LONGEST_BEGINNING && (await this.#more()));
      if (this.#begins(COPY)) {
        const block = await this.#copyStatement();
        if (block !== undefined) return block;
      } else if (this.#begins(INSERT)) {
        await this.#insertStatement();
      } else if (this.#begins(ENCODING)) {
        await this.#encodingStatement();
      }
    } while (this.#isInRows || (await this.#nextLine()));
    return undefined;
  }

  /**
   * Gives the block's rows as whole lines of COPY text, the columns in their order. The reader stands at
   * its first row: `nextBlock()` came to it just now, or the chunks begin there.
   *
   * @throws InputError if the dump ends in them
   */
  async *rows({ order }: DumpBlock): AsyncGenerator<Buffer> {
    this.#isInRows = true;
    for (;;) {
      const end = this.#bytes.indexOf(END_OF_ROWS, this.#at);
      const last = end < 0 ? this.#bytes.lastIndexOf(LINE_FEED) : end;
      if (last > this.#at) {
        const lines = this.#bytes.subarray(this.#at + 1, last + 1);
        this.#goTo(last);
        if (order !== undefined) reorderFields(lines, order);
        yield lines;
      }
      if (end >= 0) break;
      if (this.#bytes.length - this.#at > LONGEST_ROW) {
        throw this.#error(`is longer than ${LONGEST_ROW} bytes, as no row is`);
      }
      if (!(await this.#more())) throw this.#cutOff();
    }
    this.#goTo(this.#at + END_OF_ROWS.length - 1);
    this.#isInRows = false;
    await this.#refuseStrayRow();
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  /** Goes behind the statement, if rows follow it; gives what they are if they are of one of the tables. */
  async #copyStatement(): Promise<DumpBlock | undefined> {
    const statement = await this.#lineText();
    // Something else, for example in the body of a function.
    if (!COPY_STATEMENT.test(statement)) return undefined;
    if (statement.charCodeAt(statement.length - 1) === CARRIAGE_RETURN) {
      throw this.#error(
        'ends with a carriage return, as on Windows. Dump again, or convert the line ends',
      );
    }
    const found = COPY_TABLE.exec(statement)?.groups;
    const table = found && STATE_TABLES.find((name) => name === unquoted(found.name));
    const line = this.#line;
    if (!(await this.#nextLine())) throw this.#cutOff();
    this.#isInRows = true;
    if (found === undefined || table === undefined) return undefined;
    const columns = found.columns.split(', ').map(unquoted);
    const order = columnOrder(table, columns);
    if (order === undefined) {
      throw new InputError(
        `Line ${line} of ${this.#name} has other columns of ${table} (${columns.join(', ')}) than Synapse, whose are ${COLUMNS[table].join(', ')}.`,
      );
    }
    return {
      table,
      tableName: found.table,
      order: order.every((column, i) => column === i) ? undefined : order,
      position: this.#position + this.#at + 1,
      line: this.#line,
    };
  }

  async #insertStatement(): Promise<void> {
    const name = INSERT_STATEMENT.exec(await this.#lineText())?.groups?.name;
    if (name !== undefined && STATE_TABLES.some((table) => table === unquoted(name))) {
      throw this.#error(
        'is an INSERT statement: the tables were dumped with --inserts or --column-inserts. Dump them without it, so that their rows come by COPY',
      );
    }
  }

  async #encodingStatement(): Promise<void> {
    const encoding = ENCODING_STATEMENT.exec(await this.#lineText())?.[1];
    if (encoding !== undefined && encoding !== 'UTF8' && encoding !== 'SQL_ASCII') {
      throw this.#error(
        `says that the dump is in the encoding ${encoding}. Dump again with --encoding=UTF8`,
      );
    }
  }

  /** Where the end of a table's rows stands too early, the others would be passed over: no statement begins as they do. */
  async #refuseStrayRow(): Promise<void> {
    while (this.#bytes.length - this.#at <= LONGEST_BEGINNING && (await this.#more()));
    if (/^(\d+\t|\\\.\r?$)/.test(await this.#lineText())) {
      throw this.#error("stands behind the end of a table's rows, as in no dump. Dump again");
    }
  }

  /** The next line without its line feed, or its beginning if it is longer than a statement. */
  async #lineText(): Promise<string> {
    let end = -1;
    do {
      end = this.#bytes.indexOf(LINE_FEED, this.#at + 1);
    } while (end < 0 && this.#bytes.length - this.#at <= LONGEST_STATEMENT && (await this.#more()));
    return this.#bytes.toString('utf8', this.#at + 1, end < 0 ? this.#bytes.length : end);
  }

  #begins(beginning: Buffer): boolean {
    const start = this.#at + 1;
    const end = start + beginning.length;
    return (
      end <= this.#bytes.length && this.#bytes.compare(beginning, 0, undefined, start, end) === 0
    );
  }

  /** Goes to the line after the next; false if the dump ends before it. */
  async #nextLine(): Promise<boolean> {
    let from = this.#at + 1;
    for (;;) {
      const end = this.#bytes.indexOf(LINE_FEED, from);
      if (end >= 0) {
        this.#at = end;
        this.#line++;
        return true;
      }
      // Of a line of any length the last byte is kept.
      this.#at = this.#bytes.length - 1;
      if (!(await this.#more())) return false;
      from = 1;
    }
  }

  async #skipRows(): Promise<void> {
    for (;;) {
      const end = this.#bytes.indexOf(END_OF_ROWS, this.#at);
      if (end >= 0) {
        this.#goTo(end + END_OF_ROWS.length - 1);
        this.#isInRows = false;
        return;
      }
      this.#goTo(Math.max(this.#at, this.#bytes.length - END_OF_ROWS.length + 1));
      if (!(await this.#more())) throw this.#cutOff();
    }
  }

  #goTo(at: number): void {
    let next = this.#bytes.indexOf(LINE_FEED, this.#at + 1);
    while (next >= 0 && next <= at) {
      this.#line++;
      next = this.#bytes.indexOf(LINE_FEED, next + 1);
    }
    this.#at = at;
  }

  /** Reads a chunk behind what is left; false at the end of the dump. */
  async #more(): Promise<boolean> {
    const next = await this.#chunks.next();
    if (next.done === true) return false;
    const left = this.#bytes.subarray(this.#at);
    const length = left.length + next.value.length;
    if (length > this.#room.length) this.#room = Buffer.allocUnsafeSlow(2 * length);
    // What is left may overlap with where it goes.
    this.#room.set(left);
    this.#room.set(next.value, left.length);
    this.#bytes = this.#room.subarray(0, length);
    this.#position += this.#at;
    this.#at = 0;
    return true;
  }

  #cutOff(): InputError {
    return new InputError(
      `${this.#name} is cut off: it ends at line ${this.#line}, in the rows of a table. Dump again.`,
    );
  }

  #error(what: string): InputError {
    return new InputError(`Line ${this.#line} of ${this.#name} ${what}.`);
  }
}

/** An identifier as PostgreSQL stores it. */
function unquoted(identifier: string): string {
  return identifier.startsWith('"') ? identifier.slice(1, -1).replaceAll('""', '"') : identifier;
}
