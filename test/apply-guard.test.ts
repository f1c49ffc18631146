import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import fc from 'fast-check';
import { Rewriter } from '../src/apply/rewriter.js';
import type { Outcome } from '../src/apply/rewriter.js';
import { DatabaseError } from '../src/errors.js';
import type { ChangedGroup } from '../src/planner/planned-group.js';
import {
  NOT_IN_ROOM,
  openRewriter,
  OTHER_ROWS,
  planChange,
  planRoom,
  privilegesToApply,
  ROOM,
  ROOM_GROUPS,
  SINCE,
  store,
  storedRoom,
  swallowWrites,
} from './support/guarded-change.js';
import type { TestDatabase } from './support/postgres.js';
import {
  ALL,
  expectPurged,
  MEETINGS,
  purgeRoomSlowly,
  roomDatabase,
  run,
  Session,
} from './support/purges.js';
import { expectSameStates, readAllStates } from './support/states.js';

async function storedOf(db: TestDatabase, group: number): Promise<string> {
  return text(
    db.copyOut(
      `SELECT type, event_id FROM state_groups_state WHERE state_group = ${group}
       UNION ALL SELECT 'edge', prev_state_group::text FROM state_group_edges WHERE state_group = ${group}
       ORDER BY 1, 2`,
    ),
  );
}

const reasonsOf = ({ skipped }: Outcome) =>
  skipped.map(({ stateGroup, reason }) => [stateGroup, reason]);

for (const { what, sql, skipped, reason } of SINCE) {
  test(`a group is left as it is, and the rest of its batch is not, when ${what}`, async (t) => {
    const db = await storedRoom(t);
    const changes = await planRoom(db);
    await db.query(sql);
    const states = await readAllStates(db);
    const stored = await storedOf(db, skipped);
    const rewriter = await openRewriter(t, db);

    const expected = await rewriter.inspect({ room: ROOM, changes });
    assert.equal(await storedOf(db, 3), 'edge\t2\nname\t$n\n', 'inspect is to change nothing');
    const outcome = await rewriter.rewrite({ room: ROOM, changes });
    assert.deepEqual(reasonsOf(outcome), [[skipped, reason]]);
    assert.equal(outcome.rewritten, 3);
    assert.deepEqual({ ...expected, seconds: 0 }, { ...outcome, seconds: 0, secondsGiven: 0 });
    assert.equal(await storedOf(db, skipped), stored);
    expectSameStates(await readAllStates(db), states);
  });
}

test('a predecessor that is not older is never taken', async (t) => {
  const db = await storedRoom(t);
  await store(db, [{ id: 7, rows: ['create/$c'] }]);
  const states = await readAllStates(db);
  const changes = [await planChange(db, 5, 5), await planChange(db, 6, 7)];
  const outcome = await (await openRewriter(t, db)).rewrite({ room: ROOM, changes });
  assert.deepEqual(reasonsOf(outcome), [
    [5, 'its new predecessor is not older'],
    [6, 'its new predecessor is not older'],
  ]);
  expectSameStates(await readAllStates(db), states);
});

test('a group that gets another predecessor is not taken for done because its rows stay', async (t) => {
  const groups = [
    { id: 1, rows: ['create/$c'] },
    { id: 2, predecessor: 1, rows: ['topic/$t1'] },
    { id: 3, predecessor: 2, rows: ['topic/$t2'] },
  ];
  const db = await storedRoom(t, { groups });
  const batch = { room: ROOM, changes: [await planChange(db, 3, 1)] };
  const rewriter = await openRewriter(t, db);
  assert.equal((await rewriter.rewrite(batch)).rewritten, 1);
  assert.equal(await storedOf(db, 3), 'edge\t1\ntopic\t$t2\n');
  assert.equal((await rewriter.rewrite(batch)).alreadyDone, 1);
});

test('groups of another room than the batch is of are left as they are', async (t) => {
  const db = await storedRoom(t);
  const changes = await planRoom(db);
  const outcome = await (
    await openRewriter(t, db)
  ).rewrite({ room: '!other:example.org', changes });
  assert.deepEqual(
    reasonsOf(outcome),
    changes.map(({ stateGroup }) => [stateGroup, NOT_IN_ROOM]),
  );
});

/** Rows that are not what was planned, as a damaged file has them. */
const DAMAGES: Readonly<Record<string, (rows: string) => string>> = {
  'a row is missing': (rows) => rows.replace(/^.*\n/, ''),
  'a row is there twice': (rows) => rows + rows,
  'an event is another': (rows) => rows.replace('$', '$x'),
  'a key is another': (rows) => rows.replace('\t', '\tx'),
};

