import { SIGNATURE, tableOfBinary } from './binary.js';
import { isReordered, tableOfCsv } from './csv.js';
import { isDump } from './dump.js';
import { tableOfJson } from './json.js';
import {
  COLUMNS,
  isTable,
  STATE_TABLES,
  tableOfLine,
  type StateTable,
  type Told,
} from './state-table.js';

export type InputFormat = 'copy-text' | 'csv' | 'binary' | 'json' | 'dump';

export interface Recognized {
  readonly format: InputFormat;
  /** Which table it is; of a dump nothing is told. */
  readonly told: Told;
  /** Whether it begins with the columns' names, in another order than the table's. */
  readonly isReordered: boolean;
  /** Whether it is COPY text, maybe, and all in one line that does not end. */
  readonly isFragment: boolean;
  /** What the second line is of, read as COPY text; undefined if it does not tell, or is not all there. */
  readonly ofSecondLine: StateTable | 'other' | undefined;
  /** How it begins, in a form that can be printed. */
  readonly beginning: string;
  /** What to do with what is of a kind that is known, but not read. */
  readonly advice: string | undefined;
}

const LONGEST_BEGINNING = 60;
const BYTE_ORDER_MARK = '\xef\xbb\xbf';

/** Tells by its first bytes what an input holds; undefined if it takes more, while there are more. */
export function recognize(head: Buffer, isAll: boolean): Recognized | undefined {
  const format = formatOf(head, isAll);
  if (format === undefined) return undefined;
  const isCopyText = format === 'copy-text';
  const advice = isCopyText && isCsvWithTabs(head) ? CSV_WITH_TABS : adviceFor(head);
  const told = isCopyText && advice !== undefined ? 'other' : tellTable(format, head);
  if (told === 'incomplete' && !isAll) return undefined;
  const line = firstLine(head);
  const beginning = line.slice(0, LONGEST_BEGINNING).replaceAll(/\p{Cc}/gu, '\ufffd');
  return {
    format,
    told,
    isReordered: format === 'csv' && isTable(told) && isReordered(head, told),
    isFragment:
      isCopyText && advice === undefined && told !== 'empty' && !beginningOf(head).includes('\n'),
    ofSecondLine: tellSecondLine(head),
    beginning,
    advice: advice ?? (told === 'other' ? guess(line) : undefined),
  };
}

