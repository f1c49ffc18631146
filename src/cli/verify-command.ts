import { readEncodings } from '../changes/read-changes.js';
import { StatesDifferError, UsageError } from '../errors.js';
import { describeIrregularities } from '../sources/describe-irregularities.js';
import { openInput } from '../sources/files/input.js';
import type { RoomSource } from '../sources/room-source.js';
import { withChanges } from '../verify/changed-room.js';
import { compareRooms } from '../verify/compare-rooms.js';
import { groupsText, type SomeGroups } from '../sources/some-groups.js';
import type { Comparison } from '../verify/compare-rooms.js';
import { counted } from '../report/counted.js';
import { Arguments, readArguments } from './arguments.js';
import type { Answer } from './arguments.js';
import { InterruptedError } from './interruption.js';
import type { Interruption } from './interruption.js';
import { openSource } from './open-source.js';
import { printResult } from './print-result.js';
import { SOURCE_OPTIONS, SOURCE_RULE, sourceOf } from './source-argument.js';
import type { Source } from './source-argument.js';
import type { StatusLine } from './status-line.js';
import { temporaryFolder } from './temporary-folder.js';

/** What a command line of `verify` asks for, checked. */
export interface VerifyCommand {
  readonly before: Source;
  /** Another source; or the file of changes, or `-`, to lay over BEFORE. */
  readonly after: Source | { readonly kind: 'changes'; readonly path: string };
  readonly room: string;
  /** Bytes that the sorts of the input files may take together. */
  readonly memory: number;
  readonly tmpdir: string | undefined;
}

/** Reads the arguments after `verify`; throws UsageError. */
export function parseVerifyCommand(args: readonly string[]): VerifyCommand | Answer {
  const options = {
    ...SOURCE_OPTIONS,
    changes: {
      nargs: 1,
      describe:
        'Instead of AFTER: BEFORE with the changes in this file, in any form but tables; - for standard input',
    },
  } as const;
  const given = readArguments(args, options, (parser) =>
    parser
      .usage('Usage: $0 verify BEFORE (AFTER | --changes FILE) -r ROOM [options]')
      .usage('Compares the state of every state group of a room in two sources.')
      .example("$0 verify exports/ postgresql://host/synapse -r '!abc:example.com'", '')
      .example("$0 verify exports/ --changes out.copy.gz -r '!abc:example.com'", '')
      .epilogue(
        `${SOURCE_RULE}\n\nThe result goes to standard output. Ends with 0 if all states are equal, ` +
          'with 8 if one differs or AFTER lacks a state group of BEFORE. Nothing is written but temporary files.',
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

function roomOf(given: Arguments): string {
  const room = given.text('room-id');
  if (room === undefined) {
    throw new UsageError("Which room? Give its id in single quotes: -r '!abc:example.com'");
  }
  return room;
}

/**
 * Compares the states of a room as the command line says, and prints what came out.
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
  try {
    const comparison = await compare(command, status, interruption.signal);
    status.clear();
    await printResult(comparisonText(room, comparison));
    throwIfDifferent(room, comparison);
  } catch (error) {
    if (interruption.by === undefined) throw error;
    throw new InterruptedError(interruption.by, 'Not all states were compared.', { cause: error });
  } finally {
    status.clear();
  }
}

async function compare(
  command: VerifyCommand,
  status: StatusLine,
  signal: AbortSignal,
): Promise<Comparison> {
  const folder = await temporaryFolder(command.tmpdir);
  const opened = await openBoth(command, folder, status, signal);
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
  { before, after, room, memory }: VerifyCommand,
  tmpdir: string,
  status: StatusLine,
  signal: AbortSignal,
): Promise<readonly [before: RoomSource, after: RoomSource]> {
  const open = (source: Source, name: string): Promise<RoomSource> => {
    const place = source.kind === 'postgres' ? 'DB' : 'files';
    status.say(`Fetching state ${name} from ${place} for room '${room}'...`);
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

function comparisonText(room: string, comparison: Comparison): string {
  const { compared, difference, onlyBefore, onlyAfter, notCompared } = comparison;
  const lines = [
    `Room '${room}': ${counted(compared, 'state group')} compared, ${difference === undefined ? 'all states are equal' : 'the last state differs'}.`,
  ];
  if (difference !== undefined) {
    const { stateGroup, keys, type, stateKey, before, after } = difference;
    lines.push(
      `State group ${stateGroup} differs in ${keys === 1 ? 'one key' : `${keys} keys, the first of them`}:`,
      `  type:      ${JSON.stringify(type)}`,
      `  state_key: ${JSON.stringify(stateKey)}`,
      `  before:    ${events(before)}`,
      `  after:     ${events(after)}`,
    );
  }
  const some = (what: string, found: SomeGroups): void => {
    if (found.count > 0)
      lines.push(`${what}: ${counted(found.count, 'state group')} (${groupsText(found)}).`);
  };
  some('Only in BEFORE', onlyBefore);
  some('Only in AFTER', onlyAfter);
  some('Not compared, because too many groups with several predecessors lead there', notCompared);
  return `${lines.join('\n')}\n`;
}

function throwIfDifferent(room: string, comparison: Comparison): void {
  const { difference, onlyBefore, notCompared } = comparison;
  if (difference !== undefined) {
    throw new StatesDifferError(
      `State group ${difference.stateGroup} of room '${room}' has another state in AFTER than in BEFORE.`,
    );
  }
  if (onlyBefore.count > 0) {
    throw new StatesDifferError(
      `AFTER lacks ${counted(onlyBefore.count, 'state group')} of room '${room}' that BEFORE has. If it has no table state_groups, put BEFORE's beside it: groups without rows are not known otherwise.`,
    );
  }
  if (notCompared.count > 0) {
    throw new StatesDifferError(
      `The states of ${counted(notCompared.count, 'state group')} of room '${room}' could not be compared.`,
    );
  }
}

function events(ids: readonly string[]): string {
  return ids.length === 0 ? 'no event' : ids.map((id) => JSON.stringify(id)).join(' or ');
}
