import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import pg from 'pg';
import type { Random } from '../../bench/random.js';

/** Synapse's own number: it does not write a delta on a chain as long as that. */
const LONGEST_CHAIN = 100;
const ATTEMPTS = 5;

type Row = readonly [type: string, stateKey: string, event: string];

/** The digest that `readAllStates` gives of a state whose rows are in order. */
function digestOf(rows: readonly Row[]): string {
  return createHash('sha256').update(JSON.stringify(rows)).digest('hex');
}

/**
 * Writes to the state tables what Synapse would, in its transactions: new groups, groups that are marked
 * for deletion or bumped, purges, rooms that are deleted; and knows the state that each group has to have.
 */
export class SimulatedSynapse {
  /** Each group's digest; what was purged is not there. */
  readonly expected: Map<number, string>;
  written = 0;
  purged = 0;
  deletedRooms = 0;
  /** Transactions that Synapse would have given up. */
  givenUp = 0;
  readonly #url: string;
  readonly #random: Random;
  readonly #marks: boolean;
  readonly #rooms: string[];
  #client: pg.Client | undefined;

  /**
   * @param expected the states at the beginning
   * @param marks whether the database has `state_groups_pending_deletion`
   */
  constructor(
    url: string,
    random: Random,
    expected: ReadonlyMap<number, string>,
    rooms: readonly string[],
    marks: boolean,
  ) {
    this.#url = url;
    this.#random = random;
    this.expected = new Map(expected);
    this.#rooms = [...rooms];
    this.#marks = marks;
  }

  async close(): Promise<void> {
    await this.#client?.end().catch(() => {});
    this.#client = undefined;
  }

