import { readFile, stat } from 'node:fs/promises';
import { nothingDone } from '../auto/auto-settings.js';
import type { AutoSettings, AutoSummary } from '../auto/auto-settings.js';
import { metricsText } from '../auto/metrics.js';
import { RoomsFailedError, UsageError } from '../errors.js';
import { counted } from '../report/counted.js';
import { openFileOutput } from '../sinks/file-output.js';
import { endWith } from '../sinks/output.js';
import { APPLY_OPTIONS, applyOptionsOf } from './apply-options.js';
import { Arguments, readArguments } from './arguments.js';
import type { Answer } from './arguments.js';
import { chosenStrategy } from './strategy-options.js';
import { failureOf } from './failure.js';
import { InterruptedError } from './interruption.js';
import type { Interruption } from './interruption.js';
import { isLogFormat, openLog } from './log.js';
import type { LogFormat } from './log.js';
import { OPTIONS } from './options.js';
import type { CommandOptions } from './option-names.js';
import type { StatusLine } from './status-line.js';
import { temporaryFolder } from './temporary-folder.js';

/** What a command line of `auto` asks for, checked. */
export interface AutoCommand extends Pick<
  AutoSettings,
  | 'dsn'
  | 'strategy'
  | 'order'
  | 'chunkSize'
  | 'chunks'
  | 'rooms'
  | 'except'
  | 'maxRooms'
  | 'timeBudget'
  | 'pace'
  | 'vacuum'
  | 'dryRun'
> {
  readonly tmpdir: string | undefined;
  readonly logFormat: LogFormat;
  readonly metricsFile: string | undefined;
}

/** State groups of a chunk, unless it is said. */
const CHUNK_SIZE = 1000;

const ROOMS = 'Which rooms, and how many:';
const WRITING = 'How it writes:';
const REPORT = 'What it tells:';

const AUTO_OPTIONS = {
  'postgres-url': { ...OPTIONS['postgres-url'], group: ROOMS },
  room: {
    alias: 'r',
    nargs: 1,
    group: ROOMS,
    describe: 'Only this room, whatever it promises. May be given several times',
  },
  exclude: {
    nargs: 1,
    group: ROOMS,
    describe: 'Not this room. May be given several times',
  },
  order: {
    nargs: 1,
    group: ROOMS,
    describe:
      'gain: the room with the largest estimated gain first; id: the one with the lowest state ' +
      'group that is not compressed',
    defaultDescription: 'gain; id with levels',
  },
  'max-rooms': { nargs: 1, group: ROOMS, describe: 'At most so many rooms' },
  'time-budget': {
    nargs: 1,
    group: ROOMS,
    describe: 'End after this time, as in 2h, 30m or 1h30m',
  },
  'chunk-size': {
    alias: 'c',
    nargs: 1,
    group: ROOMS,
    describe: 'State groups that levels compress at a time',
    defaultDescription: String(CHUNK_SIZE),
  },
  chunks: {
    alias: 'n',
    nargs: 1,
    group: ROOMS,
    describe:
      'At most so many chunks; adaptive, which takes whole rooms, begins none after so many state groups',
  },
  strategy: OPTIONS.strategy,
  'level-sizes': OPTIONS['level-sizes'],
  'max-hops': OPTIONS['max-hops'],
  headroom: OPTIONS.headroom,
  'rebase-deep': OPTIONS['rebase-deep'],
  pace: { ...APPLY_OPTIONS.pace, group: WRITING },
  vacuum: { ...APPLY_OPTIONS.vacuum, group: WRITING },
  'dry-run': {
    type: 'boolean',
    group: WRITING,
    describe: 'Plan and tell, and write nothing to the database',
  },
  'log-format': {
    nargs: 1,
    group: REPORT,
    describe: 'text, or json: an object a line',
    defaultDescription: 'text',
  },
  'metrics-file': {
    nargs: 1,
    group: REPORT,
    describe: "File for the node exporter's textfile collector, in the Prometheus text format",
  },
  tmpdir: { ...OPTIONS.tmpdir, group: WRITING },
} as const satisfies CommandOptions;

