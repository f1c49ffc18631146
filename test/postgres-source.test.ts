import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { inspect } from 'node:util';
import { DatabaseError, InputError, RoomNotFoundError } from '../src/errors.js';
import { FROZEN, IN_RANGE, NO_PREDECESSOR, PENDING } from '../src/sources/group-table.js';
import {
  ALL_GROUPS,
  ALL_ROWS,
  EDGES_IN_ORDER,
  edgesOfRoom,
  groupsOfRoom,
  ROW_COLUMNS,
} from '../src/sources/postgres/check-statements.js';
import pg from 'pg';
import { openPostgresRooms } from '../src/sources/postgres/postgres-rooms.js';
import { openPostgresSource } from '../src/sources/postgres/postgres-source.js';
import {
  ANCESTORS,
  DESCENDANTS,
  beginStatement,
  edgesStatement,
  edgesToStatement,
  fewEdgesStatement,
  GROUPS_PER_STATEMENT,
  groupsStatement,
  rowsStatement,
  SET_UP,
} from '../src/sources/postgres/statements.js';
import type { GroupRange } from '../src/sources/group-range.js';
import type { RoomSource } from '../src/sources/room-source.js';
import { testDatabase, testPostgres } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';

const ROOM = '!room:example.com';
const OTHER = '!other:example.com';
/** More than two statements' worth. */
const GROUPS = 2 * GROUPS_PER_STATEMENT + 500;
const ROWS_PER_GROUP = 5;

/** Over the socket, whose buffers are small and whose server wants no password. */
function socketDsn({ address, name }: TestDatabase, user = address.user): string {
  return `host=${address.socketDirectory} port=${address.port} dbname=${name} user=${user}`;
}

function open(
  db: TestDatabase,
  range: GroupRange = {},
  {
    room = ROOM,
    dsn = socketDsn(db),
    signal,
  }: { room?: string; dsn?: string; signal?: AbortSignal } = {},
): Promise<RoomSource> {
  return openPostgresSource({ dsn, env: {}, room, range, signal });
}

/** Opens, lets the test look, and closes. */
async function withSource(
  t: TestContext,
  db: TestDatabase,
  range: GroupRange = {},
  room = ROOM,
): Promise<RoomSource> {
  const source = await open(db, range, { room });
  t.after(() => source.close());
  return source;
}

async function addGroups(
  db: TestDatabase,
  groups: readonly (readonly [number, string])[],
  edges: readonly (readonly [number, number])[],
): Promise<void> {
  for (const [id, room] of groups) {
    await db.query('INSERT INTO state_groups VALUES ($1, $2, $3)', [id, room, `$${id}`]);
  }
  for (const edge of edges) {
    await db.query('INSERT INTO state_group_edges VALUES ($1, $2)', [...edge]);
  }
}

/** Every row of the groups, as the simplest statement gives it. */
async function storedRows(db: TestDatabase, ids: Iterable<number>): Promise<Buffer> {
  return buffer(
    db.copyOut(
      `SELECT state_group, type, state_key, event_id FROM state_groups_state
       WHERE state_group = ANY ('{${[...ids].join(',')}}') ORDER BY state_group, type, state_key`,
    ),
  );
}

/** A room of GROUPS groups with edges, every `share`th of all; the rest belongs to another room. */
async function fill(db: TestDatabase, share: number, groups: number): Promise<void> {
  const total = groups * share;
  await db.query(`
    INSERT INTO state_groups
      SELECT id, CASE WHEN id % ${share} = 0 THEN '${ROOM}' ELSE '${OTHER}' END, '$' || id
      FROM generate_series(1, ${total}) AS id;
    INSERT INTO state_group_edges
      SELECT id, id - ${share} FROM generate_series(1, ${total}) AS id WHERE id > ${share};
    INSERT INTO state_groups_state
      SELECT id, '', 'm.room.member', '@' || md5((id * n)::text) || ':example.com', '$' || md5(id::text)
      FROM generate_series(1, ${total}) AS id, generate_series(1, ${ROWS_PER_GROUP}) AS n;`);
}

/** Asks the server again and again, until the answer is what is waited for. */
async function until(
  db: TestDatabase,
  query: string,
  isSo: (rows: Readonly<Record<string, unknown>>[]) => boolean,
): Promise<void> {
  const giveUp = AbortSignal.timeout(60_000);
  for (;;) {
    const { rows } = await db.query(query);
    if (isSo(rows)) return;
    assert.ok(!giveUp.aborted, `${query} still gives ${inspect(rows)}`);
  }
}

