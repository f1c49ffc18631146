import { tmpdir } from 'node:os';
import { applyChanges, nothingApplied } from '../apply/apply-changes.js';
import type { Applied } from '../apply/apply-changes.js';
import { Rewriter } from '../apply/rewriter.js';
import { readSpace, vacuum } from '../apply/table-space.js';
import { readChanges } from '../changes/read-changes.js';
import type { RoomChange } from '../changes/room-change.js';
import { UsageError } from '../errors.js';
import { appliedLines, applyProgress } from '../report/applied-text.js';
import { spaceLines } from '../report/space-text.js';
import type { OpenOutput } from '../sinks/output.js';
import { openInput } from '../sources/files/input.js';
import { APPLY_OPTIONS, applyOptionsOf } from './apply-options.js';
import type { ApplyOptions } from './apply-options.js';
import { Arguments, readArguments } from './arguments.js';
import type { Answer } from './arguments.js';
import { openFigures, writeFigures } from './figures.js';
import { ALL_IS_APPLIED, InterruptedError } from './interruption.js';
import type { Interruption, Signal } from './interruption.js';
import { OPTIONS } from './options.js';
import { protectFiles } from './protect-files.js';
import type { StatusLine } from './status-line.js';

/** What a command line of `apply` asks for, checked. `-` is standard input, or output. */
export interface ApplyCommand extends ApplyOptions {
  readonly changes: string;
  /** Empty when the `PG*` variables say it all. */
  readonly dsn: string;
  readonly dryRun: boolean;
  readonly statsFile: string | undefined;
}

/** Reads the arguments after `apply`; throws UsageError. */
export function parseApplyCommand(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): ApplyCommand | Answer {
  const options = {
    'postgres-url': {
      alias: 'p',
      nargs: 1,
      describe: OPTIONS['postgres-url'].describe,
    },
    'dry-run': { type: 'boolean', describe: 'Say what would be done, and change nothing' },
    ...APPLY_OPTIONS,
    'stats-file': { nargs: 1, describe: OPTIONS['stats-file'].describe },
  } as const;
  const given = readArguments(args, options, (parser) =>
    parser
      .usage('Usage: $0 apply CHANGES -p DSN [options]')
      .usage(
        'Applies changes that were made with --format copy or jsonl, or with -t, while Synapse runs or not.',
      )
      .example('$0 apply changes.copy -p postgresql://host/synapse', '')
      .example("… -r '!abc:example.com' --format copy -o - | $0 apply - -p …", '')
      .epilogue(
        'CHANGES is a file, packed with gzip or zstd or not, or - for standard input. A state group that ' +
          'is not what the changes were made from is left as it is, and counted. Applied again, changes ' +
          'do nothing. Ctrl-C lets the transaction under way end; a second one does not.',
      ),
  );
  if (!(given instanceof Arguments)) return given;
  const [changes, stray] = given.positionals;
  if (changes === undefined || stray !== undefined) {
    throw new UsageError(
      `apply takes one file of changes, or - for standard input, and is given ${given.positionals.length}.`,
    );
  }
  const dsn = given.database(
    env,
    'Where are the changes to be applied? Give the database with -p.',
  );
  return {
    changes,
    dsn,
    dryRun: given.has('dry-run'),
    ...applyOptionsOf(given),
    statsFile: given.output('stats-file'),
  };
}

/**
 * Applies a file of changes as the command line says, and tells on standard error what came of it.
 *
 * @throws CompressStateError, an InterruptedError if a signal ended it; what was applied stands
 */
