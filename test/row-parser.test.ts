import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { InputError } from '../src/errors.js';
import { EntryPool } from '../src/state/entry-pool.js';
import { KeyTable } from '../src/state/key-table.js';
import { RowParser, type GroupRows, type RowColumns } from '../src/state/row-parser.js';
import * as naive from './support/naive-copy-text.js';

/** The decoded fields of a row; a key is the first two. */
type Row = readonly [type: string, stateKey: string, event: string];

interface Group {
  readonly id: number;
  readonly unreadable: boolean;
  readonly rows: readonly Row[];
}

const COLUMNS: readonly RowColumns[] = ['without-room', 'with-room'];

/** Rows as their canonical text, since that is what the parser's entries are. */
interface Parsed {
  readonly id: number;
  readonly rows: number;
  readonly entries: readonly string[];
  readonly repeated: readonly string[];
  readonly contradictory: boolean;
  /** Of all keys that were ever seen, those that the group has. */
  readonly keys: readonly string[];
}

const keyOf = ([type, stateKey]: Row) => `${naive.encoded(type)}\t${naive.encoded(stateKey)}\t`;
const textOf = (row: Row) => `${keyOf(row)}${naive.encoded(row[2])}\n`;

function expected({ id, unreadable, rows }: Group): Parsed {
  const first = new Map<string, string>();
  const repeated: string[] = [];
  for (const row of unreadable ? [] : rows) {
    if (first.has(keyOf(row))) repeated.push(textOf(row));
    else first.set(keyOf(row), textOf(row));
  }
  return {
    id,
    rows: rows.length,
    entries: [...first.values()],
    repeated,
    contradictory: repeated.some((row) => ![...first.values()].includes(row)),
    keys: [...first.keys()].sort(),
  };
}

/** The lines of all groups, `style` saying how fields are spelled. */
function linesOf(
  groups: readonly Group[],
  columns: RowColumns,
  style: readonly number[],
): string[] {
  const room = columns === 'with-room' ? '!room:example.org\t' : '';
  return groups.flatMap(({ id, rows }) =>
    rows.map(
      (row, n) =>
        `${id}\t${room}${row.map((field) => naive.spelled(field, style.slice(n % style.length))).join('\t')}\n`,
    ),
  );
}

function parse(groups: readonly Group[], columns: RowColumns, chunks: readonly Buffer[]): Parsed[] {
  const ids = Float64Array.from(groups, ({ id }) => id);
  const pool = new EntryPool(new KeyTable(1, 2));
  const seen = new Map<number, string>();
  const parsed: Parsed[] = [];
  const listed = (entries: Int32Array, length: number): string[] =>
    Array.from(entries.subarray(0, length), (entry) => {
      const row = pool.copyText(Int32Array.of(entry), 1).toString('latin1');
      seen.set(pool.key[entry], row.slice(0, row.lastIndexOf('\t') + 1));
      return row;
    });
  const isSkipped = (index: number) => groups[index].unreadable;
  const parser = new RowParser(ids, isSkipped, columns, pool, (index, group: GroupRows) => {
    parsed.push({
      id: ids[index],
      rows: group.rows,
      entries: listed(group.entries, group.length),
      repeated: listed(group.repeated, group.repeatedLength),
      contradictory: group.contradictory,
      keys: [...seen]
        .filter(([key]) => group.has(key))
        .map(([, text]) => text)
        .sort(),
    });
    return parsed.length % 3 > 0;
  });
  const goOn = (isWhole: boolean): void => {
    while (!isWhole) isWhole = parser.goOn();
  };
  for (const chunk of chunks) goOn(parser.write(chunk));
  goOn(parser.end());
  assert.equal(
    parser.totalRows,
    parsed.reduce((rows, group) => rows + group.rows, 0),
  );
  assert.ok(
    pool.holders.every((holders) => holders === 0),
    'every entry is given back',
  );
  return parsed;
}

