import type { Format } from '../sinks/change-sink.js';
import { UsageError } from '../errors.js';
import type { Strategy } from '../planner/strategy.js';
import { STATE_TABLES } from '../sources/files/state-table.js';
import type { StateTable } from '../sources/files/state-table.js';
import { packingOfName } from '../sinks/packed-output.js';
import type { GroupRange } from '../sources/group-range.js';
import { applyOptionsOf } from './apply-options.js';
import type { ApplyOptions } from './apply-options.js';
import { Arguments, readArguments } from './arguments.js';
import type { Answer } from './arguments.js';
import { flag } from './option-names.js';
import { OPTIONS } from './options.js';
import type { Source } from './source-argument.js';
import { chosenStrategy } from './strategy-options.js';

/** What a command line asks for, checked. `-` as a path is standard input or standard output. */
export interface CompressCommand {
  readonly source: Source;
  /** Undefined for all rooms. */
  readonly room: string | undefined;
  readonly range: GroupRange;
  readonly output: string | undefined;
  readonly format: Format;
  /** Groups of one transaction, with `copy`. */
  readonly batch: number | undefined;
  /** Whether the changes are applied, and how. */
  readonly commit: ApplyOptions | undefined;
  readonly unbuffered: boolean;
  readonly statsFile: string | undefined;
  readonly minSavedRows: number | undefined;
  readonly transactions: boolean;
  readonly strategy: Strategy;
  readonly graphs: boolean;
  readonly verify: boolean;
  /** Bytes that the sort of the input files may take. */
  readonly memory: number;
  readonly tmpdir: string | undefined;
}

/**
 * Reads a command line.
 *
 * @param env for the `PG*` variables that stand in for a missing `-p`
 * @throws UsageError with what is wrong and what to give instead
 */
export function parseCompressCommand(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): CompressCommand | Answer {
  const given = readArguments(args, OPTIONS, (parser) =>
    parser
      .usage('Usage: $0 (-p DSN | -i PATH) -r ROOM [-o FILE] [options]')
      .usage('Rewrites the state groups of a Synapse room so that they take fewer rows.')
      .example("$0 -p postgresql://host/db -r '!abc:example.com' -o out.sql -t", '')
      .example("$0 -p postgresql://host/db -r '!abc:example.com' -c", '')
      .example("$0 -i exports/ -r '!abc:example.com' -o out.sql -t", '')
      .example("… | $0 -i - -r '!abc:example.com' -o - -t | psql …", '')
      .epilogue(
        'Other commands, each with a --help of its own: "$0 apply CHANGES" applies a file ' +
          'of changes, "$0 rooms" lists the rooms by what they would save, "$0 auto" compresses them by ' +
          'itself, "$0 verify BEFORE AFTER" compares the states of a room or of all, "$0 check SOURCE" looks for ' +
          'what is wrong in the tables.\n\n' +
          'Without -c nothing is written to the database. Status goes to standard ' +
          'error. A password belongs into PGPASSWORD or ~/.pgpass, not on the command line.',
      ),
  );
  return given instanceof Arguments ? checked(given, env) : given;
}

function checked(given: Arguments, env: NodeJS.ProcessEnv): CompressCommand {
  given.refusePositionals(
    ' Each input needs an -i of its own, and a command such as apply comes first.',
  );
  const output = given.output('output-file');
  const statsFile = given.output('stats-file');
  const tmpdir = given.text('tmpdir');
  const unbuffered = given.has('unbuffered');
  const commits = given.has('commit-changes');
  const format = chosenFormat(given, output);
  // What is applied has guards.
  const transactions = given.has('transactions') || (commits && format === 'sql');
  const source = chosenSource(given, env);
  const room = chosenRoom(given);
  if (unbuffered && output !== '-') {
    throw new UsageError('--unbuffered is about standard output: it goes with -o - alone.');
  }
  if (output === '-' && statsFile === '-') {
    throw new UsageError(
      '-o - and --stats-file - would mix on standard output; name a file for one.',
    );
  }
  return {
    source,
    room,
    range: checkedRange(
      given.integer('min-state-group', 0),
      given.integer('max-state-group', 0),
      given.integer('groups-to-compress', 1),
    ),
    output,
    format: commits && output === undefined ? 'copy' : format,
    batch: batchOf(given),
    commit: chosenCommit(given, source, output, format),
    unbuffered,
    statsFile,
    minSavedRows: given.integer('min-saved-rows', 0),
    transactions,
    strategy: chosenStrategy(given),
    graphs: given.has('graphs'),
    verify: !given.has('no-verify'),
    memory: given.megabytes('memory'),
    tmpdir,
  };
}

function chosenRoom(given: Arguments): string | undefined {
  const room = given.text('room-id');
  if (!given.has('all-rooms')) {
    if (room !== undefined) return room;
    throw new UsageError(
      "Which room? Give its id in single quotes: -r '!abc:example.com', or --all-rooms.",
    );
  }
  const other = (
    ['room-id', 'min-state-group', 'groups-to-compress', 'max-state-group'] as const
  ).find((name) => given.text(name) !== undefined);
  if (other !== undefined || given.has('graphs')) {
    throw new UsageError(
      `${flag(other ?? 'graphs', OPTIONS)} is about one room, and --all-rooms is given.`,
    );
  }
  return undefined;
}

