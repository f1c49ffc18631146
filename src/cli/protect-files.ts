import { fstatSync, statSync } from 'node:fs';
import { UsageError } from '../errors.js';
import { followLinks } from '../sinks/file-output.js';

const STDIN = 0;

/**
 * Sees that no output would take the place of another one, or of a file that is read, by whatever name or
 * link: an export may be all that an operator has.
 *
 * @param inputs files, folders, and `-` for standard input
 * @throws UsageError that names the file; InputError if a folder is none that can be read
 */
export async function protectFiles(
  inputs: readonly string[],
  outputs: readonly (string | undefined)[],
): Promise<void> {
  const names = outputs.filter((name) => name !== undefined && name !== '-') as string[];
  const targets = new Map<string, string>();
  for (const name of names) {
    const target = await targetOf(name);
    const other = target === undefined ? undefined : targets.get(target);
    if (other !== undefined) {
      throw new UsageError(`${other} and ${name} are one file, and would hold two outputs.`);
    }
    if (target !== undefined) targets.set(target, name);
  }
  if (inputs.length === 0 || names.length === 0) return;
  const { filesOf } = await import('../sources/files/find-inputs.js');
  const read = new Set((await filesOf(inputs)).map(identityOf));
  for (const name of names) {
    const identity = identityOf(name);
    if (identity !== '' && read.has(identity)) {
      throw new UsageError(`${name} is read, and would be overwritten: name another file.`);
    }
  }
}

/** Where the file is, or will be; undefined for what is no file, such as /dev/null. */
async function targetOf(path: string): Promise<string | undefined> {
  try {
    const target = await followLinks(path);
    return (statSync(target, { throwIfNoEntry: false })?.isFile() ?? true) ? target : undefined;
  } catch {
    // What is wrong with it is told when it is opened.
    return undefined;
  }
}

/** The same for all names of one file; empty for what is no file, or not there. */
function identityOf(path: string): string {
  try {
    const found = path === '-' ? fstatSync(STDIN) : statSync(path);
    return found.isFile() ? `${found.dev}:${found.ino}` : '';
  } catch {
    return '';
  }
}
