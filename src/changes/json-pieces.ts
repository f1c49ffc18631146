import { InputError } from '../errors.js';
import type { ChangeInput } from './room-change.js';

const TAB = 9;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const SPACE = 32;
const QUOTE = 34;
const BACKSLASH = 92;

/** More than any piece of ours has, the longest of which is a row. */
const LONGEST = 16 * 2 ** 20;

/** JSON in pieces that end at a bracket, so that a long line need not be held. */
export class JsonPieces {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #place: ChangeInput['place'];
  #bytes = Buffer.alloc(0);
  #at = 0;
  #lines = 0;

  constructor(chunks: AsyncIterable<Buffer>, place: ChangeInput['place']) {
    this.#chunks = chunks[Symbol.asyncIterator]();
    this.#place = place;
  }

  /** Whether anything but space is left. */
  async hasMore(): Promise<boolean> {
    for (;;) {
      for (; this.#at < this.#bytes.length; this.#at++) {
        const byte = this.#bytes[this.#at];
        if (byte === LINE_FEED) this.#lines++;
        else if (byte !== SPACE && byte !== TAB && byte !== CARRIAGE_RETURN) return true;
      }
      if (!(await this.#read())) return false;
    }
  }

  /**
   * All up to the next such byte that is in no string, and that byte; valid until the next piece is taken.
   *
   * @throws InputError if there is none
   */
  async next(end: number): Promise<Buffer> {
    let at = this.#at;
    let isInString = false;
    for (;;) {
      for (; at < this.#bytes.length; at++) {
        const byte = this.#bytes[at];
        if (byte === BACKSLASH) at++;
        else if (byte === QUOTE) isInString = !isInString;
        else if (byte === LINE_FEED) this.#lines++;
        else if (byte === end && !isInString) {
          const piece = this.#bytes.subarray(this.#at, at + 1);
          this.#at = at + 1;
          return piece;
        }
      }
      at -= this.#at;
      if (at > LONGEST) throw this.wrong('has neither a change nor a row in 16 MB.');
      if (!(await this.#read())) {
        throw this.wrong('ends within a change: the file was cut off. Make it or copy it again.');
      }
    }
  }

  /** That something is wrong with the line of the piece that was taken last. */
  wrong(what: string): InputError {
    return new InputError(`${this.#place(this.#lines)} ${what}`);
  }

  async #read(): Promise<boolean> {
    const chunk = await this.#chunks.next();
    if (chunk.done === true) return false;
    this.#bytes = Buffer.concat([this.#bytes.subarray(this.#at), chunk.value]);
    this.#at = 0;
    return true;
  }
}
