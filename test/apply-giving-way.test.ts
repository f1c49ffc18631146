import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type pg from 'pg';
import { Rewriter } from '../src/apply/rewriter.js';
import type { Outcome } from '../src/apply/rewriter.js';
import type { ChangedGroup } from '../src/planner/planned-group.js';
import { copySink } from '../src/sinks/copy.js';
import {
  openRewriter,
  planChange,
  privilegesToApply,
  ROOM,
  storedRoom,
} from './support/guarded-change.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql, psql } from './support/psql.js';
import {
  ALL,
  expectPurged,
  purgeGroups,
  purgeRoomOfManyRows,
  purgeRoomSlowly,
  roomDatabase,
  run,
  Session,
} from './support/purges.js';
import { readAllStates } from './support/states.js';

/** Groups that all batches build on, so that a purge of one of them meets each batch. */
const BASES = 8;
const BATCHES = 60;
/** How long a batch is in the way at least, and how long Synapse takes between two statements. */
const BATCH_SECONDS = 0.05;
const SYNAPSE_MS = 3;
/** Between two purges, longer than a batch gives way for nothing. */
const PURGE_EVERY_MS = 300;

async function roomToCompress(t: TestContext): Promise<[TestDatabase, ChangedGroup[][]]> {
  const db = await storedRoom(t, { groups: [] });
  await db.query(`
    INSERT INTO state_groups SELECT i, '${ROOM}', '$e' FROM generate_series(1, ${BASES * (BATCHES + 1)}) AS i;
    INSERT INTO state_groups_state
      SELECT id, '${ROOM}', 'key' || key, '', CASE key WHEN 1 THEN '$own' || id ELSE '$e' || key END
      FROM state_groups, generate_series(1, 5) AS key`);
  const batches: ChangedGroup[][] = [];
  for (let first = BASES + 1; batches.length < BATCHES; first += BASES) {
    const batch: ChangedGroup[] = [];
    for (let base = 1; base <= BASES; base++) {
      batch.push(await planChange(db, first + base - 1, base));
    }
    batches.push(batch);
  }
  return [db, batches];
}

async function slowly(client: pg.ClientBase): Promise<void> {
  await client.query(`SELECT pg_sleep(${BATCH_SECONDS})`);
}

/** Purges one base after the other while we write, as Synapse does: at once again, five times. */
async function purgeBases(
  t: TestContext,
  db: TestDatabase,
  work: Promise<unknown>,
): Promise<{ attempts: number[]; purged: number[]; givenUp: number }> {
  let ended = false;
  const end = () => (ended = true);
  work.then(end, end);
  const synapse = await Session.open(t, db);
  const query = synapse.query.bind(synapse);
  synapse.query = async (...statement) => {
    await setTimeout(SYNAPSE_MS);
    return query(...statement);
  };
  const result = { attempts: [] as number[], purged: [] as number[], givenUp: 0 };
  for (let base = 1; base <= BASES; base++) {
    if (ended) break;
    try {
      result.attempts.push(await run(purgeGroups(base), synapse));
      result.purged.push(base);
    } catch (error) {
      assert.match(String(error), /could not serialize|deadlock/);
      result.givenUp++;
    }
    await setTimeout(PURGE_EVERY_MS);
  }
  await work;
  t.diagnostic(`${result.attempts.join(', ')} tries of purges; ${result.givenUp} given up`);
  return result;
}

test('purges that meet batch after batch go first, and none is given up', async (t) => {
  const [db, batches] = await roomToCompress(t);
  const states = await readAllStates(db);
  const rewriter = await openRewriter(t, db);
  let rewritten = 0;
  const work = (async () => {
    for (const changes of batches) {
      ({ rewritten } = await rewriter.rewrite({ room: ROOM, changes }, slowly));
    }
  })();
  const { attempts, purged, givenUp } = await purgeBases(t, db, work);
  assert.equal(givenUp, 0);
  assert.ok(attempts.some((tries) => tries > 1));
  await expectPurged(db, states, purged);
  assert.equal(rewritten, BASES - purged.length);
});

test(
  'purges that meet the batches of a copy script go first as well',
  { skip: !hasPsql },
  async (t) => {
    const [db, batches] = await roomToCompress(t);
    const states = await readAllStates(db);
    const sink = copySink({ room: ROOM, header: [], batch: BASES });
    const script = (await text(Readable.from(batches).pipe(sink))).replaceAll(
      '\nCALL pg_temp.note_who_goes_first();',
      `\nSELECT pg_sleep(${BATCH_SECONDS});$&`,
    );
    const work = psql(db, Readable.from([script]), ['-At']);
    const { attempts, purged, givenUp } = await purgeBases(t, db, work);
    assert.equal(givenUp, 0);
    assert.ok(attempts.some((tries) => tries > 1));
    await expectPurged(db, states, purged);
    const { stdout, stderr } = await work;
    assert.match(stdout, /^[1-9]\d*\|0\|\d+$/m, stderr);
  },
);

