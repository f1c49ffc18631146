import { getManyValues, isMany, none } from 'stream-chain/defs.js';
import { jsonParser, type Token } from 'stream-json/core/parser.js';
import { InputError } from '../../errors.js';
import { escapeLetter, LONGEST_ROW } from '../../state/copy-text.js';
import {
  COLUMNS,
  isStateGroup,
  tableOfColumns,
  type StateTable,
  type Told,
} from './state-table.js';

/** So many bytes become lines at once. */
const CHUNK = 64 * 1024;
/** So many characters are parsed at once: with more, their tokens outlive a collection of garbage. */
const PIECE = 8 * 1024;
/** The first row of a table is found without looking at so many braces, even if keys hold some. */
const BRACES_TO_TRY = 20;
/** Most texts have none of what must be escaped, nor of what may be half of a surrogate pair. */
const SPECIAL = /[\\\b-\r\ud800-\udfff]/;
/** No text in Postgres has it, and no UTF-8. */
const HALF_PAIR = /\p{Surrogate}/u;

/** The table that JSON is of, told by the keys of its first object. */
export function tableOfJson(head: Buffer): Told {
  const text = head.toString();
  const start = text.indexOf('{');
  let end = start;
  for (let tries = 0; tries < BRACES_TO_TRY && end >= 0; tries++) {
    end = text.indexOf('}', end + 1);
    if (end < 0) break;
    try {
      const row = JSON.parse(text.slice(start, end + 1)) as object;
      return tableOfColumns(Object.keys(row)) ?? 'other';
    } catch {
      // A brace inside a string; the object ends at a later one.
    }
  }
  return start < 0 && /^\ufeff?\s*\[\s*\]/.test(text) ? 'empty' : 'incomplete';
}

/**
 * Turns JSON into COPY text: an array of row objects, or row objects one after the other, as
 * `row_to_json` and `json_agg` make them. COPY must write them with no escapes of its own, as the README's does.
 *
 * @throws InputError that names the record, if it is no JSON or is cut off, or its keys are not the
 *   columns of the table
 */
export async function* jsonToCopyText(
  chunks: AsyncIterable<Buffer>,
  table: StateTable,
  name: string,
): AsyncGenerator<Buffer> {
  const rows = new JsonRows(table, name);
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; at += CHUNK) {
      const lines = rows.copyText(chunk.subarray(at, at + CHUNK));
      if (lines.length > 0) yield lines;
    }
  }
  const lines = rows.end();
  if (lines.length > 0) yield lines;
}

/** Reads row objects, cut anywhere, and writes them as lines of COPY text. */
class JsonRows {
  readonly #table: StateTable;
  readonly #columns: readonly string[];
  readonly #name: string;
  readonly #parse = jsonParser({ streamValues: false, jsonStreaming: true }) as (
    text: string | typeof none,
  ) => unknown;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true });
  /** The values of the object being read, in the order of the columns. */
  #values: (string | undefined)[] = [];
  #column = -1;
  #isInArray = false;
  #isInObject = false;
  #records = 0;
  /** Characters since the last object ended. */
  #unended = 0;

  constructor(table: StateTable, name: string) {
    this.#table = table;
    this.#columns = COLUMNS[table];
    this.#name = name;
  }

  copyText(chunk: Buffer): Buffer {
    const text = this.#decode(chunk);
    this.#unended += text.length;
    let lines = '';
    for (let at = 0; at < text.length; at += PIECE)
      lines += this.#lines(text.slice(at, at + PIECE));
    if (this.#unended > LONGEST_ROW) {
      throw this.#error(`is longer than ${LONGEST_ROW} characters, as no row is`);
    }
    return Buffer.from(lines);
  }

  end(): Buffer {
    const lines = this.#lines(this.#decode()) + this.#lines(none);
    if (this.#isInObject || this.#isInArray)
      throw this.#error('is cut off. Export the table again');
    return Buffer.from(lines);
  }

  #decode(chunk?: Buffer): string {
    try {
      return this.#decoder.decode(chunk, { stream: chunk !== undefined });
    } catch (error) {
      throw this.#error('is not in UTF-8', error);
    }
  }

  #lines(piece: string | typeof none): string {
    let lines = '';
    for (const token of this.#tokens(piece)) lines += this.#take(token);
    return lines;
  }

  #tokens(text: string | typeof none): readonly Token[] {
    try {
      const tokens = this.#parse(text);
      return isMany(tokens) ? (getManyValues(tokens) as Token[]) : [];
    } catch (error) {
      throw new InputError(
        `${this.#name} is no JSON, or is cut off, behind record ${this.#records}: ${(error as Error).message}.`,
        { cause: error },
      );
    }
  }

  /** The line that the token ends, or nothing. */
  #take(token: Token): string {
    const { name } = token;
    if (name === 'endObject') return this.#line();
    if (name === 'startObject' && !this.#isInObject) {
      this.#isInObject = true;
    } else if (name === 'startArray' && !this.#isInArray && !this.#isInObject) {
      this.#isInArray = true;
    } else if (name === 'endArray') {
      this.#isInArray = false;
    } else if (name === 'keyValue') {
      this.#column = this.#columns.indexOf(token.value);
      if (this.#values[this.#column] !== undefined) throw this.#noRow();
    } else if (
      this.#column >= 0 &&
      (name === 'stringValue' ||
        (name === 'numberValue' && isStateGroup(this.#table, this.#column)))
    ) {
      this.#values[this.#column] = SPECIAL.test(token.value)
        ? this.#escaped(token.value)
        : token.value;
      this.#column = -1;
    } else {
      throw this.#noRow();
    }
    return '';
  }

  #escaped(text: string): string {
    if (HALF_PAIR.test(text)) throw this.#error('has half of a surrogate pair');
    return text.replaceAll(/[\\\b-\r]/g, escaped);
  }

  #line(): string {
    const values = this.#values;
    for (let i = 0; i < this.#columns.length; i++) {
      if (values[i] === undefined) throw this.#noRow();
    }
    this.#values = [];
    this.#isInObject = false;
    this.#unended = 0;
    this.#records++;
    return `${values.join('\t')}\n`;
  }

  #noRow(): InputError {
    const columns = this.#columns.join(', ');
    return this.#error(`is not an object with ${columns}, each as Postgres writes it`);
  }

  #error(what: string, cause?: unknown): InputError {
    return new InputError(`Record ${this.#records + 1} of ${this.#name} ${what}.`, { cause });
  }
}

function escaped(character: string): string {
  return `\\${String.fromCharCode(escapeLetter(character.charCodeAt(0)))}`;
}
