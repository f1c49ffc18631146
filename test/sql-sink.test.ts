import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { after, before, beforeEach, test } from 'node:test';
import fc from 'fast-check';
import pg from 'pg';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import { idsHash } from '../src/planner/ids-hash.js';
import { ByteHash } from '../src/state/byte-hash.js';
import { decodedField } from '../src/state/copy-text.js';
import { sqlSink } from '../src/sinks/sql.js';
import { testPostgres } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql, psql } from './support/psql.js';

/** About as long as a whole event may be. */
const LONG = 65_000;
const LINE_FEED = 10;

let db: TestDatabase;

before(async () => {
  db = await (await testPostgres()).createDatabase({ schema: 'synapse' });
  await db.query('CREATE TABLE wanted (LIKE state_groups_state)');
});

after(() => db.drop());

beforeEach(() => emptyTables());

async function emptyTables(): Promise<void> {
  await db.query(
    'TRUNCATE state_groups, state_group_edges, state_groups_state, state_groups_pending_deletion, wanted',
  );
}

interface Row {
  readonly type: string;
  readonly stateKey: string;
  readonly eventId: string;
}

/** The sum that Postgres' own hash gives for rows of COPY text. */
function hashOf(rows: Buffer): bigint {
  const hash = new ByteHash();
  let sum = 0n;
  for (const line of rows.toString('latin1').split('\n').slice(0, -1)) {
    let [high, low] = [0, 0];
    for (const field of line.split('\t')) {
      const bytes = decodedField(Buffer.from(field, 'latin1'));
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      hash.update(view, 0, bytes.length, high, low);
      [high, low] = [hash.high, hash.low];
    }
    sum += (BigInt(high) << 32n) + BigInt(low >>> 0);
  }
  return sum;
}

/** Feeds the sink a change of group 2 to the rows, on group 1 or in full. */
function sink(
  rows: Buffer,
  { room = '!r:x', transactions = false, newPredecessor = undefined as number | undefined } = {},
): ReturnType<typeof sqlSink> {
  const group: PlannedGroup = {
    stateGroup: 2,
    oldPredecessor: undefined,
    newPredecessor,
    oldRows: 0,
    newRows: rows.reduce((count, byte) => count + (byte === LINE_FEED ? 1 : 0), 0),
    change: {
      oldHash: idsHash(2, undefined, newPredecessor),
      newRowsHash: hashOf(rows),
      rows,
    },
  };
  const header = [`For ${room}`];
  return Readable.from([[group]]).pipe(sqlSink({ room, transactions, header }));
}

async function insertGroups(room: string): Promise<void> {
  await db.query("INSERT INTO state_groups VALUES (1, $1, '$a'), (2, $1, '$b')", [room]);
}

async function insertWanted(room: string, rows: readonly Row[]): Promise<void> {
  await db.query(
    'INSERT INTO wanted SELECT 2, $1, * FROM unnest($2::text[], $3::text[], $4::text[])',
    [
      room,
      rows.map(({ type }) => type),
      rows.map(({ stateKey }) => stateKey),
      rows.map(({ eventId }) => eventId),
    ],
  );
}

/** The rows as Postgres itself writes them. */
async function copyText(): Promise<Buffer> {
  return buffer(db.copyOut('SELECT type, state_key, event_id FROM wanted'));
}

/** Rows that are in one of the tables only. */
async function differences(): Promise<number> {
  const { rows } = await db.query<{ count: string }>(
    `SELECT count(*) FROM (
       (TABLE wanted EXCEPT ALL TABLE state_groups_state)
       UNION ALL (TABLE state_groups_state EXCEPT ALL TABLE wanted)
     ) AS differing`,
  );
  return Number(rows[0].count);
}

/** Sends SQL as one message, which the server parses before it runs any of it. */
async function oneQuery(sql: Readable): Promise<void> {
  const client = new pg.Client(db.url);
  await client.connect();
  try {
    await client.query(await text(sql));
  } finally {
    await client.end();
  }
}

/** What SQL, psql, COPY or a pattern could take for its own. */
const SYNTAX =
  String.raw`' '' " \ \' \\ $ $$ $procedure$ ; -- /* % E' '); \000 \x27 \N \q \g`.split(' ');
