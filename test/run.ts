/**
 * Runs the tests named as arguments, or all of them, against one Postgres that starts and ends with
 * the run.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ADDRESS_VARIABLE, startServer } from './support/postgres.js';

const here = fileURLToPath(new URL('.', import.meta.url));
const all = readdirSync(here)
  .filter((name) => name.endsWith('.test.ts'))
  .map((name) => here + name);
const asked = process.argv.slice(2);

// Where a developer's own database is must not matter here.
const variables = Object.entries(process.env).filter(([name]) => !name.startsWith('PG'));

const server = await startServer();
const tests = spawn(
  process.execPath,
  [
    `--import=${import.meta.resolve('tsx')}`,
    `--import=${import.meta.resolve('./support/property-seeds.ts')}`,
    '--test',
    '--test-reporter=spec',
    '--test-concurrency=2',
    ...(asked.length === 0 ? all : asked),
  ],
  {
    env: { ...Object.fromEntries(variables), [ADDRESS_VARIABLE]: JSON.stringify(server.address) },
    stdio: 'inherit',
  },
);
// The terminal interrupts the tests as well; the server goes once they have ended.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => tests.kill());
const [code] = (await once(tests, 'exit')) as [number | null];
await server.stop();
process.exitCode = code ?? 1;
