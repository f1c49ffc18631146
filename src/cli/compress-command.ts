import { compressRooms } from '../compress-rooms.js';
import { compressRoom } from '../compress.js';
import { InputError, OutputError, UsageError } from '../errors.js';
import { nextSteps } from '../report/next-steps.js';
import type { Progress } from '../report/progress-text.js';
import type { Totals } from '../report/room-totals.js';
import { readableSize } from '../report/size.js';
import type { Statistics } from '../report/statistics.js';
import { roomLines, summaryLines, totalLines } from '../report/summary.js';
import { GRAPH_FILES } from '../sinks/graphs.js';
import { openFileOutput } from '../sinks/file-output.js';
import { endWith } from '../sinks/output.js';
import type { OpenOutput, SpoolSettings } from '../sinks/output.js';
import { AdaptivePlanner } from '../planner/adaptive.js';
import { LevelsPlanner } from '../planner/levels.js';
import type { Planner } from '../planner/planner.js';
import type { AllRooms } from '../sources/all-rooms.js';
import type { GroupTable } from '../sources/group-table.js';
import type { RoomSource } from '../sources/room-source.js';
import type { CompressCommand } from './compress-arguments.js';
import type { Commit } from './commit.js';
import { isClosedPipe } from './failure.js';
import { openFigures } from './figures.js';
import { ALL_IS_APPLIED, InterruptedError } from './interruption.js';
import type { Interruption } from './interruption.js';
import { openChanges, writeNoChanges } from './open-changes.js';
import { openRooms, openSource } from './open-source.js';
import { protectFiles } from './protect-files.js';
import type { StatusLine } from './status-line.js';
import { temporaryFolder } from './temporary-folder.js';

/** Rows that were taken to be in order and as they should be are not. */
class BrokenTrustError extends Error {}

/**
 * Compresses a room as the command line says, and tells on standard error how it goes. Files are read on
 * trust that their rows are in order, and once more, from the beginning, where they are not.
 *
 * @throws CompressStateError, an InterruptedError if a signal ended it; no output is left then, but what was
 *   applied stands
 */
export async function runCompressCommand(
  command: CompressCommand,
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  try {
    await runOnce(command, 'first', status, interruption);
  } catch (error) {
    if (!(error instanceof BrokenTrustError)) throw error;
    await runOnce(command, 'second', status, interruption);
  }
}

async function runOnce(
  command: CompressCommand,
  attempt: 'first' | 'second',
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  const spool = {
    tmpdir: await temporaryFolder(command.tmpdir),
    signal: interruption.signal,
  };
  let commit: Commit | undefined;
  let changes: OpenOutput | undefined;
  let figures: OpenOutput | undefined;
  const graphs: OpenOutput[] = [];
  const discard = () =>
    Promise.all([changes, figures, ...graphs].map(async (opened) => opened?.discard()));
  // A second signal or a defect ends the process at once; a partial file must not outlive it.
  process.once('exit', () => void discard());
  let written = false;
  try {
    await protectFiles(filesRead(command), filesWritten(command));
    // Before anything is read: where they can't be written is then known at once.
    commit = await openCommit(command, spool, status);
    changes = (await openChanges(command, spool, () => source.storedTables!())) ?? commit?.output;
    if (commit !== undefined && command.output !== undefined && !changes!.isFile) {
      throw new UsageError(
        `-c (--commit-changes) reads its changes again from what -o names, and ${command.output} is no file.`,
      );
    }
    figures = await openFigures(command.statsFile, spool);
    for (const name of command.graphs ? GRAPH_FILES : []) {
      graphs.push(await openFileOutput(name, spool));
    }
    if (attempt === 'first') sayWhatIsRead(command, status);
    // What is not held back can't be begun again.
    const onTrust = attempt === 'first' && !command.unbuffered;
    const source = await open(command, onTrust, spool);
    const run = { command, commit, changes, figures, graphs, spool, status, interruption };
    const result =
      'rooms' in source ? await compressAll(run, source) : await compressOne(run, source);
    written = result.outcome === 'written';
    const { format, transactions } = command;
    if (commit === undefined) {
      for (const line of nextSteps(result, { output: changes, format, transactions })) {
        status.say(line);
      }
    } else if (written && command.output !== undefined) {
      status.say(`What was applied is kept in ${command.output}.`);
    }
    await figures?.keep();
    throwIfFailed(result);
  } catch (error) {
    const left = written ? 'The changes are complete.' : whatIsLeft(changes, commit);
    if (interruption.by !== undefined && !(error instanceof InterruptedError)) {
      throw new InterruptedError(interruption.by, left, { cause: error });
    }
    const isSent = changes !== undefined && changes.sentBytes > 0 && !isClosedPipe(error);
    if (isSent || commit?.keptIn !== undefined) status.say(left);
    throw error;
  } finally {
    status.clear();
    await Promise.all([discard(), commit?.close()]);
  }
}

