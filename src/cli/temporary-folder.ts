import { stat } from 'node:fs/promises';
import { tmpdir as systemTmpdir } from 'node:os';
import { UsageError } from '../errors.js';

/** The folder for temporary files, which is there. */
export async function temporaryFolder(given: string | undefined): Promise<string> {
  const path = given ?? systemTmpdir();
  const found = await stat(path).catch(() => undefined);
  if (!found?.isDirectory()) {
    throw new UsageError(
      `${path} is no folder: temporary files need one, named with ${given === undefined ? 'TMPDIR' : '--tmpdir'}.`,
    );
  }
  return path;
}