const FORMATS: readonly Format[] = ['sql', 'copy', 'tables', 'jsonl'];

function chosenFormat(given: Arguments, output: string | undefined): Format {
  const name = given.text('format') ?? 'sql';
  const format = FORMATS.find((known) => known === name);
  if (format === undefined) {
    throw new UsageError(`--format takes one of ${FORMATS.join(', ')}, not '${name}'.`);
  }
  if (given.has('transactions') && format !== 'sql' && format !== 'copy') {
    throw new UsageError(`-t (--transactions) is about SQL, and --format ${format} is asked for.`);
  }
  if (format === 'tables' && (output === '-' || packingOfName(output ?? '') !== undefined)) {
    throw new UsageError(`--format tables makes a folder: -o ${output} can't be one.`);
  }
  return format;
}

function chosenCommit(
  given: Arguments,
  source: Source,
  output: string | undefined,
  format: Format,
): ApplyOptions | undefined {
  const options = applyOptionsOf(given);
  if (!given.has('commit-changes')) {
    if (options.pace === undefined && !options.vacuum) return undefined;
    throw new UsageError('--pace and --vacuum are about applying: they go with -c.');
  }
  if (source.kind === 'files') {
    throw new UsageError(
      '-c (--commit-changes) applies to the database that is read with -p. What is read from files goes to a file with --format copy -o FILE, and "synapse_compress_state apply FILE -p DSN" applies that.',
    );
  }
  if (output === undefined && given.text('format') !== undefined) {
    throw new UsageError(
      '--format is about changes that are left in a file, and -c (--commit-changes) without -o leaves none.',
    );
  }
  if (output === '-' || format === 'tables') {
    throw new UsageError(
      `-c (--commit-changes) can leave its changes in a file, in a form that "synapse_compress_state apply" takes, and not ${format === 'tables' ? 'as tables' : 'on standard output'}.`,
    );
  }
  return options;
}

function batchOf(given: Arguments): number | undefined {
  const batch = given.integer('batch', 1);
  if (batch !== undefined && given.text('format') !== 'copy') {
    throw new UsageError('--batch is about --format copy, which is not asked for.');
  }
  return batch;
}

function chosenSource(given: Arguments, env: NodeJS.ProcessEnv): Source {
  const dsn = given.text('postgres-url');
  const inputs = given.texts('input');
  const tables = chosenTables(given.texts('table'));
  const paths = [...inputs, ...Object.values(tables)];
  if (dsn !== undefined && paths.length > 0) {
    const other = inputs.length > 0 ? '-i' : '--table';
    throw new UsageError(`-p and ${other} are both given: a room is read from one of them.`);
  }
  if (paths.length > 0) {
    if (inputs.includes('')) {
      throw new UsageError('-i is given an empty value.');
    }
    if (paths.filter((path) => path === '-').length > 1) {
      throw new UsageError(
        '-i - is given twice, or --table too names -, but there is one standard input.',
      );
    }
    return { kind: 'files', inputs, ...(paths.length > inputs.length && { tables }) };
  }
  const question =
    'Where is the room? Give a database with -p, or files that were exported with COPY with -i.';
  return { kind: 'postgres', dsn: given.database(env, question) };
}

function chosenTables(given: readonly string[]): Partial<Record<StateTable, string>> {
  const tables: Partial<Record<StateTable, string>> = {};
  for (const value of given) {
    const [, name, path] = /^([^=]*)=(.+)$/s.exec(value) ?? [];
    const table = STATE_TABLES.find((known) => known === name);
    if (table === undefined) {
      throw new UsageError(
        `--table takes NAME=PATH, where NAME is one of ${STATE_TABLES.join(', ')}, not '${value}'.`,
      );
    }
    if (tables[table] !== undefined) {
      throw new UsageError(`--table is given twice for ${table}.`);
    }
    if (Object.values(tables).includes(path)) {
      throw new UsageError(`--table is given twice for ${path}, which can hold one table.`);
    }
    tables[table] = path;
  }
  return tables;
}

function checkedRange(
  minStateGroup: number | undefined,
  maxStateGroup: number | undefined,
  groupsToCompress: number | undefined,
): GroupRange {
  if (
    minStateGroup !== undefined &&
    maxStateGroup !== undefined &&
    maxStateGroup <= minStateGroup
  ) {
    throw new UsageError(
      `No state group is above ${minStateGroup} (-b) and not above ${maxStateGroup} (-s).`,
    );
  }
  return {
    ...(minStateGroup !== undefined && { minStateGroup }),
    ...(maxStateGroup !== undefined && { maxStateGroup }),
    ...(groupsToCompress !== undefined && { groupsToCompress }),
  };
}