const VARIABLES = [':type', ":'type'", ':"type"', ':{?type}'];
const LINES = ['\r\n', ';\n', '\n\\q\n', '\n\\.\n', '\n\\! false\n', '--\n', "';\nCOMMIT;\n"];
const CHARACTERS = Array.from('\b\t\n\v\f\r\x01\x1a\x1b\x7f\x85\u2028\ufeff€😀ä¥ソ表');

const anyText = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary', maxLength: 10 }).map((string) => string.replaceAll('\0', '')),
      fc.constantFrom(...SYNTAX, ...VARIABLES, ...LINES, ...CHARACTERS),
    ),
    { maxLength: 8 },
  )
  .map((parts) => parts.join(''));

const anyRow: fc.Arbitrary<Row> = fc.oneof(
  { weight: 20, arbitrary: fc.record({ type: anyText, stateKey: anyText, eventId: anyText }) },
  {
    weight: 1,
    // The index holds only keys that compress to 2.7 kB.
    arbitrary: fc
      .record({ part: anyText.filter((part) => part !== ''), eventId: anyText })
      .map(({ part, eventId }) => ({
        type: part,
        stateKey: part.repeat(LONG / part.length),
        eventId: eventId.padEnd(LONG, "\\'\n"),
      })),
  },
);

interface Session {
  readonly name: string;
  readonly settings: Readonly<Record<string, string>>;
}

const SESSIONS: readonly Session[] = [
  { name: 'by default', settings: {} },
  {
    name: 'with backslashes that escape in every literal',
    settings: { standard_conforming_strings: 'off', backslash_quote: 'off' },
  },
  { name: 'with LATIN1 as its encoding', settings: { client_encoding: 'LATIN1' } },
  { name: 'with SJIS as its encoding', settings: { client_encoding: 'SJIS' } },
];

for (const { name, settings } of SESSIONS) {
  for (const transactions of [false, true]) {
    const form = transactions ? 'guarded' : 'bare';
    test(`every text arrives as it was, ${form}, in a session ${name}`, async () => {
      for (const [setting, value] of Object.entries(settings)) {
        await db.query(`ALTER DATABASE ${db.name} SET ${setting} = '${value}'`);
      }
      try {
        await fc.assert(
          fc.asyncProperty(
            anyText,
            fc.array(anyRow, { minLength: 1, maxLength: 60 }),
            async (room, rows) => {
              for (const apply of hasPsql ? ['psql', 'query'] : ['query']) {
                await emptyTables();
                await insertGroups(room);
                await insertWanted(room, rows);
                const sql = sink(await copyText(), { room, transactions });
                if (apply === 'psql') {
                  const options = ['-v', 'ON_ERROR_STOP=1', '-v', 'type=evil'];
                  const { code, stderr } = await psql(db, sql, options);
                  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
                } else {
                  await oneQuery(sql);
                }
                assert.equal(await differences(), 0, apply);
              }
            },
          ),
          { numRuns: 6 },
        );
      } finally {
        await db.query(`ALTER DATABASE ${db.name} RESET ALL`);
      }
    });
  }
}

test('the statements of a bare change, and nothing for a group that stays', async () => {
  const stays = { oldPredecessor: 1, newPredecessor: 1, oldRows: 1, newRows: 1, change: undefined };
  const changed = {
    oldPredecessor: undefined,
    newPredecessor: 2,
    oldRows: 7,
    newRows: 2,
    change: {
      oldHash: 5n,
      newRowsHash: 0n,
      rows: Buffer.from("m.a\t\t$a\nm.b\tit's\\ttabbed\t$b\n"),
    },
  };
  const groups = Readable.from([
    [{ stateGroup: 2, ...stays }],
    [
      { stateGroup: 3, ...stays },
      { stateGroup: 4, ...changed },
    ],
  ]);
  const header = ['One', 'two\r\nlines'];
  const sql = await text(groups.pipe(sqlSink({ room: '!r:x', transactions: false, header })));
  assert.equal(
    sql,
    `-- One
-- two  lines

SET client_encoding = 'UTF8';
CREATE TEMPORARY TABLE IF NOT EXISTS pg_temp.synapse_compress_state_rows (type text, state_key text, event_id text);

WITH rows (type, state_key, event_id) AS (VALUES
('m.a', '', '$a'),
('m.b', E'it''s\\ttabbed', '$b')
),
there AS (SELECT FROM state_groups WHERE id IN (4, 2) HAVING count(*) = 2 AND (SELECT count(*) FROM rows) = 2), old_edges AS (DELETE FROM state_group_edges WHERE state_group = 4 AND prev_state_group <> 2 AND EXISTS (SELECT FROM there)),
new_edge AS (INSERT INTO state_group_edges (state_group, prev_state_group)
SELECT 4, 2 FROM there
WHERE NOT EXISTS (SELECT FROM state_group_edges WHERE state_group = 4 AND prev_state_group = 2)),
old_rows AS (DELETE FROM state_groups_state WHERE state_group = 4 AND EXISTS (SELECT FROM there) RETURNING *)
INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id) SELECT 4, '!r:x', type, state_key, event_id FROM there, rows;
`,
  );
});

