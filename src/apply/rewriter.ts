import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';
import pg from 'pg';
import { from as copyFrom } from 'pg-copy-streams';
import type { ChangedGroup } from '../planner/planned-group.js';
import { dropConnection } from '../sources/postgres/connect.js';
import { isLost } from '../sources/postgres/database-errors.js';
import { changeLine, rowLines } from '../sinks/batch-text.js';
import { ON_TABLES } from '../sinks/giving-way.js';
import { BEGIN_BATCH, COPY_CHANGES, COPY_ROWS } from '../sinks/rewrite-procedure.js';
import { isConflict, lacksPrivilege, rewriteError } from './rewrite-errors.js';
import { cutWhenSilent, signalOption, unlessAborted, WriterSession } from './writer-session.js';
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
  /** How many of these another transaction was in the way of. */
  readonly blocked: number;
  /** Of `state_groups_state`. */
  readonly rowsDeleted: number;
  readonly rowsInserted: number;
  /** How long the transaction took that did it. */
  readonly seconds: number;
  /** How long others were let go first. */
  readonly secondsGiven: number;
}

/**
 * More statements of a batch's transaction. If the connection is lost while it is committed, all is done
 * again, though what was done first may stand: so let them set values, not add to them.
 */
export type Within = (client: pg.ClientBase, outcome: Rewritten) => Promise<void>;

/** What a transaction did, which is yet to be committed. */
type Rewritten = Omit<Outcome, 'seconds' | 'secondsGiven'>;

/** How often a batch that meets other transactions is begun; Synapse gives up after five times. */
const ATTEMPTS = 4;
/** Before the second attempt, in milliseconds; then twice as long each time. */
const FIRST_PAUSE = 250;
/** How long a batch waits for whoever holds a table, and between two looks, in milliseconds. */
const LONGEST_WAIT_FOR_TABLES = 300_000;
const TABLES_PAUSE = 500;
/** A batch that the connection is lost over so often may be what breaks it. */
const MOST_LOSSES = 5;

/** What the procedure is to do where another transaction is in the way, or instead of rewriting. */
type Mode = 'all or nothing' | 'in parts' | 'dry run';

function rewriteStatement(room: string, mode: Mode): string {
  return `${BEGIN_BATCH};
    CALL pg_temp.rewrite_state_groups(${pg.escapeLiteral(room)}, ${mode === 'in parts'}, ${mode === 'dry run'});
    SELECT current_setting('synapse_compress_state.batch')::json AS outcome`;
}

const GIVE_WAY = 'CALL pg_temp.let_them_go_first()';
const GIVE_WAY_TO_WRITERS = `
  SELECT set_config('synapse_compress_state.first', pg_temp.sessions_that_write('0')::text, false);
  ${GIVE_WAY}`;

/** The modes that conflict with that of a statement which writes rows. */
const TABLE_HOLDER = `
  SELECT pid FROM pg_locks
  WHERE granted AND pid <> pg_backend_pid()
    AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    AND ${ON_TABLES}
  LIMIT 1`;

const BETWEEN_CHANGES = 'between changes';
const whileRewriting = (room: string): string => `while room '${room}' was rewritten`;

interface BatchResult {
  readonly rewritten: number;
  readonly done: number;
  readonly deleted: number;
  readonly inserted: number;
  readonly blocked: number;
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
  readonly #settings: WriterSettings;
  #session: WriterSession;
  /** Whether the temporary tables may hold rows of a batch that failed. */
  #leftOver = false;
  /** Why the connection could not be made again: whoever asks once more is not kept for as long. */
  #givenUp: Error | undefined;

  private constructor(settings: WriterSettings, session: WriterSession) {
    this.#settings = settings;
    this.#session = session;
  }

  /**
   * Connects, and makes sure that nobody else rewrites groups of this database meanwhile.
   *
   * @throws BusyError if another compressor does; DatabaseError if the database can't be reached or lacks
   *   something; UsageError for connection settings that make no sense; the signal's reason
   */
  static async open(settings: WriterSettings): Promise<Rewriter> {
    return new Rewriter(settings, await WriterSession.open(settings));
  }