const OUR_SESSIONS = `SELECT pid, wait_event FROM pg_stat_activity
  WHERE datname = current_database() AND application_name = 'synapse_compress_state'`;

/** Waits until the server has ended all our sessions in a database. */
async function sessionsEnded(db: TestDatabase): Promise<void> {
  await until(db, OUR_SESSIONS, (sessions) => sessions.length === 0);
}

async function firstChunk(rows: Readable): Promise<void> {
  await once(rows, 'readable');
  assert.ok(rows.read() !== null);
}

for (const schema of ['synapse', 'synapse-before-1.124'] as const) {
  test(`a room of ${schema} is read whole: headers, and rows in order`, async (t) => {
    const db = await testDatabase(t, schema);
    // The order of insertion is not the order of ids.
    await addGroups(
      db,
      [7, 3, 1, 5].map((id) => [id, ROOM]),
      [
        [7, 3],
        [3, 1],
        [5, 3],
      ],
    );
    await addGroups(db, [[4, OTHER]], [[4, 1]]);
    const values = [
      [7, 'm.room.name', '', '$a'],
      [3, 'm.room.topic', 'tab\tline\nback\\slash', '$b'],
      [3, 'm.room.member', "it's $$ 🎉", '$c'],
      [5, 'm.room.member', '@b:x', '$d'],
      [5, 'm.room.member', '@a:x', '$e'],
      [4, 'm.room.member', '@a:x', '$f'],
    ];
    for (const [group, type, key, event] of values) {
      await db.query('INSERT INTO state_groups_state VALUES ($1, $2, $3, $4, $5)', [
        group,
        ROOM,
        type,
        key,
        event,
      ]);
    }
    const source = await withSource(t, db);
    assert.equal(source.room, ROOM);
    assert.deepEqual([...source.groups.ids], [1, 3, 5, 7]);
    assert.deepEqual([...source.groups.prev], [NO_PREDECESSOR, 0, 1, 1]);
    assert.deepEqual([...source.groups.successors], [1, 2, 0, 0]);
    assert.deepEqual([...source.groups.flags], [IN_RANGE, IN_RANGE, IN_RANGE, IN_RANGE]);
    assert.deepEqual(source.groups.irregularities, []);
    assert.deepEqual(source.warnings, []);
    assert.equal(source.rowColumns, 'without-room');
    assert.equal(
      await text(source.rows()),
      [
        "3\tm.room.member\tit's $$ 🎉\t$c\n",
        '3\tm.room.topic\ttab\\tline\\nback\\\\slash\t$b\n',
        '5\tm.room.member\t@a:x\t$e\n',
        '5\tm.room.member\t@b:x\t$d\n',
        '7\tm.room.name\t\t$a\n',
      ].join(''),
    );
  });
}

test('all is read as it was when the source was opened', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, 10);
  const expected = await storedRows(
    db,
    Array.from({ length: 10 }, (_, i) => i + 1),
  );
  const { rows: earlier } = await db.query<{ now: Date }>('SELECT clock_timestamp() AS now');
  const source = await withSource(t, db);
  await db.query('DELETE FROM state_group_edges');
  await db.query('DELETE FROM state_groups_state WHERE state_group > 3');
  const { rows: later } = await db.query<{ now: Date }>('SELECT clock_timestamp() AS now');
  assert.deepEqual(await buffer(source.rows()), expected);
  const time = source.snapshotTime!.getTime();
  assert.ok(earlier[0].now.getTime() <= time && time <= later[0].now.getTime());
});

