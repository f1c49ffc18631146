import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compressRoom } from '../src/compress.js';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { LevelsPlanner } from '../src/planner/levels.js';
import type { Planner } from '../src/planner/planner.js';
import type { Statistics } from '../src/report/statistics.js';
import { fixture } from '../test/support/fixtures.js';
import { CLI } from '../test/support/run-cli.js';
import { count, spread, table } from './figures.js';
import { LeastRowsPlanner } from './least-rows.js';
import { lineOptimum } from './line-optimum.js';
import { describeMachine } from './machine.js';
import { measure, measureInTurn } from './measure.js';
import type { Program } from './measure.js';
import { measureReads } from './read-times.js';
import { openRoom, rewriteRoom } from './rewrite-room.js';
import { cachedRoom, DATA, SIZES } from './room-cache.js';
import type { CachedRoom } from './room-cache.js';
import { ROOM_KINDS } from './rooms.js';
import type { RoomSettings } from './rooms.js';

/** A room in COPY files. */
type RoomFiles = Pick<CachedRoom, 'room' | 'folder'>;

const GENERATED: Readonly<Record<string, RoomSettings>> = {
  line: { kind: 'line', groups: 100_000, keys: 512, seed: 1 },
  seed: SIZES.seed,
  backfill: { kind: 'backfill', groups: 20_000, keys: 1112, seed: 1 },
  resolution: { kind: 'resolution', groups: 20_000, keys: 1112, seed: 1 },
  deleted: { kind: 'deleted', groups: 20_000, keys: 512, seed: 1 },
  churn: { kind: 'churn', groups: 20_000, keys: 1112, seed: 1 },
  crowd: { kind: 'crowd', groups: 100_000, keys: 1112, seed: 1 },
  few: { kind: 'small', groups: 20_000, keys: 30, seed: 1 },
};
/** What is compressed once more. */
const BRANCHING: RoomSettings = { kind: 'branching', groups: 20_000, keys: 1112, seed: 1 };

const ROOMS: Readonly<Record<string, (temporary: string) => Promise<RoomFiles>>> = {
  ...Object.fromEntries(
    Object.entries(GENERATED).map(([name, settings]) => [
      name,
      () => Promise.resolve(cachedRoom(name, settings)),
    ]),
  ),
  'by levels': (temporary) => compressed(new LevelsPlanner(), temporary),
  'by adaptive': (temporary) => compressed(new AdaptivePlanner(), temporary),
  export: () =>
    Promise.resolve({
      room: '!ORrIj_ngefPxK_xykJweOcBeKDOqcbRfKolM2O2VoCY',
      folder: fixture('synapse'),
    }),
};

function compressed(planner: Planner, temporary: string): Promise<RoomFiles> {
  return rewriteRoom(cachedRoom('branching', BRANCHING), planner, join(temporary, 'compressed'));
}

const LEVELS = ['-l', '100,50,25'];
const ADAPTIVE = ['--max-hops', '100'];
const DEEPER = ['--max-hops', '175'];
const UNBOUNDED = ['--max-hops', '1000000', '--headroom', '0'];

const METHOD = `Rows before and after, from COPY files to SQL. Levels are 100,50,25 (chains of up to 175 hops), adaptive
is bounded by the hops named. "of levels" and "of unbounded" are adaptive at 100 hops beside levels and
beside adaptive without a bound. In parentheses is what a run would leave that writes nothing, as it
would leave more than before. Costs are the longest chain and the mean,
groups rewritten, rows deleted and inserted, bytes of SQL. Time and memory are of the whole program,
in turns, levels adaptive levels adaptive, after one run of each: medians, the ratio of neighbours with
(least to most), and the largest peak of resident memory (10^6 bytes).
`;

export const USAGE = `Usage: npm run bench -- rows [options]

  --rooms LIST   of ${Object.keys(ROOMS).join(',')} (default: all)
  --repeats N    measured runs of each program (default 3)
  --bounds       only the lower bounds, which are computed on rooms of 4,000 groups
  --reads        only how long Synapse's query takes to read a state; needs Postgres
`;

