import { Readable } from 'node:stream';
import type pg from 'pg';
import { dropConnection } from './connect.js';
import { CopyOut } from './copy-out.js';
import { statementError } from './database-errors.js';

const LINE_FEED = 10;

/**
 * What statements give, one after the other, as chunks of COPY text. As long as nobody reads, the socket
 * is not read either. Destroyed early, it drops the connection: the server can't be told to stop a COPY
 * over the connection that the COPY fills.
 */
export class CopyStream extends Readable {
  readonly #client: pg.Client;
  readonly #statements: Iterator<string>;
  readonly #doing: (last: Buffer | undefined) => string;
  #copy: CopyOut | undefined;
  /** The last chunk of the COPY under way that has a whole line after its first line feed. */
  #last: Buffer | undefined;

  /**
   * @param doing says what an error interrupted, as in `while state group 5 was read`, given the last chunk
   *   of the statement that has a whole line after its first line feed
   */
  constructor(
    client: pg.Client,
    statements: Iterable<string>,
    doing: (last: Buffer | undefined) => string,
  ) {
    super();
    this.#client = client;
    this.#statements = statements[Symbol.iterator]();
    this.#doing = doing;
  }

  override _read(): void {
    if (this.#copy !== undefined) this.#copy.resume();
    else this.#begin();
  }

  #begin(): void {
    const statement = this.#statements.next();
    if (statement.done === true) {
      this.push(null);
      return;
    }
    this.#last = undefined;
    const copy = new CopyOut(`COPY (${statement.value}) TO STDOUT`, (chunk) => {
      if (hasLine(chunk)) this.#last = chunk;
      if (!this.push(chunk)) copy.pause();
    });
    this.#copy = copy;
    this.#client.query(copy);
    copy.finished.then(
      () => {
        this.#copy = undefined;
        if (!this.destroyed) this.#begin();
      },
      (error: Error) => {
        this.#copy = undefined;
        this.destroy(statementError(error, this.#doing(this.#last)));
      },
    );
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.#copy !== undefined) dropConnection(this.#client);
    done(error);
  }
}

function hasLine(chunk: Buffer): boolean {
  return chunk.indexOf(LINE_FEED) !== chunk.lastIndexOf(LINE_FEED);
}
