import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import pg from 'pg';
import { Random } from '../bench/random.js';
import { writeRoomFiles } from '../bench/room-files.js';
import { roomName } from '../bench/room-tables.js';
import { STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import { startServer, TestPostgres } from './support/postgres.js';
import { CLI, runCli } from './support/run-cli.js';
import { SimulatedSynapse } from './support/simulated-synapse.js';
import { expectSameStates, readAllStates } from './support/states.js';

/** Blows that are dealt in all; "npm run chaos" deals a hundred. */
const BLOWS = Number(process.env['CHAOS_BLOWS'] ?? 10);
/** Of one database; then a new one is made. */
const BLOWS_OF_A_LIFE = 5;
/** The first life's; a life that failed is lived again with the seed that it tells. */
const SEED = Number(process.env['CHAOS_SEED'] ?? 1);

const ROOMS = [
  { kind: 'branching', groups: 1000, keys: 250 },
  { kind: 'resolution', groups: 600, keys: 150 },
] as const;

/** Rows a second: the room is done in one transaction, or in many with pauses between. */
const PACES = ['1000000', '20000'] as const;

const BLOW_KINDS = [
  'the tool is killed',
  'the tool is killed',
  'the tool is interrupted',
  'its session is terminated',
  'its backend is killed',
  'its backend is killed',
  'the server is restarted',
  'a second compressor comes',
  'nothing',
] as const;

/** Exit codes that are right when the database goes away, or another compressor is there. */
const DATABASE_WENT_AWAY = [5, 11];
/** Of a room that has been deleted. */
const NO_ROOM = 4;
const BUSY = 10;

const tally = {
  blows: 0,
  groups: 0,
  written: 0,
  purged: 0,
  deletedRooms: 0,
  rewritten: 0,
  left: 0,
  givenUp: 0,
};
const blows = new Map<string, number>();

// A backend that is killed takes all sessions of its server with it: here are no other tests.
let server: Awaited<ReturnType<typeof startServer>>;
before(async () => (server = await startServer()));
after(() => server.stop());

for (let life = 0; life * BLOWS_OF_A_LIFE < BLOWS; life++) {
  const seed = SEED + life;
  test(`every state is right whatever happens, seed ${seed}`, async (t) => {
    await live(t, seed);
  });
}

test('the blows were dealt', (t) => {
  t.diagnostic(JSON.stringify({ ...tally, ...Object.fromEntries(blows) }));
  assert.ok(tally.rewritten > 0);
});

/** Makes every fourth group a snapshot, so that there is much to do; where changes were applied, they can be again. */
const SNAPSHOTS = `
  CREATE TEMPORARY TABLE snapshot AS
    WITH RECURSIVE chain (id, member) AS (
      SELECT id, id FROM state_groups WHERE id % 4 = 0
      UNION ALL SELECT id, prev_state_group FROM chain JOIN state_group_edges ON state_group = member
    )
    SELECT DISTINCT ON (id, type, state_key) id, room_id, type, state_key, event_id
      FROM chain JOIN state_groups_state ON state_group = member
      ORDER BY id, type, state_key, member DESC;
  DELETE FROM state_groups_state WHERE state_group % 4 = 0;
  DELETE FROM state_group_edges WHERE state_group % 4 = 0;
  INSERT INTO state_groups_state SELECT * FROM snapshot;
  ANALYZE`;

/** A database that is compressed while things happen to it. */
async function live(t: TestContext, seed: number): Promise<void> {
  const random = new Random(seed);
  const marks = random.chance(0.7);
  const folder = await temporaryFolder(t);
  const db = await new TestPostgres(server.address).createDatabase({
    schema: marks ? 'synapse' : 'synapse-before-1.124',
  });
  const url = db.url;
  const rooms = ROOMS.map((room, index) => ({ ...room, seed: seed * 10 + index }));
  writeRoomFiles(rooms, folder);
  for (const table of STATE_TABLES) {
    await db.copyIn(table, createReadStream(join(folder, `${table}.copy`)));
  }
  const states = await readAllStates(db);
  await db.query(SNAPSHOTS);
  // Without that, a crash takes back what was committed just before.
  await db.query(`ALTER DATABASE ${db.name} SET synchronous_commit = on`);
  await db.release();
  const names = rooms.map((room, index) => roomName(room.seed, index));
  const files = await changeFiles(url, names, folder, random);
  const synapse = new SimulatedSynapse(url, random, states, names, marks);
  t.after(() => synapse.close());

  // A week of writes.
  for (let acts = random.below(60); acts > 0; acts--) await synapse.act();
  for (let blow = 0; blow < BLOWS_OF_A_LIFE; blow++) {
    if (blow > 0) await control(url, SNAPSHOTS);
    const pace = PACES[random.below(2)];
    const args = [
      ['apply', files[random.below(files.length)], '-p', url, '--pace', pace, '--stats-file=-'],
      ['-c', '-p', url, '-r', names[0], '--pace', pace],
      ['auto', '-p', url, '--pace', pace],
    ][Math.max(0, random.below(5) - 2)];
    await strike(args, url, synapse, random);
    await compare(url, synapse);
  }
  // The last one meets nobody, and another has nothing left to do.
  for (const again of [false, true]) {
    const { code, stdout, stderr } = await runCli(['apply', files[0], '-p', url, '--stats-file=-']);
    assert.equal(code, 0, stderr);
    if (again) assert.match(stdout, /"rewritten":0,/);
    count(stdout);
    await compare(url, synapse);
  }
  tally.written += synapse.written;
  tally.purged += synapse.purged;
  tally.deletedRooms += synapse.deletedRooms;
  tally.givenUp += synapse.givenUp;
}

/** The changes of all rooms as a file; and that in reverse order, and cut off somewhere. */
async function changeFiles(
  url: string,
  rooms: readonly string[],
  folder: string,
  random: Random,
): Promise<readonly string[]> {
  const scripts: string[] = [];
  for (const [index, room] of rooms.entries()) {
    const file = join(folder, `${index}.copy`);
    const { code, stderr } = await runCli([
      '-p',
      url,
      '-r',
      room,
      '--format',
      'copy',
      '--batch',
      '20',
      '-o',
      file,
    ]);
    assert.equal(code, 0, stderr);
    scripts.push(await readFile(file, 'utf8'));
  }
  const all = scripts.join('');
  const reversed = scripts.toReversed().map(reverseBatches).join('');
  const cut = all.slice(0, random.below(all.length));
  const files: string[] = [];
  for (const [index, script] of [all, reversed, cut].entries()) {
    const file = join(folder, `changes${index}.copy`);
    await writeFile(file, script);
    files.push(file);
  }
  return files;
}

function reverseBatches(script: string): string {
  const [head, ...batches] = script.split(/\n(?=BEGIN;\nCOPY )/);
  const last = batches.length - 1;
  const end = batches[last].lastIndexOf('COMMIT;\n') + 'COMMIT;\n'.length;
  const tail = batches[last].slice(end);
  batches[last] = batches[last].slice(0, end);
  return [head, ...batches.toReversed()].join('\n') + tail;
}

/** Runs the tool while Synapse goes on, and deals it a blow when it has begun to write. */
async function strike(
  args: readonly string[],
  url: string,
  synapse: SimulatedSynapse,
  random: Random,
): Promise<void> {
  const kind = BLOW_KINDS[random.below(BLOW_KINDS.length)];
  const wait = random.below(300);
  const [tool, ended] = start(args);
  let second: Promise<Outcome> | undefined;
  const isOver = new AbortController();
  const over = ended.then(() => isOver.abort());
  const goingOn = (async () => {
    while (!isOver.signal.aborted) await synapse.act();
  })();

  const backend = await writer(url, isOver.signal);
  await Promise.race([setTimeout(wait), over]);
  const wasOver = isOver.signal.aborted;
  switch (kind) {
    case 'the tool is killed':
      tool.kill('SIGKILL');
      break;
    case 'the tool is interrupted':
      tool.kill('SIGINT');
      break;
    case 'its session is terminated':
      await control(url, 'SELECT pg_terminate_backend($1)', [backend]);
      break;
    case 'its backend is killed':
      if (backend !== undefined && !wasOver) kill(backend);
      break;
    case 'the server is restarted':
      await server.restart();
      break;
    case 'a second compressor comes':
      [, second] = start(args);
      break;
    case 'nothing':
      break;
  }
  const first = await ended;
  await goingOn;
  const other = await second;
  tally.blows++;
  const name = wasOver ? `${kind}, too late` : kind;
  blows.set(name, (blows.get(name) ?? 0) + 1);

  const told = `${args.join(' ')}, ${kind}:`;
  const isCut = args.some((arg) => arg.endsWith('2.copy'));
  const right = isCut ? [3] : [0];
  if (args[0] === '-c') right.push(NO_ROOM);
  if (kind === 'the tool is killed') right.push(-1);
  if (kind === 'the tool is interrupted') right.push(130);
  // The command that applies goes on; the other one may have been reading.
  if (args[0] !== 'apply' && kind !== 'nothing') right.push(...DATABASE_WENT_AWAY);
  if (other !== undefined) {
    assert.ok([...right, BUSY].includes(other.code), `${told} ${other.code} ${other.stderr}`);
    right.push(BUSY);
  }
  assert.ok(right.includes(first.code), `${told} ${first.code} ${first.stderr}`);
}

interface Outcome {
  /** -1 where a signal ended it. */
  readonly code: number;
  readonly stderr: string;
}

function start(args: readonly string[]): [ChildProcess, Promise<Outcome>] {
  const tool = spawn(process.execPath, [CLI, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = Promise.all([
    text(tool.stderr),
    text(tool.stdout),
    new Promise<number | null>((resolve) => tool.once('close', resolve)),
  ]).then(([stderr, stdout, code]) => {
    count(stdout);
    return { code: code ?? -1, stderr };
  });
  return [tool, ended];
}

/** Adds what `apply` says it did, if it came to that. */
function count(stdout: string): void {
  if (!stdout.startsWith('{')) return;
  const { rewritten, skipped } = JSON.parse(stdout) as { rewritten: number; skipped: number };
  tally.rewritten += rewritten;
  tally.left += skipped;
}

/** The backend that holds the lock of compressors, once there is one; undefined if the tool ends before. */
async function writer(url: string, isOver: AbortSignal): Promise<number | undefined> {
  while (!isOver.aborted) {
    const [row] = await control(
      url,
      `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    );
    if (row !== undefined) return row['pid'] as number;
  }
  return undefined;
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

async function control(
  url: string,
  sql: string,
  values: unknown[] = [],
): Promise<Record<string, unknown>[]> {
  const client = await connected(url);
  try {
    return (await client.query(sql, values)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

/** A connection, once the server takes one. */
async function connected(url: string): Promise<pg.Client> {
  for (;;) {
    const client = new pg.Client(url);
    client.on('error', () => {});
    try {
      await client.connect();
      return client;
    } catch {
      await setTimeout(50);
    }
  }
}

/** Fails unless the groups that are there are those that should be, with the states that they should have. */
async function compare(url: string, synapse: SimulatedSynapse): Promise<void> {
  const client = await connected(url);
  try {
    const states = await readAllStates(client);
    expectSameStates(states, synapse.expected);
    tally.groups += states.size;
  } finally {
    await client.end();
  }
}