/** Measures what each strategy leaves of rooms of many kinds, and what that costs. */
export async function benchmarkRows(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      rooms: { type: 'string', default: Object.keys(ROOMS).join(',') },
      repeats: { type: 'string', default: '3' },
      bounds: { type: 'boolean', default: false },
      reads: { type: 'boolean', default: false },
    },
  });
  const names = values.rooms.split(',');
  const repeats = Number(values.repeats);
  const unknown = names.find((name) => ROOMS[name] === undefined);
  if (unknown !== undefined) throw new Error(`No such room: '${unknown}'.\n${USAGE}`);
  if (!Number.isSafeInteger(repeats) || repeats < 1) {
    throw new Error(`--repeats must be a whole number of at least 1.\n${USAGE}`);
  }
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: run "npm run build" first.`);
  mkdirSync(DATA, { recursive: true });
  const temporary = mkdtempSync(join(DATA, 'output-'));
  try {
    if (values.reads) {
      await measureReads({ line: GENERATED.line, branching: BRANCHING }, temporary);
      return;
    }
    process.stdout.write(`${describeMachine()}${METHOD}\n`);
    if (!values.bounds) await compareRooms(names, repeats, temporary);
    await compareBounds();
  } finally {
    rmSync(temporary, { recursive: true });
  }
}

async function compareRooms(names: readonly string[], repeats: number, temporary: string) {
  const rows = [
    ['Rows', 'before', 'levels', 'adaptive', 'of levels', 'at 175', 'unbounded', 'of unbounded'],
  ];
  const cost = ['hops', 'mean', 'groups', 'rows', 'SQL MB'];
  const costs = [['Costs', 'levels:', ...cost, 'adaptive:', ...cost]];
  const times = [['Time', 'levels s', 'adaptive s', 'ratio', '', 'levels MB', 'adaptive MB']];
  for (const name of names) {
    process.stderr.write(`${name} …\n`);
    const room = await ROOMS[name](temporary);
    const output = join(temporary, 'out.sql');
    const run = (strategy: string[]) => statisticsOf(program(room, strategy, output), temporary);
    const levels = await run(LEVELS);
    const adaptive = await run(ADAPTIVE);
    const unbounded = await run(UNBOUNDED);
    rows.push([
      `  ${name}`,
      count(levels.rowsBefore),
      left(levels),
      left(adaptive),
      percent(rowsLeft(adaptive) / rowsLeft(levels)),
      left(await run(DEEPER)),
      left(unbounded),
      (rowsLeft(adaptive) / rowsLeft(unbounded)).toFixed(2),
    ]);
    costs.push([`  ${name}`, '', ...costOf(levels), '', ...costOf(adaptive)]);
    const programs = [program(room, LEVELS, output), program(room, ADAPTIVE, output)];
    times.push([`  ${name}`, ...(await timeOf(programs, repeats))]);
  }
  process.stdout.write(`${table(rows)}\n${table(costs)}\n${table(times)}\n`);
}

function program({ room, folder }: RoomFiles, strategy: string[], output: string): Program {
  const args = [CLI, '-i', folder, '-r', room, '-o', output, '-t', ...strategy];
  return { name: strategy.join(' '), command: process.execPath, args };
}

async function statisticsOf(run: Program, temporary: string): Promise<Statistics> {
  const file = join(temporary, 'statistics.json');
  await measure({ ...run, args: [...run.args, '--stats-file', file] });
  return JSON.parse(readFileSync(file, 'utf8')) as Statistics;
}

/** A run that leaves more rows than there were is not kept. */
const isKept = ({ outcome }: Statistics) => outcome !== 'no-gain';

function rowsLeft(statistics: Statistics): number {
  return isKept(statistics) ? statistics.rowsAfter : statistics.rowsBefore;
}

/** Rows after the run; in parentheses what a run would have left that is not kept. */
function left(statistics: Statistics): string {
  const rows = count(statistics.rowsAfter);
  return isKept(statistics) ? rows : `(${rows})`;
}

function costOf(statistics: Statistics): string[] {
  if (!isKept(statistics)) return ['–', '–', '–', '–', '–'];
  const { hopsAfter, groupsWritten, rowsDeleted, rowsInserted, outputBytes } = statistics;
  return [
    count(hopsAfter.largest),
    hopsAfter.mean.toFixed(0),
    count(groupsWritten),
    count(rowsDeleted + rowsInserted),
    (outputBytes / 1e6).toFixed(1),
  ];
}

async function timeOf(programs: readonly Program[], repeats: number): Promise<string[]> {
  const [levels, adaptive] = await measureInTurn(programs, repeats);
  const seconds = [levels, adaptive].map((runs) => spread(runs.map((run) => run.wallSeconds)));
  const ratio = spread(adaptive.map((run, i) => run.wallSeconds / levels[i].wallSeconds));
  const peaks = [levels, adaptive].map((runs) => spread(runs.map((run) => run.peakMegabytes)).most);
  return [
    ...seconds.map(({ median }) => median.toFixed(2)),
    ratio.median.toFixed(2),
    `(${ratio.least.toFixed(2)} to ${ratio.most.toFixed(2)})`,
    ...peaks.map((peak) => peak.toFixed(0)),
  ];
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

const BOUND_GROUPS = 4000;
const LINE_GROUPS = [4000, 5000, 8000];

const BOUNDS = `Bounds on rooms of ${count(BOUND_GROUPS)} groups: what the best base among all earlier groups, at any depth,
leaves each group. No plan leaves fewer rows.
`;
const LINE = `Lines: the fewest rows that chains of at most 100 groups can take if each delta takes as many rows as keys
change, on average, in as many groups; and the same with 50 hops left under the last group.
`;

async function compareBounds(): Promise<void> {
  const rows = [['Bounds', 'before', 'levels', 'adaptive', 'unbounded', 'bound']];
  for (const kind of ROOM_KINDS) {
    const keys = kind === 'small' ? 30 : 512;
    const room = cachedRoom(`bound-${kind}`, { kind, groups: BOUND_GROUPS, keys, seed: 1 });
    const planners = [
      new LevelsPlanner(),
      new AdaptivePlanner(),
      new AdaptivePlanner({ maxHops: 1e6, headroom: 0 }),
      new LeastRowsPlanner(),
    ];
    const runs: Statistics[] = [];
    for (const planner of planners) runs.push(await planned(room, planner));
    rows.push([`  ${kind}`, count(room.counts.rows), ...runs.map(left)]);
  }
  process.stdout.write(`${BOUNDS}${table(rows)}\n`);

  const lines = [
    [
      'Line',
      'before',
      'levels at 175',
      'adaptive at 100',
      'best at 100',
      'adaptive, headroom',
      'best, headroom',
    ],
  ];
  for (const groups of LINE_GROUPS) {
    const settings: RoomSettings = { kind: 'line', groups, keys: 512, seed: 1 };
    const line = cachedRoom(`bound-line-${groups}`, settings);
    lines.push([
      `  ${count(groups)} groups`,
      count(line.counts.rows),
      left(await planned(line, new LevelsPlanner())),
      left(await planned(line, new AdaptivePlanner({ headroom: 0 }))),
      count(lineOptimum(settings, 100, 0)),
      left(await planned(line, new AdaptivePlanner({ headroom: 50 }))),
      count(lineOptimum(settings, 100, 50)),
    ]);
  }
  process.stdout.write(`${LINE}${table(lines)}`);
}

async function planned(room: CachedRoom, planner: Planner): Promise<Statistics> {
  return compressRoom({ source: await openRoom(room), planner });
}