describe('a range', () => {
  let db: TestDatabase;
  before(async () => {
    db = await (await testPostgres()).createDatabase({ schema: 'synapse' });
    await fill(db, 2, 20);
  });
  after(() => db.drop());

  // The room's groups are 2, 4 … 40 in one line.
  for (const [range, first, last] of [
    [{}, 2, 40],
    [{ minStateGroup: 10 }, 12, 40],
    [{ minStateGroup: 11 }, 12, 40],
    [{ maxStateGroup: 10 }, 2, 10],
    [{ minStateGroup: 10, maxStateGroup: 20 }, 12, 20],
    [{ groupsToCompress: 3 }, 2, 6],
    [{ minStateGroup: 10, groupsToCompress: 3 }, 12, 16],
    [{ minStateGroup: 10, maxStateGroup: 14, groupsToCompress: 9 }, 12, 14],
  ] as const) {
    test(`${inspect(range)} has its groups in range and their ancestors besides`, async (t) => {
      const source = await withSource(t, db, range);
      const { ids, flags } = source.groups;
      const expected = Array.from({ length: last / 2 }, (_, i) => 2 * (i + 1));
      assert.deepEqual([...ids], expected);
      assert.deepEqual(
        [...flags],
        expected.map((id) => (id >= first ? IN_RANGE : 0)),
      );
      assert.deepEqual(await buffer(source.rows()), await storedRows(db, ids));
    });
  }

  test('without groups, or of an unknown room, says which', async () => {
    for (const [range, room, message] of [
      [
        { minStateGroup: 40 },
        ROOM,
        /None of the 20 state groups of room '!room:example\.com', from 2 to 40, is above 40\.$/,
      ],
      [{ minStateGroup: 12, maxStateGroup: 13 }, ROOM, /is above 12 and up to 13\.$/],
      [{}, "!it's:nowhere\\", /holds no state groups of room '!it's:nowhere\\'/],
    ] as const) {
      await assert.rejects(open(db, range, { room }), { name: RoomNotFoundError.name, message });
    }
    await sessionsEnded(db);
  });
});

test('the first groups are found however far apart they are, among those of other rooms', async (t) => {
  const db = await testDatabase(t);
  const ids = [0, 1, 2, 4, 70, 71, 5_000, 5_002, 1_000_000, 1_000_001, 2 ** 41, 2 ** 53 - 1];
  await addGroups(
    db,
    ids.flatMap((id): [number, string][] => [
      [id, ROOM],
      [id - 1000, OTHER],
    ]),
    [],
  );
  for (const minStateGroup of [undefined, -5000, 1, 3, 5_001, 2 ** 41]) {
    for (const maxStateGroup of [undefined, 71, 900_000, 2 ** 53 - 1]) {
      for (const groupsToCompress of [1, 2, 5, 100]) {
        const expected = ids
          .filter((id) => id > (minStateGroup ?? -Infinity) && id <= (maxStateGroup ?? Infinity))
          .slice(0, groupsToCompress);
        if (expected.length === 0) continue;
        const source = await withSource(t, db, {
          groupsToCompress,
          ...(minStateGroup !== undefined && { minStateGroup }),
          ...(maxStateGroup !== undefined && { maxStateGroup }),
        });
        assert.deepEqual([...source.groups.ids], expected);
        await source.close();
      }
    }
  }
});

test('ancestors are followed into other rooms, missing groups, and circles', async (t) => {
  const db = await testDatabase(t);
  await addGroups(
    db,
    [
      [10, ROOM],
      [20, ROOM],
      [25, ROOM],
      [30, ROOM],
      [4, OTHER],
      [6, OTHER],
      [50, OTHER],
    ],
    [
      [30, 25],
      [25, 20],
      [20, 6], // of another room
      [6, 5], // no such group
      [5, 4],
      [4, 10], // back into the room, below the range, by a larger predecessor
      [10, 4], // a circle
      [50, 30], // another room's, that nobody needs
    ],
  );
  // The range begins behind the one that they lead back to.
  const source = await withSource(t, db, { minStateGroup: 10 });
  const { groups } = source;
  assert.deepEqual([...groups.ids], [4, 5, 6, 10, 20, 25, 30]);
  assert.deepEqual(
    groups.irregularities.map(({ kind, examples }) => [kind, examples]),
    [
      ['larger-predecessor', [4]],
      ['own-ancestor', [4, 10]],
      ['missing-group', [5]],
      ['other-room', [4, 6]],
    ],
  );
  assert.equal(source.warnings.length, 4);
  assert.match(source.warnings[0], /^State group 4 has a predecessor with a larger id/);
  assert.deepEqual(
    [...groups.ids].filter((_, index) => (groups.flags[index] & IN_RANGE) !== 0),
    [20, 25, 30],
  );
});

test('what an irregular group out of range reads through is frozen', async (t) => {
  const db = await testDatabase(t);
  await addGroups(
    db,
    [
      ...[10, 11, 12, 20, 21, 40, 41].map((id) => [id, ROOM] as const),
      [30, OTHER],
      [31, OTHER],
      [50, OTHER],
      [51, OTHER],
    ],
    [
      [11, 10],
      [12, 11],
      [21, 20],
      [41, 40],
      [30, 11], // another room's on ours, and
      [31, 30],
      [31, 29], // its successor, which has a second predecessor
      [19, 20], // of no room, on a larger one
      [50, 40], // regular ones, which have no say
      [51, 50],
    ],
  );
  for (const range of [{}, { maxStateGroup: 21 }]) {
    const { ids, flags, irregularities } = (await withSource(t, db, range)).groups;
    assert.deepEqual(irregularities, []);
    const frozen = [...ids].filter((_, index) => (flags[index] & FROZEN) !== 0);
    assert.deepEqual(frozen, [10, 11, 20]);
    assert.ok(ids.includes(12));
  }
});

test('headers are the same whether all edges are read or those of the groups are looked up', async (t) => {
  const db = await testDatabase(t);
  // Edges of all kinds, also from and to groups of another room and of none.
  await db.query(`
    INSERT INTO state_groups SELECT i, CASE i % 10 WHEN 0 THEN '${OTHER}' ELSE '${ROOM}' END, '$' || i
      FROM generate_series(1, 1000) AS i;
    INSERT INTO state_group_edges SELECT i, i - 1 - i % 7 FROM generate_series(9, 1010) AS i;
    INSERT INTO state_group_edges SELECT i, i / 3 FROM generate_series(100, 1000, 90) AS i;
    INSERT INTO state_group_edges VALUES (500, 700), (2000, 600), (601, 3000)`);
  const read = async (range: GroupRange) => {
    const source = await open(db, range);
    await source.close();
    const { groups } = source;
    const inRange = groups.flags.reduce((sum, flags) => sum + (flags & IN_RANGE), 0);
    const { rows } = await db.query<{ answer: boolean }>(fewEdgesStatement(inRange));
    return { groups, isWhole: rows[0].answer };
  };
  const ranges: GroupRange[] = [{}, { minStateGroup: 300, maxStateGroup: 900 }];
  const whole = [];
  for (const range of ranges) whole.push(await read(range));
  await db.query(
    'INSERT INTO state_group_edges SELECT i, i - 1 FROM generate_series(10001, 40000) AS i',
  );
  for (const [n, range] of ranges.entries()) {
    const lookedUp = await read(range);
    assert.deepEqual([whole[n].isWhole, lookedUp.isWhole], [true, false]);
    assert.deepEqual(lookedUp.groups, whole[n].groups);
  }
  assert.ok(whole[0].groups.irregularities.length > 3);
});

test('what Synapse is about to delete is marked, ancestors out of range as well', async (t) => {
  const db = await testDatabase(t);
  await addGroups(
    db,
    [...[1, 2, 3, 4].map((id) => [id, ROOM] as const), [5, OTHER]],
    [
      [2, 1],
      [4, 3],
    ],
  );
  await db.query(
    'INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) VALUES (1, 0), (4, 0), (5, 0), (9, 0)',
  );
  const { groups, warnings } = await withSource(t, db, { minStateGroup: 1 });
  assert.deepEqual([...groups.ids], [1, 2, 3, 4]);
  const marked = [...groups.ids].filter((_, index) => (groups.flags[index] & PENDING) !== 0);
  assert.deepEqual(marked, [1, 4]);
  assert.deepEqual(warnings, [
    '2 state groups (1, 4) are marked for deletion by Synapse. They stay as they are, and no other groups are based on them anew.',
  ]);
});

test('of groups that stand out of range on one in range the longest chain is counted', async (t) => {
  const db = await testDatabase(t);
  await addGroups(
    db,
    [...[1, 2, 3, 4, 5, 6, 7].map((id) => [id, ROOM] as const), [8, OTHER]],
    [
      [2, 1],
      [3, 2],
      [4, 3],
      [5, 4],
      [6, 3],
      [7, 2],
      [8, 5],
    ],
  );
  for (const [range, hanging] of [
    [{ maxStateGroup: 3 }, [0, 1, 2]],
    [{ minStateGroup: 1, groupsToCompress: 1 }, [0, 3]],
  ] as const) {
    assert.deepEqual([...(await withSource(t, db, range)).groups.hanging], hanging);
  }
});

test('a chain of thousands of ancestors out of range is walked', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, 5000);
  const source = await withSource(t, db, { minStateGroup: 4990, groupsToCompress: 5 });
  assert.deepEqual(
    [...source.groups.ids],
    Array.from({ length: 4995 }, (_, i) => i + 1),
  );
  assert.equal(source.groups.flags.filter((flags) => flags === IN_RANGE).length, 5);
});

