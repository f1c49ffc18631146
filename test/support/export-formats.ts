/** Exports of the three tables in every format that is read, made in the plainest way there is. */
import { encoded } from './naive-copy-text.js';

export const COLUMNS = {
  state_groups: ['id', 'room_id', 'event_id'],
  state_group_edges: ['state_group', 'prev_state_group'],
  state_groups_state: ['state_group', 'room_id', 'type', 'state_key', 'event_id'],
} as const;

export type Table = keyof typeof COLUMNS;

/** Decoded fields in the order of the columns. */
export type Row = readonly string[];

export type Tables = Readonly<Record<Table, readonly Row[]>>;

export type Format = keyof typeof FORMATS;

/** What a table's export looks like in each format. */
export const FORMATS = {
  'COPY text': (_: Table, rows: readonly Row[]) => Buffer.from(copyText(rows)),
  CSV: (_: Table, rows: readonly Row[]) => csv(rows, /[",\r\n]|^$|^\\\.$/),
  'CSV with a header': (table: Table, rows: readonly Row[]) =>
    csv([COLUMNS[table], ...rows], /[",\r\n]|^$|^\\\.$/),
  'CSV, all quoted, columns backwards': (table: Table, rows: readonly Row[]) =>
    csv(
      [COLUMNS[table], ...rows].map((row) => row.toReversed()),
      /^/,
    ),
  'CSV with a byte order mark': (_: Table, rows: readonly Row[]) =>
    Buffer.concat([Buffer.from('\ufeff'), csv(rows, /^/)]),
  'CSV with Windows line ends': (_: Table, rows: readonly Row[]) => csv(rows, /[",\r\n\\]/, '\r\n'),
  'binary COPY data': binary,
  'JSON array': (table: Table, rows: readonly Row[]) =>
    Buffer.from(`[${rows.map((row) => jsonRow(table, row)).join(', \n ')}]\n`),
  'JSON array, indented': (table: Table, rows: readonly Row[]) =>
    Buffer.from(
      JSON.stringify(
        rows.map((row) => JSON.parse(jsonRow(table, row)) as object),
        undefined,
        2,
      ),
    ),
  'JSON lines': (table: Table, rows: readonly Row[]) =>
    Buffer.from(rows.map((row) => `${jsonRow(table, row)}\n`).join('')),
} as const;

export function copyText(rows: readonly Row[]): string {
  return rows.map((row) => `${row.map(encoded).join('\t')}\n`).join('');
}

function csv(rows: readonly Row[], quoted: RegExp, lineEnd = '\n'): Buffer {
  const field = (text: string) => (quoted.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return Buffer.from(rows.map((row) => row.map(field).join(',') + lineEnd).join(''));
}

export const BINARY_HEADER = Buffer.from('PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0', 'latin1');

function binary(table: Table, rows: readonly Row[]): Buffer {
  const parts = [BINARY_HEADER];
  for (const row of rows) {
    const count = Buffer.alloc(2);
    count.writeInt16BE(row.length);
    parts.push(count);
    for (const [i, field] of row.entries()) {
      const bytes = isNumber(table, i) ? Buffer.alloc(8) : Buffer.from(field);
      if (isNumber(table, i)) bytes.writeBigInt64BE(BigInt(field));
      const length = Buffer.alloc(4);
      length.writeInt32BE(bytes.length);
      parts.push(length, bytes);
    }
  }
  return Buffer.concat([...parts, Buffer.from([255, 255])]);
}

/** As row_to_json writes it: numbers beyond 2^53 keep their digits. */
function jsonRow(table: Table, row: Row): string {
  const members = row.map((field, i) => {
    const value = isNumber(table, i) ? field : JSON.stringify(field);
    return `"${COLUMNS[table][i]}":${value}`;
  });
  return `{${members.join(',')}}`;
}

function isNumber(table: Table, column: number): boolean {
  return column === 0 || table === 'state_group_edges';
}

/** Another table's rows, which look like what a dump of ours has. */
const DECOYS = copyText([
  ['1', 'COPY public.state_groups (id, room_id, event_id) FROM stdin;'],
  ['COPY public.state_group_edges (state_group, prev_state_group) FROM stdin;', '\\.'],
  ['\n\\.\n', 'INSERT INTO public.state_groups VALUES (1);'],
]);

/** SQL as pg_dump writes it, with the tables in this order, and others beside them. */
export function dump(
  tables: Tables,
  order: readonly Table[] = ['state_group_edges', 'state_groups', 'state_groups_state'],
): Buffer {
  const block = (name: string, columns: readonly string[], text: string) =>
    `--\n-- Data for Name: ${name}; Type: TABLE DATA; Schema: public; Owner: synapse\n--\n\n` +
    `COPY public.${name} (${columns.join(', ')}) FROM stdin;\n${text}\\.\n\n\n`;
  return Buffer.from(
    '--\n-- PostgreSQL database dump\n--\n\n' +
      "SET client_encoding = 'UTF8';\n\n" +
      'CREATE TABLE public.state_groups (\n    id bigint NOT NULL\n);\n\n\n' +
      block('account_data', ['user_id', 'content'], DECOYS) +
      order.map((table) => block(table, COLUMNS[table], copyText(tables[table]))).join('') +
      block('state_groups_persisting', ['state_group', 'instance_name'], '') +
      block('users', ['name', 'password_hash'], DECOYS) +
      '--\n-- PostgreSQL database dump complete\n--\n\n',
  );
}
