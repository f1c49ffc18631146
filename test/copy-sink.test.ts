import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { test } from 'node:test';
import fc from 'fast-check';
import { Rewriter } from '../src/apply/rewriter.js';
import { idsHash } from '../src/planner/ids-hash.js';
import type { ChangedGroup, PlannedGroup } from '../src/planner/planned-group.js';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { RoomPlan } from '../src/planner/room-plan.js';
import { rowLines } from '../src/sinks/batch-text.js';
import { copySink } from '../src/sinks/copy.js';
import type { CopySettings } from '../src/sinks/copy.js';
import { PIECE } from '../src/sinks/output-writer.js';
import { BEGIN_BATCH } from '../src/sinks/rewrite-procedure.js';
import { openPostgresSource } from '../src/sources/postgres/postgres-source.js';
import { loadTables } from './support/fixtures.js';
import { planRoom, ROOM, ROOM_GROUPS, store, storeManyGroups } from './support/guarded-change.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql, psql } from './support/psql.js';
import { expectSameStates, readAllStates } from './support/states.js';

const skip = !hasPsql && 'there is no psql';

function script(
  changes: readonly PlannedGroup[],
  settings: Partial<CopySettings> = {},
): Promise<string> {
  const sink = copySink({ room: ROOM, header: ['made by hand'], ...settings });
  return text(Readable.from([changes]).pipe(sink));
}

async function edges(db: TestDatabase): Promise<string> {
  return text(db.copyOut('SELECT * FROM state_group_edges ORDER BY 1, 2'));
}

const NEW_EDGES = '2\t1\n3\t1\n4\t2\n5\t3\n';

for (const schema of ['synapse', 'synapse-before-1.124'] as const) {
  test(
    `psql applies the script once, and a second time nothing (${schema})`,
    { skip },
    async (t) => {
      const db = await testDatabase(t, schema);
      await store(db, ROOM_GROUPS);
      const states = await readAllStates(db);
      const sql = await script(await planRoom(db));

      for (const counts of ['4|0|0\n', '0|4|0\n']) {
        assert.deepEqual(await psql(db, Readable.from([sql]), ['-tA']), {
          code: 0,
          stdout: counts,
          stderr: '',
        });
        assert.equal(await edges(db), NEW_EDGES);
        expectSameStates(await readAllStates(db), states);
      }
    },
  );
}

const PSQL_OPTIONS = [[], ['-1'], ['-v', 'AUTOCOMMIT=off'], ['-v', 'ON_ERROR_ROLLBACK=on']];

for (const options of PSQL_OPTIONS) {
  for (const batch of [1, 3, 500]) {
    const how = `psql ${options.join(' ')}, ${batch} groups at once,`;
    test(`${how} goes on after a group that is left`, { skip }, async (t) => {
      const db = await testDatabase(t);
      await store(db, ROOM_GROUPS);
      const sql = await script(await planRoom(db), { batch });
      await db.query("DELETE FROM state_groups_state WHERE state_group = 4 AND type = 'topic'");
      const states = await readAllStates(db);

      const { code, stdout, stderr } = await psql(db, Readable.from([sql]), ['-tA', ...options]);
      assert.deepEqual([code, stdout], [0, '3|0|1\n']);
      assert.match(stderr, /NOTICE: {2}State group 4 was left as it is: its rows are not what was/);
      assert.doesNotMatch(stderr, /ERROR/);
      assert.equal(await edges(db), '2\t1\n3\t1\n4\t3\n5\t3\n');
      expectSameStates(await readAllStates(db), states);
    });
  }

  test(
    `psql ${options.join(' ')} breaks no group, wherever the script is cut off`,
    { skip },
    async (t) => {
      const db = await testDatabase(t);
      await store(db, ROOM_GROUPS);
      const states = await readAllStates(db);
      const sql = await script(await planRoom(db), { batch: 2 });
      const begin = sql.indexOf('\nBEGIN;\nCOPY');
      const lines = [...sql.matchAll(/\n/g)]
        .map(({ index }) => index)
        .filter((end) => end >= begin);
      const cut = fc.oneof(
        fc.integer({ min: begin, max: sql.length }),
        fc.constantFrom(...lines),
        fc.constantFrom(...lines.map((end) => end + 1)),
      );
      await fc.assert(
        // The second begins where the first was cut off, as a file does that is written over.
        fc.asyncProperty(cut, fc.boolean(), async (end, again) => {
          await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
          await store(db, ROOM_GROUPS);
          await psql(db, Readable.from([sql.slice(0, end), again ? sql : '']), options);
          expectSameStates(await readAllStates(db), states);
        }),
        { numRuns: 40 },
      );
    },
  );
}