for (const way of ['rewriter', 'copy script'] as const) {
  test(
    `the purge of a room that takes longer than a batch goes first, beside the ${way}`,
    { skip: way === 'copy script' && !hasPsql },
    async (t) => {
      const [db, batches] = await roomToCompress(t);
      const states = await readAllStates(db);
      const rewriter = await openRewriter(t, db);
      const byRewriter = async (): Promise<void> => {
        for (const changes of batches) await rewriter.rewrite({ room: ROOM, changes }, slowly);
      };
      const byScript = async (): Promise<void> => {
        const sink = copySink({ room: ROOM, header: [], batch: BASES });
        const script = (await text(Readable.from(batches).pipe(sink))).replaceAll(
          '\nCALL pg_temp.note_who_goes_first();',
          `\nSELECT pg_sleep(${BATCH_SECONDS});$&`,
        );
        await psql(db, Readable.from([script]), ['-At']);
      };
      let hasEnded = false;
      const work = (way === 'rewriter' ? byRewriter() : byScript()).then(() => (hasEnded = true));
      const synapse = await Session.open(t, db);
      const attempts = await run(purgeRoomOfManyRows, synapse);
      t.diagnostic(`${attempts} tries`);
      assert.ok(!hasEnded, 'the purge was to meet all batches');
      await work;
      await expectPurged(db, states, [...states.keys()]);
    },
  );
}

test('who was waited for in vain is not waited for again until it writes no more', async (t) => {
  const [db, batches] = await roomToCompress(t);
  const rewriter = await openRewriter(t, db);
  // So it waits for half a second, not ten.
  await rewriter.query("SET statement_timeout = '1s'");
  const other = await Session.open(t, db);
  const noted: number[] = [];
  const rewriteNext = async (): Promise<void> => {
    await rewriter.rewrite({ room: ROOM, changes: batches[noted.length] });
    const [{ first }] = await rewriter.query<{ first: number }>(
      "SELECT cardinality(current_setting('synapse_compress_state.first')::text[]) AS first",
    );
    noted.push(first);
  };
  const write = (seconds: number): Promise<unknown> =>
    other.query(`INSERT INTO state_groups VALUES (${9000 + noted.length}, '!other:example.org', '$e');
      SELECT pg_sleep(${seconds})`);
  const begun = other.query('BEGIN').then(() => write(4));
  await setTimeout(200);
  for (let batch = 0; batch < 3; batch++) await rewriteNext();
  await begun;
  await other.query('COMMIT');
  await rewriteNext();
  const again = write(1);
  await setTimeout(200);
  await rewriteNext();
  await again;
  assert.deepEqual(noted, [1, 0, 0, 0, 1]);
});

test('a long purge of the room that is in the way of a batch is not ended by it', async (t) => {
  const db = await roomDatabase(t);
  const states = await readAllStates(db);
  const changes = [await planChange(db, 30, 20)];
  const rewriter = await openRewriter(t, db);
  const synapse = await Session.open(t, db);
  let rewriting: Promise<Outcome> | undefined;
  const attempts = await run(purgeRoomSlowly, synapse, async () => {
    rewriting = rewriter.rewrite({ room: ROOM, changes });
    // Longer than our batch waits for the edges; the groups are still to be deleted.
    await synapse.query('SELECT pg_sleep(6.5)');
  });
  assert.equal(attempts, 1);
  assert.equal((await rewriting!).skipped.length, 1);
  await expectPurged(db, states, ALL);
});

test('a user who may not see locks lets nobody go first, and writes', async (t) => {
  const [db, [changes]] = await roomToCompress(t);
  const role = `role_${randomUUID().replaceAll('-', '')}`;
  await db.query(`
    CREATE ROLE ${role} LOGIN PASSWORD 'secret';
    REVOKE SELECT ON pg_locks FROM PUBLIC`);
  try {
    for (const privilege of privilegesToApply(db)) {
      await db.query(`GRANT ${privilege} TO ${role}`);
    }
    const url = new URL(db.url);
    url.username = role;
    url.password = 'secret';
    const rewriter = await Rewriter.open({ dsn: url.href, env: {} });
    t.after(() => rewriter.close());
    const synapse = await Session.open(t, db);
    let purging: Promise<number> | undefined;
    const { rewritten } = await rewriter.rewrite({ room: ROOM, changes }, async () => {
      purging = run(purgeGroups(1), synapse);
      await synapse.blocked(purging);
    });
    assert.equal(rewritten, BASES);
    assert.equal(await purging, 2);
    await rewriter.close();
  } finally {
    await db.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  }
});
