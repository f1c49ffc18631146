import { existsSync } from 'node:fs';
import { finished } from 'node:stream/promises';
import { compressRoom } from '../compress.js';
import { OutputError } from '../errors.js';
import { nextSteps } from '../report/next-steps.js';
import { readableSize } from '../report/size.js';
import type { Statistics } from '../report/statistics.js';
import { summaryLines } from '../report/summary.js';
import { openFileOutput, openStreamedOutput } from '../sinks/output.js';
import type { OpenOutput, SpoolSettings } from '../sinks/output.js';
import { AdaptivePlanner } from '../planner/adaptive.js';
import { LevelsPlanner } from '../planner/levels.js';
import type { Planner } from '../planner/planner.js';
import type { RoomSource } from '../sources/room-source.js';
import type { CompressCommand } from './command-line.js';
import { isClosedPipe } from './failure.js';
import { InterruptedError } from './interruption.js';
import type { Interruption } from './interruption.js';
import { openChanges } from './open-changes.js';
import { openSource } from './open-source.js';
import type { StatusLine } from './status-line.js';
import { temporaryFolder } from './temporary-folder.js';

/**
 * Compresses a room as the command line says, and tells on standard error how it goes.
 *
 * @throws CompressStateError, an InterruptedError if a signal ended it; no output is left then
 */
export async function runCompressCommand(
  command: CompressCommand,
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  const spool = {
    tmpdir: await temporaryFolder(command.tmpdir),
    signal: interruption.signal,
  };
  let changes: OpenOutput | undefined;
  let figures: OpenOutput | undefined;
  const discard = () => Promise.all([changes?.discard(), figures?.discard()]);
  // A second signal or a defect ends the process at once; a partial file must not outlive it.
  process.once('exit', () => void discard());
  let written = false;
  try {
    // Before anything is read: where they can't be written is then known at once.
    changes = await openChanges(command, spool, () => source.storedTables!());
    figures = await openFigures(command, spool);
    const source = await open(command, spool, status);
    const statistics = await compress(command, source, changes, spool.signal, status);
    written = statistics.outcome === 'written';
    for (const line of summaryLines(statistics)) {
      status.say(line);
    }
    if (changes !== undefined && !written) {
      checkNothingIsLeft(changes, statistics, status);
    }
    const { format, transactions } = command;
    for (const line of nextSteps(statistics, { output: changes, format, transactions })) {
      status.say(line);
    }
    if (figures !== undefined) {
      await writeFigures(statistics, figures);
    }
  } catch (error) {
    const left = written ? 'The changes are complete.' : whatIsLeft(changes);
    if (interruption.by !== undefined) {
      throw new InterruptedError(interruption.by, left, { cause: error });
    }
    if (changes !== undefined && changes.sentBytes > 0 && !isClosedPipe(error)) {
      status.say(left);
    }
    throw error;
  } finally {
    status.clear();
    await discard();
  }
}

async function open(
  command: CompressCommand,
  { tmpdir, signal }: Required<SpoolSettings>,
  status: StatusLine,
): Promise<RoomSource> {
  if (command.unbuffered && command.format === 'sql' && !command.transactions) {
    status.say(
      'Warning: with --unbuffered and without -t, psql may run half of a change if this process ' +
        'is killed. Give -t as well.',
    );
  }
  const place = command.source.kind === 'postgres' ? 'DB' : 'files';
  status.say(`Fetching state from ${place} for room '${command.room}'...`);
  const keepTables = command.format === 'tables' && command.output !== undefined;
  return openSource({ ...command, keepTables }, tmpdir, signal);
}

async function compress(
  command: CompressCommand,
  source: RoomSource,
  output: OpenOutput | undefined,
  signal: AbortSignal,
  status: StatusLine,
): Promise<Statistics> {
  return compressRoom({
    source,
    format: command.format,
    transactions: command.transactions,
    verify: command.verify,
    onProgress: (progress) => status.progress(progress),
    signal,
    planner: plannerOf(command),
    ...(output !== undefined && { output }),
    ...(command.batch !== undefined && { batch: command.batch }),
    ...(command.minSavedRows !== undefined && { minSavedRows: command.minSavedRows }),
    ...(command.graphs && { graphs: process.cwd() }),
  });
}

function plannerOf({ strategy, range }: CompressCommand): Planner {
  if (strategy.name === 'levels') return new LevelsPlanner(strategy.sizes);
  // Groups at the end of a range are not the ones that Synapse goes on with.
  const partial = range.maxStateGroup !== undefined || range.groupsToCompress !== undefined;
  return new AdaptivePlanner({ ...(partial && { headroom: 0 }), ...strategy.settings });
}

async function openFigures(
  { statsFile }: CompressCommand,
  spool: SpoolSettings,
): Promise<OpenOutput | undefined> {
  if (statsFile === '-') {
    return openStreamedOutput(process.stdout, 'standard output');
  }
  return statsFile === undefined ? undefined : openFileOutput(statsFile, spool);
}

async function writeFigures(statistics: Statistics, figures: OpenOutput): Promise<void> {
  figures.stream.end(`${JSON.stringify(statistics)}\n`);
  await finished(figures.stream);
  await figures.keep();
}

/**
 * Says so when the SQL of an earlier run is still there, lest it be taken for this one's.
 *
 * @throws OutputError when changes that are of no use can't be taken back
 */
function checkNothingIsLeft(
  changes: OpenOutput,
  { groupsWritten }: Statistics,
  status: StatusLine,
): void {
  if (changes.sentBytes > 0 && groupsWritten > 0) {
    throw new OutputError(
      'The changes are not wanted, but part of them had been sent already. Without --unbuffered ' +
        'they are held back until it is known.',
    );
  }
  if (changes.isFile && existsSync(changes.name)) {
    status.say(`${changes.name} is of an earlier run and stays as it was.`);
  }
}

function whatIsLeft(changes: OpenOutput | undefined): string {
  if (changes === undefined || changes.sentBytes === 0) {
    return 'Nothing was written.';
  }
  const size = readableSize(changes.sentBytes);
  return `${size} had gone to ${changes.name} already, and then a line that makes psql -1 roll back.`;
}
