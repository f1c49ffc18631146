import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apply, guardedSql, planChange, ROOM } from './support/guarded-change.js';
import type { Outcome } from './support/guarded-change.js';
import {
  ALL,
  expectPurged,
  MEETINGS,
  purgeGroups,
  purgeRoomSlowly,
  roomDatabase,
  run,
  Session,
} from './support/purges.js';
import { expectSameStates, readAllStates } from './support/states.js';

/** A guarded change of one group, in two steps: the group taken, and the rest. */
class Change {
  private constructor(
    readonly session: Session,
    readonly takes: string,
    readonly ends: string,
  ) {}

  static async of(
    session: Session,
    stateGroup: number,
    newPredecessor: number | undefined,
  ): Promise<Change> {
    const sql = await guardedSql([await planChange(session.db, stateGroup, newPredecessor)]);
    const begins = sql.indexOf('BEGIN ISOLATION');
    const taken = sql.indexOf('\n', sql.indexOf('\nCALL', begins) + 1);
    await session.query(sql.slice(0, begins));
    return new Change(session, sql.slice(begins, taken), sql.slice(taken));
  }

  async take(): Promise<readonly string[]> {
    const warnings: string[] = [];
    const note = ({ message = '' }): void => void warnings.push(message);
    this.session.client.on('notice', note);
    await this.session.query(this.takes);
    this.session.client.off('notice', note);
    return warnings;
  }

  async end(): Promise<Outcome> {
    return apply(this.session.client, this.ends);
  }
}

for (const { what, change, purge, purged } of MEETINGS) {
  test(`a purge of ${what} that comes after the change waits for it, and starts anew`, async (t) => {
    const db = await roomDatabase(t);
    const states = await readAllStates(db);
    const synapse = await Session.open(t, db);
    const ours = await Change.of(await Session.open(t, db), ...change);

    assert.deepEqual(await ours.take(), []);
    const purging = run(purge, synapse);
    await synapse.blocked(purging);
    assert.deepEqual(await ours.end(), { rewritten: 1, skipped: 0, warnings: [] });
    assert.equal(await purging, 2);
    await expectPurged(db, states, purged);
  });

  test(`a change that comes after a purge of ${what} waits for it, and leaves the group`, async (t) => {
    const db = await roomDatabase(t);
    const states = await readAllStates(db);
    const synapse = await Session.open(t, db);
    const ours = await Change.of(await Session.open(t, db), ...change);

    let taking: Promise<readonly string[]> | undefined;
    const attempts = await run(purge, synapse, async () => {
      taking = ours.take();
      await ours.session.blocked(taking);
    });
    assert.equal(attempts, 1);
    assert.match((await taking!).join(), /^State group \d+ was left as it is: could not serialize/);
    assert.deepEqual(await ours.end(), { rewritten: 0, skipped: 1, warnings: [] });
    await expectPurged(db, states, purged);
  });

  test(`a change that waits for a purge of ${what} goes on when that is given up`, async (t) => {
    const db = await roomDatabase(t);
    const states = await readAllStates(db);
    const synapse = await Session.open(t, db);
    const ours = await Change.of(await Session.open(t, db), ...change);

    const shutDown = new Error('Synapse is stopped');
    let taking: Promise<readonly string[]> | undefined;
    const purging = run(purge, synapse, async () => {
      taking = ours.take();
      await ours.session.blocked(taking);
      throw shutDown;
    });
    await assert.rejects(purging, shutDown);
    assert.deepEqual(await taking, []);
    assert.deepEqual(await ours.end(), { rewritten: 1, skipped: 0, warnings: [] });
    await expectPurged(db, states, []);
  });

  test(`a change that begins after a purge of ${what} leaves the group`, async (t) => {
    const db = await roomDatabase(t);
    const states = await readAllStates(db);
    const ours = await Change.of(await Session.open(t, db), ...change);
    await run(purge, await Session.open(t, db));

    assert.match((await ours.take()).join(), /^State group \d+ was left as it is: it/);
    assert.deepEqual(await ours.end(), { rewritten: 0, skipped: 1, warnings: [] });
    await expectPurged(db, states, purged);
  });
}

