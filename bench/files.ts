import { spawnSync } from 'node:child_process';
import { createReadStream, createWriteStream, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { createGzip } from 'node:zlib';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { RoomPlan } from '../src/planner/room-plan.js';
import { startServer, TestPostgres } from '../test/support/postgres.js';
import type { TestDatabase } from '../test/support/postgres.js';
import { CLI } from '../test/support/run-cli.js';
import { count, spread, table } from './figures.js';
import { loadRoom, makeDurable } from './load-room.js';
import { describeMachine } from './machine.js';
import { measure, measureInTurn } from './measure.js';
import type { Program, Usage } from './measure.js';
import { oldStatementsSink } from './old-statements.js';
import { openRoom } from './rewrite-room.js';
import { cachedRoom, DATA, SIZES } from './room-cache.js';
import type { CachedRoom } from './room-cache.js';
import type { RoomSettings } from './rooms.js';

const ROOMS: Readonly<Record<string, RoomSettings>> = SIZES;

const METHOD = `The whole job (read, plan, verify, write SQL) from each form of the same rows, beside what does no more
than read, unpack or sort the same bytes, all in turns after a warm-up of each. The shuffled rows stand in
no order. Then psql's time to apply the same changes to the same database in three forms; the old tool's
statements are as it writes them with -t. Wall time and peak resident memory (10^6 bytes) are medians and
the largest; the ratio is that of neighbours to the sort of COPY text. While changes are applied Postgres
makes every commit durable, as it does by default.
`;

export const USAGE = `Usage: npm run bench -- files [options]

  --size NAME    of ${Object.keys(SIZES).join(', ')} (default seed)
  --repeats N    measured runs of each program (default 3)
  --inputs       only reading
  --apply        only applying
`;

/** Measures the job from every form of input, and psql with every form of output. */
export async function benchmarkFiles(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      size: { type: 'string', default: 'seed' },
      repeats: { type: 'string', default: '3' },
      inputs: { type: 'boolean', default: false },
      apply: { type: 'boolean', default: false },
    },
  });
  const size = ROOMS[values.size];
  const repeats = Number(values.repeats);
  if (size === undefined) throw new Error(`No such size: '${values.size}'.\n${USAGE}`);
  if (!Number.isSafeInteger(repeats) || repeats < 1) {
    throw new Error(`--repeats must be a whole number of at least 1.\n${USAGE}`);
  }
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: run "npm run build" first.`);
  const room = cachedRoom(values.size, size);
  const temporary = join(DATA, 'files-output');
  mkdirSync(temporary, { recursive: true });
  const server = await startServer();
  try {
    const postgres = new TestPostgres(server.address);
    process.stdout.write(`${describeMachine()}${METHOD}\n`);
    process.stdout.write(`${values.size}: ${count(room.counts.rows)} rows\n`);
    if (!values.apply) await measureInputs(postgres, room, temporary, repeats);
    if (!values.inputs) await measureApply(postgres, room, temporary, repeats);
  } finally {
    rmSync(temporary, { recursive: true });
    await server.stop();
  }
}

async function measureInputs(
  postgres: TestPostgres,
  room: CachedRoom,
  temporary: string,
  repeats: number,
): Promise<void> {
  const db = await loadRoom(postgres, room);
  const rows = await exportRows(db, join(room.folder, 'state_groups_state.copy'), temporary);
  await db.drop();
  const copy = rows['COPY text'];
  const job = (name: string, file: string): Program => ({
    name,
    command: process.execPath,
    args: ([CLI, '-i', join(room.folder, 'state_groups.copy')] as string[]).concat(
      ['-i', join(room.folder, 'state_group_edges.copy'), '-i', file],
      ['-r', room.room, '-o', join(temporary, 'out.sql'), '-t', '--tmpdir', temporary],
    ),
  });
  const sort = (name: string, file: string): Program => ({
    name,
    command: 'sort',
    args: ['-n', '-k1,1', '-S', '64M', '-T', temporary, file],
    env: { LC_ALL: 'C' },
  });
  const programs = [
    { name: 'cat', command: 'cat', args: [copy] },
    { name: 'gzip -dc', command: 'gzip', args: ['-dc', rows['COPY text, gzip']] },
    sort('sort', copy),
    sort('sort, shuffled', rows['COPY text, shuffled']),
    ...Object.entries(rows).map(([name, file]) => job(`job from ${name}`, file)),
  ];
  const usages = await measureInTurn(programs, repeats);
  const sorts = usages[2];
  const lines = [['', 'wall s', 'rows/s', 'peak MB', ': sort']];
  programs.forEach(({ name }, i) => {
    const ratios = usages[i].map((usage, run) => usage.wallSeconds / sorts[run].wallSeconds);
    lines.push([`  ${name}`, ...wall(usages[i], room.counts.rows), median(ratios).toFixed(2)]);
  });
  process.stdout.write(table(lines));
}

function median(values: readonly number[]): number {
  return spread(values).median;
}

function wall(usages: readonly Usage[], rows: number): string[] {
  const seconds = median(usages.map(({ wallSeconds }) => wallSeconds));
  const peak = spread(usages.map(({ peakMegabytes }) => peakMegabytes)).most;
  return [seconds.toFixed(2), count(rows / seconds), peak.toFixed(0)];
}

/** Writes the rows in every form, each to a file, by Postgres where it has the form. */
async function exportRows(db: TestDatabase, copy: string, folder: string) {
  const forms: Record<string, string> = { 'COPY text': copy };
  const add = async (form: string, name: string, bytes: Readable): Promise<void> => {
    forms[form] = join(folder, name);
    await pipeline(bytes, createWriteStream(forms[form]));
  };
  const rows = 'TABLE state_groups_state';
  const shuffled = 'SELECT * FROM state_groups_state ORDER BY hashtext(event_id || state_group)';
  const json = 'SELECT row_to_json(s) FROM state_groups_state AS s';
  await add('COPY text, shuffled', 'shuffled.copy', db.copyOut(shuffled));
  await add('COPY text, gzip', 'rows.copy.gz', createReadStream(copy).pipe(createGzip()));
  await add('CSV', 'rows.csv', db.copyOut(rows, '(FORMAT csv)'));
  await add('binary COPY data', 'rows.bin', db.copyOut(rows, '(FORMAT binary)'));
  // Quoted so that no escape of JSON's is escaped again: no text holds these two.
  await add(
    'JSON',
    'rows.json',
    db.copyOut(json, `(FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')`),
  );
  return forms;
}

