import { UsageError } from '../errors.js';
import { flag, optionOf } from './option-names.js';
import type { CommandOptions } from './option-names.js';

/**
 * Writes each option that takes a value as `--name=value`, which yargs reads whatever the value is:
 * `-oout.sql` and `-l100,50` are usual elsewhere. A value that looks like an option is refused here,
 * where it is known whose value it is. Joined switches are parted, and the last of them may take a value:
 * `-tgo out.sql`.
 *
 * @throws UsageError for a value that is missing, or given to an option that takes none
 */
export function withSeparateValues(args: readonly string[], options: CommandOptions): string[] {
  const separate: string[] = [];
  const rest = args.values();
  /** Takes an option, and what is joined to it; gives what of that is not its value. */
  const take = (name: string, joined: string): string => {
    const shown = flag(name, options);
    if (options[name].type === 'boolean') {
      if (joined.startsWith('=')) {
        throw new UsageError(`${shown} takes no value, but is given '${joined.slice(1)}'.`);
      }
      separate.push(`--${name}`);
      return joined;
    }
    const value = joined === '' ? nextValue(shown, name, rest) : joined.replace(/^=/, '');
    separate.push(`--${name}=${value}`);
    return '';
  };

  for (const arg of rest) {
    if (arg === '--') {
      separate.push(arg, ...rest);
      break;
    }
    const [, long, joined] = /^--([^=]+)(.*)$/s.exec(arg) ?? [];
    if (long !== undefined) {
      const name = optionOf(long, options);
      if (name === undefined) separate.push(arg);
      else take(name, joined);
      continue;
    }
    let letters = /^-([a-zA-Z].*)$/s.exec(arg)?.[1];
    if (letters === undefined) separate.push(arg);
    while (letters) {
      const name = optionOf(letters[0], options);
      if (name === undefined) {
        if (!/[a-zA-Z]/.test(letters[0])) {
          throw new UsageError(`There is no option -${letters[0]}.`);
        }
        separate.push(`-${letters}`);
        break;
      }
      letters = take(name, letters.slice(1));
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
