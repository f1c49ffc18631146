import { inspect } from 'node:util';
import { withoutPassword } from './printable.js';
import { codeOf, CompressStateError, OutputError, UsageError } from '../errors.js';

/** Set to anything, it shows where an error came from. */
const DEBUG_VARIABLE = 'SYNAPSE_COMPRESS_STATE_DEBUG';

/** What a process killed by SIGPIPE ends with, as `cat` in `cat file | head` does. */
const CLOSED_PIPE = 141;

export interface Failure {
  readonly exitCode: number;
  /** For standard error; empty when there is nothing to say. */
  readonly message: string;
}

/**
 * The exit code and the words for whatever was thrown.
 *
 * @param program whose `--help` lists the options
 */
export function failureOf(
  thrown: unknown,
  env: NodeJS.ProcessEnv,
  program = 'synapse_compress_state',
): Failure {
  const details = env[DEBUG_VARIABLE] ? `\n${inspect(thrown)}` : '';
  if (isClosedPipe(thrown)) {
    return { exitCode: CLOSED_PIPE, message: details };
  }
  if (thrown instanceof CompressStateError) {
    const hint = thrown instanceof UsageError ? `\nSee ${program} --help for all options.` : '';
    return {
      exitCode: thrown.exitCode,
      message: `synapse_compress_state: ${withoutPassword(thrown.message)}${hint}${details}`,
    };
  }
  const message = thrown instanceof Error ? thrown.message : inspect(thrown);
  if (thrown instanceof RangeError && /allocation failed|out of memory/i.test(message)) {
    return {
      exitCode: 1,
      message: `synapse_compress_state: the system gave no more memory: ${message}. docs/architecture.md says what takes how much.${details}`,
    };
  }
  const advice = details || ` Run it again with ${DEBUG_VARIABLE}=1 and report what it prints.`;
  return {
    exitCode: 1,
    message: `synapse_compress_state: internal error, a defect of this program: ${message}.${advice}`,
  };
}

/** The reader of our output has all it wants: `| head`. */
export function isClosedPipe(thrown: unknown): boolean {
  return thrown instanceof OutputError && codeOf(thrown.cause) === 'EPIPE';
}
