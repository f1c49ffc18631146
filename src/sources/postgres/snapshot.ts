import type pg from 'pg';
import { DatabaseError } from '../../errors.js';
import { BEGIN, CHECK_TABLES, INDEXED_COLUMNS, SET_UP, WHEREABOUTS } from './statements.js';

type Table = keyof typeof INDEXED_COLUMNS;

interface TableCheck {
  readonly name: Table;
  readonly found: boolean;
  readonly readable: boolean;
  readonly indexed: boolean;
}

/**
 * Begins the transaction that all is read in, with settings that keep the planner on the indexes, and
 * sees that the tables are there. Returns when the snapshot was taken.
 *
 * @throws DatabaseError if a table is missing, may not be read, or has no index to read it by; errors
 *   of the server and of the connection as they are
 */
export async function beginSnapshot(client: pg.Client): Promise<Date> {
  await client.query(BEGIN);
  const setUp = await client.query<{ time: string }>(SET_UP);
  const { rows } = await client.query<TableCheck>(CHECK_TABLES);
  await checkTables(client, rows);
  return new Date(Number(setUp.rows[0].time));
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
  const { user, database, schemas } = rows[0];
  if (missing.length > 0) {
    throw new DatabaseError(
      `Database "${database}" has no ${listed(missing)} in the schemas that user ${user} searches (${schemas || 'none'}). It must be Synapse's state database, which may be another one than its main database. Tables in another schema are found with options='-c search_path=SCHEMA'.`,
    );
  }
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