async function measureApply(
  postgres: TestPostgres,
  room: CachedRoom,
  temporary: string,
  repeats: number,
): Promise<void> {
  const forms: Record<string, string> = {};
  for (const [form, options] of [
    ['copy', ['--format', 'copy']],
    ['sql', ['-t']],
  ] as const) {
    forms[form] = join(temporary, `${form}.sql`);
    const { status, stderr } = spawnSync(
      process.execPath,
      [CLI, '-i', room.folder, '-r', room.room, '-o', forms[form], ...options],
      { encoding: 'utf8' },
    );
    if (status !== 0) throw new Error(stderr);
  }
  forms["the old tool's statements"] = join(temporary, 'old.sql');
  const source = await openRoom(room);
  await pipeline(
    source.rows(),
    new RoomPlan(source, new AdaptivePlanner()),
    oldStatementsSink(room.room, { transactions: true }),
    createWriteStream(forms["the old tool's statements"]),
  );
  await source.close();

  const usages = new Map<string, Usage[]>(Object.keys(forms).map((form) => [form, []]));
  for (let run = 0; run < repeats; run++) {
    for (const [form, file] of Object.entries(forms)) {
      const db = await loadRoom(postgres, room);
      await makeDurable(db);
      const args = ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', db.url, '-f', file];
      usages.get(form)!.push(await measure({ name: `psql, ${form}`, command: 'psql', args }));
      await db.drop();
    }
  }
  const old = usages.get("the old tool's statements")!;
  const lines = [['Applying by psql', 'wall s', 'old : this']];
  for (const [form, runs] of usages) {
    const ratios = runs.map(({ wallSeconds }, i) => old[i].wallSeconds / wallSeconds);
    const seconds = median(runs.map(({ wallSeconds }) => wallSeconds));
    lines.push([`  ${form}`, seconds.toFixed(2), median(ratios).toFixed(2)]);
  }
  process.stdout.write(table(lines));
}