/** Snapshots that follow one another with few changes, small groups between them, and empty ones. */
function groupsOf(unreadable: fc.Arbitrary<boolean>): fc.Arbitrary<Group[]> {
  const place = fc.nat(60);
  const edit = fc.tuple(
    fc.constantFrom('insert', 'remove', 'change', 'repeat'),
    place,
    place,
    place,
  );
  return fc
    .record({
      keys: fc.uniqueArray(fc.tuple(naive.text(9), naive.text(12)), {
        selector: (key) => key.join('\0'),
        minLength: 12,
        maxLength: 40,
        size: 'max',
      }),
      events: fc.array(naive.text(12), { minLength: 1, maxLength: 8 }),
      plans: fc.array(
        fc.record({
          gap: fc.integer({ min: 1, max: 200 }),
          kind: fc.constantFrom('snapshot', 'snapshot', 'delta', 'empty'),
          unreadable,
          edits: fc.array(edit, { maxLength: 5 }),
        }),
        { minLength: 1, maxLength: 12, size: 'max' },
      ),
    })
    .map(({ keys, events, plans }) => {
      const rowOf = ([type, stateKey]: readonly string[], event: number): Row => [
        type,
        stateKey,
        events[event % events.length],
      ];
      let snapshot = keys.slice(1).map(rowOf);
      let id = -1;
      return plans.map(({ gap, kind, edits, ...plan }) => {
        let rows = kind === 'snapshot' ? [...snapshot] : [];
        for (const [what, at, key, event] of kind === 'empty' ? [] : edits) {
          const to = at % (rows.length + 1);
          const from = rows[key % rows.length];
          if (what === 'insert' || from === undefined)
            rows.splice(to, 0, rowOf(keys[key % keys.length], event));
          else if (what === 'repeat') rows.splice(to, 0, from);
          else if (what === 'remove') rows.splice(to, 1);
          else rows = rows.map((row) => (row === from ? rowOf(row, event) : row));
        }
        if (kind === 'snapshot') {
          snapshot = rows.filter((row, n) => rows.findIndex((r) => keyOf(r) === keyOf(row)) === n);
        }
        return { id: (id += gap), rows, ...plan };
      });
    });
}

const regular = groupsOf(fc.constant(false));
const withUnreadable = groupsOf(fc.nat(5).map((n) => n === 0));
const columns = fc.constantFrom(...COLUMNS);

/** Ways to spoil a line, given its fields, the id of a group before that of the line before, and a number to choose by. */
const SPOILED: Record<string, (fields: string[], before: number, any: number) => string> = {
  'too few columns': (fields, _, any) =>
    fields.slice(0, 1 + (any % (fields.length - 1))).join('\t'),
  'too many columns': (fields) => [...fields, 'more'].join('\t'),
  'no column': () => '',
  'a NUL byte': (fields, _, any) => changed(fields, 2 + any, (field) => `${field}\0`),
  'a spelled NUL': (fields, _, any) => changed(fields, 2 + any, (field) => `\\000${field}`),
  'a NULL': (fields, _, any) => changed(fields, 2 + any, () => '\\N'),
  'a backslash before the line feed': (fields) => `${fields.join('\t')}\\`,
  'no group': (fields) => changed(fields, 0, () => ''),
  'a negative group': (fields) => changed(fields, 0, (field) => `-${field}`),
  'a group that is no number': (fields) => changed(fields, 0, (field) => `${field}a`),
  'a group beyond 2^53 - 1': (fields) => changed(fields, 0, () => '9007199254740992'),
  'a group of a thousand digits': (fields) => changed(fields, 0, () => '9'.repeat(1000)),
  'an unexpected group': (fields) => changed(fields, 0, (field) => `${Number(field) + 1}`),
  'a group that was before': (fields, before) => changed(fields, 0, () => `${before}`),
  'the end of a table': () => '\\.',
};

