import { InputError } from '../errors.js';
import type { ChangeInput } from './room-change.js';

const LINE_FEED = 10;

/** More than any line of ours has, whose longest is a row. */
const LONGEST = 16 * 2 ** 20;

/** Lines of a script, and sentences about them. Only where a chunk ends is there something to wait for. */
export class ScriptLines {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #place: ChangeInput['place'];
  #bytes = Buffer.alloc(0);
  #at = 0;
  /** Where the line begins that was taken last. */
  #last = 0;
  #count = 0;

  constructor(chunks: AsyncIterable<Buffer>, place: ChangeInput['place']) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#place = place;
  }

  /** The next line without its end, if it is here already; valid until the next is taken. */
  ready(): Buffer | undefined {
    const end = this.#bytes.indexOf(LINE_FEED, this.#at);
    if (end < 0) return undefined;
    this.#last = this.#at;
    this.#at = end + 1;
    this.#count++;
    return this.#bytes.subarray(this.#last, end);
  }

  /**
   * The next line, where the script may end; undefined if it does.
   *
   * @throws InputError if it ends within a line, or the line has no end
   */
  async nextIfAny(): Promise<Buffer | undefined> {
    for (;;) {
      const line = this.ready();
      if (line !== undefined) return line;
      const rest = this.#bytes.subarray(this.#at);
      if (rest.length > LONGEST) throw this.notAsWritten(1);
      const chunk = await this.#chunks.next();
      if (chunk.done === true) {
        if (rest.length === 0) return undefined;
        throw this.wrong('is the last whole line: the file was cut off after it.');
      }
      this.#bytes = Buffer.concat([rest, chunk.value]);
      this.#at = 0;
    }
  }

  /** The next line, where the script may not end. */
  async next(): Promise<Buffer> {
    const line = await this.nextIfAny();
    if (line !== undefined) return line;
    throw this.wrong(
      'is the last, but the changes go on after it: the file was cut off. Make it or copy it again.',
    );
  }

  /** Puts the line back that was taken last. */
  back(): void {
    this.#at = this.#last;
    this.#count--;
  }

  /** Takes the lines of a text, which must be the next ones to the letter. */
  async expect(text: string): Promise<void> {
    for (const wanted of text.slice(0, -1).split('\n')) {
      const line = this.ready() ?? (await this.next());
      if (!line.equals(Buffer.from(wanted))) throw this.notAsWritten();
    }
  }

  /** That something is wrong with the line that was taken last. */
  wrong(what: string): InputError {
    return new InputError(`${this.#place(Math.max(0, this.#count - 1))} ${what}`);
  }

  /** That the line that was taken last, or one after it, is none of ours. */
  notAsWritten(after = 0): InputError {
    return new InputError(
      `${this.#place(Math.max(0, this.#count - 1 + after))} is not what synapse_compress_state writes there: the file is damaged, or was changed, or is of another version of it. Make it again.`,
    );
  }
}
