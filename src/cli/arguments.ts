import yargs from 'yargs';
import type { Argv } from 'yargs';
import { UsageError } from '../errors.js';
import { VERSION } from '../version.js';
import { closestName } from './closest-name.js';
import { flag, optionOf } from './option-names.js';
import type { CommandOptions } from './option-names.js';
import { withSeparateValues } from './separate-values.js';

/** What standard output is called. */
const STANDARD_OUTPUT = new Set(['/dev/stdout', '/dev/fd/1', '/proc/self/fd/1']);

/** The answer to `--help` or `--version`. */
export interface Answer {
  readonly text: string;
}

/**
 * Splits a command line into options and positional arguments.
 *
 * @param describe adds usage, examples and the like
 * @throws UsageError with what is wrong and what to give instead
 */
export function readArguments(
  args: readonly string[],
  options: CommandOptions,
  describe: (parser: Argv) => Argv,
): Arguments | Answer {
  const separate = withSeparateValues(args, options);
  let answer = '';
  let parsed: Record<string, unknown> = {};
  describe(
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
      .scriptName('synapse_compress_state'),
  )
    .options(options)
    .help()
    .alias('help', 'h')
    .version(VERSION)
    .alias('version', 'V')
    .wrap(90)
    .strictOptions()
    .exitProcess(false)
    .fail((message, error) => {
      throw new UsageError(explained(message ?? error.message, options));
    })
    .parseSync(separate, {}, (_error: unknown, argv: object, output: string) => {
      answer = output;
      parsed = { ...argv };
    });
  return answer === '' ? new Arguments(parsed, options) : { text: answer };
}

/** What a command line gives: values as they were written, not looked at yet. */
export class Arguments {
  readonly #parsed: Readonly<Record<string, unknown>>;
  readonly #options: CommandOptions;

  constructor(parsed: Readonly<Record<string, unknown>>, options: CommandOptions) {
    this.#parsed = parsed;
    this.#options = options;
  }

  /** What stands there without an option. */
  get positionals(): readonly string[] {
    return this.#parsed['_'] as string[];
  }

  /** @throws UsageError, which ends with `advice`, if anything stands there without an option */
  refusePositionals(advice = ''): void {
    const [stray] = this.positionals;
    if (stray !== undefined) throw new UsageError(`'${stray}' belongs to no option.${advice}`);
  }

  /**
   * The database that `-p` names; empty where the `PG*` variables say it all.
   *
   * @throws UsageError with the question, if neither does
   */
  database(env: NodeJS.ProcessEnv, question: string): string {
    const dsn = this.text('postgres-url');
    // That PGSERVICE can't stand in for it is said where the connection is read.
    const { PGHOST, PGDATABASE, PGSERVICE } = env;
    if ([dsn, PGHOST, PGDATABASE, PGSERVICE].every((given) => given === undefined)) {
      throw new UsageError(question);
    }
    return dsn ?? '';
  }

  has(name: string): boolean {
    return this.#parsed[name] === true;
  }

  /** The values of an option that may be given several times. */
  texts(name: string): readonly string[] {
    return [this.#parsed[name] ?? []].flat() as string[];
  }

  /** @throws UsageError if the option is given twice, or an empty value where that makes no sense */
  text(name: string): string | undefined {
    const value = this.#parsed[name];
    if (Array.isArray(value)) {
      throw new UsageError(
        `${flag(name, this.#options)} is given ${value.length} times; give it once.`,
      );
    }
    if (value === '' && name !== 'postgres-url') {
      throw new UsageError(`${flag(name, this.#options)} is given an empty value.`);
    }
    return value as string | undefined;
  }

  /** The file that something is written to, or `-`: opened by name, standard output would begin anew. */
  output(name: string): string | undefined {
    const path = this.text(name);
    return path !== undefined && STANDARD_OUTPUT.has(path) ? '-' : path;
  }

  /** @throws UsageError if the value is no whole number from `least` to `most` */
  integer(name: string, least: number, most?: number): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    return parseInteger(value, flag(name, this.#options), least, most);
  }

  /** In bytes, what an option with a default gives in decimal megabytes, as disks and `top` count them. */
  megabytes(name: string): number {
    return this.integer(name, 1)! * 1_000_000;
  }
}

/** The number that is written, where it is one from `least` to `most`; `what` is what messages call it. */
export function parseInteger(
  value: string,
  what: string,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number {
  const number = Number(value);
  if (!/^-?\d+$/.test(value) || number < least || number > most) {
    throw new UsageError(`${what} takes a whole number from ${least} to ${most}, not '${value}'.`);
  }
  return number;
}

/** What yargs found wrong, as a sentence that says what to do. */
function explained(message: string, options: CommandOptions): string {
  const [, lacking] = /^Not enough arguments following: (.*)$/s.exec(message) ?? [];
  const option = optionOf(lacking ?? '', options);
  if (option !== undefined) {
    return `${flag(option, options)} needs a value.`;
  }
  const [, unknown] = /^Unknown arguments?: (.*)$/s.exec(message) ?? [];
  if (unknown === undefined) {
    return message;
  }
  const [name] = unknown.split(', ');
  if (name.length === 1) {
    return `There is no option -${name}.`;
  }
  const closest = closestName(name, Object.keys(options));
  return `There is no option --${name}.${closest === undefined ? '' : ` Did you mean --${closest}?`}`;
}
