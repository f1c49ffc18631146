import { printable } from './printable.js';
import { endWith } from '../sinks/output.js';
import { openStreamedOutput } from '../sinks/streamed-output.js';

/**
 * Writes a command's result to standard output.
 *
 * @throws OutputError if it can't be written, or nobody reads it
 */
export async function printResult(text: string): Promise<void> {
  const output = openStreamedOutput(process.stdout, 'standard output');
  await endWith(output, printable(text));
  await output.keep();
}