test('nothing is rewritten at an isolation at which a purge could go on', { skip }, async (t) => {
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const before = await edges(db);
  const sql = (await script(await planRoom(db))).replace(BEGIN_BATCH, 'BEGIN');
  const { code, stderr } = await psql(db, Readable.from([sql]), []);
  assert.notEqual(code, 0);
  assert.match(stderr, /State groups are rewritten at REPEATABLE READ, not at read committed/);
  assert.equal(await edges(db), before);
});

test('scripts of several rooms are one script', { skip }, async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const states = await readAllStates(db);
  const { rows: rooms } = await db.query<{ room: string }>(
    'SELECT DISTINCT room_id AS room FROM state_groups',
  );
  const scripts: Buffer[] = [];
  for (const { room } of rooms) {
    const source = await openPostgresSource({ dsn: db.url, env: {}, room, range: {} });
    const plan = source.rows().pipe(new RoomPlan(source, new AdaptivePlanner()));
    scripts.push(await buffer(plan.pipe(copySink({ room, header: [] }))));
  }
  const { code, stdout, stderr } = await psql(db, Readable.from(scripts), ['-tA']);
  assert.deepEqual([code, stderr], [0, '']);
  assert.match(stdout, /^(\d+\|0\|0\n)+$/);
  expectSameStates(await readAllStates(db), states);
});

test('nothing is written where nothing changes', async () => {
  const group = { stateGroup: 2, oldPredecessor: 1, newPredecessor: 1, oldRows: 3, newRows: 3 };
  assert.equal(await script([{ ...group, change: undefined }]), '');
});

/** What psql or COPY could take for its own; as COPY text. */
const STRANGE = [
  String.raw`\\.`,
  String.raw`\\N`,
  String.raw`\b\f\n\r\t\v\\`,
  String.raw`\n\\.\n`,
  String.raw`\nCOMMIT;\n`,
  `'"`,
  '$$ :type -- ; $procedure$',
  '\u2028\ufeff€😀',
  '\x01\x7f',
];

for (const way of ['psql', 'Rewriter'] as const) {
  test(`strange texts arrive as they are, also in a large group (${way})`, async (t) => {
    if (way === 'psql' && skip !== false) return t.skip(skip);
    const db = await testDatabase(t);
    const room = "!it's:a\\room";
    const lines = Array.from(
      { length: 30_000 },
      (_, i) => `${STRANGE[i % STRANGE.length]}\t${i}${STRANGE[(i * 7) % STRANGE.length]}\t$${i}\n`,
    );
    await db.query("INSERT INTO state_groups VALUES (1, $1, '$e'), (2, $1, '$e')", [room]);
    await db.query('CREATE TABLE wanted (type text, state_key text, event_id text)');
    await db.copyIn('wanted', Readable.from(lines));
    const { rows: hashes } = await db.query<{ hash: string }>(
      'SELECT sum(hashtextextended(event_id, hashtextextended(state_key, hashtextextended(type, 0)))) AS hash FROM wanted',
    );
    const group: ChangedGroup = {
      stateGroup: 2,
      oldPredecessor: undefined,
      newPredecessor: 1,
      oldRows: 0,
      newRows: lines.length,
      change: {
        oldHash: idsHash(2, undefined, 1),
        newRowsHash: BigInt(hashes[0].hash),
        rows: Buffer.from(lines.join('')),
      },
    };
    if (way === 'psql') {
      const { code, stderr } = await psql(db, Readable.from([await script([group], { room })]), [
        '-v',
        'type=evil',
      ]);
      assert.deepEqual([code, stderr], [0, '']);
    } else {
      const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
      assert.equal((await rewriter.rewrite({ room, changes: [group] })).rewritten, 1);
      await rewriter.close();
    }
    const { rows: differing } = await db.query(
      `(TABLE wanted EXCEPT ALL SELECT type, state_key, event_id FROM state_groups_state WHERE room_id = $1)
       UNION ALL (SELECT type, state_key, event_id FROM state_groups_state EXCEPT ALL TABLE wanted)`,
      [room],
    );
    assert.deepEqual(differing, []);
    assert.equal(await edges(db), '2\t1\n');
  });
}

