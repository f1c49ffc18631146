import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import type { TestDatabase, TestPostgres } from '../test/support/postgres.js';
import type { CachedRoom } from './room-cache.js';

/**
 * Loads a room into a new database with Synapse's tables and indexes, vacuumed and analyzed as
 * autovacuum leaves them. Rows lie in the table in the order of their groups, as Synapse wrote them.
 */
export async function loadRoom(postgres: TestPostgres, room: CachedRoom): Promise<TestDatabase> {
  const db = await postgres.createDatabase({ schema: 'synapse' });
  // Building the index at the end takes a fraction of the time of growing it row by row.
  const { rows: indexes } = await db.query<{ name: string; definition: string }>(
    `SELECT indexname AS name, indexdef AS definition
      FROM pg_indexes WHERE tablename = 'state_groups_state'`,
  );
  for (const { name } of indexes) await db.query(`DROP INDEX ${name}`);
  for (const table of ['state_groups', 'state_group_edges', 'state_groups_state']) {
    const file = join(room.folder, `${table}.copy`);
    await db.copyIn(table, createReadStream(file, { highWaterMark: 1024 * 1024 }));
  }
  await db.query(`SET maintenance_work_mem = '1GB'`);
  for (const { definition } of indexes) await db.query(definition);
  await db.query('VACUUM ANALYZE');
  return db;
}

/**
 * Makes every commit durable, as Postgres does by default and the server of the tests does not, and lets
 * it take `flushMs` milliseconds more, as on a disk that needs so long to flush.
 */
export async function makeDurable(db: TestDatabase, flushMs = 0): Promise<void> {
  const settings = {
    fsync: 'on',
    synchronous_commit: 'on',
    full_page_writes: 'on',
    commit_delay: 1000 * flushMs,
    commit_siblings: 0,
  };
  for (const [name, value] of Object.entries(settings)) {
    await db.query(`ALTER SYSTEM SET ${name} = ${value}`);
  }
  await db.query('SELECT pg_reload_conf()');
  await db.query('CHECKPOINT');
}
