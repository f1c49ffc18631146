import { outputError } from '../output-error.js';
import { printable } from './printable.js';

/**
 * Writes a command's result, or a part of it, to standard output.
 *
 * @throws OutputError if it can't be written, or nobody reads it
 */
export function printResult(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(printable(text), (error) => {
      if (error)
        reject(outputError('standard output', error, 'Free some, or write to another place.'));
      else resolve();
    });
  });
}