function filesRead({ source }: CompressCommand): string[] {
  if (source.kind === 'postgres') return [];
  return [...source.inputs, ...Object.values(source.tables ?? {})];
}

function filesWritten({ output, statsFile, graphs }: CompressCommand): (string | undefined)[] {
  return [output, statsFile, ...(graphs ? GRAPH_FILES : [])];
}

/** Loads what it needs only where it is needed. */
async function openCommit(
  { commit, source, output }: CompressCommand,
  spool: Required<SpoolSettings>,
  status: StatusLine,
): Promise<Commit | undefined> {
  if (commit === undefined || source.kind !== 'postgres') return undefined;
  const { Commit } = await import('./commit.js');
  return Commit.open(source.dsn, output, spool, status);
}

function sayWhatIsRead(command: CompressCommand, status: StatusLine): void {
  if (command.unbuffered && command.format === 'sql' && !command.transactions) {
    status.say(
      'Warning: with --unbuffered and without -t, psql may run half of a change if this process ' +
        'is killed. Give -t as well.',
    );
  }
  const place = command.source.kind === 'postgres' ? 'DB' : 'files';
  const what = command.room === undefined ? 'all rooms' : `room '${command.room}'`;
  status.say(`Fetching state from ${place} for ${what}...`);
}

function open(
  command: CompressCommand,
  onTrust: boolean,
  { tmpdir, signal }: Required<SpoolSettings>,
): Promise<RoomSource | AllRooms> {
  const { room } = command;
  const keepTables = command.format === 'tables' && command.output !== undefined;
  return room === undefined
    ? openRooms({ ...command, keepTables }, tmpdir, signal)
    : openSource({ ...command, room, keepTables, onTrust }, tmpdir, signal);
}

interface Run {
  readonly command: CompressCommand;
  readonly commit: Commit | undefined;
  readonly changes: OpenOutput | undefined;
  readonly figures: OpenOutput | undefined;
  readonly graphs: readonly OpenOutput[];
  readonly spool: Required<SpoolSettings>;
  readonly status: StatusLine;
  readonly interruption: Interruption;
}

async function compressOne(run: Run, source: RoomSource): Promise<Statistics> {
  const { command, figures, status } = run;
  const statistics = await compressRoom({
    ...settingsOf(run),
    source,
    planner: plannerOf(command, source.groups),
    graphs: run.graphs,
  }).catch((error: unknown) => {
    throw source.isOnTrust && error instanceof InputError ? new BrokenTrustError() : error;
  });
  for (const line of summaryLines(statistics)) status.say(line);
  await leaveNoChanges(run, statistics);
  const applied = await apply(run, statistics);
  if (figures !== undefined) {
    await endWith(figures, `${JSON.stringify({ ...statistics, applied })}\n`);
  }
  return statistics;
}

