import { parseCommandLine } from './command-line.js';
import { failureOf } from './failure.js';
import { Interruption } from './interruption.js';
import { StatusLine } from './status-line.js';

/** Runs a command line and ends the process with the exit code that the README lists. */
export async function main(args: readonly string[]): Promise<void> {
  const status = new StatusLine(process.stderr, process.env.TERM);
  const fail = (thrown: unknown): void => {
    const { exitCode, message } = failureOf(thrown, process.env);
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
  // What writes to standard output learns of its errors from each write; status may get lost.
  process.stdout.on('error', () => {});
  process.stderr.on('error', () => {});

  try {
    const command = parseCommandLine(args, process.env);
    if ('text' in command) {
      process.stdout.write(`${command.text}\n`);
    } else {
      const { runCompressCommand } = await import('./compress-command.js');
      await runCompressCommand(command, status, new Interruption());
    }
  } catch (error) {
    fail(error);
  }
  // All is closed, but a standard input that does not end would keep the process waiting.
  await Promise.all([process.stdout, process.stderr].map(flushed));
  process.exit();
}

function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => stream.write('', () => resolve()));
}