test('ids that are no numbers here are named, wherever they stand, and end no other room', async (t) => {
  const large = '9007199254740993';
  const nullable = 'ALTER TABLE state_group_edges ALTER prev_state_group DROP NOT NULL';
  for (const [statement, named] of [
    [`INSERT INTO state_groups VALUES (${large}, '${ROOM}', '$')`, large],
    [`INSERT INTO state_group_edges VALUES (2, ${large})`, large],
    [`INSERT INTO state_group_edges VALUES (1, ${large})`, large],
    [`${nullable}; INSERT INTO state_group_edges VALUES (2, NULL)`, String.raw`\N`],
  ]) {
    const db = await testDatabase(t);
    await addGroups(
      db,
      [
        [1, ROOM],
        [2, ROOM],
        [3, OTHER],
      ],
      [[2, 1]],
    );
    await db.query(statement);
    const isNamed = (error: unknown): boolean =>
      error instanceof InputError && error.message.includes(`a state group ${named}.`);
    await assert.rejects(open(db, { minStateGroup: 1 }), isNamed);
    const other = await openPostgresSource({ dsn: db.url, env: {}, room: OTHER, range: {} });
    assert.deepEqual([...other.groups.ids], [3]);
    await other.close();
    const all = await openPostgresRooms({ dsn: db.url, env: {} });
    for await (const room of all.rooms()) {
      if (room.name === ROOM) await assert.rejects(room.open(), isNamed);
      else await (await room.open()).close();
    }
    await all.close();
    await sessionsEnded(db);
  }
});

