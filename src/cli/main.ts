import { setTimeout } from 'node:timers/promises';
import { UsageError } from '../errors.js';
import type { Answer } from './arguments.js';
import { parseCompressCommand } from './compress-arguments.js';
import { failureOf } from './failure.js';
import { Interruption } from './interruption.js';
import { StatusLine } from './status-line.js';

/** What stands beside compressing, each with options of its own. */
const COMMANDS = ['apply', 'auto', 'check', 'rooms', 'verify'];

/** After a signal, how long a terminal or log that takes nothing is waited for, in milliseconds. */
const FLUSH_PATIENCE = 1000;

/** Runs a command line and ends the process with the exit code that the README lists. */
export async function main(args: readonly string[]): Promise<void> {
  const status = new StatusLine(process.stderr, process.env.TERM);
  const program = ['synapse_compress_state', ...COMMANDS.filter((name) => name === args[0])].join(
    ' ',
  );
  const fail = (thrown: unknown): void => {
    const { exitCode, message } = failureOf(thrown, process.env, program);
    process.exitCode = exitCode;
    if (message !== '') {
      status.say(message);
    }
  };
  for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.on(event, (thrown) => {
      fail(thrown);
      process.exit();
    });
  }
  // To find out whether it runs in another place than Node.js, pg looks for a navigator, which Node.js 20 has
  // not, and then begins to fetch: that takes a thirtieth of a second and 10 GB of addresses.
  if (!('navigator' in globalThis)) {
    Object.assign(globalThis, { navigator: { userAgent: `Node.js/${process.versions.node}` } });
  }
  // What writes to standard output learns of its errors from each write; status may get lost.
  process.stdout.on('error', () => {});
  process.stderr.on('error', () => {});

  let interruption: Interruption | undefined;
  try {
    const answer = await run(args, status, () => (interruption = new Interruption()));
    if (answer !== undefined) {
      const { printResult } = await import('./print-result.js');
      await printResult(`${answer.text}\n`);
    }
  } catch (error) {
    fail(error);
  }
  const isFlushed = Promise.all([process.stdout, process.stderr].map(flushed));
  await Promise.race([isFlushed, impatience(interruption?.signal)]);
  // All is closed, but a standard input that does not end would keep the process waiting.
  process.exit();
}

/** Runs the command that the first argument names; compressing is the one without a name. */
async function run(
  args: readonly string[],
  status: StatusLine,
  interruptible: () => Interruption,
): Promise<Answer | void> {
  try {
    process.cwd();
  } catch (cause) {
    throw new UsageError('The current folder is gone. Change to one that is there.', { cause });
  }
  const [name, ...rest] = args;
  switch (name) {
    case 'verify': {
      const { parseVerifyCommand, runVerifyCommand } = await import('./verify-command.js');
      const command = parseVerifyCommand(rest);
      if ('text' in command) return command;
      return runVerifyCommand(command, status, interruptible());
    }
    case 'check': {
      const { parseCheckCommand, runCheckCommand } = await import('./check-command.js');
      const command = parseCheckCommand(rest);
      if ('text' in command) return command;
      return runCheckCommand(command, status, interruptible());
    }
    case 'auto': {
      const { parseAutoCommand, runAutoCommand } = await import('./auto-command.js');
      const command = parseAutoCommand(rest, process.env);
      if ('text' in command) return command;
      return runAutoCommand(command, status, interruptible());
    }
    case 'rooms': {
      const { parseRoomsCommand, runRoomsCommand } = await import('./rooms-command.js');
      const command = parseRoomsCommand(rest, process.env);
      if ('text' in command) return command;
      return runRoomsCommand(command, status, interruptible());
    }
    case 'apply': {
      const { parseApplyCommand, runApplyCommand } = await import('./apply-command.js');
      const command = parseApplyCommand(rest, process.env);
      if ('text' in command) return command;
      return runApplyCommand(command, status, interruptible());
    }
    default: {
      const command = parseCompressCommand(args, process.env);
      if ('text' in command) return command;
      const { runCompressCommand } = await import('./compress-command.js');
      return runCompressCommand(command, status, interruptible());
    }
  }
}

function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => stream.write('', () => resolve()));
}

/** Resolves a moment after the signal, and never without one. */
async function impatience(signal: AbortSignal | undefined): Promise<void> {
  if (signal?.aborted !== true)
    await new Promise((resolve) => signal?.addEventListener('abort', resolve));
  await setTimeout(FLUSH_PATIENCE);
}