  /** Does one thing or another. The last room is not deleted. */
  async act(): Promise<void> {
    const room = this.#rooms[this.#random.below(this.#rooms.length)];
    const chance = this.#random.next();
    if (chance < 0.7) await this.#writeGroup(room);
    else if (chance < 0.8 && this.#marks) await this.#markOrBump(room);
    else if (chance < 0.99 || this.#rooms.length === 1) await this.#purge(room);
    else await this.#deleteRoom(room);
  }

  async #writeGroup(room: string): Promise<void> {
    const event = `$new${this.#random.below(1e9)}`;
    const type = this.#random.chance(0.5) ? 'm.room.member' : 'm.room.topic';
    const key = `@u${this.#random.below(300)}`;
    const newest = this.#random.below(4);
    const drops = this.#random.chance(0.1);
    let group = 0;
    let digest = '';
    const done = await this.#transaction(
      async (client) => {
        const { rows: heads } = await client.query<{ id: string }>(
          'SELECT id FROM state_groups WHERE room_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1',
          [room, newest],
        );
        if (heads.length === 0) return;
        const predecessor = Number(heads[0].id);
        await client.query('SELECT FROM state_groups WHERE id = $1 FOR KEY SHARE', [predecessor]);
        if (this.#marks) await client.query(BUMP, [[predecessor]]);
        const state = await this.#stateOf(client, predecessor);
        // A key that vanishes needs a snapshot.
        const kept = state.filter(([t, k]) => !(t === type && k === key)).slice(drops ? 1 : 0);
        const rows: Row[] = [...kept, [type, key, event]];
        const { rows: ids } = await client.query<{ id: string }>(
          'SELECT coalesce(max(id), 0) + 1 AS id FROM state_groups',
        );
        group = Number(ids[0].id);
        await client.query('INSERT INTO state_groups VALUES ($1, $2, $3)', [group, room, event]);
        const { rows: chain } = await client.query<{ hops: string }>(HOPS, [predecessor]);
        if (drops || Number(chain[0].hops) >= LONGEST_CHAIN) {
          await insert(client, group, room, rows);
        } else {
          await client.query('INSERT INTO state_group_edges VALUES ($1, $2)', [group, predecessor]);
          await insert(client, group, room, [[type, key, event]]);
        }
        digest = digestOf(rows.toSorted(byKey));
      },
      async (client) => group > 0 && (await exists(client, group)),
    );
    if (!done || group === 0) return;
    this.expected.set(group, digest);
    this.written++;
  }

  async #markOrBump(room: string): Promise<void> {
    const groups = await this.#someGroups(room);
    const sql = this.#random.chance(0.5) ? BUMP : MARK;
    await this.#transaction(
      async (client) => {
        await client.query(sql, [groups]);
      },
      async () => false,
    );
  }

  async #purge(room: string): Promise<void> {
    const groups = await this.#someGroups(room);
    if (groups.length === 0) return;
    if (this.#marks) {
      await this.#transaction(
        async (client) => {
          await client.query(MARK, [groups]);
        },
        async () => false,
      );
    }
    const gone = await this.#transaction(
      async (client) => {
        if (this.#marks) {
          await client.query('SELECT FROM state_groups WHERE id = ANY ($1) FOR UPDATE', [groups]);
        }
        const { rows: children } = await client.query<{ state_group: string }>(
          `SELECT DISTINCT state_group FROM state_group_edges
           WHERE prev_state_group = ANY ($1) AND state_group <> ALL ($1)`,
          [groups],
        );
        for (const { state_group: child } of children) {
          const state = await this.#stateOf(client, Number(child));
          await client.query('DELETE FROM state_groups_state WHERE state_group = $1', [child]);
          await client.query('DELETE FROM state_group_edges WHERE state_group = $1', [child]);
          await insert(client, Number(child), room, state);
        }
        for (const table of ['state_groups_state', 'state_group_edges']) {
          await client.query(`DELETE FROM ${table} WHERE state_group = ANY ($1)`, [groups]);
        }
        await client.query('DELETE FROM state_groups WHERE id = ANY ($1)', [groups]);
        if (this.#marks) {
          await client.query(
            'DELETE FROM state_groups_pending_deletion WHERE state_group = ANY ($1)',
            [groups],
          );
        }
      },
      async (client) => !(await exists(client, groups[0])),
    );
    if (!gone) return;
    for (const group of groups) this.expected.delete(group);
    this.purged += groups.length;
  }

  async #deleteRoom(room: string): Promise<void> {
    let groups: number[] = [];
    const gone = await this.#transaction(
      async (client) => {
        const { rows } = await client.query<{ id: string }>(
          'SELECT id FROM state_groups WHERE room_id = $1',
          [room],
        );
        groups = rows.map(({ id }) => Number(id));
        for (const table of ['state_group_edges', 'state_groups_state']) {
          await client.query(
            `DELETE FROM ${table} WHERE state_group IN (SELECT id FROM state_groups WHERE room_id = $1)`,
            [room],
          );
        }
        await client.query('DELETE FROM state_groups WHERE room_id = $1', [room]);
      },
      async (client) => groups.length > 0 && !(await exists(client, groups[0])),
    );
    if (!gone) return;
    this.#rooms.splice(this.#rooms.indexOf(room), 1);
    for (const group of groups) this.expected.delete(group);
    this.deletedRooms++;
  }

  /** A few groups of the room, neighbours or not, none of the newest. */
  async #someGroups(room: string): Promise<number[]> {
    let groups: number[] = [];
    await this.#transaction(
      async (client) => {
        const { rows } = await client.query<{ id: string }>(
          'SELECT id FROM state_groups WHERE room_id = $1 ORDER BY id DESC OFFSET 10',
          [room],
        );
        const first = this.#random.below(Math.max(1, rows.length));
        const step = 1 + this.#random.below(3);
        groups = rows
          .slice(first, first + 5 * step)
          .filter((_, index) => index % step === 0)
          .map(({ id }) => Number(id));
      },
      async () => false,
    );
    return groups;
  }

  /** A group's state, which must be what it was. */
  async #stateOf(client: pg.Client, group: number): Promise<Row[]> {
    const { rows } = await client.query<string[]>({
      text: STATE,
      values: [group],
      rowMode: 'array',
    });
    const state = rows as unknown as Row[];
    assert.equal(digestOf(state), this.expected.get(group), `the state of group ${group}`);
    return state;
  }

  /**
   * Runs a transaction as Synapse does, a few times if it meets others. Where the connection is lost, it
   * is known afterwards whether it was committed.
   */
  async #transaction(
    work: (client: pg.Client) => Promise<void>,
    wasDone: (client: pg.Client) => Promise<boolean>,
  ): Promise<boolean> {
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const client = await this.#connected();
      try {
        await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
        await work(client);
        await client.query('COMMIT');
        return true;
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        const { code } = error as pg.DatabaseError;
        if (code === '40001' || code === '40P01') {
          await client.query('ROLLBACK');
          continue;
        }
        // The server is gone, or this session of it.
        assert.match(`${code} ${String(error)}`, /^57P|^ECONN|^EPIPE|terminated|not queryable/);
        await this.close();
        return wasDone(await this.#connected());
      }
    }
    this.givenUp++;
    return false;
  }

  async #connected(): Promise<pg.Client> {
    while (this.#client === undefined) {
      const client = new pg.Client(this.#url);
      client.on('error', () => {});
      try {
        await client.connect();
        this.#client = client;
      } catch {
        await setTimeout(50);
      }
    }
    return this.#client;
  }
}

const MARK = `INSERT INTO state_groups_pending_deletion (state_group, insertion_ts)
  SELECT unnest($1::bigint[]), 1 ON CONFLICT (state_group) DO NOTHING`;

const BUMP = `UPDATE state_groups_pending_deletion SET sequence_number = DEFAULT, insertion_ts = 2
  WHERE state_group = ANY ($1)`;

const CHAIN = `WITH RECURSIVE chain (member) AS (
    VALUES ($1::bigint)
    UNION ALL SELECT prev_state_group FROM chain JOIN state_group_edges ON state_group = member
  )`;

const HOPS = `${CHAIN} SELECT count(*) AS hops FROM chain`;

const STATE = `${CHAIN}
  SELECT DISTINCT ON (type, state_key) type, state_key, event_id
  FROM chain JOIN state_groups_state ON state_group = member
  ORDER BY type, state_key, member DESC`;

async function insert(
  client: pg.Client,
  group: number,
  room: string,
  rows: readonly Row[],
): Promise<void> {
  await client.query(
    `INSERT INTO state_groups_state
     SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::text[])`,
    [group, room, ...[0, 1, 2].map((column) => rows.map((row) => row[column]))],
  );
}

async function exists(client: pg.Client, group: number): Promise<boolean> {
  const { rowCount } = await client.query('SELECT FROM state_groups WHERE id = $1', [group]);
  return rowCount === 1;
}

function byKey(a: Row, b: Row): number {
  return compare(a[0], b[0]) || compare(a[1], b[1]);
}

function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