for (const transactions of [false, true]) {
  const form = transactions ? 'guarded' : 'bare';

  for (const { what, rows, newPredecessor } of [
    { what: 'in full', rows: 'a\t\t$1\nb\t\t$2\n', newPredecessor: undefined },
    { what: 'as a delta', rows: 'b\t\t$2\n', newPredecessor: 1 },
    { what: 'as its predecessor is', rows: '', newPredecessor: 1 },
    { what: 'without state', rows: '', newPredecessor: undefined },
  ]) {
    test(`a ${form} change writes a group ${what}`, async () => {
      await insertGroups('!r:x');
      await oneQuery(sink(Buffer.from(rows), { transactions, newPredecessor }));

      const edges = await db.query<{ edge: string }>(
        "SELECT state_group || '>' || prev_state_group AS edge FROM state_group_edges",
      );
      assert.deepEqual(
        edges.rows.map(({ edge }) => edge),
        newPredecessor === undefined ? [] : ['2>1'],
      );
      const stored = db.copyOut(
        'SELECT type, state_key, event_id FROM state_groups_state ORDER BY type',
      );
      assert.equal(await text(stored), rows);
    });
  }

  for (const [gone, newPredecessor] of [
    [1, 1],
    [2, 1],
    [2, undefined],
  ]) {
    test(`a ${form} change to ${newPredecessor} leaves all as it is where group ${gone} is gone`, async () => {
      await insertGroups('!r:x');
      await db.query('INSERT INTO state_group_edges VALUES (2, 7)');
      await db.query(`INSERT INTO state_groups_state VALUES (2, '!r:x', 'a', '', '$0')`);
      await db.query(`DELETE FROM state_groups WHERE id = ${gone}`);
      const stored = async (): Promise<readonly unknown[]> => {
        const { rows } = await db.query(
          'SELECT * FROM state_group_edges FULL JOIN state_groups_state USING (state_group)',
        );
        return rows;
      };
      const asItWas = await stored();
      for (const rows of ['a\t\t$1\n', '', 'a\t\t$1\n'.repeat(3000)]) {
        await oneQuery(sink(Buffer.from(rows), { transactions, newPredecessor }));
        assert.deepEqual(await stored(), asItWas);
      }
    });
  }

  test(`${form} statements are of bounded size also where rows are long`, async () => {
    const long = 'x'.repeat(LONG);
    const rows = Buffer.from(`a\t\t${long}\n`.repeat(100));
    const sql = await text(sink(rows, { transactions }));
    const statements = sql.split(';\n').map(({ length }) => length);
    assert.ok(Math.max(...statements) < 2 ** 18 + 2 * LONG);
    assert.equal(sql.split(long).length, 101);
  });
}

test(
  'a large bare change leaves the group as it is where psql goes on after a list that failed',
  { skip: !hasPsql },
  async () => {
    await insertGroups('!r:x');
    await insertWanted('!r:x', [{ type: 'a', stateKey: '', eventId: '$0' }]);
    await db.query('INSERT INTO state_groups_state TABLE wanted');
    const whole = await text(sink(Buffer.from('a\t\t$1\n'.repeat(3000)), { newPredecessor: 1 }));
    const spoilt = whole.replace("VALUES\n('a'", 'VALUES\n(nothing');
    const { stderr } = await psql(db, Readable.from([spoilt]), []);
    assert.match(stderr, /ERROR: .* "nothing" /);
    assert.equal(await differences(), 0);
    assert.equal((await db.query('SELECT FROM state_group_edges')).rowCount, 0);
  },
);

