const UNITS = ['kB', 'MB', 'GB', 'TB'];

/** Bytes as a person reads them, in units of 1024 as Postgres's `pg_size_pretty` has them. */
export function readableSize(bytes: number): string {
  let size = bytes;
  let unit = 'bytes';
  for (const larger of UNITS) {
    if (size < 1024) {
      break;
    }
    size /= 1024;
    unit = larger;
  }
  return `${unit === 'bytes' ? size : size.toFixed(1)} ${unit}`;
}
