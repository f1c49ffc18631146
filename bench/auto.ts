import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import {
  HAS_OLD_TOOL,
  NO_OLD_TOOL,
  oldAutoCompressor,
  WITHOUT_DOLLARS,
} from '../test/support/old-tool.js';
import { startServer, TestPostgres } from '../test/support/postgres.js';
import type { TestDatabase } from '../test/support/postgres.js';
import { CLI, runCli } from '../test/support/run-cli.js';
import { count, spread, table } from './figures.js';
import { loadRoom, makeDurable } from './load-room.js';
import { describeMachine } from './machine.js';
import { measure } from './measure.js';
import type { Program, Usage } from './measure.js';
import { cachedRoom, SIZES } from './room-cache.js';
import type { CachedRoom } from './room-cache.js';

const ROOMS = { small: SIZES.small, seed: SIZES.seed };

const METHOD = `The whole work of an automatic compressor: find the room, read, plan, verify and apply. The old tool
and this one, in turns, A B C A B C, each on the same database, loaded anew; the server makes each commit
durable, as Postgres does by default. Levels are 100,50,25, for the room as a whole and in chunks of 500
groups, as the old tool's manual has it. Wall time, CPU time and peak memory (10^6 bytes) are the client's,
from its start to its end; ratios are of neighbours. Afterwards every group's state is compared with what it
was, and with levels both tools must leave the same rows and edges.
`;

export const USAGE = `Usage: npm run bench -- auto [options]

  --size NAME   of ${Object.keys(ROOMS).join(', ')} (default seed)
  --repeats N   (default 3)

Needs the old tool, which "npm run test:old-tool" installs.
`;

/** One tool at its work; those with the same `result` leave the same tables. */
interface Way {
  readonly name: string;
  readonly result: string;
  readonly program: (url: string) => Omit<Program, 'name'>;
}

const auto = (url: string, ...options: string[]) => ({
  command: process.execPath,
  args: [CLI, 'auto', '-p', url, ...options],
});

const LEVELS = '100,50,25';

/** Both tools by levels, so many groups at a time. */
function byLevels(result: string, chunkSize: number, chunks: number): Way[] {
  const ours = ['-l', LEVELS, '-c', String(chunkSize), '-n', String(chunks)];
  return [
    {
      name: `old tool, ${result}`,
      result,
      program: (url) => oldAutoCompressor(url, { chunkSize, chunks, levels: LEVELS }),
    },
    { name: `auto -l, ${result}`, result, program: (url) => auto(url, ...ours) },
  ];
}

/** More than any room has. */
const MANY = 1_000_000;

const WAYS: readonly Way[] = [
  ...byLevels('whole', MANY, 1),
  { name: 'auto (adaptive)', result: 'adaptive', program: (url) => auto(url) },
  ...byLevels('in chunks', 500, MANY),
];

/** Measures the automatic compressor beside the old tool's, which does the same work. */
export async function benchmarkAuto(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      size: { type: 'string', default: 'seed' },
      repeats: { type: 'string', default: '3' },
    },
  });
  const repeats = Number(values.repeats);
  if (!(values.size in ROOMS) || !Number.isSafeInteger(repeats) || repeats < 1)
    throw new Error(USAGE);
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: run "npm run build" first.`);
  if (!HAS_OLD_TOOL) throw new Error(`There is nothing to compare with: ${NO_OLD_TOOL}`);

  const size = values.size as keyof typeof ROOMS;
  const room = cachedRoom(size, ROOMS[size]);
  const server = await startServer();
  try {
    const postgres = new TestPostgres(server.address);
    process.stdout.write(`${describeMachine()}${METHOD}\n`);
    process.stdout.write(`${size}: ${count(room.counts.groups)} state groups, `);
    process.stdout.write(`${count(room.counts.rows)} rows\n`);
    const before = await loadForBoth(postgres, room);
    const runs = WAYS.map((): Run[] => []);
    try {
      for (let run = 0; run < repeats; run++) {
        for (const [i, way] of WAYS.entries()) {
          const db = await loadForBoth(postgres, room);
          await makeDurable(db);
          const usage = await measure({ name: way.name, ...way.program(db.url) });
          runs[i].push({ ...usage, ...(await contents(db)) });
          if (run === 0) await compareStates(way.name, before, db, room);
          await db.drop();
        }
      }
    } finally {
      await before.drop();
    }
    process.stdout.write(comparison(runs));
  } finally {
    await server.stop();
  }
}

interface Run extends Usage {
  readonly rows: number;
  /** Of all rows and edges. */
  readonly hash: string;
}

/** What both can write. */
async function loadForBoth(postgres: TestPostgres, room: CachedRoom): Promise<TestDatabase> {
  const db = await loadRoom(postgres, room);
  await db.query(WITHOUT_DOLLARS);
  await db.query('VACUUM ANALYZE');
  return db;
}

async function contents(db: TestDatabase): Promise<{ rows: number; hash: string }> {
  const { rows } = await db.query<{ rows: string; hash: string }>(`
    SELECT count(*) AS rows, concat(sum(hashtextextended(s::text, 0)),
        (SELECT sum(hashtextextended(e::text, 0)) FROM state_group_edges AS e)) AS hash
      FROM state_groups_state AS s`);
  return { rows: Number(rows[0].rows), hash: rows[0].hash };
}

async function compareStates(
  name: string,
  before: TestDatabase,
  after: TestDatabase,
  { room }: CachedRoom,
): Promise<void> {
  const { code, stdout, stderr } = await runCli(['verify', before.url, after.url, '-r', room]);
  if (code !== 0) throw new Error(`${name} changed a state:\n${stdout}${stderr}`);
}

function comparison(runs: readonly Run[][]): string {
  const lines = [['', 'wall s', 'CPU s', 'peak MB', 'rows left', 'times as fast as the old tool']];
  for (const [i, { name, result }] of WAYS.entries()) {
    const old = WAYS.findIndex((way) => way.result === result);
    if (runs[i].some(({ hash }) => hash !== runs[old][0].hash)) {
      throw new Error(`${name} left other rows or edges than ${WAYS[old].name}.`);
    }
    const median = (figure: (run: Run) => number) => spread(runs[i].map(figure)).median;
    const faster = runs[i].map(({ wallSeconds }, run) => {
      // Adaptive is for rooms as a whole, as the first way is.
      const beside = result === 'adaptive' ? 0 : old;
      return runs[beside][run].wallSeconds / wallSeconds;
    });
    const { median: ratio, least, most } = spread(faster);
    lines.push([
      `  ${name}`,
      median((run) => run.wallSeconds).toFixed(2),
      median((run) => run.cpuSeconds).toFixed(2),
      median((run) => run.peakMegabytes).toFixed(0),
      count(runs[i][0].rows),
      `${ratio.toFixed(1)} (${least.toFixed(1)} to ${most.toFixed(1)})`,
    ]);
  }
  return table(lines);
}
