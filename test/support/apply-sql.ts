import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import pg from 'pg';
import type { TestDatabase } from './postgres.js';

/**
 * Applies a file of SQL as an operator does: with `psql`, or with `psql -1` in one transaction. Where
 * there is no psql, the file's text goes through a connection of ours.
 */
export async function applySql(
  db: TestDatabase,
  file: string,
  { oneTransaction }: { readonly oneTransaction: boolean },
): Promise<void> {
  const options = ['-X', '-q', '-v', 'ON_ERROR_STOP=1', ...(oneTransaction ? ['-1'] : [])];
  const psql = spawn('psql', [...options, '-d', db.url, '-f', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const spawned = once(psql, 'spawn').then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    },
  );
  if (await spawned) {
    const closed = once(psql, 'close') as Promise<[number | null]>;
    const [stderr, [code]] = await Promise.all([text(psql.stderr), closed]);
    if (code !== 0) throw new Error(`psql ended with ${code}: ${stderr}`);
    return;
  }
  const sql = await readFile(file, 'utf8');
  const client = new pg.Client(db.url);
  await client.connect();
  try {
    await client.query(oneTransaction ? `BEGIN; ${sql}; COMMIT` : sql);
  } finally {
    await client.end();
  }
}
