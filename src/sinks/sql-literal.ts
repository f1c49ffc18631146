import { ByteWriter } from './byte-writer.js';

const TAB = 9;
const LINE_FEED = 10;
const QUOTE = 39;
const LETTER_E = 69;
const BACKSLASH = 92;
const LETTER_V = 118;

const SIZE = 1 << 16;
/** The most bytes that one byte of a row can become. */
const WIDEST = 4;

/**
 * SQL text as bytes. Rows come as canonical COPY text, and their fields become literals that mean the
 * same whatever `standard_conforming_strings` says: plain quotes, or the `E''` form where the text has
 * an escape (https://www.postgresql.org/docs/current/sql-syntax-lexical.html).
 */
export class SqlWriter extends ByteWriter {
  constructor() {
    super(SIZE);
  }

  /**
   * Writes the row of COPY text that begins at `start` as literals with commas between them. Returns
   * where the next row begins.
   */
  row(copyText: Buffer, start: number): number {
    const end = copyText.indexOf(LINE_FEED, start);
    this.reserve(WIDEST * (end - start) + 16);
    const from = new DataView(copyText.buffer, copyText.byteOffset, copyText.length);
    let at = this.end;
    let field = at;
    this.bytes[at++] = QUOTE;
    for (let i = start; i < end;) {
      // Four bytes at a time, unless one of them is special.
      if (i + 4 <= end) {
        const word = from.getInt32(i);
        if (isPlain(word)) {
          this.view.setInt32(at, word);
          at += 4;
          i += 4;
          continue;
        }
      }
      const byte = copyText[i++];
      if (byte === TAB) {
        at += this.bytes.write("', ", at);
        field = at;
        this.bytes[at++] = QUOTE;
      } else if (byte === QUOTE) {
        at += this.bytes.write("''", at);
      } else if (byte === BACKSLASH) {
        if (this.bytes[field] === QUOTE) {
          this.bytes.copyWithin(field + 1, field, at++);
          this.bytes[field] = LETTER_E;
        }
        // COPY has an escape for the vertical tab, a literal has not.
        const letter = copyText[i++];
        at += this.bytes.write(
          letter === LETTER_V ? '\\013' : `\\${String.fromCharCode(letter)}`,
          at,
        );
      } else {
        this.bytes[at++] = byte;
      }
    }
    this.bytes[at++] = QUOTE;
    this.end = at;
    return end + 1;
  }
}

/** Whether none of a word's bytes is a quote, a backslash or a control character; sometimes false when none is. */
function isPlain(word: number): boolean {
  const quote = word ^ 0x27272727;
  const backslash = word ^ 0x5c5c5c5c;
  const special =
    ((word - 0x20202020) & ~word) |
    ((quote - 0x01010101) & ~quote) |
    ((backslash - 0x01010101) & ~backslash);
  return (special & 0x80808080) === 0;
}

/** Lines for whoever reads a script, each as a comment of one line. */
export function comment(lines: readonly string[]): string {
  return lines.map((line) => `-- ${line.replaceAll(/[\r\n]/g, ' ')}\n`).join('');
}

/** A string as a literal of one line, which means the same whatever `standard_conforming_strings` says. */
export function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return /[\\\n]/.test(text)
    ? `E${quoted.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`
    : quoted;
}
