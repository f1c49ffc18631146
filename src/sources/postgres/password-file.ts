import { readFile, stat } from 'node:fs/promises';
import { codeOf } from '../../errors.js';
import { PasswordMissing } from './database-errors.js';

/** What the fields of a line stand for, in their order; `*` stands for any. */
export interface Login {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

/**
 * The password that libpq's password file (https://www.postgresql.org/docs/current/libpq-pgpass.html) has for one of
 * the logins, the first that it has any for; undefined if there is none or no file.
 *
 * @throws PasswordMissing if the file can't be used, with the reason
 */
export async function passwordFrom(
  file: string,
  logins: readonly Login[],
): Promise<string | undefined> {
  const lines = await linesOf(file);
  for (const { host, port, database, user } of logins) {
    const wanted = [host, String(port), database, user];
    const entry = lines.find((fields) =>
      wanted.every((value, i) => fields[i] === '*' || fields[i] === value),
    );
    if (entry !== undefined) return entry[wanted.length];
  }
  return undefined;
}

/** A backslash takes the meaning from what follows it. */
const FIELD = String.raw`((?:[^:\\]|\\.)*)`;
const LINE = new RegExp(`^(?!#)${FIELD}:${FIELD}:${FIELD}:${FIELD}:${FIELD}`);

/** The fields of each line that has five. */
async function linesOf(file: string): Promise<string[][]> {
  let text: string;
  try {
    const { mode } = await stat(file);
    if ((mode & 0o077) !== 0) {
      throw new PasswordMissing(
        `The password file ${file} is not used because others may read it: chmod 0600 ${file}.`,
      );
    }
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof PasswordMissing) throw error;
    if (codeOf(error) === 'ENOENT') return [];
    throw new PasswordMissing(
      `The password file ${file} can't be read: ${(error as Error).message}.`,
    );
  }
  return text.split(/\r?\n/).flatMap((line) => {
    const fields = LINE.exec(line)?.slice(1);
    return fields === undefined ? [] : [fields.map((field) => field.replaceAll(/\\(.)/g, '$1'))];
  });
}
