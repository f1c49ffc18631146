import type { Socket } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import type pg from 'pg';
import { BusyError, DatabaseError } from '../errors.js';
import { closing, connect, dropConnection } from '../sources/postgres/connect.js';
import { parseConnection } from '../sources/postgres/connection-settings.js';
import { lossBehind, tablesMissing } from '../sources/postgres/database-errors.js';
import { knownSettings } from '../sources/postgres/statements.js';
import { DEFINE_GIVING_WAY } from '../sinks/giving-way.js';
import { PRIVILEGES, rewriteError } from './rewrite-errors.js';
import { DEFINE_REWRITING } from '../sinks/rewrite-procedure.js';

export interface WriterSettings {
  /** A URL, libpq's keywords, or a database's name; see `parseConnection`. */
  readonly dsn?: string | undefined;
  /** Where the `PG*` variables are looked up. */
  readonly env: NodeJS.ProcessEnv;
  /**
   * Ends what only waits: for a connection, for an answer outside of a transaction, or before another attempt.
   * A transaction under way is finished, unless the server is silent for a minute from then on.
   */
  readonly signal?: AbortSignal | undefined;
  /** Told in a sentence when the connection is lost, and when it is back. */
  readonly onTrouble?: ((sentence: string) => void) | undefined;
}

/** The key of the advisory lock that a writer holds, as two integers. */
const LOCK = [1_396_921_137, 1] as const;

/** A compressor that has just ended may hold its lock a moment longer, in milliseconds. */
const LOCK_PATIENCE = 1000;
const LOCK_PAUSE = 100;

/** How long a lost connection is tried again, and the longest pause between two attempts, in milliseconds. */
const RECONNECT_FOR = 300_000;
const LONGEST_PAUSE = 10_000;

/** A minute more than a statement may take, in milliseconds: by then the server would have said something. */
const LONGEST_SILENCE = 660_000;
/** The same after a signal: whoever sent it, as systemd, waits not much longer. */
const LONGEST_SILENCE_AT_THE_END = 60_000;
/** How long the server may take to end a statement, in milliseconds. */
const CANCEL_PATIENCE = 10_000;

/**
 * What a session of ours is set to. No lock is waited for so long that Synapse would notice; the server
 * ends the session, and frees what it locked, when we are gone without a word, but not while a room is
 * planned between two transactions.
 */
const SETTINGS = `
  SELECT count(set_config(name, value, false))
  FROM ${knownSettings({
    client_encoding: 'UTF8',
    standard_conforming_strings: 'on',
    array_nulls: 'on',
    row_security: 'off',
    lock_timeout: '5s',
    statement_timeout: '10min',
    transaction_timeout: '0',
    idle_in_transaction_session_timeout: '1min',
    idle_session_timeout: '0',
    tcp_keepalives_idle: '30',
    tcp_keepalives_interval: '10',
    tcp_keepalives_count: '3',
    client_connection_check_interval: '5s',
  })}`;

const WHEREABOUTS = `
  SELECT pg_backend_pid() AS pid, backend_start::text AS start, current_database() AS database,
    quote_ident(current_user) AS user, pg_is_in_recovery() AS standby,
    current_setting('default_transaction_read_only')::boolean AS read_only,
    array_to_string(current_schemas(false), ', ') AS schemas
  FROM (SELECT) AS here LEFT JOIN pg_stat_activity ON pid = pg_backend_pid()`;

interface Whereabouts {
  readonly pid: number;
  readonly start: string | null;
  readonly database: string;
  readonly user: string;
  readonly standby: boolean;
  readonly read_only: boolean;
  readonly schemas: string;
}

const TABLES = `
  SELECT name, oid IS NOT NULL AS found, has_table_privilege(oid, 'SELECT')
      AND (name <> 'state_groups' OR has_column_privilege(oid, 'room_id', 'UPDATE'))
      AND (name = 'state_groups' OR has_table_privilege(oid, 'INSERT') AND has_table_privilege(oid, 'DELETE'))
      AND has_database_privilege(current_database(), 'TEMPORARY')
      AND coalesce(has_table_privilege(to_regclass('state_groups_pending_deletion')::oid, 'SELECT'), true) AS allowed
  FROM unnest(ARRAY['state_groups', 'state_group_edges', 'state_groups_state']) AS name,
    LATERAL (SELECT to_regclass(name)::oid AS oid) AS found_table`;

