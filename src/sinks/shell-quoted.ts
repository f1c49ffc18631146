/** A path as an argument in a shell's command line. */
export function shellQuoted(path: string): string {
  const safe = path.startsWith('-') ? `./${path}` : path;
  return /^[\w./:@%+=-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", "'\\''")}'`;
}
