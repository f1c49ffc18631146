import { DatabaseError } from '../../errors.js';

const TAB = 9;
const LINE_FEED = 10;
const ZERO = 48;
/** As many characters as a bigint has. */
const LONGEST = 20;

/** Reads ids from COPY text that is cut anywhere, without a string per id. */
export class IdReader {
  readonly #onId: (id: number) => void;
  #id = 0;
  /** The text of the id, to name one that is too large. */
  readonly #text = Buffer.alloc(LONGEST);
  #length = 0;

  /** @param onId is called with each id, line after line and column after column */
  constructor(onId: (id: number) => void) {
    this.#onId = onId;
  }

  /** @throws DatabaseError if an id is not between 0 and 2^53 - 1, so that a number can't hold it */
  write(bytes: Buffer): void {
    for (const byte of bytes) {
      if (byte !== TAB && byte !== LINE_FEED) {
        this.#text[this.#length++] = byte;
        this.#id = this.#id * 10 + (byte - ZERO);
        continue;
      }
      if (!(this.#id <= Number.MAX_SAFE_INTEGER) || this.#text[0] < ZERO) {
        throw unusableId(this.#text.toString('latin1', 0, this.#length));
      }
      this.#onId(this.#id);
      this.#id = 0;
      this.#length = 0;
    }
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
