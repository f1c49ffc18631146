import { createWriteStream, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { LevelsPlanner } from '../src/planner/levels.js';
import type { Planner } from '../src/planner/planner.js';
import { RoomPlan } from '../src/planner/room-plan.js';
import { copySink } from '../src/sinks/copy.js';
import { startServer, TestPostgres } from '../test/support/postgres.js';
import type { ServerAddress, TestDatabase } from '../test/support/postgres.js';
import { CLI } from '../test/support/run-cli.js';
import { count, spread, table } from './figures.js';
import { loadRoom, makeDurable } from './load-room.js';
import { describeMachine } from './machine.js';
import { cpuSecondsOfEndedChildren, measure } from './measure.js';
import type { Program } from './measure.js';
import { oldStatementsSink } from './old-statements.js';
import { unguardedScript } from './unguarded-script.js';
import { openRoom } from './rewrite-room.js';
import { cachedRoom, DATA, SIZES } from './room-cache.js';
import type { CachedRoom } from './room-cache.js';

const ROOMS = { small: SIZES.small, seed: SIZES.seed };

const PLANNERS: Readonly<Record<string, () => Planner>> = {
  adaptive: () => new AdaptivePlanner(),
  levels: () => new LevelsPlanner(),
};

const METHOD = `The same changes, applied in five ways in turns, A B C D E A B C D E, each to the same database, loaded
anew: the old tool's statements through psql, each committed by itself, as it writes them without -t, and
with -t in a transaction a group, neither of which checks anything; the guarded script of --format copy
through psql; the apply command; and, as the limit of what any way can be, one transaction for all that
deletes the old rows and copies the new ones, and checks nothing. Wall time is the client's, from its start
to its end; the server makes each commit durable, as Postgres does by default. CPU time is the client's and
that of its process of the server; where other work takes the processors, look at that. Rows a second count
those deleted and inserted. Ratios are of neighbours. Then the time in which a reader gets the state of
groups of another room, meanwhile.
`;

export const USAGE = `Usage: npm run bench -- apply [options]

  --size NAME     of ${Object.keys(ROOMS).join(', ')} (default seed)
  --planner NAME  of ${Object.keys(PLANNERS).join(', ')} (default both)
  --repeats N     (default 3)
  --no-fsync      let the server lose commits in a crash: what is left is work
  --flush-ms N    let each commit take so much longer, as on a slower disk (default 0)
`;

/** Measures how fast changes are applied, beside the statements of the old tool, and what others feel. */
export async function benchmarkApply(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      size: { type: 'string', default: 'seed' },
      planner: { type: 'string' },
      repeats: { type: 'string', default: '3' },
      'no-fsync': { type: 'boolean', default: false },
      'flush-ms': { type: 'string', default: '0' },
    },
  });
  const repeats = Number(values.repeats);
  const flushMs = values['no-fsync'] ? undefined : Number(values['flush-ms']);
  const planners = values.planner === undefined ? Object.keys(PLANNERS) : [values.planner];
  const isKnown = values.size in ROOMS && planners.every((name) => name in PLANNERS);
  if (!isKnown || !Number.isSafeInteger(repeats) || repeats < 1 || Number.isNaN(flushMs))
    throw new Error(USAGE);
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: run "npm run build" first.`);

  const size = values.size as keyof typeof ROOMS;
  const room = cachedRoom(size, ROOMS[size]);
  const server = await startServer();
  const temporary = join(DATA, 'apply');
  mkdirSync(temporary, { recursive: true });
  try {
    const postgres = new TestPostgres(server.address);
    const onNew = onNewDatabase(postgres, room, flushMs);
    print(`${describeMachine()}${METHOD}\n`);
    if (flushMs !== undefined && flushMs > 0) print(`Each commit takes ${flushMs} ms more.\n\n`);
    for (const name of planners) {
      const files = await writeChanges(room, PLANNERS[name], join(temporary, name));
      print(`${name}: ${count(files.groups)} state groups, `);
      print(`${count(files.rowsDeleted)} rows deleted, ${count(files.rowsInserted)} inserted\n`);
      print(await compareWays(onNew, server.address, files, repeats));
      if (name === planners[0]) print(await latencies(onNew, files));
    }
  } finally {
    rmSync(temporary, { recursive: true });
    await server.stop();
  }
}

function print(text: string): void {
  process.stdout.write(text);
}

const OTHER_ROOM = '!other:example.org';
/** What the ids of the other room's groups have more. */
const OTHER_IDS = 1_000_000_000;
const OTHER_GROUPS = 5000;

/** A room to be read, which is like the beginning of the one that changes. */
async function addOtherRoom(db: TestDatabase): Promise<void> {
  await db.query(`
    INSERT INTO state_groups SELECT id + ${OTHER_IDS}, '${OTHER_ROOM}', event_id
      FROM state_groups WHERE id <= ${OTHER_GROUPS};
    INSERT INTO state_group_edges SELECT state_group + ${OTHER_IDS}, prev_state_group + ${OTHER_IDS}
      FROM state_group_edges WHERE state_group <= ${OTHER_GROUPS};
    INSERT INTO state_groups_state
      SELECT state_group + ${OTHER_IDS}, '${OTHER_ROOM}', type, state_key, event_id
      FROM state_groups_state WHERE state_group <= ${OTHER_GROUPS}`);
  await db.query('VACUUM ANALYZE');
}

/** Runs `work` on a new database each time. */
type OnNewDatabase = <T>(work: (url: string) => Promise<T>) => Promise<T>;

/** @param flushMs undefined if commits need not be durable */
function onNewDatabase(
  postgres: TestPostgres,
  room: CachedRoom,
  flushMs: number | undefined,
): OnNewDatabase {
  return async (work) => {
    const db = await loadRoom(postgres, room);
    try {
      await addOtherRoom(db);
      if (flushMs !== undefined) await makeDurable(db, flushMs);
      return await work(db.url);
    } finally {
      await db.drop();
    }
  };
}

interface ChangeFiles {
  readonly statements: string;
  readonly transactions: string;
  readonly copy: string;
  readonly unguarded: string;
  readonly groups: number;
  readonly rowsDeleted: number;
  readonly rowsInserted: number;
}

async function writeChanges(
  room: CachedRoom,
  planner: () => Planner,
  prefix: string,
): Promise<ChangeFiles> {
  const write = async (name: string, sink: Transform) => {
    const source = await openRoom(room);
    const plan = new RoomPlan(source, planner());
    const file = `${prefix}-${name}`;
    await pipeline(source.rows(), plan, sink, createWriteStream(file));
    await source.close();
    return { file, counts: plan.counts };
  };
  const statements = await write(
    'statements.sql',
    oldStatementsSink(room.room, { transactions: false }),
  );
  const transactions = await write(
    'transactions.sql',
    oldStatementsSink(room.room, { transactions: true }),
  );
  const copy = await write('changes.copy', copySink({ room: room.room, header: [] }));
  const unguarded = await write('unguarded.sql', unguardedScript(room.room));
  const { groupsWritten: groups, rowsDeleted, rowsInserted } = copy.counts;
  return {
    statements: statements.file,
    transactions: transactions.file,
    copy: copy.file,
    unguarded: unguarded.file,
    groups,
    rowsDeleted,
    rowsInserted,
  };
}

function psql(name: string, url: string, file: string): Program {
  return {
    name,
    command: 'psql',
    args: ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', url, '-f', file],
  };
}

function applyCommand(url: string, file: string, ...options: string[]): Program {
  return {
    name: 'apply',
    command: process.execPath,
    args: [CLI, 'apply', file, '-p', url, ...options],
  };
}

/** How long the server may take to notice that a client is gone, in milliseconds. */
const GONE = 500;

/** What the clients have cost the server that are gone; NaN where there is no /proc. */
async function serverCpuSeconds({ socketDirectory, port }: ServerAddress): Promise<number> {
  await setTimeout(GONE);
  const lock = readFileSync(join(socketDirectory, `.s.PGSQL.${port}.lock`), 'utf8');
  return cpuSecondsOfEndedChildren(Number.parseInt(lock, 10));
}

async function compareWays(
  onNew: OnNewDatabase,
  server: ServerAddress,
  files: ChangeFiles,
  repeats: number,
): Promise<string> {
  const ways: Readonly<Record<string, (url: string) => Program>> = {
    "old tool's statements, psql": (url) => psql('statements', url, files.statements),
    'the same with -t, psql': (url) => psql('transactions', url, files.transactions),
    '--format copy, psql': (url) => psql('copy', url, files.copy),
    'apply, as -c does': (url) => applyCommand(url, files.copy),
    'limit: at once, unguarded': (url) => psql('unguarded', url, files.unguarded),
  };
  const seconds = new Map<string, number[]>(Object.keys(ways).map((way) => [way, []]));
  const cpu = new Map<string, number[]>(Object.keys(ways).map((way) => [way, []]));
  for (let run = 0; run < repeats; run++) {
    for (const [way, program] of Object.entries(ways)) {
      const { wallSeconds, cpuSeconds } = await onNew(async (url) => {
        const before = await serverCpuSeconds(server);
        const usage = await measure(program(url));
        const onServer = (await serverCpuSeconds(server)) - before;
        return { ...usage, cpuSeconds: usage.cpuSeconds + onServer };
      });
      seconds.get(way)!.push(wallSeconds);
      cpu.get(way)!.push(cpuSeconds);
    }
  }
  const [statements, transactions] = [...seconds.values()];
  const ratio = (base: readonly number[], own: readonly number[]): string => {
    const { median, least, most } = spread(own.map((value, run) => base[run] / value));
    return `${median.toFixed(1)} (${least.toFixed(1)} to ${most.toFixed(1)})`;
  };
  const rows = files.rowsDeleted + files.rowsInserted;
  const lines = [['', 'wall s', 'CPU s', 'groups/s', 'rows/s', 'times as fast', 'as with -t']];
  for (const [way, runs] of seconds) {
    const { median } = spread(runs);
    lines.push([
      `  ${way}`,
      median.toFixed(2),
      spread(cpu.get(way)!).median.toFixed(2),
      count(files.groups / median),
      count(rows / median),
      ratio(statements, runs),
      ratio(transactions, runs),
    ]);
  }
  return `${table(lines)}\n`;
}

/** How long the reader looks where nothing is applied, in milliseconds. */
const QUIET_FOR = 5000;

async function latencies(onNew: OnNewDatabase, files: ChangeFiles): Promise<string> {
  const meanwhile: Readonly<Record<string, (url: string) => Promise<unknown>>> = {
    'nothing else': () => setTimeout(QUIET_FOR),
    "old tool's statements with -t": (url) =>
      measure(psql('transactions', url, files.transactions)),
    apply: (url) => measure(applyCommand(url, files.copy)),
    'apply --pace 20%': (url) => measure(applyCommand(url, files.copy, '--pace', '20%')),
  };
  const lines = [['Another room is read', 'reads', 'median ms', '95 %', '99 %', 'longest']];
  for (const [what, work] of Object.entries(meanwhile)) {
    const taken = await onNew(async (url) => readWhile(url, work(url)));
    const at = (share: number): string =>
      taken[Math.min(taken.length - 1, Math.floor(share * taken.length))].toFixed(1);
    lines.push([`  beside ${what}`, count(taken.length), at(0.5), at(0.95), at(0.99), at(1)]);
  }
  return `${table(lines)}\n`;
}

/** The milliseconds that each read took, in ascending order. */
async function readWhile(url: string, work: Promise<unknown>): Promise<number[]> {
  const reader = new pg.Client(url);
  await reader.connect();
  const taken: number[] = [];
  const state = { hasEnded: false };
  const end = () => (state.hasEnded = true);
  work.then(end, end);
  try {
    while (!state.hasEnded) {
      const group = OTHER_IDS + 1 + Math.floor(Math.random() * OTHER_GROUPS);
      const begun = performance.now();
      await reader.query({ name: 'state', text: STATE, values: [group] });
      taken.push(performance.now() - begun);
    }
    await work;
  } finally {
    await reader.end();
  }
  return taken.sort((a, b) => a - b);
}

/** A group's state, as Synapse reads it. */
const STATE = `
  WITH RECURSIVE chain (member) AS (
    VALUES ($1::bigint)
    UNION ALL SELECT prev_state_group FROM chain JOIN state_group_edges ON state_group = member
  )
  SELECT DISTINCT ON (type, state_key) type, state_key, event_id
  FROM state_groups_state WHERE state_group IN (SELECT member FROM chain)
  ORDER BY type, state_key, state_group DESC`;