export async function runApplyCommand(
  command: ApplyCommand,
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  const { signal } = interruption;
  const input = await openInput(command.changes, process.stdin, signal);
  const changes = readChanges(input);
  let rewriter: Rewriter | undefined;
  let figures: OpenOutput | undefined;
  let report: object | undefined;
  try {
    await protectFiles([command.changes], [command.statsFile]);
    figures = await openFigures(command.statsFile, { tmpdir: tmpdir(), signal });
    // What is no file of changes, or has none yet, needs no database.
    const first = await changes.next();
    if (first.done === true) {
      status.say(`There are no changes in ${input.name}.`);
      report = { ...applyFigures(nothingApplied()), dryRun: command.dryRun };
      if (figures !== undefined) await writeFigures(report, figures);
      return;
    }
    rewriter = await openRewriter(command.dsn, status, signal);
    status.say(`${command.dryRun ? 'Looking at' : 'Applying'} the changes in ${input.name}...`);
    report = await applyAndReport(
      {
        ...command,
        changes: following(first.value, changes),
        rewriter,
        totalGroups: undefined,
        toGoOn: APPLY_AGAIN,
      },
      status,
      interruption,
    );
    if (figures !== undefined) await writeFigures(report, figures);
  } catch (error) {
    if (interruption.by === undefined || error instanceof InterruptedError) throw error;
    const left = report === undefined || command.dryRun ? 'Nothing was changed.' : ALL_IS_APPLIED;
    throw new InterruptedError(interruption.by, left, { cause: error });
  } finally {
    status.clear();
    // Where an error ends it, more may have been asked of a standard input that is silent.
    changes.return(undefined).catch(() => {});
    await Promise.all([rewriter?.close(), figures?.discard()]);
  }
}

/** Where the changes are kept. */
export const APPLY_AGAIN = 'Apply the same changes again to go on: what is done is not done again.';

/** The one writer of a database, whose troubles are told. */
export function openRewriter(
  dsn: string,
  status: StatusLine,
  signal: AbortSignal,
): Promise<Rewriter> {
  const onTrouble = (sentence: string): void => status.say(sentence);
  return Rewriter.open({ dsn, env: process.env, signal, onTrouble });
}

export interface ApplyWork extends ApplyOptions {
  readonly changes: AsyncIterable<RoomChange>;
  readonly rewriter: Rewriter;
  readonly dryRun: boolean;
  /** How many changes there are, where that is known. */
  readonly totalGroups: number | undefined;
  /** What goes on where a signal has ended it, as a sentence. */
  readonly toGoOn: string;
}

/**
 * Applies changes, and says what was done, also where an error or a signal ends it, and what can be done
 * about the space. Gives the figures for `--stats-file`.
 *
 * @throws InterruptedError, and what `applyChanges` throws
 */
export async function applyAndReport(
  { changes, rewriter, dryRun, pace, vacuum: vacuumIsWanted, totalGroups, toGoOn }: ApplyWork,
  status: StatusLine,
  interruption: Interruption,
): Promise<object> {
  const { signal } = interruption;
  const applied = nothingApplied();
  status.begin();
  try {
    await applyChanges(
      {
        changes,
        rewriter,
        dryRun,
        pace,
        signal,
        onProgress: () => status.show((seconds) => applyProgress(applied, seconds, totalGroups)),
        onTrouble: (sentence) => status.say(sentence),
      },
      applied,
    );
  } catch (error) {
    if (interruption.by === undefined) throw error;
    throw stopped(interruption.by, toGoOn, error);
  } finally {
    for (const line of appliedLines(applied, dryRun)) status.say(line);
  }
  if (interruption.by !== undefined) throw stopped(interruption.by, toGoOn);
  if (dryRun) return { ...applyFigures(applied), dryRun };

  try {
    const isVacuumed = vacuumIsWanted && (await vacuumAndSay(rewriter, status));
    const space = await readSpace(rewriter);
    for (const line of spaceLines(space, isVacuumed)) status.say(line);
    return { ...applyFigures(applied), dryRun, isVacuumed, space };
  } catch (error) {
    if (interruption.by === undefined) throw error;
    throw new InterruptedError(interruption.by, ALL_IS_APPLIED, { cause: error });
  }
}

async function vacuumAndSay(rewriter: Rewriter, status: StatusLine): Promise<boolean> {
  status.say('VACUUM...');
  const whyNot = await vacuum(rewriter);
  if (whyNot !== undefined) status.say(`Warning: ${whyNot}`);
  return whyNot === undefined;
}

function applyFigures({ reasons, ...figures }: Applied): object {
  return {
    ...figures,
    skippedBecause: [...reasons].map(([reason, { count, examples }]) => ({
      reason,
      count,
      examples,
    })),
  };
}

function stopped(by: Signal, toGoOn: string, cause?: unknown): InterruptedError {
  const left = `What was applied stands, and the rest is as it was. ${toGoOn}`;
  return new InterruptedError(by, left, { cause });
}

/** Something that was taken from a generator, and the rest. */
async function* following(
  first: RoomChange,
  rest: AsyncGenerator<RoomChange>,
): AsyncGenerator<RoomChange> {
  yield first;
  yield* rest;
}
