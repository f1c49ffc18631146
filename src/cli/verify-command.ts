import { readEncodings } from '../changes/read-changes.js';
import { InputError, RoomNotFoundError, StatesDifferError, UsageError } from '../errors.js';
import { describeIrregularities } from '../sources/describe-irregularities.js';
import { openInput } from '../sources/files/input.js';
import type { AllRooms } from '../sources/all-rooms.js';
import type { RoomSource } from '../sources/room-source.js';
import { withChanges } from '../verify/changed-room.js';
import { ChangedRooms } from '../verify/changed-rooms.js';
import { compareAllRooms, roomsOf } from '../verify/compare-all-rooms.js';
import type { RoomsCompared } from '../verify/compare-all-rooms.js';
import { compareRooms } from '../verify/compare-rooms.js';
import type { Comparison } from '../verify/compare-rooms.js';
import { comparisonText, findingText, totalsText, whatDiffers } from '../verify/comparison-text.js';
import { counted } from '../report/counted.js';
import { Arguments, readArguments } from './arguments.js';
import type { Answer } from './arguments.js';
import { InterruptedError } from './interruption.js';
import type { Interruption } from './interruption.js';
import { openRooms, openSource } from './open-source.js';
import { printResult } from './print-result.js';
import { flag } from './option-names.js';
import { OPTIONS } from './options.js';
import { SOURCE_OPTIONS, SOURCE_RULE, sourceOf } from './source-argument.js';
import type { Source } from './source-argument.js';
import type { StatusLine } from './status-line.js';
import { temporaryFolder } from './temporary-folder.js';

/** Rooms that differ, or can't be compared, and are told one by one. */
const MOST_FINDINGS = 10;

/** What a command line of `verify` asks for, checked. */
export interface VerifyCommand {
  readonly before: Source;
  /** Another source; or the file of changes, or `-`, to lay over BEFORE. */
  readonly after: Source | { readonly kind: 'changes'; readonly path: string };
  /** Undefined for all rooms. */
  readonly room: string | undefined;
  /** Bytes that the sorts of the input files may take together. */
  readonly memory: number;
  readonly tmpdir: string | undefined;
}

/** Reads the arguments after `verify`; throws UsageError. */
export function parseVerifyCommand(args: readonly string[]): VerifyCommand | Answer {
  const options = {
    ...SOURCE_OPTIONS,
    'all-rooms': {
      ...OPTIONS['all-rooms'],
      describe: 'Instead of -r: every room; changes have to be as --all-rooms writes them',
    },
    changes: {
      nargs: 1,
      describe:
        'Instead of AFTER: BEFORE with the changes in this file, in any form but tables; - for standard input',
    },
  } as const;
  const given = readArguments(args, options, (parser) =>
    parser
      .usage('Usage: $0 verify BEFORE (AFTER | --changes FILE) -r ROOM [options]')
      .usage('Compares the state of every state group of a room, or of all rooms, in two sources.')
      .example("$0 verify exports/ postgresql://host/synapse -r '!abc:example.com'", '')
      .example("$0 verify exports/ --changes out.copy.gz -r '!abc:example.com'", '')
      .example('$0 verify exports/ postgresql://host/synapse --all-rooms', '')
      .epilogue(
        `${SOURCE_RULE}\n\nThe result goes to standard output. Ends with 0 if all states are equal, ` +
          'with 8 if one differs or AFTER lacks a state group of BEFORE; with --all-rooms also if a room is in ' +
          'one of them only, and otherwise with 3 if the data of a room is not what it should be. Nothing is ' +
          'written but temporary files.',
      ),
  );
  if (!(given instanceof Arguments)) return given;
  const changes = given.text('changes');
  const [before, after = changes, stray] = given.positionals;
  const wanted = changes === undefined ? 2 : 1;
  if (after === undefined || stray !== undefined || given.positionals.length !== wanted) {
    const what = wanted === 2 ? 'two sources, BEFORE and AFTER,' : 'one source beside --changes,';
    throw new UsageError(
      `verify takes ${what} and is given ${given.positionals.length}. A file or folder is one of them, a database as well.`,
    );
  }
  if (before === '-' && after === '-') {
    throw new UsageError('- is given twice, but there is one standard input.');
  }
  return {
    before: sourceOf(before),
    after: changes === undefined ? sourceOf(after) : { kind: 'changes', path: changes },
    room: roomOf(given),
    memory: given.megabytes('memory'),
    tmpdir: given.text('tmpdir'),
  };
}

function roomOf(given: Arguments): string | undefined {
  const room = given.text('room-id');
  if (given.has('all-rooms')) {
    if (room === undefined) return undefined;
    throw new UsageError(
      `${flag('room-id', OPTIONS)} is about one room, and --all-rooms is given.`,
    );
  }
  if (room !== undefined) return room;
  throw new UsageError(
    "Which room? Give its id in single quotes: -r '!abc:example.com', or --all-rooms.",
  );
}

