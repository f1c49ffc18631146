import { fstatSync, statSync } from 'node:fs';
import { UsageError } from '../errors.js';
import type { CompressCommand } from './command-line.js';

const STDIN = 0;

/**
 * Sees that no output would take the place of a file that is read, by whatever name or link: an export
 * may be all that an operator has.
 *
 * @throws UsageError that names the file; InputError if a folder is none that can be read
 */
export async function protectInputs({
  source,
  output,
  statsFile,
}: Pick<CompressCommand, 'source' | 'output' | 'statsFile'>): Promise<void> {
  if (source.kind !== 'files') return;
  const outputs = [output, statsFile].filter((name) => name !== undefined);
  if (outputs.length === 0) return;
  const { filesOf } = await import('../sources/files/find-inputs.js');
  const inputs = await filesOf([...source.inputs, ...Object.values(source.tables ?? {})]);
  const read = new Set(inputs.map(identityOf));
  for (const name of outputs) {
    const identity = name === '-' ? '' : identityOf(name);
    if (identity !== '' && read.has(identity)) {
      throw new UsageError(`${name} is read, and would be overwritten: name another file.`);
    }
  }
}

/** The same for all names of one file; empty for what is no file, or not there. */
function identityOf(path: string): string {
  try {
    const found = path === '-' ? fstatSync(STDIN) : statSync(path);
    return found.isFile() ? `${found.dev}:${found.ino}` : '';
  } catch {
    // What is wrong with it is told when it is opened.
    return '';
  }
}