interface Plan {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly Plans?: readonly Plan[];
}

/** What a plan may be made of: walks of indexes, and what feeds them. */
const WALKS = new Set([
  'Append',
  'CTE Scan',
  'Function Scan',
  'Index Only Scan',
  'Index Scan',
  'Nested Loop',
  'ProjectSet',
  'Recursive Union',
  'Result',
  'Subquery Scan',
  'WorkTable Scan',
]);

function nodesOf(plan: Plan): Plan[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];
}

async function planOf(
  db: TestDatabase,
  statement: string,
  values: readonly unknown[],
): Promise<readonly Plan[]> {
  const { rows } = await db.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
    `EXPLAIN (FORMAT JSON) ${statement}`,
    [...values],
  );
  return nodesOf(rows[0]['QUERY PLAN'][0].Plan);
}

describe('the server', () => {
  for (const [share, groups] of [
    [1, GROUPS],
    [100, 300],
  ] as const) {
    describe(`with a room of ${100 / share} % of its table`, () => {
      let db: TestDatabase;
      before(async () => {
        db = await (await testPostgres()).createDatabase({ schema: 'synapse' });
        await fill(db, share, groups);
      });
      after(() => db.drop());

      async function assertWalks(): Promise<void> {
        const ids = Float64Array.from(
          { length: Math.min(groups, GROUPS_PER_STATEMENT) },
          (_, i) => share * (i + 1),
        );
        await db.query(beginStatement([]));
        await db.query(SET_UP);
        const missing = `{${ids.subarray(0, 50).join(',')}}`;
        for (const [statement, values] of [
          [groupsStatement(ROOM, undefined, undefined), []],
          [groupsStatement(ROOM, 100, 5000), []],
          [edgesStatement(ids), []],
          [edgesToStatement(ids), []],
          [rowsStatement(ids), []],
          [ANCESTORS, [missing, ROOM, '1000', '100000']],
          [DESCENDANTS, [missing, ROOM, '1000', '100000']],
          [groupsOfRoom(ROOM), []],
          [edgesOfRoom(ROOM), []],
          [rowsStatement(ids, ROW_COLUMNS), []],
          [ALL_GROUPS, []],
          [EDGES_IN_ORDER, []],
          [ALL_ROWS, []],
        ] as const) {
          const nodes = await planOf(db, statement, values);
          const wrong = nodes.filter((node) => !WALKS.has(node['Node Type']));
          assert.deepEqual(wrong, [], statement.slice(0, 200));
          assert.ok(nodes.some((node) => node['Relation Name'] !== undefined));
        }
        await db.query('COMMIT');
      }

      test('walks indexes, with statistics and without', async () => {
        await assertWalks();
        await db.query('ANALYZE');
        await assertWalks();
      });

      test('writes no temporary files while the room is read in order', async (t) => {
        const source = await withSource(t, db);
        assert.equal(source.groups.length, groups);
        const rows = await buffer(source.rows());
        // A session's counts are complete when it has ended.
        await sessionsEnded(db);
        const { rows: counts } = await db.query<{ temp_files: string }>(
          'SELECT temp_files FROM pg_stat_database WHERE datname = current_database()',
        );
        assert.deepEqual(counts, [{ temp_files: '0' }]);
        assert.ok(rows.equals(await storedRows(db, source.groups.ids)));
      });
    });
  }
});

