/** Synapse's purges, as far as they meet a change: its statements, in its transactions, tried again as it does. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import pg from 'pg';
import { ROOM, storedRoom } from './guarded-change.js';
import type { StoredGroup } from './guarded-change.js';
import type { TestDatabase } from './postgres.js';
import { expectSameStates, readAllStates } from './states.js';

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

export function roomDatabase(t: TestContext): Promise<TestDatabase> {
  return storedRoom(t, { groups: ROOM_GROUPS });
}

export class Session {
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

/** The statements of a purge, and between two of them what else happens meanwhile. */
type Purge = (session: Session, meanwhile: () => Promise<void>) => Promise<void>;

/** Deletes groups as Synapse 1.124 does: their children that stay get all of their state first. */
export function purgeGroups(...groups: readonly number[]): Purge {
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
export const purgeRoomSlowly: Purge = async (session, meanwhile) => {
  await session.query(EDGES_OF_ROOM, [ROOM]);
  await meanwhile();
  await session.query(ROWS_OF_ROOM, [ROOM]);
  await session.query(GROUPS_OF_ROOM, [ROOM]);
};

/** Each attempt takes longer than several batches of ours. */
export const purgeRoomOfManyRows: Purge = async (session) => {
  await session.query(EDGES_OF_ROOM, [ROOM]);
  await session.query('SELECT pg_sleep(0.5)');
  await session.query(ROWS_OF_ROOM, [ROOM]);
  await session.query(GROUPS_OF_ROOM, [ROOM]);
};

const CONFLICTS = new Set(['40001', '40P01']);

/** Runs a purge as Synapse runs its transactions: again after a conflict, five times. Resolves to the attempts. */
export async function run(
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
export async function expectPurged(
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

export const ALL = ROOM_GROUPS.map(({ id }) => id);

/** A change, and a purge that meets it. */
export const MEETINGS: readonly {
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
