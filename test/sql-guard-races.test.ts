import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import pg from 'pg';
import { apply, guardedSql, planChange, ROOM, store } from './support/guarded-change.js';
import type { Outcome, StoredGroup } from './support/guarded-change.js';
import { testPostgres } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { expectSameStates, readAllStates } from './support/states.js';

/** Group 30 is to move; 40 is built on it. 60 and 70 have no state, and nothing stored but themselves. */
const ROOM_GROUPS: readonly StoredGroup[] = [
  { id: 5, rows: ['create/$c', 'member/$a'] },
  { id: 10, predecessor: 5, rows: ['topic/$t0'] },
  { id: 20, predecessor: 5, rows: ['topic/$t1'] },
  { id: 30, predecessor: 10, rows: ['name/$n'] },
  { id: 40, predecessor: 30, rows: ['topic/$t2'] },
  { id: 50, rows: ['create/$c', 'member/$a', 'topic/$t3'] },
  { id: 60, rows: [] },
  { id: 70, rows: [] },
];

async function roomDatabase(t: TestContext): Promise<TestDatabase> {
  const db = await (await testPostgres()).createDatabase({ schema: 'synapse' });
  t.after(() => db.drop());
  await store(db, ROOM_GROUPS);
  return db;
}

class Session {
  #pid = 0;

  private constructor(
    readonly client: pg.Client,
    readonly db: TestDatabase,
  ) {}

  static async open(t: TestContext, db: TestDatabase): Promise<Session> {
    const client = new pg.Client(db.url);
    const session = new Session(client, db);
    await client.connect();
    // The database goes first, and takes the connection with it.
    client.on('error', () => {});
    t.after(() => client.end());
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    session.#pid = rows[0].pid;
    return session;
  }

  async query(sql: string, values?: unknown[]): Promise<pg.QueryResult> {
    return this.client.query(sql, values);
  }

  /** Waits until this session waits for a lock; fails if what it does ends before that. */
  async blocked(work: Promise<unknown>): Promise<void> {
    let ended = false;
    const end = () => (ended = true);
    work.then(end, end);
    for (;;) {
      const { rowCount } = await this.db.query(
        "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
        [this.#pid],
      );
      if (rowCount === 1) return;
      assert.ok(!ended, 'it was to wait for a lock');
    }
  }
}

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

/** The statements of a purge, and between two of them what else happens meanwhile. */
type Purge = (session: Session, meanwhile: () => Promise<void>) => Promise<void>;

/** Deletes groups as Synapse 1.124 does: their children that stay get all of their state first. */
function purgeGroups(...groups: readonly number[]): Purge {
  return async (session, meanwhile) => {
    await session.query('SELECT FROM state_groups WHERE id = ANY ($1) FOR UPDATE', [groups]);
    const children = await session.query(
      `SELECT state_group FROM state_group_edges
       WHERE prev_state_group = ANY ($1) AND state_group <> ALL ($1)`,
      [groups],
    );
    for (const { state_group: child } of children.rows as { state_group: string }[]) {
      const state = await session.query(STATE, [child]);
      await session.query('DELETE FROM state_groups_state WHERE state_group = $1', [child]);
      await session.query('DELETE FROM state_group_edges WHERE state_group = $1', [child]);
      for (const { type, event_id } of state.rows as { type: string; event_id: string }[]) {
        await session.query("INSERT INTO state_groups_state VALUES ($1, $2, $3, '', $4)", [
          child,
          ROOM,
          type,
          event_id,
        ]);
      }
    }
    await session.query('DELETE FROM state_groups_state WHERE state_group = ANY ($1)', [groups]);
    await session.query('DELETE FROM state_group_edges WHERE state_group = ANY ($1)', [groups]);
    await session.query('DELETE FROM state_groups WHERE id = ANY ($1)', [groups]);
    await meanwhile();
  };
}

const STATE = `
  WITH RECURSIVE chain (member) AS (
    VALUES ($1::bigint)
    UNION SELECT prev_state_group FROM chain JOIN state_group_edges ON state_group = member
  )
  SELECT DISTINCT ON (type) type, event_id FROM chain JOIN state_groups_state ON state_group = member
  ORDER BY type, member DESC`;

const EDGES_OF_ROOM = `DELETE FROM state_group_edges
  WHERE state_group IN (SELECT id FROM state_groups WHERE room_id = $1)`;
const ROWS_OF_ROOM = `DELETE FROM state_groups_state
  WHERE state_group IN (SELECT id FROM state_groups WHERE room_id = $1)`;
const GROUPS_OF_ROOM = 'DELETE FROM state_groups WHERE room_id = $1';

const purgeRoom: Purge = async (session, meanwhile) => {
  await session.query(EDGES_OF_ROOM, [ROOM]);
  await session.query(ROWS_OF_ROOM, [ROOM]);
  await session.query(GROUPS_OF_ROOM, [ROOM]);
  await meanwhile();
};

/** Lets the other come to the group's edge before the groups are deleted. */
const purgeRoomSlowly: Purge = async (session, meanwhile) => {
  await session.query(EDGES_OF_ROOM, [ROOM]);
  await meanwhile();
  await session.query(ROWS_OF_ROOM, [ROOM]);
  await session.query(GROUPS_OF_ROOM, [ROOM]);
};

const CONFLICTS = new Set(['40001', '40P01']);

/** Runs a purge as Synapse runs its transactions: again after a conflict, five times. Resolves to the attempts. */
async function run(
  purge: Purge,
  session: Session,
  meanwhile: () => Promise<void> = async () => {},
): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    try {
      await session.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await purge(session, attempt === 1 ? meanwhile : async () => {});
      await session.query('COMMIT');
      return attempt;
    } catch (error) {
      await session.query('ROLLBACK');
      if (attempt > 5 || !CONFLICTS.has((error as pg.DatabaseError).code ?? '')) throw error;
    }
  }
}

