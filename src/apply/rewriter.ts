import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import type { ChangedGroup } from '../planner/planned-group.js';
import { isLost } from '../sources/postgres/database-errors.js';
import { changeLine, rowLines } from './batch-text.js';
import { BEGIN_BATCH, COPY_CHANGES, COPY_ROWS } from './rewrite-procedure.js';
import { isConflict, rewriteError } from './rewrite-errors.js';
import { WriterSession } from './writer-session.js';
import type { WriterSettings } from './writer-session.js';

/** Changes of one room, each of another state group, that are applied in one transaction. */
export interface Batch {
  readonly room: string;
  readonly changes: readonly ChangedGroup[];
}

/** What became of a batch. */
export interface Outcome {
  readonly rewritten: number;
  /** Groups that were as their change wants them already. */
  readonly alreadyDone: number;
  /** Groups that were left as they are, and why: a clause about "it", the group. */
  readonly skipped: readonly { readonly stateGroup: number; readonly reason: string }[];
  /** Of `state_groups_state`. */
  readonly rowsDeleted: number;
  readonly rowsInserted: number;
  /** How long the transaction took that did it. */
  readonly seconds: number;
}

export type RewriterSettings = WriterSettings;

/** How often a batch that meets other transactions is begun; Synapse gives up after five times. */
const ATTEMPTS = 4;
/** Before the second attempt, in milliseconds; then twice as long each time. */
const FIRST_PAUSE = 250;
/** A batch that the connection is lost over so often may be what breaks it. */
const MOST_LOSSES = 5;

const REWRITE = (room: string, inParts: boolean): string =>
  `${BEGIN_BATCH};
  CALL pg_temp.rewrite_state_groups(${pg.escapeLiteral(room)}, ${inParts});
  SELECT current_setting('synapse_compress_state.batch')::json AS outcome`;

interface BatchResult {
  readonly rewritten: number;
  readonly done: number;
  readonly deleted: number;
  readonly inserted: number;
  readonly skipped: readonly (readonly [stateGroup: number, reason: string])[];
}

/**
 * Applies changes to a database, beside a running Synapse: the one writer of this kind that a database
 * has at a time, over a connection of its own. A group that is no longer what its change was planned on,
 * or that another transaction keeps in the way of, is left as it is and counted.
 *
 * A connection that is lost is made again, for five minutes; what was under way is then done again.
 */
export class Rewriter {
  readonly #settings: RewriterSettings;
  #session: WriterSession;
  /** Whether the temporary tables may hold rows of a batch that failed. */
  #leftOver = false;

  private constructor(settings: RewriterSettings, session: WriterSession) {
    this.#settings = settings;
    this.#session = session;
  }

  /**
   * Connects, and makes sure that nobody else rewrites groups of this database meanwhile.
   *
   * @throws BusyError if another compressor does; DatabaseError if the database can't be reached or lacks
   *   something; UsageError for connection settings that make no sense; the signal's reason
   */
  static async open(settings: RewriterSettings): Promise<Rewriter> {
    return new Rewriter(settings, await WriterSession.open(settings));
  }

  /**
   * Rewrites the groups of a batch in one transaction.
   *
   * @param within more statements of the same transaction, after the groups are rewritten; they are run
   *   also if all groups are skipped or there is none. If the connection is lost while the transaction is
   *   committed, the batch is done once more, and `within` is called again though its first statements may
   *   stand: let them set values, not add to them.
   * @throws DatabaseError; what `within` throws, after a rollback; the signal's reason while it waits
   */
  async rewrite(
    batch: Batch,
    within?: (client: pg.ClientBase, outcome: Outcome) => Promise<void>,
  ): Promise<Outcome> {
    for (let losses = 0; ; losses++) {
      try {
        return await this.#rewrite(batch, within);
      } catch (error) {
        if (!isLost(error as Error) || losses === MOST_LOSSES)
          throw rewriteError(error, `while state groups of room '${batch.room}' were rewritten`);
        this.#session = await this.#session.again(error as Error);
        this.#leftOver = false;
      }
    }
  }

  /** Ends the connection. Safe to call at any time, and twice. */
  async close(): Promise<void> {
    await this.#session.close();
  }

  async #rewrite(
    { room, changes }: Batch,
    within: ((client: pg.ClientBase, outcome: Outcome) => Promise<void>) | undefined,
  ): Promise<Outcome> {
    const { client } = this.#session;
    if (this.#leftOver) {
      await client.query(
        'TRUNCATE pg_temp.synapse_compress_state_changes, pg_temp.synapse_compress_state_rows',
      );
    }
    this.#leftOver = true;
    await this.#copy(COPY_CHANGES, [Buffer.from(changes.map(changeLine).join(''))]);
    await this.#copy(COPY_ROWS, rowLines(changes));
    for (let attempt = 1; ; attempt++) {
      const started = performance.now();
      try {
        const results = (await client.query(
          REWRITE(room, attempt === ATTEMPTS),
        )) as unknown as pg.QueryResult<{ outcome: BatchResult }>[];
        const { rewritten, done, deleted, inserted, skipped } = results.at(-1)!.rows[0].outcome;
        const outcome = {
          rewritten,
          alreadyDone: done,
          skipped: skipped.map(([stateGroup, reason]) => ({ stateGroup, reason })),
          rowsDeleted: deleted,
          rowsInserted: inserted,
        };
        await within?.(client, { ...outcome, seconds: (performance.now() - started) / 1000 });
        await client.query('COMMIT');
        this.#leftOver = false;
        return { ...outcome, seconds: (performance.now() - started) / 1000 };
      } catch (error) {
        if (isLost(error as Error)) throw error;
        await client.query('ROLLBACK');
        if (!isConflict(error) || attempt === ATTEMPTS) throw error;
        await setTimeout(FIRST_PAUSE * 2 ** (attempt - 1) * (0.5 + Math.random()), undefined, {
          ...(this.#settings.signal && { signal: this.#settings.signal }),
        });
      }
    }
  }

  async #copy(statement: string, text: Iterable<Buffer>): Promise<void> {
    const copy = this.#session.client.query(copyFrom(statement));
    await pipeline(Readable.from(text, { objectMode: false }), copy);
  }
}