for (const [what, damage] of Object.entries(DAMAGES)) {
  test(`a group is left as it is when of its new rows ${what}`, async (t) => {
    const db = await storedRoom(t);
    const states = await readAllStates(db);
    const changes = (await planRoom(db)).map((group): ChangedGroup =>
      group.stateGroup === 4
        ? {
            ...group,
            change: { ...group.change, rows: Buffer.from(damage(String(group.change.rows))) },
          }
        : group,
    );
    const outcome = await (await openRewriter(t, db)).rewrite({ room: ROOM, changes });
    assert.deepEqual(reasonsOf(outcome), [[4, 'its new rows did not arrive as they were planned']]);
    assert.equal(outcome.rewritten, 3);
    expectSameStates(await readAllStates(db), states);
  });
}

for (const newPredecessor of [undefined, 1, 3]) {
  test(`a group is left as it is when its new predecessor became ${newPredecessor} on the way`, async (t) => {
    const db = await storedRoom(t);
    const states = await readAllStates(db);
    const changes = (await planRoom(db)).map((group) =>
      group.stateGroup === 4 ? { ...group, newPredecessor } : group,
    );
    const outcome = await (await openRewriter(t, db)).rewrite({ room: ROOM, changes });
    assert.deepEqual(reasonsOf(outcome), [[4, OTHER_ROWS]]);
    assert.equal(outcome.rewritten, 3);
    expectSameStates(await readAllStates(db), states);
  });
}

for (const [event, table] of [
  ['INSERT', 'state_groups_state'],
  ['DELETE', 'state_groups_state'],
  ['INSERT', 'state_group_edges'],
  ['DELETE', 'state_group_edges'],
  ['UPDATE', 'state_groups'],
]) {
  test(`a trigger that swallows each ${event} of ${table} is noticed, and nothing is changed`, async (t) => {
    const db = await storedRoom(t);
    await swallowWrites(db, event, table);
    const [states, stored] = [await readAllStates(db), await storedOf(db, 4)];
    const rewriter = await openRewriter(t, db);
    await assert.rejects(rewriter.rewrite({ room: ROOM, changes: await planRoom(db) }), {
      name: DatabaseError.name,
      message: /(was not|were) (inserted|deleted|written): a trigger or a rule is in the way/,
    });
    assert.equal(await storedOf(db, 4), stored);
    expectSameStates(await readAllStates(db), states);
  });
}

test('any part of the changes, in any order and batches, leaves every state as it was', async (t) => {
  const db = await storedRoom(t);
  const states = await readAllStates(db);
  const changes = await planRoom(db);
  const rewriter = await openRewriter(t, db);
  const batches = fc
    .shuffledSubarray(changes, { minLength: 1 })
    .chain((some) => fc.tuple(fc.constant(some), fc.integer({ min: 1, max: some.length })));
  await fc.assert(
    fc.asyncProperty(fc.array(batches, { minLength: 1, maxLength: 3 }), async (parts) => {
      await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
      await store(db, ROOM_GROUPS);
      for (const [some, size] of parts) {
        for (let at = 0; at < some.length; at += size) {
          const outcome = await rewriter.rewrite({
            room: ROOM,
            changes: some.slice(at, at + size),
          });
          assert.deepEqual(outcome.skipped, []);
        }
      }
      expectSameStates(await readAllStates(db), states);
    }),
    { numRuns: 30 },
  );
});

for (const { what, change, purge, purged } of MEETINGS) {
  test(`a purge of ${what} that comes after a batch waits for it, and starts anew`, async (t) => {
    const db = await roomDatabase(t);
    const states = await readAllStates(db);
    const synapse = await Session.open(t, db);
    const changes = [await planChange(db, ...change)];
    const rewriter = await openRewriter(t, db);

    let purging: Promise<number> | undefined;
    const outcome = await rewriter.rewrite({ room: ROOM, changes }, async () => {
      purging = run(purge, synapse);
      await synapse.blocked(purging);
    });
    assert.equal(outcome.rewritten, 1);
    assert.equal(await purging, 2);
    await expectPurged(db, states, purged);
  });

  test(`a batch that meets a purge of ${what} is done again after it, and leaves the group`, async (t) => {
    const db = await roomDatabase(t);
    const states = await readAllStates(db);
    const synapse = await Session.open(t, db);
    const changes = [await planChange(db, ...change)];
    const rewriter = await openRewriter(t, db);

    let rewriting: Promise<Outcome> | undefined;
    const attempts = await run(purge, synapse, async () => {
      rewriting = rewriter.rewrite({ room: ROOM, changes });
      await waitsForLock(db, rewriting);
    });
    assert.equal(attempts, 1);
    const { rewritten, alreadyDone, skipped } = await rewriting!;
    // A purge that wrote the group in full may have done what was planned.
    assert.deepEqual([rewritten, alreadyDone + skipped.length], [0, 1]);
    await expectPurged(db, states, purged);
  });
}