test('a purge of what a new predecessor is built on meets no lock', async (t) => {
  const db = await roomDatabase(t);
  const states = await readAllStates(db);
  const ours = await Change.of(await Session.open(t, db), 50, 20);
  assert.deepEqual(await ours.take(), []);
  assert.equal(await run(purgeGroups(5), await Session.open(t, db)), 1);
  assert.equal((await ours.end()).rewritten, 1);
  await expectPurged(db, states, [5]);
});

test('a deadlock with a purge of the room leaves nothing behind, whoever gives way', async (t) => {
  const db = await roomDatabase(t);
  const states = await readAllStates(db);
  const ours = await Change.of(await Session.open(t, db), 30, 20);
  let ending: Promise<Outcome> | undefined;
  const attempts = await run(purgeRoomSlowly, await Session.open(t, db), async () => {
    const taking = ours.take();
    ending = taking.then(() => ours.end());
    await ours.session.blocked(taking);
    // We wait for the edge, and the purge will for the group; Postgres ends one of the two.
  });
  const { rewritten, skipped } = await ending!;
  assert.deepEqual([attempts, rewritten, skipped], rewritten === 1 ? [2, 1, 0] : [1, 0, 1]);
  await expectPurged(db, states, ALL);
});

for (const { what, changes } of [
  { what: 'of one group', changes: [30, 30] },
  { what: 'on one predecessor', changes: [30, 50] },
]) {
  test(`of two changes ${what} the second waits, and leaves its group`, async (t) => {
    const db = await roomDatabase(t);
    const states = await readAllStates(db);
    const first = await Change.of(await Session.open(t, db), changes[0], 20);
    const second = await Change.of(await Session.open(t, db), changes[1], 20);

    assert.deepEqual(await first.take(), []);
    const taking = second.take();
    await second.session.blocked(taking);
    assert.equal((await first.end()).rewritten, 1);
    assert.match((await taking).join(), /^State group \d+ was left as it is: could not serialize/);
    assert.equal((await second.end()).skipped, 1);
    await expectPurged(db, states, []);
  });
}

test('a lock that another holds too long is not waited for, and the next group goes on', async (t) => {
  const db = await roomDatabase(t);
  const states = await readAllStates(db);
  const other = await Session.open(t, db);
  const ours = await Session.open(t, db);
  const changes = [await planChange(db, 30, 20), await planChange(db, 50, 10)];
  const sql = (await guardedSql(changes)).replace("lock_timeout = '10s'", "lock_timeout = '50ms'");

  await other.query('BEGIN');
  await other.query('SELECT FROM state_groups WHERE id = 20 FOR UPDATE');
  assert.deepEqual(await apply(ours.client, sql), {
    rewritten: 1,
    skipped: 1,
    warnings: ['State group 30 was left as it is: canceling statement due to lock timeout.'],
  });
  await other.query('COMMIT');
  await expectPurged(db, states, []);
});

test('the same edge from another that takes no locks is met with a skip', async (t) => {
  const db = await roomDatabase(t);
  const other = await Session.open(t, db);
  const ours = await Change.of(await Session.open(t, db), 50, 10);
  await other.query('BEGIN');
  await other.query('INSERT INTO state_group_edges VALUES (50, 10)');
  const taking = ours.take();
  await ours.session.blocked(taking);
  await other.query('COMMIT');
  assert.match((await taking).join(), /^State group 50 was left as it is: duplicate key value/);
  assert.equal((await ours.end()).skipped, 1);
});

test('Synapse builds new groups on both groups while they are taken', async (t) => {
  const db = await roomDatabase(t);
  const states = await readAllStates(db);
  const synapse = await Session.open(t, db);
  const ours = await Change.of(await Session.open(t, db), 30, 20);
  const lock = 'SELECT FROM state_groups WHERE id = ANY ($1) FOR KEY SHARE NOWAIT';

  // From before, meanwhile, and after, in one transaction with a snapshot from before.
  await synapse.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await synapse.query(lock, [[20]]);
  assert.deepEqual(await ours.take(), []);
  await synapse.query(lock, [[30]]);
  assert.equal((await ours.end()).rewritten, 1);
  await synapse.query(lock, [[20, 30]]);
  await synapse.query("INSERT INTO state_groups VALUES (80, $1, '$e')", [ROOM]);
  await synapse.query('INSERT INTO state_group_edges VALUES (80, 30)');
  await synapse.query('COMMIT');

  expectSameStates(await readAllStates(db), new Map(states).set(80, states.get(30)!));
});
