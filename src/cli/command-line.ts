import { resolve } from 'node:path';
import yargs from 'yargs';
import { UsageError } from '../errors.js';
import { DEFAULT_MAX_HOPS } from '../planner/adaptive.js';
import type { AdaptiveSettings } from '../planner/adaptive.js';
import type { GroupRange } from '../sources/room-source.js';
import { VERSION } from '../version.js';
import { closestName } from './closest-name.js';
import { flag, OPTION_NAMES, optionOf, OPTIONS } from './options.js';
import type { OptionName } from './options.js';
import { withSeparateValues } from './separate-values.js';

/** What a command line asks for, checked. `-` as a path is standard input or standard output. */
export interface CompressCommand {
  /** A DSN, empty when the `PG*` variables say it all; or the files, folders and `-` to read. */
  readonly source:
    | { readonly kind: 'postgres'; readonly dsn: string }
    | { readonly kind: 'files'; readonly inputs: readonly string[] };
  readonly room: string;
  readonly range: GroupRange;
  readonly output: string | undefined;
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

/** How groups are planned; what is not given is left to the planner. */
export type Strategy =
  | { readonly name: 'levels'; readonly sizes: readonly number[] | undefined }
  | { readonly name: 'adaptive'; readonly settings: AdaptiveSettings };

/** The answer to `--help` or `--version`. */
export interface Answer {
  readonly text: string;
}

/** `memory` counts decimal megabytes, as disks and `top` do. */
const MEGABYTE = 1_000_000;

/**
 * Reads a command line.
 *
 * @param env for the `PG*` variables that stand in for a missing `-p`
 * @throws UsageError with what is wrong and what to give instead
 */
export function parseCommandLine(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): CompressCommand | Answer {
  const separate = withSeparateValues(args);
  let answer = '';
  let parsed: Record<string, unknown> = {};
  yargs()
    .parserConfiguration({
      // `--no-verify` is a name of its own here, and every value is a string that we check.
      'boolean-negation': false,
      'camel-case-expansion': false,
      'dot-notation': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
    })
    .detectLocale(false)
    .scriptName('synapse_compress_state')
    .usage('Usage: $0 (-p DSN | -i PATH) -r ROOM [-o FILE] [options]')
    .usage('Re-lays the state groups of a Synapse room so that they take fewer rows.')
    .options(OPTIONS)
    .help()
    .alias('help', 'h')
    .version(VERSION)
    .alias('version', 'V')
    .example("$0 -p postgresql://host/db -r '!abc:example.com' -o out.sql -t", '')
    .example("$0 -i exports/ -r '!abc:example.com' -o out.sql", '')
    .example("… | $0 -i - -r '!abc:example.com' -o - -t | psql …", '')
    .epilogue(
      'Nothing is written to the database: the SQL is yours to apply. Status goes to standard ' +
        'error. A password belongs into PGPASSWORD or ~/.pgpass, not on the command line.',
    )
    .wrap(90)
    .strict()
    .exitProcess(false)
    .fail((message, error) => {
      throw new UsageError(explained(message ?? error.message, separate));
    })
    .parseSync(separate, {}, (_error: unknown, argv: object, output: string) => {
      answer = output;
      parsed = { ...argv };
    });
  return answer === '' ? checked(parsed, env) : { text: answer };
}

function checked(parsed: Record<string, unknown>, env: NodeJS.ProcessEnv): CompressCommand {
  const text = (name: OptionName): string | undefined => {
    const value = parsed[name];
    if (Array.isArray(value)) {
      throw new UsageError(`${flag(name)} is given ${value.length} times; give it once.`);
    }
    if (value === '' && name !== 'postgres-url') {
      throw new UsageError(`${flag(name)} is given an empty value.`);
    }
    return value as string | undefined;
  };
  const integer = (name: OptionName, least: number): number | undefined => {
    const value = text(name);
    return value === undefined ? undefined : parseInteger(value, flag(name), least);
  };

  const output = standardName(text('output-file'));
  const statsFile = standardName(text('stats-file'));
  const tmpdir = text('tmpdir');
  const unbuffered = parsed.unbuffered === true;
  const transactions = parsed.transactions === true;
  const source = chosenSource(text('postgres-url'), parsed.input, env);
  const room = text('room-id');
  if (room === undefined) {
    throw new UsageError("Which room? Give its id in single quotes: -r '!abc:example.com'");
  }
  if (unbuffered && output !== '-') {
    throw new UsageError('--unbuffered is about standard output: it goes with -o - alone.');
  }
  if (output === '-' && statsFile === '-') {
    throw new UsageError(
      '-o - and --stats-file - would mix on standard output; name a file for one.',
    );
  }
  if (output !== undefined && output !== '-' && statsFile !== undefined && statsFile !== '-') {
    if (resolve(output) === resolve(statsFile)) {
      throw new UsageError(`-o and --stats-file both name ${output}; name two files.`);
    }
  }
  return {
    source,
    room,
    range: checkedRange(
      integer('min-state-group', 0),
      integer('max-state-group', 0),
      integer('groups-to-compress', 1),
    ),
    output,
    unbuffered,
    statsFile,
    minSavedRows: integer('min-saved-rows', 0),
    transactions,
    strategy: chosenStrategy(text, integer, parsed['rebase-deep'] === true),
    graphs: parsed.graphs === true,
    verify: parsed['no-verify'] !== true,
    memory: integer('memory', 1)! * MEGABYTE,
    tmpdir,
  };
}

/** Chains of more groups than this would fill the memory before they saved anything. */
const MOST_HOPS = 1_000_000;

function chosenStrategy(
  text: (name: OptionName) => string | undefined,
  integer: (name: OptionName, least: number) => number | undefined,
  rebaseDeep: boolean,
): Strategy {
  const sizes = text('level-sizes')?.split(',').map(parseLevel);
  const name = text('strategy') ?? (sizes === undefined ? 'adaptive' : 'levels');
  const maxHops = integer('max-hops', 1);
  const headroom = integer('headroom', 0);
  if (name === 'levels') {
    if (maxHops !== undefined || headroom !== undefined || rebaseDeep) {
      throw new UsageError(
        '--max-hops, --headroom and --rebase-deep are about adaptive, and levels are asked for.',
      );
    }
    return { name, sizes };
  }
  if (name !== 'adaptive') {
    throw new UsageError(`--strategy takes adaptive or levels, not '${name}'.`);
  }
  if (sizes !== undefined) {
    throw new UsageError(
      '-l (--level-sizes) is about levels, and --strategy adaptive is asked for.',
    );
  }
  if (maxHops !== undefined && maxHops > MOST_HOPS) {
    throw new UsageError(`--max-hops takes at most ${MOST_HOPS}.`);
  }
  if (headroom !== undefined && headroom >= (maxHops ?? DEFAULT_MAX_HOPS)) {
    throw new UsageError('--headroom must be less than --max-hops.');
  }
  return {
    name,
    settings: {
      rebaseDeep,
      ...(maxHops !== undefined && { maxHops }),
      ...(headroom !== undefined && { headroom }),
    },
  };
}

function chosenSource(
  dsn: string | undefined,
  input: unknown,
  env: NodeJS.ProcessEnv,
): CompressCommand['source'] {
  const inputs = [input ?? []].flat() as string[];
  if (dsn !== undefined && inputs.length > 0) {
    throw new UsageError('-p and -i are both given: a room is read from one of them.');
  }
  if (inputs.length > 0) {
    if (inputs.includes('')) {
      throw new UsageError('-i is given an empty value.');
    }
    if (inputs.filter((path) => path === '-').length > 1) {
      throw new UsageError('-i - is given twice, but there is one standard input.');
    }
    return { kind: 'files', inputs };
  }
  if (dsn === undefined && env.PGHOST === undefined && env.PGDATABASE === undefined) {
    throw new UsageError(
      'Where is the room? Give a database with -p, or files that were exported with COPY with -i.',
    );
  }
  return { kind: 'postgres', dsn: dsn ?? '' };
}

/** Opening these by name would write from the start of what standard output appends to. */
function standardName(path: string | undefined): string | undefined {
  return path === '/dev/stdout' || path === '/dev/fd/1' ? '-' : path;
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

function parseLevel(size: string): number {
  return parseInteger(size.trim(), 'Each size of -l', 1);
}

function parseInteger(value: string, what: string, least: number): number {
  const number = Number(value);
  if (!/^-?\d+$/.test(value) || number < least || !Number.isSafeInteger(number)) {
    throw new UsageError(
      `${what} takes a whole number from ${least} to ${Number.MAX_SAFE_INTEGER}, not '${value}'.`,
    );
  }
  return number;
}

/** What yargs found wrong, as a sentence that says what to do. */
function explained(message: string, args: readonly string[]): string {
  const [, lacking] = /^Not enough arguments following: (.*)$/s.exec(message) ?? [];
  const option = optionOf(lacking ?? '');
  if (option !== undefined) {
    return `${flag(option)} needs a value.`;
  }
  const [, unknown] = /^Unknown arguments?: (.*)$/s.exec(message) ?? [];
  if (unknown === undefined) {
    return message;
  }
  const [name] = unknown.split(', ');
  if (args.includes(name)) {
    return `'${name}' belongs to no option. Each input needs an -i of its own.`;
  }
  if (name.length === 1) {
    return `There is no option -${name}.`;
  }
  const closest = closestName(name, OPTION_NAMES);
  return `There is no option --${name}.${closest === undefined ? '' : ` Did you mean --${closest}?`}`;
}