/** Waits until the rewriter waits for a lock. */
async function waitsForLock(db: TestDatabase, work: Promise<unknown>): Promise<void> {
  let ended = false;
  const end = () => (ended = true);
  work.then(end, end);
  for (;;) {
    const { rowCount } = await db.query(
      "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'synapse_compress_state' AND wait_event_type = 'Lock'",
    );
    if (rowCount === 1) return;
    assert.ok(!ended, 'it was to wait for a lock');
  }
}

test('a deadlock with a purge of the room leaves nothing behind, whoever gives way', async (t) => {
  const db = await roomDatabase(t);
  const states = await readAllStates(db);
  const changes = [await planChange(db, 30, 20)];
  const rewriter = await openRewriter(t, db);
  let rewriting: Promise<Outcome> | undefined;
  await run(purgeRoomSlowly, await Session.open(t, db), async () => {
    rewriting = rewriter.rewrite({ room: ROOM, changes });
    await waitsForLock(db, rewriting);
  });
  await rewriting;
  await expectPurged(db, states, ALL);
});

test('of a batch, only the groups are skipped that another keeps locked', async (t) => {
  const db = await roomDatabase(t);
  const states = await readAllStates(db);
  const other = await Session.open(t, db);
  const changes = [await planChange(db, 30, 20), await planChange(db, 50, 10)];
  const rewriter = await openRewriter(t, db);

  await other.query('BEGIN');
  await other.query('SELECT FROM state_groups WHERE id = 20 FOR UPDATE');
  const outcome = await rewriter.rewrite({ room: ROOM, changes });
  assert.deepEqual(reasonsOf(outcome), [[30, 'canceling statement due to lock timeout']]);
  assert.equal(outcome.rewritten, 1);
  await other.query('COMMIT');
  await expectPurged(db, states, []);
});

test('a batch in whose way an edge is, is begun three times as a whole and then in halves', async (t) => {
  const db = await storedRoom(t);
  const states = await readAllStates(db);
  // What a sequence has counted stays when the rest is rolled back.
  await db.query(`
    CREATE SEQUENCE attempts;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
      AS $$ BEGIN PERFORM nextval('attempts'); RAISE unique_violation; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON state_group_edges
      FOR EACH ROW WHEN (new.state_group = 4) EXECUTE FUNCTION refuse()`);
  const changes = await planRoom(db);
  const outcome = await (await openRewriter(t, db)).rewrite({ room: ROOM, changes });
  assert.deepEqual([outcome.rewritten, outcome.blocked], [3, 1]);
  assert.deepEqual(reasonsOf(outcome), [[4, 'unique_violation']]);
  // The fourth time it is the batch, its first half, and the group.
  const { rows } = await db.query('SELECT last_value::int AS attempts FROM attempts');
  assert.deepEqual(rows, [{ attempts: 6 }]);
  expectSameStates(await readAllStates(db), states);
});

test('a role needs these privileges, each of them, and no others', async (t) => {
  const db = await storedRoom(t);
  const changes = await planRoom(db);
  await db.query(
    'INSERT INTO state_groups_pending_deletion (state_group, insertion_ts) VALUES (99, 1)',
  );
  const role = `role_${randomUUID().replaceAll('-', '')}`;
  const privileges = privilegesToApply(db);
  await db.query(`
    CREATE ROLE ${role} LOGIN PASSWORD 'secret';
    REVOKE ALL ON DATABASE ${db.name} FROM PUBLIC;
    GRANT CONNECT ON DATABASE ${db.name} TO ${role};
    REVOKE ALL ON SCHEMA public FROM PUBLIC`);
  for (const privilege of privileges) await db.query(`GRANT ${privilege} TO ${role}`);
  const url = new URL(db.url);
  url.username = role;
  url.password = 'secret';
  const rewrite = async (): Promise<Outcome> => {
    const rewriter = await Rewriter.open({ dsn: url.href, env: {} });
    try {
      return await rewriter.rewrite({ room: ROOM, changes });
    } finally {
      await rewriter.close();
    }
  };
  try {
    for (const privilege of privileges) {
      await db.query(`REVOKE ${privilege} FROM ${role}`);
      await assert.rejects(rewrite(), (error: Error) => {
        assert.ok(error instanceof DatabaseError, privilege);
        assert.match(error.message, /It needs TEMPORARY on the database|in the schemas that user/);
        return true;
      });
      await db.query(`GRANT ${privilege} TO ${role}`);
    }
    assert.equal((await rewrite()).rewritten, 4);
  } finally {
    await db.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  }
});