/** The figures are an object with an entry a room and the totals, written as they come. */
async function compressAll(run: Run, source: AllRooms): Promise<Totals> {
  const { command, figures, spool, status } = run;
  let before = '{"rooms":[\n';
  const totals = await compressRooms({
    ...settingsOf(run),
    source,
    planner: () => plannerOf(command),
    tmpdir: spool.tmpdir,
    async onRoom(result) {
      for (const line of roomLines(result)) status.say(line);
      if (figures === undefined) return;
      await write(figures, before + JSON.stringify(result));
      before = ',\n';
    },
  });
  for (const line of totalLines(totals)) status.say(line);
  await leaveNoChanges(run, totals);
  const applied = await apply(run, totals);
  if (figures !== undefined) {
    const rooms = totals.rooms === 0 ? before : '';
    const end = JSON.stringify({ totals, applied }).slice(1);
    await endWith(figures, `${rooms}\n],${end}\n`);
  }
  return totals;
}

/** With -c, applies what is worth it, and gives the figures of that. */
async function apply(
  { command, commit, status, interruption }: Run,
  { outcome, groupsWritten }: Pick<Statistics, 'outcome' | 'groupsWritten'>,
): Promise<object | undefined> {
  if (commit === undefined || outcome !== 'written') return undefined;
  return commit.apply(groupsWritten, command.commit!, status, interruption);
}

function settingsOf({ command, changes, spool, status }: Run) {
  return {
    format: command.format,
    transactions: command.transactions,
    verify: command.verify,
    onProgress: (progress: Progress) => status.progress(progress),
    signal: spool.signal,
    ...(changes !== undefined && { output: changes }),
    ...(command.batch !== undefined && { batch: command.batch }),
    ...(command.minSavedRows !== undefined && { minSavedRows: command.minSavedRows }),
  };
}

/** @throws InputError if rooms were left out */
function throwIfFailed(result: Statistics | Totals): void {
  if (!('roomsFailed' in result) || result.roomsFailed === 0) return;
  const { rooms, roomsFailed } = result;
  throw new InputError(
    `${roomsFailed} of ${rooms} rooms ${roomsFailed === 1 ? 'was' : 'were'} left out, because their data is not what it should be. All others are done.`,
  );
}

function plannerOf({ strategy, range }: CompressCommand, groups?: GroupTable): Planner {
  if (strategy.name === 'levels') return new LevelsPlanner(strategy.sizes);
  // Groups at the end of a range are not the ones that Synapse goes on with, if others are stored on them.
  const hasEnd = range.maxStateGroup !== undefined || range.groupsToCompress !== undefined;
  const partial = hasEnd && groups?.hanging.some((hops) => hops > 0) === true;
  return new AdaptivePlanner({ ...(partial && { headroom: 0 }), ...strategy.settings });
}

function write({ stream }: OpenOutput, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(text, (error) => (error ? reject(error) : resolve()));
  });
}

/**
 * Leaves word that there are no changes: whoever applies a file after each run finds one, and none of an earlier run.
 *
 * @throws OutputError when changes that are of no use can't be taken back
 */
async function leaveNoChanges(
  { command, changes, spool, status }: Run,
  { outcome, groupsWritten }: Pick<Statistics, 'outcome' | 'groupsWritten'>,
): Promise<void> {
  if (changes === undefined || outcome === 'written') return;
  if (changes.sentBytes > 0 && groupsWritten > 0) {
    throw new OutputError(
      'The changes are not wanted, but part of them had been sent already. Without --unbuffered ' +
        'they are held back until it is known.',
    );
  }
  await writeNoChanges(command, spool);
  if (changes.isFile && command.format !== 'tables') {
    status.say(`There are no changes in ${changes.name}.`);
  }
}

function whatIsLeft(changes: OpenOutput | undefined, commit: Commit | undefined): string {
  if (commit?.isApplied === true) return ALL_IS_APPLIED;
  if (commit?.keptIn !== undefined) {
    return `All changes are in ${commit.keptIn}: apply it to go on.`;
  }
  if (changes === undefined || changes.sentBytes === 0) {
    return 'Nothing was written.';
  }
  if (changes.isCutOff) {
    return `A part of the changes had gone to ${changes.name} already, and is cut off there: do not apply it.`;
  }
  const size = readableSize(changes.sentBytes);
  return `${size} had gone to ${changes.name} already, and then a line that makes psql -1 roll back.`;
}
