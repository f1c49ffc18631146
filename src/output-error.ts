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

/** Says in a sentence why something can't be written; what is an OutputError already stays as it is. */
export function outputError(name: string, cause: unknown, spaceAdvice: string): OutputError {
  if (cause instanceof OutputError) {
    return cause;
  }
  const code = codeOf(cause);
  const reason = REASONS[code] ?? (cause instanceof Error ? cause.message : String(cause));
  const advice = code === 'ENOSPC' || code === 'EDQUOT' ? ` ${spaceAdvice}` : '';
  return new OutputError(`Can't write ${name}: ${reason}.${advice}`, { cause });
}
