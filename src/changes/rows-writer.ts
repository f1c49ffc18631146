import { isText } from '../state/copy-text.js';
import { ByteWriter } from '../sinks/byte-writer.js';

const TAB = 9;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const BACKSPACE = 8;
const QUOTE = 39;
const OPENING_BRACKET = 40;
const CLOSING_BRACKET = 41;
const COMMA = 44;
const SPACE = 32;
const LETTER_E = 69;
const LETTER_V = 118;
const BACKSLASH = 92;

/** Letters whose escapes are the same in COPY text and in literals. */
const ESCAPES: ReadonlySet<number> = new Set(Buffer.from('bfnrt\\'));
const VERTICAL_TAB = Buffer.from('013');

/** The rows of one group after another as canonical COPY text, from what they are written as. */
export class RowsWriter extends ByteWriter {
  constructor() {
    super(1024);
  }

  /** The rows since the last call, in no more bytes than they take: many groups wait to be applied. */
  override take(): Buffer {
    const rows = Buffer.from(this.bytes.subarray(0, this.end));
    this.end = 0;
    return rows;
  }

  /** Adds the row of COPY text that begins at `start` and ends where the line does; false if it is none. */
  addCopyText(line: Buffer, start: number): boolean {
    const stateKey = line.indexOf(TAB, start) + 1;
    const event = line.indexOf(TAB, stateKey) + 1;
    const isRow =
      stateKey > 0 &&
      event > stateKey &&
      line.indexOf(TAB, event) < 0 &&
      isText(line, start, stateKey - 1) &&
      isText(line, stateKey, event - 1) &&
      isText(line, event, line.length);
    if (!isRow) return false;
    this.reserve(line.length - start + 1);
    this.end += line.copy(this.bytes, this.end, start);
    this.bytes[this.end++] = LINE_FEED;
    return true;
  }

  /** Adds a row of three fields of COPY text. */
  addFields(fields: readonly Buffer[]): void {
    fields.forEach((field, index) => {
      this.reserve(field.length + 1);
      this.end += field.copy(this.bytes, this.end);
      this.bytes[this.end++] = index === fields.length - 1 ? LINE_FEED : TAB;
    });
  }

  /**
   * Adds the row that a line begins with: three literals in brackets, each in the one form that
   * `SqlWriter` gives its text. Returns where the row ends, or -1 if there is no such row.
   */
  addLiterals(line: Buffer): number {
    this.reserve(line.length);
    let at = 0;
    if (line[at++] !== OPENING_BRACKET) return -1;
    for (let field = 0; field < 3; field++) {
      if (field > 0 && (line[at++] !== COMMA || line[at++] !== SPACE)) return -1;
      at = this.#literal(line, at);
      if (at < 0) return -1;
      this.bytes[this.end++] = field === 2 ? LINE_FEED : TAB;
    }
    return line[at] === CLOSING_BRACKET ? at + 1 : -1;
  }

  /** Returns where the literal ends that begins at `start`, or -1. */
  #literal(line: Buffer, start: number): number {
    const { bytes } = this;
    const hasEscapes = line[start] === LETTER_E;
    let escapes = 0;
    let at = hasEscapes ? start + 1 : start;
    if (line[at++] !== QUOTE) return -1;
    while (at < line.length) {
      let byte = line[at++];
      if (byte === QUOTE) {
        if (line[at] !== QUOTE) return hasEscapes === escapes > 0 ? at : -1;
        at++;
      } else if (byte === BACKSLASH) {
        if (!hasEscapes) return -1;
        escapes++;
        bytes[this.end++] = BACKSLASH;
        byte = line[at++];
        if (!ESCAPES.has(byte)) {
          if (VERTICAL_TAB.compare(line, at - 1, at + 2) !== 0) return -1;
          at += 2;
          byte = LETTER_V;
        }
      } else if (byte === 0 || (byte >= BACKSPACE && byte <= CARRIAGE_RETURN)) {
        return -1;
      }
      bytes[this.end++] = byte;
    }
    return -1;
  }
}