function formatOf(head: Buffer, isAll: boolean): InputFormat | undefined {
  if (SIGNATURE.subarray(0, head.length).equals(head.subarray(0, SIGNATURE.length))) {
    if (head.length >= SIGNATURE.length) return 'binary';
    if (!isAll) return undefined;
  }
  const begins = head.toString('utf8', 0, 100);
  if (/^\ufeff?\s*[[{]/.test(begins)) return 'json';
  if (!isAll && !beginningOf(head).includes('\n')) return undefined;
  const line = firstLine(head);
  if (isDump(line) && !CHANGES.begin.test(line)) return 'dump';
  // Both begin with a number, or with a column's name.
  return /^[^\t,]*,/.test(line) ? 'csv' : 'copy-text';
}

function tellTable(format: InputFormat, head: Buffer): Told {
  switch (format) {
    case 'copy-text': {
      const line = firstLine(head);
      return line === '' || line === '\\.' ? 'empty' : (tableOfLine(line) ?? 'other');
    }
    case 'csv':
      return tableOfCsv(head);
    case 'binary':
      return tableOfBinary(head);
    case 'json':
      return tableOfJson(head);
    case 'dump':
      return 'other';
  }
}

/** Where a line was cut, what follows tells what the rest of it can't. */
function tellSecondLine(head: Buffer): StateTable | 'other' | undefined {
  const [, line, behind] = head.toString().split('\n', 3);
  if (line === undefined || behind === undefined || line === '\\.') return undefined;
  return tableOfLine(line) ?? 'other';
}

/**
 * CSV with tabs looks like COPY text, but quotes a text that is empty, as most state keys are. Read as COPY
 * text these would be other keys.
 */
function isCsvWithTabs(head: Buffer): boolean {
  const lines = head.toString('latin1').split('\n').slice(0, -1);
  const stateKeys = new Set(lines.map((line) => line.split('\t', 4)[3]));
  return stateKeys.has('""') && !stateKeys.has('');
}

/** The first line that is not blank. */
function firstLine(head: Buffer): string {
  return beginningOf(head).split('\n', 1)[0];
}

/** The text without blank lines, and without a byte order mark, at its beginning. */
function beginningOf(head: Buffer): string {
  return head.toString().trimStart();
}

function beginsWith(head: Buffer, bytes: string): boolean {
  return head.toString('latin1', 0, bytes.length) === bytes;
}

/** SQL that is written here. */
const CHANGES = {
  begin: /^-- (?:Written by|Changes for) synapse_compress_state /,
  advice:
    'It holds changes that synapse_compress_state made, and no tables: apply it, with synapse_compress_state apply or psql.',
};

/** What kinds of files begin with. */
const MAGICS: readonly (readonly [magic: string, advice: string])[] = [
  ['PGDMP', archive('-Fc')],
  ['toc.dat\0', archive('-Ft')],
  ['\xfd7zXZ\0', packed('xz', 'xz -dc')],
  ['BZh', packed('bzip2', 'bzip2 -dc')],
  ['\x04\x22\x4d\x18', packed('lz4', 'lz4 -dc')],
  ['PK\x03\x04', packed('zip', 'unzip -p')],
  [
    'SQLite format 3\0',
    'It is a database of SQLite. Only tables of Postgres can be compressed: port the homeserver with synapse_port_db first.',
  ],
  // What is packed once was unpacked.
  ['\x1f\x8b', packed('gzip twice', 'gunzip -c')],
  ['\x28\xb5\x2f\xfd', packed('zstd inside', 'zstd -dc')],
  ['\xff\xfe', converted('is in UTF-16', 'iconv -f UTF-16 -t UTF-8')],
  ['\xfe\xff', converted('is in UTF-16', 'iconv -f UTF-16 -t UTF-8')],
  [BYTE_ORDER_MARK, converted('begins with a byte order mark, as on Windows', 'tail -c +4')],
  ['state_group\t', headed()],
  ['id\troom_id\t', headed()],
];

const CSV_WITH_TABS =
  'It is CSV with tabs between the fields, of which only CSV with commas is read. Export the table again, with COPY state_groups_state TO STDOUT.';

/** POSIX tar has this behind the name of its first file. */
const TAR = { magic: 'ustar', at: 257 };

function adviceFor(head: Buffer): string | undefined {
  const known = MAGICS.find(([magic]) => beginsWith(head, magic));
  if (known !== undefined) return known[1];
  if (CHANGES.begin.test(firstLine(head))) return CHANGES.advice;
  if (!beginsWith(head.subarray(TAR.at), TAR.magic)) return undefined;
  return 'It is an archive of files that tar made. Unpack it into a folder: tar -xf FILE -C FOLDER, and give that with -i.';
}

/** What a first line lets guess that is of no table. */
function guess(line: string): string | undefined {
  const names = line.toLowerCase().split(/[^a-z_]+/);
  const table = STATE_TABLES.find((one) => COLUMNS[one].every((column) => names.includes(column)));
  if (table !== undefined) {
    return `Of ${table} these columns are read, alone and so written, with commas between them: ${COLUMNS[table].join(', ')}. Export the table with psql: COPY ${table} TO STDOUT.`;
  }
  if (/^\s*\d+\s*[;|]/.test(line)) {
    return 'Its fields stand between signs that are not read. Export the table with psql: COPY state_groups_state TO STDOUT.';
  }
  return undefined;
}

function archive(option: string): string {
  return `It is an archive that pg_dump ${option} made. Pipe it through pg_restore: pg_restore -f - FILE | synapse_compress_state -i - …`;
}

function packed(how: string, unpack: string): string {
  return `It is packed with ${how}. Unpack it in a pipe: ${unpack} FILE | synapse_compress_state -i - …`;
}

function headed(): string {
  // What other programs write so may have no escapes, or others.
  return 'It begins with the names of its columns. Export the table again, with COPY and without HEADER.';
}

function converted(how: string, convert: string): string {
  return `It ${how}. Convert it in a pipe: ${convert} FILE | synapse_compress_state -i - …`;
}