/** The line with one field changed: the first, or one of the last three. */
function changed(fields: string[], at: number, change: (field: string) => string): string {
  const column = at === 0 ? 0 : fields.length - 3 + (at % 3);
  return fields.with(column, change(fields[column])).join('\t');
}

describe('the row parser', () => {
  it('gives what a naive model gives, however fields are spelled and chunks are cut', () => {
    fc.assert(
      fc.property(
        withUnreadable,
        columns,
        naive.styles,
        naive.lengths,
        (groups, form, style, lengths) => {
          const chunks = naive.cut(
            Buffer.from(linesOf(groups, form, style).join(''), 'latin1'),
            lengths,
          );
          assert.deepEqual(parse(groups, form, chunks), groups.map(expected));
        },
      ),
      { numRuns: 150 },
    );
  });

  for (const [what, spoil] of Object.entries(SPOILED)) {
    it(`refuses ${what}, and says in which row`, () => {
      fc.assert(
        fc.property(regular, columns, naive.lengths, fc.nat(), (groups, form, lengths, any) => {
          // Even ids, so that the one after a group's is no group's.
          const even = groups.map((group) => ({ ...group, id: group.id * 2 }));
          const lines = linesOf(even, form, [0]);
          fc.pre(lines.length > 0);
          const row = any % lines.length;
          const fields = lines[row].slice(0, -1).split('\t');
          const previous = parseInt(lines[row - 1] ?? '', 10);
          const before = even.findLast(({ id }) => id < previous)?.id ?? 1;
          const spoiled = lines.with(row, `${spoil(fields, before, any)}\n`);
          const chunks = naive.cut(Buffer.from(spoiled.join(''), 'latin1'), lengths);
          assert.throws(
            () => parse(even, form, chunks),
            (error) =>
              error instanceof InputError &&
              new RegExp(
                `^Row ${row + 1} of the sorted state_groups_state(, near state group (${previous}|${parseInt(lines[row], 10)}))?, `,
              ).test(error.message),
          );
        }),
        { numRuns: 20 },
      );
    });
  }

  it('refuses input that is cut off within a line', () => {
    fc.assert(
      fc.property(regular, columns, naive.lengths, fc.nat(), (groups, form, lengths, any) => {
        const lines = linesOf(groups, form, [0]);
        const all = Buffer.from(lines.join(''), 'latin1');
        fc.pre(lines.length > 0);
        const chunks = naive.cut(all.subarray(0, -1 - (any % (lines.at(-1)!.length - 1))), lengths);
        assert.throws(() => parse(groups, form, chunks), {
          name: 'InputError',
          message: new RegExp(`^Row ${lines.length} .* cut off`),
        });
      }),
      { numRuns: 20 },
    );
  });

  it('refuses a line without end before it fills the memory', () => {
    let written = 0;
    const parser = new RowParser(
      Float64Array.of(1),
      () => false,
      'without-room',
      new EntryPool(new KeyTable(1, 2)),
      () => {},
    );
    parser.write(Buffer.from('1\ta\tb\tc\n1\ta\t'));
    const endless = () => {
      for (; written < 2 ** 25; written += 2 ** 16) parser.write(Buffer.alloc(2 ** 16, 'x'));
    };
    assert.throws(endless, {
      name: 'InputError',
      message: /^Row 2 .* is longer than 4194304 bytes/,
    });
    assert.ok(written <= 2 ** 22);
  });

  it('reads fields as long as an event of Synapse can be', () => {
    const long = (byte: string) => byte.repeat(70_000);
    const rows: Row[] = [
      [long('t'), long('\n'), long('\\')],
      ['type', 'key', long('é')],
    ];
    const groups = [1, 2].map((id) => ({ id, unreadable: false, rows }));
    const chunks = naive.cut(
      Buffer.from(linesOf(groups, 'with-room', [0]).join(''), 'latin1'),
      [65_536],
    );
    assert.deepEqual(parse(groups, 'with-room', chunks), groups.map(expected));
  });
});
