import type pg from 'pg';
import { DatabaseError } from '../../errors.js';
import { closing, connect } from './connect.js';
import { parseConnection } from './connection-settings.js';
import { statementError, tablesMissing } from './database-errors.js';
import {
  beginStatement,
  CHECK_TABLES,
  INDEXED_COLUMNS,
  SET_UP,
  WHEREABOUTS,
} from './statements.js';

type Table = keyof typeof INDEXED_COLUMNS;

interface TableCheck {
  readonly name: Table;
  readonly found: boolean;
  readonly readable: boolean;
  readonly lockable: boolean;
  readonly indexed: boolean;
}

export interface SnapshotSettings {
  /** A URL, libpq's keywords, or a database's name; see `parseConnection`. */
  readonly dsn?: string | undefined;
  /** Where the `PG*` variables are looked up. */
  readonly env: NodeJS.ProcessEnv;
  /** Closes the connection at once when it is aborted, whatever is under way. */
  readonly signal?: AbortSignal | undefined;
}

/** A connection of its own, in a transaction that only reads. */
export interface Snapshot {
  readonly client: pg.Client;
  /** When it was taken. */
  readonly time: Date;
  /** Ends the connection. Safe to call at any time, and twice. */
  readonly close: () => Promise<void>;
}

/**
 * Connects, sees that the tables are there, begins the transaction that all is read in, with settings that keep the
 * planner on the indexes, and does the first that is to be done in it. Where that fails it is closed;
 * otherwise it stays open.
 *
 * @param doing when an error was, as for `statementError`
 * @throws UsageError for connection settings that make no sense, DatabaseError if the database can't be
 *   reached or read, or lacks a table or an index to read it by; the signal's reason
 */
export async function openSnapshot<T>(
  { dsn, env, signal }: SnapshotSettings,
  doing: string,
  begin: (snapshot: Snapshot) => Promise<T>,
): Promise<T> {
  const client = await connect(parseConnection(dsn, env), signal);
  const close = closing(client, signal);
  try {
    signal?.throwIfAborted();
    const { rows } = await client.query<TableCheck>(CHECK_TABLES);
    await checkTables(client, rows);
    const lockable = rows.filter((table) => table.lockable).map(({ name }) => name);
    await client.query(beginStatement(lockable));
    const setUp = await client.query<{ time: string }>(SET_UP);
    return await begin({ client, time: new Date(Number(setUp.rows[0].time)), close });
  } catch (error) {
    await close();
    signal?.throwIfAborted();
    throw statementError(error, doing);
  }
}

async function checkTables(client: pg.Client, tables: readonly TableCheck[]): Promise<void> {
  const lacking = (what: 'found' | 'readable' | 'indexed'): Table[] =>
    tables.filter((table) => !table[what]).map(({ name }) => name);
  const [missing, unreadable, unindexed] = [
    lacking('found'),
    lacking('readable'),
    lacking('indexed'),
  ];
  if (missing.length + unreadable.length + unindexed.length === 0) return;

  const { rows } = await client.query<{ user: string; database: string; schemas: string }>(
    WHEREABOUTS,
  );
  const [here] = rows;
  const { user, database } = here;
  if (missing.length > 0) throw tablesMissing(listed(missing), here);
  if (unreadable.length > 0) {
    throw new DatabaseError(
      `User ${user} may not read ${listed(unreadable)} in database "${database}". Allow it: GRANT SELECT ON ${unreadable.join(', ')} TO ${user};`,
    );
  }
  const indexes = unindexed.map(
    (name) => `CREATE INDEX ON ${name} (${INDEXED_COLUMNS[name].join(', ')});`,
  );
  throw new DatabaseError(
    `In database "${database}" ${listed(unindexed)} can't be read by state group, because an index that Synapse makes is missing. Make it: ${indexes.join(' ')}`,
  );
}

function listed(tables: readonly Table[]): string {
  const last = tables.at(-1)!;
  return tables.length === 1
    ? `table ${last}`
    : `tables ${tables.slice(0, -1).join(', ')} and ${last}`;
}
