import { UsageError } from '../errors.js';
import { flag, optionOf } from './options.js';
import type { CommandOptions } from './options.js';

/**
 * Writes each option that takes a value as `--name=value`, which yargs reads whatever the value is:
 * `-oout.sql` and `-l100,50` are usual elsewhere. A value that looks like an option is refused here,
 * where it is known whose value it is. Joined switches (`-tg`) stay as they are.
 *
 * @throws UsageError for a value that is missing, or given to an option that takes none
 */
export function withSeparateValues(args: readonly string[], options: CommandOptions): string[] {
  const separate: string[] = [];
  const rest = args.values();
  for (const arg of rest) {
    const [, long, short, joined] = /^(?:--([^=]+)|-([a-zA-Z]))(.*)$/s.exec(arg) ?? [];
    const name = optionOf(long ?? short ?? '', options);
    if (name === undefined) {
      separate.push(arg);
    } else if (options[name].type === 'boolean') {
      if (joined.startsWith('=')) {
        throw new UsageError(
          `${flag(name, options)} takes no value, but is given '${joined.slice(1)}'.`,
        );
      }
      separate.push(long === undefined ? arg : `--${name}`);
    } else {
      const value =
        joined === '' ? nextValue(flag(name, options), name, rest) : joined.replace(/^=/, '');
      separate.push(`--${name}=${value}`);
    }
  }
  return separate;
}

function nextValue(shown: string, name: string, rest: Iterator<string, undefined>): string {
  const next = rest.next();
  if (next.done === true) {
    throw new UsageError(`${shown} needs a value.`);
  }
  const { value } = next;
  // A dash alone is standard input or output, and a negative number gets a better answer later.
  if (/^-[^\d]/.test(value)) {
    throw new UsageError(
      `${shown} needs a value. If '${value}' is meant as one, write --${name}=${value}`,
    );
  }
  return value;
}
