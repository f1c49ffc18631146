import type { CheckReport, StateTables } from '../check/check-tables.js';
import { checkTables } from '../check/check-tables.js';
import { reportText } from '../check/report-text.js';
import { IrregularTablesError, UsageError } from '../errors.js';
import { Arguments, readArguments } from './arguments.js';
import type { Answer } from './arguments.js';
import { InterruptedError } from './interruption.js';
import type { Interruption } from './interruption.js';
import { printResult } from './print-result.js';
import { SOURCE_OPTIONS, SOURCE_RULE, sourceOf } from './source-argument.js';
import type { Source } from './source-argument.js';
import type { StatusLine } from './status-line.js';
import { temporaryFolder } from './temporary-folder.js';

/** What a command line of `check` asks for, checked. */
export interface CheckCommand {
  readonly source: Source;
  /** Without one all rooms are checked. */
  readonly room: string | undefined;
  readonly json: boolean;
  /** Bytes that the sort of the input files may take. */
  readonly memory: number;
  readonly tmpdir: string | undefined;
}

/** Reads the arguments after `check`; throws UsageError. */
export function parseCheckCommand(args: readonly string[]): CheckCommand | Answer {
  const options = {
    ...SOURCE_OPTIONS,
    'room-id': {
      ...SOURCE_OPTIONS['room-id'],
      describe: "Only this room, in single quotes: '!abc:example.com'",
    },
    json: { type: 'boolean', describe: 'Print the result as a JSON object' },
  } as const;
  const given = readArguments(args, options, (parser) =>
    parser
      .usage('Usage: $0 check SOURCE [-r ROOM] [options]')
      .usage('Looks for what is wrong in the state tables of Synapse.')
      .example('$0 check postgresql://host/synapse', '')
      .example("$0 check exports/ -r '!abc:example.com' --json", '')
      .epilogue(
        `${SOURCE_RULE}\n\nThe result goes to standard output. Ends with 0 if nothing is wrong, with 9 if ` +
          'something is. Nothing is written but temporary files.',
      ),
  );
  if (!(given instanceof Arguments)) return given;
  const [source, stray] = given.positionals;
  if (source === undefined || stray !== undefined) {
    throw new UsageError(
      `check takes one source, a database, file or folder, and is given ${given.positionals.length}.`,
    );
  }
  return {
    source: sourceOf(source),
    room: given.text('room-id'),
    json: given.has('json'),
    memory: given.megabytes('memory'),
    tmpdir: given.text('tmpdir'),
  };
}

/**
 * Checks the tables as the command line says, and prints what was found.
 *
 * @throws CompressStateError: an IrregularTablesError if something is wrong, an InterruptedError if a
 *   signal ended it
 */
export async function runCheckCommand(
  command: CheckCommand,
  status: StatusLine,
  interruption: Interruption,
): Promise<void> {
  const { room, source, json } = command;
  try {
    const place = source.kind === 'postgres' ? 'DB' : 'files';
    const what = room === undefined ? 'all rooms' : `room '${room}'`;
    status.say(`Checking the state tables in ${place} for ${what}...`);
    const report = await checkTables({
      tables: await openTables(command, interruption.signal),
      room,
      onProgress: (progress) => status.progress(progress),
    });
    status.clear();
    await printResult(
      json ? `${JSON.stringify({ ...report, room: room ?? null })}\n` : reportText(report),
    );
    throwIfWrong(report);
  } catch (error) {
    if (interruption.by === undefined) throw error;
    throw new InterruptedError(interruption.by, 'Not all was checked.', { cause: error });
  } finally {
    status.clear();
  }
}

async function openTables(
  { source, room, memory, tmpdir: givenTmpdir }: CheckCommand,
  signal: AbortSignal,
): Promise<StateTables> {
  const tmpdir = await temporaryFolder(givenTmpdir);
  if (source.kind === 'postgres') {
    const { openPostgresTables } = await import('../check/postgres-tables.js');
    return openPostgresTables({ dsn: source.dsn, env: process.env, room, signal });
  }
  const { openFilesTables } = await import('../check/files-tables.js');
  const { inputs } = source;
  return openFilesTables({ inputs, stdin: process.stdin, room, memory, tmpdir, signal });
}

function throwIfWrong({ findings }: CheckReport): void {
  const wrong = findings.filter(({ count, isInformation }) => count > 0 && !isInformation);
  if (wrong.length === 0) return;
  throw new IrregularTablesError(
    `The state tables are not in order in ${wrong.length === 1 ? 'one way' : `${wrong.length} ways`}; the result on standard output says in which.`,
  );
}