/** Reads the arguments after `auto`; throws UsageError. */
export function parseAutoCommand(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): AutoCommand | Answer {
  const given = readArguments(args, AUTO_OPTIONS, (parser) =>
    parser
      .usage('Usage: $0 auto -p DSN [options]')
      .usage('or:    synapse_auto_compressor -p DSN [options]')
      .usage('Compresses the rooms of a database by itself, beside a running Synapse.')
      .example('$0 auto -p postgresql://host/synapse --time-budget 2h', '')
      .example(
        'synapse_auto_compressor -p postgresql://host/synapse -c 500 -n 100 -l 100,50,25',
        '',
      )
      .epilogue(
        'Progress is kept in the database, in the tables of rust-synapse-compress-state, so that ' +
          'either can go on where the other stopped. A first SIGINT or SIGTERM ends the run after the ' +
          'transaction under way. Ends with 11 if a room failed; the others are done then.',
      ),
  );
  if (!(given instanceof Arguments)) return given;
  given.refusePositionals();
  const dsn = given.database(env, 'Which database? Give it with -p.');
  const strategy = chosenStrategy(given);
  const order = given.text('order') ?? (strategy.name === 'levels' ? 'id' : 'gain');
  if (order !== 'gain' && order !== 'id') {
    throw new UsageError(`--order takes gain or id, not '${order}'.`);
  }
  const logFormat = given.text('log-format') ?? 'text';
  if (!isLogFormat(logFormat)) {
    throw new UsageError(`--log-format takes text or json, not '${logFormat}'.`);
  }
  return {
    dsn,
    strategy,
    order,
    chunkSize: given.integer('chunk-size', 1) ?? CHUNK_SIZE,
    chunks: given.integer('chunks', 1) ?? Infinity,
    rooms: given.texts('room'),
    except: given.texts('exclude'),
    maxRooms: given.integer('max-rooms', 1) ?? Infinity,
    timeBudget: parseTime(given.text('time-budget')),
    ...applyOptionsOf(given),
    dryRun: given.has('dry-run'),
    tmpdir: given.text('tmpdir'),
    logFormat,
    metricsFile: metricsFileOf(given),
  };
}

/** Standard output is of no use to the node exporter; it reads files. */
function metricsFileOf(given: Arguments): string | undefined {
  const file = given.output('metrics-file');
  if (file === '-') throw new UsageError('--metrics-file is to name a file, not standard output.');
  return file;
}

const UNITS = { h: 3_600_000, m: 60_000, s: 1000 } as const;

/** Longer than this Node's timers can't wait. */
const LONGEST = 2 ** 31 - 1;

function parseTime(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  let time = 0;
  for (const [, count, unit] of text.matchAll(/(\d+)([hms])/g)) {
    time += Number(count) * UNITS[unit as keyof typeof UNITS];
  }
  if (!/^(\d+[hms])+$/.test(text) || time === 0 || time > LONGEST) {
    throw new UsageError(
      `--time-budget takes a time of at most 24 days, as in 2h, 30m or 1h30m, not '${text}'.`,
    );
  }
  return time;
}

/**
 * Compresses rooms as the command line says, and logs on standard error how it goes.
 *
 * @throws CompressStateError: a RoomsFailedError if rooms were set aside, an InterruptedError if a
 *   signal ended it, an OutputError before it begins if the metrics can't be written
 */
