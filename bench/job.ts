import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startServer, TestPostgres } from '../test/support/postgres.js';
import type { TestDatabase } from '../test/support/postgres.js';
import { CLI } from '../test/support/run-cli.js';
import { count, spread, table } from './figures.js';
import { loadRoom } from './load-room.js';
import { describeMachine } from './machine.js';
import { measure, measureInTurn } from './measure.js';
import type { Program, Usage } from './measure.js';
import { cachedRoom, DATA, SIZES } from './room-cache.js';
import type { CachedRoom } from './room-cache.js';
import type { RoomSettings } from './rooms.js';

interface Size extends RoomSettings {
  readonly mostMegabytes?: number;
  /** Of the bare COPY's wall time. */
  readonly mostRatio?: number;
}

const ROOMS: Readonly<Record<string, Size>> = {
  small: SIZES.small,
  seed: { ...SIZES.seed, mostMegabytes: 112, mostRatio: 1.5 },
  large: { ...SIZES.large, mostMegabytes: 128 },
};

const METHOD = `The whole job (read, plan, verify, write SQL) beside the bare statement that gives the same rows in
the same order, drained to /dev/null. In turns, after a warm-up of each: A B A B. Wall time, CPU time
(user and system, of the client alone) and peak resident memory (10^6 bytes) are those of the client
process, from its start to its end; the server is on the same machine, with shared_buffers 128 MB.
Figures are medians, with (least to most); ratios are of neighbours. Rows are those before compressing.
`;

export const USAGE = `Usage: npm run bench -- job [options]

  --sizes LIST   of ${Object.keys(ROOMS).join(', ')} (default: all)
  --repeats N    measured runs of each program (default 5)
  --quick        the same as --sizes small,seed --repeats 3
  --files        measure the job from COPY files as well, beside cat
`;

/** Measures the main job against what it can't be faster than, and how it grows. */
export async function benchmarkJob(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      sizes: { type: 'string' },
      repeats: { type: 'string' },
      quick: { type: 'boolean', default: false },
      files: { type: 'boolean', default: false },
    },
  });
  const sizes = (values.sizes ?? (values.quick ? 'small,seed' : 'small,seed,large')).split(',');
  const repeats = Number(values.repeats ?? (values.quick ? 3 : 5));
  const unknown = sizes.find((name) => ROOMS[name] === undefined);
  if (unknown !== undefined) throw new Error(`No such size: '${unknown}'.\n${USAGE}`);
  if (!Number.isSafeInteger(repeats) || repeats < 1) {
    throw new Error(`--repeats must be a whole number of at least 1.\n${USAGE}`);
  }
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: run "npm run build" first.`);

  const server = await startServer();
  const temporary = join(DATA, 'output');
  mkdirSync(temporary, { recursive: true });
  try {
    const postgres = new TestPostgres(server.address);
    const growth = [['Growth', 'rows', 'wall s', 'rows/s', 's per million rows', 'peak MB']];
    for (const name of sizes) {
      const size = ROOMS[name];
      const room = cachedRoom(name, size);
      const db = await loadRoom(postgres, room);
      if (name === sizes[0]) {
        const { rows } = await db.query<{ server_version: string }>('SHOW server_version');
        print(`${describeMachine(rows[0].server_version)}${METHOD}\n`);
      }
      print(`${name}: ${size.kind}, ${count(room.counts.groups)} state groups, `);
      print(`${count(room.counts.rows)} rows\n`);
      const output = join(temporary, 'out.sql');
      await checkPlan(db, room);
      print(await checkJob(jobFromPostgres(db, room, output), room, temporary));
      const programs = [bareCopy(db, room), jobFromPostgres(db, room, output)];
      if (values.files) programs.push(bareCat(room), jobFromFiles(room, output));
      const usages = await measureInTurn(programs, repeats);
      print(`${usageTable(programs, usages)}${limits(size, usages[0], usages[1])}\n`);
      growth.push([name, ...growthFigures(room, usages[1])]);
      await db.drop();
    }
    print(table(growth));
  } finally {
    rmSync(temporary, { recursive: true });
    await server.stop();
  }
}

function print(text: string): void {
  process.stdout.write(text);
}

function selectRows(room: CachedRoom): string {
  return `SELECT state_group, type, state_key, event_id FROM state_groups_state
    WHERE room_id = '${room.room}' ORDER BY state_group, type, state_key`;
}

/** What makes the planner walk the index, whatever it believes of sorting. */
const WALK_INDEX = { enable_sort: 'off', max_parallel_workers_per_gather: '0' };

/** Fails where the bare statement would be slowed by a sort. */
async function checkPlan(db: TestDatabase, room: CachedRoom): Promise<void> {
  for (const [name, value] of Object.entries(WALK_INDEX)) await db.query(`SET ${name} = ${value}`);
  const { rows } = await db.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${selectRows(room)}`);
  const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
  if (!plan.startsWith('Index Scan using state_groups_state_type_idx')) {
    throw new Error(`The bare COPY is no measure, as it does not walk the index:\n${plan}`);
  }
}