test(
  'a bare change that lost any of its lines writes nothing, whether psql goes on or not',
  { skip: !hasPsql },
  async () => {
    const long = 'x'.repeat(200_000);
    for (const rows of ['a\t\t$1\nb\t\t$2\nc\t\t$3\n', `a\t\t$1\nb\t\t${long}\n`, '']) {
      const lines = (await text(sink(Buffer.from(rows), { newPredecessor: 1 }))).split('\n');
      // A line feed at the end, and what makes the session's own, are no changes.
      const first = lines.findIndex((line) => /^(WITH|TRUNCATE)/.test(line));
      for (let lost = first; lost < lines.length - 1; lost++) {
        await emptyTables();
        await insertGroups('!r:x');
        await db.query("INSERT INTO state_groups VALUES (0, '!r:x', '$0')");
        await db.query('INSERT INTO state_group_edges VALUES (2, 0)');
        await insertWanted('!r:x', [{ type: 'a', stateKey: '', eventId: '$0' }]);
        await db.query('INSERT INTO state_groups_state TABLE wanted');
        await psql(db, Readable.from([lines.toSpliced(lost, 1).join('\n')]), []);
        const { rows: edges } = await db.query(
          'SELECT prev_state_group::int FROM state_group_edges',
        );
        const isAsItWas = (await differences()) === 0 && edges.length === 1;
        const stored = await text(
          db.copyOut('SELECT type, state_key, event_id FROM state_groups_state ORDER BY type'),
        );
        const isAsPlanned = stored === rows && edges.length === 1;
        assert.ok(isAsItWas || isAsPlanned, `without ${lines[lost].slice(0, 100)}`);
      }
    }
  },
);

test(
  'bare changes go into one transaction of psql, or not at all',
  { skip: !hasPsql },
  async () => {
    await insertGroups('!r:x');
    const rows = Buffer.from('a\t\t$1\n');
    const options = ['-1', '-v', 'ON_ERROR_STOP=1'];
    const storedRows = async () =>
      (await db.query('SELECT FROM state_groups_state, state_group_edges')).rowCount;

    const whole = await text(sink(rows, { newPredecessor: 1 }));
    const cut = whole.slice(0, whole.lastIndexOf(';'));
    assert.notEqual((await psql(db, Readable.from([`${cut}\nnot SQL;\n`]), options)).code, 0);
    assert.equal(await storedRows(), 0);
    assert.deepEqual(await psql(db, Readable.from([whole]), options), {
      code: 0,
      stdout: '',
      stderr: '',
    });
    assert.equal(await storedRows(), 1);
  },
);

test('a large change comes in pieces, as it is asked for, and in statements of bounded size', async () => {
  const count = 200_000;
  await insertGroups('!r:x');
  await db.query(
    `INSERT INTO wanted
       SELECT 2, '!r:x', 'm.room.member', '@user' || i || ':example.org', '$' || md5(i::text)
       FROM generate_series(1, ${count}) AS i`,
  );
  const large = sink(await copyText(), { transactions: true });
  let held = 0;
  let statement = 0;
  let largestStatement = 0;
  const watched = Readable.from(
    (async function* () {
      for await (const piece of large as AsyncIterable<Buffer>) {
        held = Math.max(held, large.readableLength + piece.length);
        for (const [index, part] of piece.toString('latin1').split(';\n').entries()) {
          statement = part.length + (index === 0 ? statement : 0);
          largestStatement = Math.max(largestStatement, statement);
        }
        yield piece;
      }
    })(),
    { objectMode: false },
  );
  await oneQuery(watched);

  assert.equal(await differences(), 0);
  assert.ok(held < 2 ** 20, `${held} bytes were held`);
  assert.ok(largestStatement < 2 ** 17, `a statement has ${largestStatement} bytes`);
});