  /**
   * Rewrites the groups of a batch in one transaction.
   *
   * @param within called after the groups are rewritten, also if all are skipped or there is none
   * @throws DatabaseError; what `within` throws, after a rollback; the signal's reason while it waits
   */
  async rewrite(batch: Batch, within?: Within): Promise<Outcome> {
    const { room } = batch;
    // What was being committed when the connection was lost: it may stand.
    let unsure: Rewritten | undefined;
    const onLoss = (rewritten: Rewritten): void => void (unsure = firstSeen(unsure, rewritten));
    try {
      return await this.#unlessLost(whileRewriting(room), async () => {
        await this.#outside(() => this.#send(batch));
        const outcome = await this.#unlessInTheWay((isLast) =>
          this.#rewriteOnce(room, isLast ? 'in parts' : 'all or nothing', within, onLoss),
        );
        const committed = performance.now();
        await this.#giveWay(GIVE_WAY);
        const secondsGiven = (performance.now() - committed) / 1000;
        return { ...firstSeen(unsure, outcome), seconds: outcome.seconds, secondsGiven };
      });
    } catch (error) {
      if (unsure !== undefined && unsure.rewritten > 0) {
        this.#settings.onTrouble?.(
          `The connection was lost while a transaction was committed: the ${unsure.rewritten} state groups of it may be rewritten too, and are not counted.`,
        );
      }
      throw error;
    }
  }

  /** Does something in a transaction that rewrites nothing; what `Within` says holds here too. */
  async transaction<T>(work: (client: pg.ClientBase) => Promise<T>): Promise<T> {
    return this.#unlessLost(BETWEEN_CHANGES, () =>
      this.#unlessInTheWay(() =>
        this.#commit(async (client) => {
          await client.query(BEGIN_BATCH);
          return work(client);
        }),
      ),
    );
  }

  /** Says what `rewrite` would do now, locks nothing and changes nothing. */
  async inspect(batch: Batch): Promise<Outcome> {
    return this.#unlessLost(whileRewriting(batch.room), async () => {
      await this.#outside(() => this.#send(batch));
      return this.#rewriteOnce(batch.room, 'dry run');
    });
  }

  /**
   * Runs a statement outside of a transaction, and again if the connection is lost meanwhile; it is, after
   * eleven minutes of silence. The signal ends it.
   *
   * @throws DatabaseError, the signal's reason
   */
  async query<Row extends pg.QueryResultRow>(statement: string): Promise<Row[]> {
    return this.#unlessLost(BETWEEN_CHANGES, async () => {
      const { rows } = await this.#outside((client) => client.query<Row>(statement));
      return rows;
    });
  }

  /**
   * As `query`, for a statement that may take hours. The signal ends it.
   *
   * @throws DatabaseError, the signal's reason
   */
  async runLong(statement: string): Promise<void> {
    const { signal } = this.#settings;
    const run = (): Promise<void> => {
      const session = this.#session;
      const cancel = (): void => void session.cancel();
      return unlessAborted(signal, cancel, async () => {
        await session.client.query('SET statement_timeout = 0; SET lock_timeout = 0');
        await session.client.query(statement);
      });
    };
    await this.#unlessLost(BETWEEN_CHANGES, run, { mayBeSilent: true });
  }

  /** Ends the connection. Safe to call at any time, and twice. */
  async close(): Promise<void> {
    await this.#session.close();
  }

  /** Lets others go first. That is a courtesy: what fails here shows in the next batch. */
  async #giveWay(statement: string): Promise<void> {
    await this.#outside((client) => client.query(statement)).catch(() => {});
  }

  /** Does what is outside of a transaction: the signal ends it, and with it the connection. */
  #outside<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const { client } = this.#session;
    const cut = (): void => dropConnection(client);
    return unlessAborted(this.#settings.signal, cut, () => work(client));
  }

  /** Does all again over a new connection, where the one that it was done over is lost. */
  async #unlessLost<T>(
    doing: string,
    work: () => Promise<T>,
    { mayBeSilent = false } = {},
  ): Promise<T> {
    for (let losses = 0; ; losses++) {
      if (this.#givenUp !== undefined) throw this.#givenUp;
      const { client } = this.#session;
      const heardAll = mayBeSilent ? undefined : cutWhenSilent(client, this.#settings.signal);
      try {
        return await work();
      } catch (error) {
        if (!isLost(error as Error) || losses === MOST_LOSSES) throw rewriteError(error, doing);
        this.#session = await this.#session.again(error as Error).catch((reason: unknown) => {
          this.#givenUp = reason as Error;
          throw reason;
        });
        this.#leftOver = false;
      } finally {
        heardAll?.();
      }
    }
  }

  /** Does it again, after a pause, where another transaction is in the way; the last time that is an error. */
  async #unlessInTheWay<T>(work: (isLast: boolean) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work(attempt === ATTEMPTS);
      } catch (error) {
        if (!isConflict(error) || attempt === ATTEMPTS) throw error;
        await this.#untilTablesAreFree();
        const pause = FIRST_PAUSE * 2 ** (attempt - 1) * (0.5 + Math.random());
        await setTimeout(pause, undefined, signalOption(this.#settings.signal));
        await this.#giveWay(GIVE_WAY_TO_WRITERS);
      }
    }
  }

  /** Waits while somebody holds a whole table, which keeps us from all groups, not from a few. */
  async #untilTablesAreFree(): Promise<void> {
    const { signal, onTrouble } = this.#settings;
    const end = performance.now() + LONGEST_WAIT_FOR_TABLES;
    for (let said = false; performance.now() < end; said = true) {
      const pid = await this.#tableHolder();
      if (pid === undefined) return;
      if (!said) {
        onTrouble?.(
          `Process ${pid} of the server holds a table that is to be changed, as VACUUM FULL, CLUSTER and ALTER TABLE do: waiting for it, ${LONGEST_WAIT_FOR_TABLES / 60_000} minutes at most.`,
        );
      }
      await setTimeout(TABLES_PAUSE, undefined, signalOption(signal));
    }
  }

  /** Unknown where pg_locks may not be read. */
  async #tableHolder(): Promise<number | undefined> {
    try {
      const { rows } = await this.#outside((client) => client.query<{ pid: number }>(TABLE_HOLDER));
      return rows[0]?.pid;
    } catch (error) {
      if (lacksPrivilege(error)) return undefined;
      throw error;
    }
  }

  /** Fills the temporary tables. */
  async #send({ changes }: Batch): Promise<void> {
    if (this.#leftOver) {
      await this.#session.client.query(
        'TRUNCATE pg_temp.synapse_compress_state_changes, pg_temp.synapse_compress_state_rows',
      );
    }
    this.#leftOver = true;
    await this.#copy(COPY_CHANGES, [Buffer.from(changes.map(changeLine).join(''))]);
    await this.#copy(COPY_ROWS, rowLines(changes));
  }

  /** Rewrites what the temporary tables hold. */
  async #rewriteOnce(
    room: string,
    mode: Mode,
    within?: Within,
    onLoss?: (rewritten: Rewritten) => void,
  ): Promise<Outcome> {
    const started = performance.now();
    const outcome = await this.#commit(async (client) => {
      const results = (await client.query(
        rewriteStatement(room, mode),
      )) as unknown as pg.QueryResult<{ outcome: BatchResult }>[];
      const { rewritten, done, deleted, inserted, blocked, skipped } =
        results.at(-1)!.rows[0].outcome;
      const ofBatch = {
        rewritten,
        alreadyDone: done,
        skipped: skipped.map(([stateGroup, reason]) => ({ stateGroup, reason })),
        blocked,
        rowsDeleted: deleted,
        rowsInserted: inserted,
      };
      await within?.(client, ofBatch);
      return ofBatch;
    }, onLoss);
    this.#leftOver = false;
    return { ...outcome, seconds: (performance.now() - started) / 1000, secondsGiven: 0 };
  }

  /**
   * Commits the transaction that `work` begins, or rolls it back where that fails.
   *
   * @param onLoss called with the result where it is not known which of both the server did
   */
  async #commit<T>(
    work: (client: pg.ClientBase) => Promise<T>,
    onLoss?: (result: T) => void,
  ): Promise<T> {
    const { client } = this.#session;
    try {
      const result = await work(client);
      await client.query('CALL pg_temp.note_who_goes_first(); COMMIT').catch((error: unknown) => {
        if (isLost(error as Error)) onLoss?.(result);
        throw error;
      });
      return result;
    } catch (error) {
      if (!isLost(error as Error)) await client.query('ROLLBACK');
      throw error;
    }
  }

  async #copy(statement: string, text: Iterable<Buffer>): Promise<void> {
    const copy = this.#session.client.query(copyFrom(statement));
    await pipeline(Readable.from(text, { objectMode: false }), copy);
  }
}

/** What was done first, where the groups that it did are just those that are found done when it is done again. */
function firstSeen(first: Rewritten | undefined, again: Rewritten): Rewritten {
  const stands =
    first !== undefined &&
    again.rewritten === 0 &&
    again.alreadyDone === first.rewritten + first.alreadyDone;
  return stands ? first : again;
}