export async function runAutoCommand(
  command: AutoCommand,
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  const log = openLog(command.logFormat, status);
  // Told now, and not after a run of hours.
  const tmpdir = await temporaryFolder(command.tmpdir);
  if (command.metricsFile !== undefined) await checkWritable(command.metricsFile, tmpdir);
  const summary = nothingDone();
  let failure: unknown;
  try {
    const { autoCompress } = await import('../auto/auto-compressor.js');
    await autoCompress(
      {
        ...command,
        env: process.env,
        tmpdir,
        signal: interruption.signal,
        log,
        onProgress: (progress) => {
          if (command.logFormat === 'text') status.progress(progress);
        },
      },
      summary,
    );
  } catch (error) {
    failure = error;
  }
  status.clear();
  if (failure === undefined || summary.rooms > 0) {
    const how = failure !== undefined || summary.stoppedBy !== undefined ? 'Stopped' : 'Done';
    log('info', summaryText(summary, how, command.dryRun), { ...summary });
  }
  failure = interruptionOf(interruption, failure) ?? failure ?? roomsFailed(summary);
  const { exitCode, message } =
    failure === undefined ? { exitCode: 0, message: '' } : failureOf(failure, process.env);
  if (command.metricsFile !== undefined) {
    try {
      await writeMetrics(command.metricsFile, tmpdir, summary, exitCode);
    } catch (error) {
      if (failure === undefined) throw error;
      log('warning', failureOf(error, process.env).message);
    }
  }
  if (failure === undefined) return;
  if (command.logFormat === 'text') throw failure as Error;
  log('error', message, { exitCode });
  process.exitCode = exitCode;
}

function summaryText(summary: AutoSummary, how: 'Done' | 'Stopped', dryRun: boolean): string {
  const { rooms, rowsDeleted, rowsInserted, rowsToSave, groupsRewritten, groupsSkipped } = summary;
  const what = dryRun
    ? `${counted(rowsToSave, 'row')} could be saved`
    : `${counted(rowsDeleted - rowsInserted, 'row was', 'rows were')} saved by rewriting ${counted(groupsRewritten, 'state group')}`;
  return [
    `${how} after ${Math.round(summary.seconds)} s: in ${counted(rooms, 'room')} ${what}`,
    ...(groupsSkipped > 0
      ? [
          counted(
            groupsSkipped,
            'state group was left as it is',
            'state groups were left as they are',
          ),
        ]
      : []),
    ...(summary.withoutGain > 0
      ? [`${summary.withoutGain} of ${summary.chunks} plans gained nothing`]
      : []),
    ...(summary.failed.length > 0 ? [`${counted(summary.failed.length, 'room')} failed`] : []),
    ...(summary.stoppedBy === 'time' ? ['the time was up, and the next run goes on'] : []),
  ]
    .join('; ')
    .concat('.');
}

function interruptionOf({ by }: Interruption, cause: unknown): InterruptedError | undefined {
  if (by === undefined) return undefined;
  const left = 'What was done stands; the next run goes on from there.';
  return new InterruptedError(by, left, { cause });
}

function roomsFailed({ failed }: AutoSummary): RoomsFailedError | undefined {
  if (failed.length === 0) return undefined;
  const names = failed.slice(0, 5).map(({ room }) => room);
  return new RoomsFailedError(
    `${failed.length === 1 ? 'A room' : `${failed.length} rooms`} failed, and the log above says why: ${names.join(', ')}${failed.length > 5 ? ' and others' : ''}. The others are done.`,
  );
}

/** @throws OutputError if the file can't be written */
async function checkWritable(path: string, tmpdir: string): Promise<void> {
  await (await openFileOutput(path, { tmpdir })).discard();
}

/** Replaces the file as a whole, so that the exporter never reads half of it. */
async function writeMetrics(
  path: string,
  tmpdir: string,
  summary: AutoSummary,
  exitCode: number,
): Promise<void> {
  // A pipe has nothing to go on with, and may never end.
  const isFile = await stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
  const before = isFile ? await readFile(path, 'utf8') : '';
  const output = await openFileOutput(path, { tmpdir });
  try {
    await endWith(output, metricsText(summary, { exitCode, ended: new Date(), before }));
    await output.keep();
  } finally {
    await output.discard();
  }
}
