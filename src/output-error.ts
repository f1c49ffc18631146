import { constants } from 'node:os';
import { codeOf, OutputError } from './errors.js';

/** Reasons in an operator's words; for others the system's own stand. */
const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission is denied',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'it would be larger than files may be here',
  EISDIR: 'it is a folder',
  ENOENT: 'its folder does not exist',
  ENOSPC: 'there is no space left on the disk',
  ENOTDIR: 'what should be its folder is none',
  EPERM: 'permission is denied',
  EPIPE: 'its reader has gone',
  EROFS: 'the file system is read-only',
};

/**
 * Says in a sentence why something can't be written; what is an OutputError already stays as it is.
 *
 * @param spaceAdvice what to do where there is no space
 * @param placeAdvice what to do where it can't be written for another reason
 */
export function outputError(
  name: string,
  cause: unknown,
  spaceAdvice: string,
  placeAdvice = '',
): OutputError {
  if (cause instanceof OutputError) {
    return cause;
  }
  const code = isOverQuota(cause) ? 'EDQUOT' : codeOf(cause);
  const reason = REASONS[code] ?? (cause instanceof Error ? cause.message : String(cause));
  const isFull = code === 'ENOSPC' || code === 'EDQUOT';
  const advice = isFull ? ` ${spaceAdvice}` : placeAdvice && ` ${placeAdvice}`;
  return new OutputError(`Can't write ${name}: ${reason}.${advice}`, { cause });
}

/** Node.js has no name for this error of the system. */
function isOverQuota(cause: unknown): boolean {
  return cause instanceof Error && 'errno' in cause && cause.errno === -constants.errno.EDQUOT;
}

/** The same for a file in the folder for temporary files. */
export function temporaryFileError(folder: string, cause: unknown): OutputError {
  return outputError(
    `a temporary file in ${folder}`,
    cause,
    'Free some, or name another folder with --tmpdir.',
    'Name another folder with --tmpdir.',
  );
}