test('a table that another writes anew is waited for before the snapshot is taken', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, 200);
  const other = new pg.Client({ connectionString: db.url });
  // The database goes first, and takes the connection with it.
  other.on('error', () => {});
  await other.connect();
  await other.query(
    'BEGIN; CREATE TEMPORARY TABLE edges AS TABLE state_group_edges; TRUNCATE state_group_edges; INSERT INTO state_group_edges TABLE edges',
  );
  const opening = withSource(t, db);
  await until(db, OUR_SESSIONS, ([session]) => session?.['wait_event'] === 'relation');
  await other.query('COMMIT');
  const { groups } = await opening;
  assert.deepEqual(
    [groups.length, groups.successors.reduce((sum, count) => sum + count, 0)],
    [200, 199],
  );
});

test('edges and groups are joined by a hash where the index on predecessors is missing', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, GROUPS);
  const ids = Float64Array.from({ length: GROUPS }, (_, i) => i + 1);
  const isHashed = async (): Promise<boolean> => {
    await db.query(beginStatement([]));
    await db.query(SET_UP);
    const nodes = await planOf(db, edgesToStatement(ids), []);
    await db.query('COMMIT');
    return nodes.some((node) => node['Node Type'] === 'Hash Join');
  };
  assert.equal(await isHashed(), false);
  await db.query('DROP INDEX state_group_edges_prev_idx');
  assert.equal(await isHashed(), true);
  const source = await withSource(t, db);
  assert.equal(source.groups.length, GROUPS);
});

test('the socket is not read while nobody reads the rows', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, GROUPS);
  const source = await withSource(t, db);
  const rows = source.rows();
  await firstChunk(rows);
  await until(db, OUR_SESSIONS, ([session]) => session['wait_event'] === 'ClientWrite');
  assert.ok(rows.readableLength < 256 * 1024, `${rows.readableLength} bytes`);
  let bytes = 0;
  for await (const chunk of rows as AsyncIterable<Buffer>) bytes += chunk.length;
  assert.ok(bytes > GROUPS * ROWS_PER_GROUP * 50);
});

test('the transaction and the connection end with the last row, before close()', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, 10);
  const source = await withSource(t, db);
  await buffer(source.rows());
  await sessionsEnded(db);
  await Promise.all([source.close(), source.close()]);
});

test('whoever leaves early leaves no session: before the rows, among them, by a signal', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, GROUPS);
  const unread = await open(db);
  await Promise.all([unread.close(), unread.close()]);
  await sessionsEnded(db);

  const destroyed = await open(db);
  const rows = destroyed.rows();
  await firstChunk(rows);
  rows.destroy();
  await sessionsEnded(db);
  await destroyed.close();

  const closed = await open(db);
  const failing = closed.rows();
  await firstChunk(failing);
  const failed = once(failing, 'error');
  await closed.close();
  assert.ok((await failed)[0] instanceof DatabaseError);
  await sessionsEnded(db);

  const controller = new AbortController();
  const stopped = await open(db, {}, { signal: controller.signal });
  const reading = buffer(stopped.rows());
  controller.abort();
  await assert.rejects(reading, { name: 'AbortError' });
  await sessionsEnded(db);
  await stopped.close();

  const reason = new Error('stopped');
  await assert.rejects(open(db, {}, { signal: AbortSignal.abort(reason) }), reason);
  await sessionsEnded(db);
});

const WAITING = `SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database
  WHERE datname = current_database() AND NOT granted`;

