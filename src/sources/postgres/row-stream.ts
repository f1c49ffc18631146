import { Readable } from 'node:stream';
import type pg from 'pg';
import { dropConnection } from './connect.js';
import { CopyOut } from './copy-out.js';
import { statementError } from './database-errors.js';
import { GROUPS_PER_STATEMENT, rowsStatement } from './statements.js';

/**
 * The rows of groups as chunks of COPY text, from one COPY after the other. As long as nobody reads,
 * the socket is not read either. Destroyed early, it drops the connection: the server can't be told to
 * stop a COPY over the connection that the COPY fills.
 */
export class RowStream extends Readable {
  readonly #client: pg.Client;
  readonly #ids: Float64Array;
  /** Groups whose rows were asked for. */
  #asked = 0;
  #copy: CopyOut | undefined;
  /** The first group of the COPY under way, and the last chunk of it. */
  #first = 0;
  #last: Buffer | undefined;

  constructor(client: pg.Client, ids: Float64Array) {
    super();
    this.#client = client;
    this.#ids = ids;
  }

  override _read(): void {
    if (this.#copy !== undefined) this.#copy.resume();
    else this.#begin();
  }

  #begin(): void {
    const ids = this.#ids.subarray(this.#asked, this.#asked + GROUPS_PER_STATEMENT);
    if (ids.length === 0) {
      this.push(null);
      return;
    }
    this.#asked += ids.length;
    [this.#first] = ids;
    this.#last = undefined;
    const copy = new CopyOut(`COPY (${rowsStatement(ids)}) TO STDOUT`, (chunk) => {
      this.#last = chunk;
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
        this.destroy(statementError(error, `while the rows ${this.#position()} were read`));
      },
    );
  }

  /** How far the rows came, as the last chunk shows it: it may end, or even begin and end, within a line. */
  #position(): string {
    const [, group] = /.*\n(\d+)\t/s.exec(this.#last?.toString('latin1') ?? '') ?? [];
    return group === undefined
      ? `from state group ${this.#first} on`
      : `after state group ${group}`;
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.#copy !== undefined) dropConnection(this.#client);
    done(error);
  }
}