/** Fails unless the purged groups are gone entirely, and all others have the states they had. */
async function expectPurged(
  db: TestDatabase,
  states: ReadonlyMap<number, string>,
  purged: readonly number[],
): Promise<void> {
  const { rows: left } = await db.query(
    `SELECT id FROM state_groups WHERE id = ANY ($1)
     UNION ALL SELECT state_group FROM state_groups_state WHERE state_group = ANY ($1)
     UNION ALL SELECT state_group FROM state_group_edges
       WHERE state_group = ANY ($1) OR prev_state_group = ANY ($1)`,
    [purged],
  );
  assert.deepEqual(left, []);
  const expected = new Map(states);
  for (const group of purged) expected.delete(group);
  expectSameStates(await readAllStates(db), expected);
}

const ALL = ROOM_GROUPS.map(({ id }) => id);

/** A change, and a purge that meets it. */
const MEETINGS: readonly {
  readonly what: string;
  readonly change: readonly [group: number, newPredecessor: number | undefined];
  readonly purge: Purge;
  readonly purged: readonly number[];
}[] = [
  {
    what: 'the new predecessor',
    change: [30, 20],
    purge: purgeGroups(20),
    purged: [20],
  },
  {
    what: 'the new predecessor of a group that had none',
    change: [50, 20],
    purge: purgeGroups(20),
    purged: [20],
  },
  { what: 'the group', change: [30, 20], purge: purgeGroups(30), purged: [30] },
  {
    what: 'the group, to be written in full',
    change: [30, undefined],
    purge: purgeGroups(30),
    purged: [30],
  },
  {
    what: 'a group without state',
    change: [70, 60],
    purge: purgeGroups(70),
    purged: [70],
  },
  { what: 'the stored predecessor', change: [30, 20], purge: purgeGroups(10), purged: [10] },
  {
    what: 'the stored predecessor, of a group to be written in full',
    change: [30, undefined],
    purge: purgeGroups(10),
    purged: [10],
  },
  {
    what: 'both predecessors',
    change: [30, 20],
    purge: purgeGroups(10, 20),
    purged: [10, 20],
  },
  { what: 'the room', change: [30, 20], purge: purgeRoom, purged: ALL },
  {
    what: 'the room, a group of which has no state',
    change: [70, 60],
    purge: purgeRoom,
    purged: ALL,
  },
];

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
