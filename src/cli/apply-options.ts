import type { Options } from 'yargs';
import type { Pace } from '../apply/throttle.js';
import { UsageError } from '../errors.js';
import type { Arguments } from './arguments.js';

/** Options of commands that apply changes. */
export const APPLY_OPTIONS = {
  pace: {
    nargs: 1,
    describe: 'How fast: rows a second, deleted and inserted, or a share of the time, such as 20%',
    defaultDescription: 'as fast as it goes',
  },
  vacuum: {
    type: 'boolean',
    describe: 'Afterwards, VACUUM the tables, so that new rows can use the space',
  },
} as const satisfies Record<string, Options>;

/** How changes are applied, whether they come from a file or were just made. */
export interface ApplyOptions {
  readonly pace: Pace | undefined;
  readonly vacuum: boolean;
}

/** What is given for `--pace` and `--vacuum`; throws UsageError, also where nothing is to be applied. */
export function applyOptionsOf(given: Arguments): ApplyOptions {
  if (given.has('dry-run') && given.has('vacuum')) {
    throw new UsageError('--dry-run changes nothing, and --vacuum does.');
  }
  const pace = given.text('pace');
  return { pace: pace === undefined ? undefined : parsePace(pace), vacuum: given.has('vacuum') };
}

function parsePace(text: string): Pace {
  const [, number, percent] = /^(\d{1,9})(%?)$/.exec(text) ?? [];
  const value = Number(number);
  if (value >= 1 && percent === '') return { rowsPerSecond: value };
  if (value >= 1 && value <= 100) return { share: value / 100 };
  throw new UsageError(
    `--pace takes rows a second, such as 5000, or a share of the time from 1% to 100%, not '${text}'.`,
  );
}
