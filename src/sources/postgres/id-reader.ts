import { InputError } from '../../errors.js';

const TAB = 9;
const LINE_FEED = 10;
const ZERO = 48;

/** Reads ids from COPY text that is cut anywhere, without a string per id. */
export class IdReader {
  readonly #onId: (id: number) => void;
  readonly #onUnusable: (error: InputError) => void;
  /** The digits of an id that the last chunk ended in, and what they stand for. */
  #digits = '';
  #id = 0;

  /**
   * @param onId is called with each id, line after line and column after column
   * @param onUnusable is called in its place where an id is not between 0 and 2^53 - 1, so that a number can't
   *   hold it; the error is thrown if it is not given
   */
  constructor(onId: (id: number) => void, onUnusable: (error: InputError) => void = thrown) {
    this.#onId = onId;
    this.#onUnusable = onUnusable;
  }

  /** @throws what the two functions throw */
  write(bytes: Buffer): void {
    let id = this.#id;
    let start = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      const digit = byte - ZERO;
      if (digit >= 0 && digit <= 9) {
        id = id * 10 + digit;
      } else if (byte === TAB || byte === LINE_FEED) {
        if (id <= Number.MAX_SAFE_INTEGER) this.#onId(id);
        else this.#onUnusable(unusableId(this.#digits + bytes.toString('latin1', start, at)));
        this.#digits = '';
        id = 0;
        start = at + 1;
      } else {
        id = NaN;
      }
    }
    this.#id = id;
    this.#digits += bytes.toString('latin1', start);
  }
}

/** The number that a bigint's text stands for; throws an InputError if it is not between 0 and 2^53 - 1. */
export function idOf(text: string): number {
  const id = Number(text);
  if (!Number.isSafeInteger(id) || id < 0) throw unusableId(text);
  return id;
}

function thrown(error: InputError): void {
  throw error;
}

function unusableId(text: string): InputError {
  return new InputError(
    `The database has a state group ${text}. Ids from 0 to ${Number.MAX_SAFE_INTEGER} (2^53 - 1) can be worked on, and Synapse gives no others.`,
  );
}