test('a signal while headers are read ends the session', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, 10);
  // Holds up the source at its first table.
  await db.query('BEGIN; LOCK TABLE state_groups IN ACCESS EXCLUSIVE MODE');
  const controller = new AbortController();
  const reason = new Error('stopped');
  const opened = open(db, {}, { signal: controller.signal });
  const refused = assert.rejects(opened, reason);
  await until(db, WAITING, (sessions) => sessions.length > 0);
  controller.abort(reason);
  await refused;
  await db.query('COMMIT');
  await sessionsEnded(db);
});

test('a connection that is lost midway says how far the rows came', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, GROUPS);
  const source = await withSource(t, db);
  const rows = source.rows();
  await firstChunk(rows);
  // It may fail before the rest is asked for.
  rows.on('error', () => {});
  await db.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'synapse_compress_state'`,
  );
  await assert.rejects(buffer(rows), (error) => {
    assert.ok(error instanceof DatabaseError, inspect(error));
    assert.match(error.message, /lost while the rows after state group \d+ were read/);
    const [, group] = /group (\d+)/.exec(error.message)!;
    assert.ok(Number(group) >= 1 && Number(group) <= GROUPS);
    return true;
  });
  await source.close();
});

test('a server that ends the session while headers are read is told so', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, 10);
  await db.query('BEGIN; LOCK TABLE state_groups IN ACCESS EXCLUSIVE MODE');
  const refused = assert.rejects(open(db), {
    name: DatabaseError.name,
    message:
      /connection to the database was lost while the state groups of room '!room:example\.com'/,
  });
  await until(
    db,
    `SELECT pg_terminate_backend(pid) FROM (${WAITING}) AS waiting`,
    ({ length }) => length > 0,
  );
  await refused;
  await db.query('COMMIT');
});

test('tables that are missing, hidden, or without their index are named', async (t) => {
  const empty = await testDatabase(t, 'none');
  await assert.rejects(open(empty), {
    name: DatabaseError.name,
    message:
      /has no tables state_groups, state_group_edges and state_groups_state in the schemas that user postgres searches \(public\).*Synapse's state database/,
  });

  const db = await testDatabase(t);
  await fill(db, 1, 3);
  await db.query('ALTER TABLE state_group_edges RENAME TO edges');
  await assert.rejects(open(db), { message: /has no table state_group_edges in the schemas/ });
  await db.query('ALTER TABLE edges RENAME TO state_group_edges');

  await db.query('DROP INDEX state_groups_state_type_idx');
  await assert.rejects(open(db), {
    message: /CREATE INDEX ON state_groups_state \(state_group, type, state_key\);/,
  });
  await db.query('CREATE INDEX ON state_groups_state (state_group, type, state_key)');

  await db.query('ALTER SCHEMA public RENAME TO synapse');
  const dsn = `${socketDsn(db)} options='-c search_path=synapse'`;
  await assert.rejects(open(db), { message: /user postgres searches \(none\)/ });
  const source = await open(db, {}, { dsn });
  assert.equal(source.groups.length, 3);
  await source.close();
  for (const each of [empty, db]) await sessionsEnded(each);
});

test('a user who may not read a table is told which, and what to grant', async (t) => {
  const db = await testDatabase(t);
  await fill(db, 1, 3);
  const role = `reader_${db.name}`;
  await db.query(`CREATE ROLE ${role} LOGIN`);
  await db.query(`GRANT SELECT ON state_groups TO ${role}`);
  const dsn = socketDsn(db, role);
  await assert.rejects(open(db, {}, { dsn }), {
    name: DatabaseError.name,
    message: new RegExp(`GRANT SELECT ON state_group_edges, state_groups_state TO ${role};`),
  });
  await db.query(`GRANT SELECT ON state_group_edges, state_groups_state TO ${role}`);
  const source = await open(db, {}, { dsn });
  assert.equal((await storedRows(db, source.groups.ids)).compare(await buffer(source.rows())), 0);
  await source.close();

  await db.query('ALTER TABLE state_groups_state ENABLE ROW LEVEL SECURITY');
  await db.query('CREATE POLICY few ON state_groups_state USING (state_group < 3)');
  const hidden = await open(db, {}, { dsn });
  await assert.rejects(buffer(hidden.rows()), {
    name: DatabaseError.name,
    message: /row-level security policy for table "state_groups_state"/,
  });
  await hidden.close();
  await db.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
});
