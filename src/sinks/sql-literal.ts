import { escapeLetter } from '../state/copy-text.js';

const QUOTE = 39;
const BACKSLASH = 92;
const LETTER_V = 118;

/**
 * SQL text as bytes. Texts come as they stand in canonical COPY text and become literals that mean the
 * same whatever `standard_conforming_strings` says: plain quotes, or the `E''` form where the text has
 * an escape (https://www.postgresql.org/docs/current/sql-syntax-lexical.html).
 */
export class SqlWriter {
  #bytes = Buffer.allocUnsafe(1 << 16);
  #length = 0;

  write(sql: string): this {
    this.#reserve(sql.length * 3);
    this.#length += this.#bytes.write(sql, this.#length);
    return this;
  }

  /** Writes the field in bytes `start` to `end` of COPY text as a literal. */
  literal(copyText: Uint8Array, start: number, end: number): this {
    this.#reserve(4 * (end - start) + 3);
    const bytes = this.#bytes;
    let at = this.#length;
    if (copyText.subarray(start, end).includes(BACKSLASH)) bytes[at++] = 69; // E
    bytes[at++] = QUOTE;
    for (let i = start; i < end; i++) {
      const byte = copyText[i]!;
      if (byte === QUOTE) {
        bytes[at++] = QUOTE;
      } else if (byte === BACKSLASH && copyText[i + 1] === LETTER_V) {
        // COPY has an escape for the vertical tab, a literal has not.
        at += bytes.write('\\013', at);
        i++;
        continue;
      } else if (byte === BACKSLASH) {
        bytes[at++] = BACKSLASH;
        bytes[at++] = copyText[++i]!;
        continue;
      }
      bytes[at++] = byte;
    }
    bytes[at++] = QUOTE;
    this.#length = at;
    return this;
  }

  /** What was written since the last call. */
  take(): Buffer {
    const taken = this.#bytes.subarray(0, this.#length);
    this.#bytes = Buffer.allocUnsafe(1 << 16);
    this.#length = 0;
    return taken;
  }

  get length(): number {
    return this.#length;
  }

  #reserve(length: number): void {
    if (this.#length + length <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#length + length));
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}

/** A string as a literal. */
export function literal(text: string): string {
  let sql = "'";
  let escaped = false;
  for (const byte of Buffer.from(text, 'utf8')) if (escapeLetter(byte) !== 0) escaped = true;
  for (const character of text) {
    if (character === "'") sql += "''";
    else if (escaped && character === '\\') sql += '\\\\';
    else if (character < ' ') sql += `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`;
    else sql += character;
  }
  return `${escaped ? 'E' : ''}${sql}'`;
}
