import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { TestDatabase } from './postgres.js';

/** Not every machine has it; the Postgres of the development packages has none. */
export const hasPsql = spawnSync('psql', ['--version']).status === 0;

/** Runs SQL from psql's stdin, without a psqlrc. */
export async function psql(
  db: TestDatabase,
  sql: Readable,
  options: readonly string[],
): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = spawn('psql', ['-X', '-q', ...options, '-d', db.url, '-f', '-'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // psql may end before it has read all.
  child.stdin.on('error', () => {});
  sql.pipe(child.stdin);
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number]>,
  ]);
  return { code, stdout, stderr };
}
