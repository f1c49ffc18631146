import type { Options } from 'yargs';
import { UsageError } from '../errors.js';
import type { StateTable } from '../sources/files/state-table.js';
import { OPTIONS } from './options.js';
import type { OptionName } from './options.js';

/**
 * A DSN, empty when the `PG*` variables say it all; or the files, folders and `-` to read, and the files of which
 * it is given what table they hold.
 */
export type Source =
  | { readonly kind: 'postgres'; readonly dsn: string }
  | {
      readonly kind: 'files';
      readonly inputs: readonly string[];
      readonly tables?: Readonly<Partial<Record<StateTable, string>>>;
    };

/**
 * The source that an argument names: a database where it begins as a URL of Postgres does
 * (`postgresql://`, `postgres://`) or as libpq's keywords do (`dbname=`), else a file, a folder, or `-`.
 *
 * @throws UsageError if it is empty
 */
export function sourceOf(argument: string): Source {
  if (argument === '') throw new UsageError('A source has an empty name.');
  return /^(postgres(ql)?:\/\/|\s*[a-z_]+\s*=)/.test(argument)
    ? { kind: 'postgres', dsn: argument }
    : { kind: 'files', inputs: [argument] };
}

/** Options of commands that take sources as arguments. */
export const SOURCE_OPTIONS = {
  'room-id': OPTIONS['room-id'],
  memory: { ...OPTIONS.memory, describe: 'Megabytes that sorting files may take' },
  tmpdir: OPTIONS.tmpdir,
} as const satisfies Partial<Record<OptionName, Options>>;

/** For the help of commands that take sources as arguments. */
export const SOURCE_RULE =
  'A source is a database, as a URL (postgresql://…) or as libpq keywords ("dbname=… host=…"), or a ' +
  'folder of exported tables, or a dump. A file whose name looks like a keyword is named with ./ before it.';