/**
 * Compares the states of a room, or of all, as the command line says, and prints what came out.
 *
 * @throws CompressStateError: a StatesDifferError if not all states were found equal, an
 *   InterruptedError if a signal ended it
 */
export async function runVerifyCommand(
  command: VerifyCommand,
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  const { room } = command;
  const { signal } = interruption;
  const run = { ...command, status, signal, tmpdir: await temporaryFolder(command.tmpdir) };
  try {
    if (room === undefined) await verifyAll(run);
    else await verifyOne(run, room);
  } catch (error) {
    if (interruption.by === undefined) throw error;
    throw new InterruptedError(interruption.by, 'Not all states were compared.', { cause: error });
  } finally {
    status.clear();
  }
}

interface Run extends Pick<VerifyCommand, 'before' | 'after' | 'memory'> {
  readonly status: StatusLine;
  readonly signal: AbortSignal;
  readonly tmpdir: string;
}

async function verifyOne(run: Run, room: string): Promise<void> {
  const comparison = await compare(run, room);
  run.status.clear();
  await printResult(comparisonText(room, comparison));
  const different = whatDiffers(room, comparison);
  if (different !== undefined) throw new StatesDifferError(different);
}

async function compare(run: Run, room: string): Promise<Comparison> {
  const { status } = run;
  const opened = await openBoth(run, room);
  const [sourceBefore, sourceAfter] = opened;
  const comparison = await compareRooms({
    before: sourceBefore,
    after: sourceAfter,
    onProgress: (progress) => status.progress(progress),
  });
  opened.forEach((source, index) => {
    // How groups with irregular edges are treated when a room is compressed is of no interest here.
    const irregularities = describeIrregularities(source.groups);
    for (const warning of source.warnings) {
      if (irregularities.includes(warning)) continue;
      status.say(`Warning: ${index === 0 ? 'BEFORE' : 'AFTER'}: ${warning}`);
    }
  });
  return comparison;
}

async function openBoth(
  { before, after, memory, tmpdir, status, signal }: Run,
  room: string,
): Promise<readonly [before: RoomSource, after: RoomSource]> {
  const open = (source: Source, name: string): Promise<RoomSource> => {
    sayWhatIsRead(source, name, `room '${room}'`, status);
    return openSource({ source, room, range: {}, memory: memory / 2 }, tmpdir, signal);
  };
  const first = await open(before, 'BEFORE');
  try {
    if (after.kind !== 'changes') return [first, await open(after, 'AFTER')];
    const changes = await openInput(after.path, process.stdin, signal);
    return await withChanges(first, readEncodings(changes), { memory: memory / 2, tmpdir });
  } catch (error) {
    await first.close();
    throw error;
  }
}

async function verifyAll(run: Run): Promise<void> {
  const { before, after, memory, tmpdir, status, signal } = run;
  const sources: AllRooms[] = [];
  const open = async (source: Source, name: string): Promise<AllRooms> => {
    sayWhatIsRead(source, name, 'all rooms', status);
    const opened = await openRooms(
      { source, memory: memory / 2, keepTables: false },
      tmpdir,
      signal,
    );
    sources.push(opened);
    return opened;
  };
  let findings = 0;
  try {
    const totals = await compareAllRooms({
      before: await open(before, 'BEFORE'),
      after:
        after.kind === 'changes'
          ? new ChangedRooms(readEncodings(await openInput(after.path, process.stdin, signal)), {
              memory: memory / 2,
              tmpdir,
            })
          : roomsOf(await open(after, 'AFTER')),
      onProgress: (progress) => status.progress(progress),
      async onRoom(result) {
        const text = findingText(result);
        if (text === undefined || ++findings > MOST_FINDINGS) return;
        status.clear();
        await printResult(text);
      },
    });
    status.clear();
    for (const [index, { warnings }] of sources.entries()) {
      for (const warning of warnings) {
        status.say(`Warning: ${index === 0 ? 'BEFORE' : 'AFTER'}: ${warning}`);
      }
    }
    const untold = findings - MOST_FINDINGS;
    const more = untold > 0 ? `And ${counted(untold, 'room')} more.\n` : '';
    await printResult(more + totalsText(totals));
    throwIfNotEqual(totals);
  } finally {
    await Promise.all(sources.map((source) => source.close()));
  }
}

function sayWhatIsRead(source: Source, name: string, what: string, status: StatusLine): void {
  const place = source.kind === 'postgres' ? 'DB' : 'files';
  status.say(`Fetching state ${name} from ${place} for ${what}...`);
}

function throwIfNotEqual({ rooms, different, failed }: RoomsCompared): void {
  if (rooms === 0) throw new RoomNotFoundError('There are no rooms to compare.');
  if (different > 0) {
    throw new StatesDifferError(
      `${different} of ${rooms} rooms ${different === 1 ? 'is' : 'are'} not the same in AFTER as in BEFORE, or could not be compared.`,
    );
  }
  if (failed > 0) {
    throw new InputError(
      `${failed} of ${rooms} rooms could not be compared, because ${failed === 1 ? 'its' : 'their'} data is not what it should be. All others are equal.`,
    );
  }
}
