import { DatabaseError } from '../../errors.js';

const ZERO = 48;
const MINUS = 45;

/** Reads ids from COPY text that is cut anywhere, without a string per id. */
export class IdReader {
  readonly #onId: (id: number) => void;
  /** The digits of an id that the last chunk ended in, and what they stand for. */
  #digits = '';
  #id = 0;

  /** @param onId is called with each id, line after line and column after column */
  constructor(onId: (id: number) => void) {
    this.#onId = onId;
  }

  /** @throws DatabaseError if an id is not between 0 and 2^53 - 1, so that a number can't hold it */
  write(bytes: Buffer): void {
    let id = this.#id;
    let start = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte >= ZERO) {
        id = id * 10 + (byte - ZERO);
      } else if (byte === MINUS) {
        id = NaN;
      } else {
        // A tab or a line feed.
        if (!(id <= Number.MAX_SAFE_INTEGER)) {
          throw unusableId(this.#digits + bytes.toString('latin1', start, at));
        }
        this.#onId(id);
        this.#digits = '';
        id = 0;
        start = at + 1;
      }
    }
    this.#id = id;
    this.#digits += bytes.toString('latin1', start);
  }
}

/** The number that a bigint's text stands for; throws as `IdReader` does. */
export function idOf(text: string): number {
  const id = Number(text);
  if (!Number.isSafeInteger(id) || id < 0) throw unusableId(text);
  return id;
}

function unusableId(text: string): DatabaseError {
  return new DatabaseError(
    `The database has a state group ${text}. Ids from 0 to ${Number.MAX_SAFE_INTEGER} (2^53 - 1) can be worked on, and Synapse gives no others.`,
  );
}
