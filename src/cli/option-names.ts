import type { Options } from 'yargs';

/** The options of a command, by long name. Those without a type take a value. */
export type CommandOptions = Readonly<Record<string, Options>>;

/** The option that a short or long name stands for; the existing tool writes `room_id` for `room-id`. */
export function optionOf(given: string, options: CommandOptions): string | undefined {
  const dashed = given.replaceAll('_', '-');
  return Object.keys(options).find((name) => name === dashed || options[name].alias === given);
}

/** What messages call an option: both names where there are two. */
export function flag(name: string, options: CommandOptions): string {
  const alias = options[name]?.alias as string | undefined;
  return alias === undefined ? `--${name}` : `-${alias} (--${name})`;
}