const HOLDER = `
  SELECT pid, nullif(application_name, '') AS application, usename AS user, host(client_addr) AS address,
    to_char(backend_start, 'YYYY-MM-DD HH24:MI') AS since
  FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
  WHERE locktype = 'advisory' AND granted AND classid = ${LOCK[0]} AND objid = ${LOCK[1]} AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

interface Holder {
  readonly pid: number;
  readonly application: string | null;
  readonly user: string | null;
  readonly address: string | null;
  readonly since: string | null;
}

/** A connection that holds the writer's lock and has what rewrites groups. */
export class WriterSession {
  readonly client: pg.Client;
  readonly close: () => Promise<void>;
  readonly #settings: WriterSettings;
  readonly #here: Whereabouts;

  private constructor(
    client: pg.Client,
    close: () => Promise<void>,
    settings: WriterSettings,
    here: Whereabouts,
  ) {
    this.client = client;
    this.close = close;
    this.#settings = settings;
    this.#here = here;
  }

  /**
   * Connects; a connection that is lost from then on, as also later on, is made again.
   *
   * @throws BusyError, DatabaseError, UsageError, the signal's reason
   */
  static async open(settings: WriterSettings): Promise<WriterSession> {
    const client = await connect(parseConnection(settings.dsn, settings.env), settings.signal);
    try {
      return await WriterSession.#setUp(client, settings);
    } catch (error) {
      const loss = lossBehind(error);
      if (loss === undefined) throw error;
      return WriterSession.#openAgain(loss, settings);
    }
  }

  /** A new session in the place of this one, which is lost. */
  async again(reason: Error): Promise<WriterSession> {
    await this.close();
    return WriterSession.#openAgain(reason, this.#settings, this.#here);
  }

  /** Ends the statement under way, or else the connection. */
  async cancel(): Promise<void> {
    const { dsn, env } = this.#settings;
    try {
      const patience = AbortSignal.timeout(CANCEL_PATIENCE);
      const other = await connect(parseConnection(dsn, env), patience);
      const close = closing(other, patience);
      await other.query('SELECT pg_cancel_backend($1)', [this.#here.pid]);
      await close();
    } catch {
      dropConnection(this.client);
    }
  }

  /** @param lost a session of ours that the server may not have noticed the end of */
  static async #openAgain(
    reason: Error,
    settings: WriterSettings,
    lost?: Whereabouts,
  ): Promise<WriterSession> {
    const { dsn, env, signal, onTrouble } = settings;
    signal?.throwIfAborted();
    onTrouble?.(
      `The connection to the database was lost: ${reason.message}. Trying again for ${RECONNECT_FOR / 60_000} minutes. If the server does not come up by itself, see whether its disk is full.`,
    );
    const end = performance.now() + RECONNECT_FOR;
    for (let pause = 250; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      await setTimeout(pause, undefined, signalOption(signal));
      try {
        const client = await connect(parseConnection(dsn, env), signal);
        const session = await WriterSession.#setUp(client, settings, lost);
        onTrouble?.('Connected again: going on where it was.');
        return session;
      } catch (error) {
        const mayPass = error instanceof DatabaseError || error instanceof BusyError;
        if (!mayPass || performance.now() > end) throw error;
      }
    }
  }

  static async #setUp(
    client: pg.Client,
    settings: WriterSettings,
    lost?: Whereabouts,
  ): Promise<WriterSession> {
    const { signal } = settings;
    const close = closing(client, undefined);
    const heardAll = cutWhenSilent(client, signal);
    const setUp = async (): Promise<Whereabouts> => {
      const { rows } = await client.query<Whereabouts>(WHEREABOUTS);
      const [here] = rows;
      checkServer(client, here);
      await checkTables(client, here);
      if (lost !== undefined) {
        await client.query(
          'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2',
          [lost.pid, lost.start],
        );
      }
      await lock(client, here);
      await client.query(SETTINGS);
      await client.query(DEFINE_REWRITING + DEFINE_GIVING_WAY);
      return here;
    };
    try {
      const here = await unlessAborted(signal, () => dropConnection(client), setUp);
      return new WriterSession(client, close, settings, here);
    } catch (error) {
      await close();
      signal?.throwIfAborted();
      throw rewriteError(error, 'while a session was set up');
    } finally {
      heardAll();
    }
  }
}

/**
 * Cuts the connection where a server, or what is between, keeps it open and is silent: nothing else would
 * end the wait for it. Gives what stops that, for when a silence is right.
 */
export function cutWhenSilent(client: pg.Client, signal: AbortSignal | undefined): () => void {
  const stream = client.connection.stream as Socket;
  const cut = (): void => dropConnection(client);
  const hurry = (): void => void stream.setTimeout(LONGEST_SILENCE_AT_THE_END);
  stream.setTimeout(LONGEST_SILENCE, cut);
  if (signal?.aborted) hurry();
  signal?.addEventListener('abort', hurry);
  return () => {
    signal?.removeEventListener('abort', hurry);
    stream.setTimeout(0, cut);
  };
}

/**
 * Does something that may be ended anywhere; `end` does that when the signal comes.
 *
 * @throws the signal's reason, what `work` throws
 */
export async function unlessAborted<T>(
  signal: AbortSignal | undefined,
  end: () => void,
  work: () => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  signal?.addEventListener('abort', end);
  try {
    return await work();
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', end);
  }
}

/** For timers; an option may not be undefined. */
export function signalOption(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

/** @throws DatabaseError if the server can't be written to, or is not what we are connected to */
function checkServer(client: pg.Client, { pid, user, standby, read_only }: Whereabouts): void {
  if (standby) {
    throw new DatabaseError(
      'The server is a standby, which takes no changes. Connect to the primary.',
    );
  }
  if (read_only) {
    throw new DatabaseError(
      `User ${user} may only read here, because default_transaction_read_only is on. If nobody meant it to keep changes off, switch it off: ALTER ROLE ${user} SET default_transaction_read_only = off;`,
    );
  }
  // What Postgres gave for cancelling; a pooler gives something of its own.
  const { processID } = client as unknown as { readonly processID: number | null };
  if (processID !== null && processID !== pid) {
    throw new DatabaseError(
      'A connection pooler, such as PgBouncer, is between here and Postgres: it may change sessions between two statements, and changes need one session with a lock and temporary tables of its own. Connect to Postgres itself.',
    );
  }
}

async function checkTables(client: pg.Client, here: Whereabouts): Promise<void> {
  const { rows } = await client.query<{ name: string; found: boolean; allowed: boolean }>(TABLES);
  const missing = rows.filter(({ found }) => !found).map(({ name }) => name);
  if (missing.length > 0) throw tablesMissing(missing.join(', '), here);
  if (rows.some(({ allowed }) => !allowed)) {
    throw new DatabaseError(
      `User ${here.user} may not change what is to be changed in database "${here.database}". ${PRIVILEGES}`,
    );
  }
}

async function lock(client: pg.Client, { database }: Whereabouts): Promise<void> {
  const end = performance.now() + LOCK_PATIENCE;
  for (;;) {
    const { rows } = await client.query<{ locked: boolean }>(
      `SELECT pg_try_advisory_lock(${LOCK.join(', ')}) AS locked`,
    );
    if (rows[0].locked) return;
    if (performance.now() > end) break;
    await setTimeout(LOCK_PAUSE);
  }
  const { rows } = await client.query<Holder>(HOLDER);
  const [holder] = rows;
  if (holder === undefined) {
    throw new BusyError(`Another compressor was writing to database "${database}". Try again.`);
  }
  const { pid, application, user, address, since } = holder;
  throw new BusyError(
    `Another compressor is writing to database "${database}": ${application ?? 'a program'}, as user ${user ?? 'unknown'}, from ${address ?? 'this machine'}, process ${pid} of the server since ${since ?? 'some time'}. Wait until it is done. If it hangs, end it: SELECT pg_terminate_backend(${pid});`,
  );
}