function bareCopy(db: TestDatabase, room: CachedRoom): Program {
  const sql = `COPY (${selectRows(room)}) TO STDOUT`;
  const options = Object.entries(WALK_INDEX).map(([name, value]) => `-c ${name}=${value}`);
  const env = { PGOPTIONS: options.join(' ') };
  if (spawnSync('psql', ['--version']).status === 0) {
    return { name: 'psql COPY', command: 'psql', args: ['-X', '-d', db.url, '-c', sql], env };
  }
  const client = fileURLToPath(new URL('drain-copy.mjs', import.meta.url));
  return { name: 'node COPY', command: process.execPath, args: [client, db.url, sql], env };
}

function jobFromPostgres(db: TestDatabase, room: CachedRoom, output: string): Program {
  return {
    name: 'job from Postgres',
    command: process.execPath,
    args: [CLI, '-p', db.url, '-r', room.room, '-o', output, '-t'],
  };
}

function jobFromFiles(room: CachedRoom, output: string): Program {
  return {
    name: 'job from COPY files',
    command: process.execPath,
    args: [CLI, '-i', room.folder, '-r', room.room, '-o', output, '-t'],
  };
}

function bareCat(room: CachedRoom): Program {
  const files = readdirSync(room.folder).filter((name) => name.endsWith('.copy'));
  return { name: 'cat', command: 'cat', args: files.map((name) => join(room.folder, name)) };
}

/** Runs the job once, to see that it reads all rows and verifies what it changes; says what it saves. */
async function checkJob(job: Program, room: CachedRoom, temporary: string): Promise<string> {
  const file = join(temporary, 'statistics.json');
  await measure({ ...job, args: [...job.args, '--stats-file', file] });
  const statistics = JSON.parse(readFileSync(file, 'utf8')) as Record<string, number>;
  const { stateGroups, rowsBefore, rowsAfter, groupsVerified, groupsWritten } = statistics;
  if (stateGroups !== room.counts.groups || rowsBefore !== room.counts.rows) {
    throw new Error(`The job read ${stateGroups} groups and ${rowsBefore} rows, not all.`);
  }
  if (groupsVerified < groupsWritten) throw new Error('The job wrote what it did not verify.');
  return `${count(rowsAfter)} rows after, ${count(groupsWritten)} groups written\n`;
}

function usageTable(programs: readonly Program[], usages: readonly Usage[][]): string {
  const rows = programs.map(({ name }, i) => [
    `  ${name}`,
    ...figures(usages[i].map((usage) => usage.wallSeconds)),
    ...figures(usages[i].map((usage) => usage.cpuSeconds)),
    ...figures(
      usages[i].map((usage) => usage.peakMegabytes),
      0,
    ),
  ]);
  return table([['', 'wall s', '', 'CPU s', '', 'peak MB', ''], ...rows]);
}

function figures(values: readonly number[], digits = 2): [median: string, range: string] {
  const { median, least, most } = spread(values);
  if (Number.isNaN(median)) return ['–', ''];
  return [median.toFixed(digits), `(${least.toFixed(digits)} to ${most.toFixed(digits)})`];
}

function limits(size: Size, copies: readonly Usage[], jobs: readonly Usage[]): string {
  const ratios = jobs.map((job, i) => job.wallSeconds / copies[i].wallSeconds);
  const ratio = spread(ratios).median;
  const peak = spread(jobs.map((job) => job.peakMegabytes)).most;
  const rows = [['  wall, job : COPY', ...figures(ratios), verdict(ratio, size.mostRatio)]];
  if (size.mostMegabytes !== undefined) {
    rows.push(['  largest peak MB', peak.toFixed(0), '', verdict(peak, size.mostMegabytes)]);
  }
  return table(rows);
}

function verdict(value: number, limit: number | undefined): string {
  if (limit === undefined) return '';
  return `limit ${limit}: ${value <= limit ? 'holds' : 'EXCEEDED'}`;
}

function growthFigures(room: CachedRoom, jobs: readonly Usage[]): string[] {
  const { rows } = room.counts;
  const seconds = spread(jobs.map((job) => job.wallSeconds)).median;
  const peak = spread(jobs.map((job) => job.peakMegabytes)).most;
  return [
    count(rows),
    seconds.toFixed(2),
    count(rows / seconds),
    ((seconds * 1e6) / rows).toFixed(2),
    peak.toFixed(0),
  ];
}