test('rows are whole wherever a piece of them ends', () => {
  for (let left = 0; left < 40; left++) {
    const rows = ['x'.repeat(PIECE - left - 20), '$1', '$2'].map(
      (event) => `type\tkey\t${event}\n`,
    );
    const change = { oldHash: 0n, newRowsHash: 0n, rows: Buffer.from(rows.join('')) };
    const ids = { stateGroup: 1234567, oldPredecessor: undefined, newPredecessor: undefined };
    const pieces = [...rowLines([{ ...ids, oldRows: 0, newRows: 3, change }])];
    assert.equal(Buffer.concat(pieces).toString(), rows.map((row) => `1234567\t${row}`).join(''));
  }
});

test('a large group goes out in pieces', async () => {
  const rows = Buffer.from('m.room.member\t@someone:example.org\t$event\n'.repeat(50_000));
  const group: ChangedGroup = {
    stateGroup: 2,
    oldPredecessor: undefined,
    newPredecessor: undefined,
    oldRows: 0,
    newRows: 50_000,
    change: { oldHash: 0n, newRowsHash: 0n, rows },
  };
  const sink = Readable.from([[group]]).pipe(copySink({ room: ROOM, header: [] }));
  let largest = 0;
  let all = 0;
  for await (const piece of sink as AsyncIterable<Buffer>) {
    largest = Math.max(largest, piece.length);
    all += piece.length;
  }
  assert.ok(all > rows.length);
  // What waits in a stream comes as one chunk.
  assert.ok(largest < 1024 * 1024, `${largest}`);
});

test('no more is read than the groups have, also where nothing is known of the tables', async (t) => {
  const db = await testDatabase(t);
  const changes = await storeManyGroups(db);
  const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
  // The counts of a transaction are seen within it.
  let read: { relname: string; tuples: string }[] = [];
  const { rewritten } = await rewriter.rewrite({ room: ROOM, changes }, async (client) => {
    ({ rows: read } = await client.query<{ relname: string; tuples: string }>(
      `SELECT relname, pg_stat_get_xact_tuples_returned(oid) AS tuples FROM pg_class
       WHERE relname IN ('state_groups', 'state_group_edges', 'state_groups_state', 'state_groups_pending_deletion')`,
    ));
  });
  await rewriter.close();
  assert.equal(rewritten, 20);
  assert.equal(read.length, 4);
  for (const { relname, tuples } of read) {
    assert.ok(Number(tuples) <= 20 * 10, `${tuples} rows of ${relname} were read for 20 groups`);
  }
});

test('hundreds of small batches of a session leave its temporary tables small', async (t) => {
  const db = await testDatabase(t);
  await store(db, ROOM_GROUPS);
  const sql = await script(await planRoom(db));
  const setUp = sql.slice(sql.indexOf('BEGIN;'), sql.indexOf('\nBEGIN;\nCOPY'));
  await db.query(setUp);
  for (let batch = 0; batch < 300; batch++) {
    await db.query(`
      INSERT INTO pg_temp.synapse_compress_state_changes SELECT id, NULL, NULL, 1, 1, 1, 1
        FROM generate_series(${batch * 10}, ${batch * 10 + 9}) AS id;
      INSERT INTO pg_temp.synapse_compress_state_rows SELECT 1, 't', '', repeat('e', 100)
        FROM generate_series(1, 20)`);
    await db.query(
      "BEGIN ISOLATION LEVEL REPEATABLE READ; CALL pg_temp.rewrite_state_groups('!a', true); COMMIT",
    );
  }
  const { rows: tables } = await db.query<{ bytes: string; left: string }>(`
    SELECT pg_total_relation_size('pg_temp.synapse_compress_state_rows')
      + pg_total_relation_size('pg_temp.synapse_compress_state_changes') AS bytes,
      (SELECT count(*) FROM pg_temp.synapse_compress_state_rows) AS left`);
  assert.equal(Number(tables[0].left), 0);
  assert.ok(Number(tables[0].bytes) < 300 * 1024, tables[0].bytes);
});
