/** `npm run bench -- NAME [options]`: runs one benchmark, `job` where none is named. */
import { benchmarkApply, USAGE as APPLY_USAGE } from './apply.js';
import { benchmarkAuto, USAGE as AUTO_USAGE } from './auto.js';
import { benchmarkFiles, USAGE as FILES_USAGE } from './files.js';
import { benchmarkJob, USAGE as JOB_USAGE } from './job.js';
import { benchmarkRows, USAGE as ROWS_USAGE } from './rows.js';

interface Benchmark {
  readonly run: (args: string[]) => Promise<void>;
  readonly usage: string;
}

const BENCHMARKS: Readonly<Record<string, Benchmark>> = {
  job: { run: benchmarkJob, usage: JOB_USAGE },
  apply: { run: benchmarkApply, usage: APPLY_USAGE },
  auto: { run: benchmarkAuto, usage: AUTO_USAGE },
  files: { run: benchmarkFiles, usage: FILES_USAGE },
  rows: { run: benchmarkRows, usage: ROWS_USAGE },
};

const args = process.argv.slice(2);
const named = args[0] !== undefined && !args[0].startsWith('-');
const name = named ? args[0] : 'job';
const benchmark = BENCHMARKS[name];
if (benchmark === undefined) {
  process.stderr.write(
    `There is no benchmark '${name}', but: ${Object.keys(BENCHMARKS).join(', ')}\n`,
  );
  process.exitCode = 2;
} else if (args.includes('--help')) {
  process.stdout.write(benchmark.usage);
} else {
  try {
    await benchmark.run(named ? args.slice(1) : args);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  }
}
