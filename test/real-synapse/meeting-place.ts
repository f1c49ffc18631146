import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { PlannedGroup } from '../../src/planner/planned-group.js';
import { planChange, ROOM, store } from '../support/guarded-change.js';
import type { StoredGroup } from '../support/guarded-change.js';
import { STATE_TABLES } from '../support/fixtures.js';
import { testPostgres } from '../support/postgres.js';
import type { TestDatabase } from '../support/postgres.js';
import type { States } from '../support/states.js';
import { Synapse } from './synapse.js';
import type { PurgeResult, PurgeSettings, Version } from './synapse.js';

const ROOM_GROUPS: readonly StoredGroup[] = [
  { id: 5, rows: ['create/$c', 'member/$a'] },
  { id: 10, predecessor: 5, rows: ['topic/$t0'] },
  { id: 20, predecessor: 5, rows: ['topic/$t3'] },
  { id: 30, predecessor: 10, rows: ['name/$n'] },
  { id: 40, predecessor: 30, rows: ['topic/$t2'] },
  { id: 45, predecessor: 40, rows: ['avatar/$v'] },
  { id: 50, rows: ['create/$c', 'member/$a', 'topic/$t3'] },
  { id: 60, rows: [] },
  { id: 70, rows: [] },
];
const ALL = ROOM_GROUPS.map(({ id }) => id);

/** What we do: each group, and the predecessor that it gets. */
const CHANGES = [
  [30, 20],
  [40, undefined],
  [50, 20],
  [70, 60],
] as const;

/** What we did to the four groups. */
export interface Applied {
  readonly rewritten: number;
  /** Those that were found done, which a purge may have come to, included. */
  readonly skipped: number;
}

/** Carries out the changes, again whenever it is called, in sessions that have an application's name. */
export type Apply = () => Promise<Applied>;

/** What all meetings of one kind came to. */
export class Tally implements Applied {
  meetings = 0;
  rewritten = 0;
  skipped = 0;
  /** The most tries that a purge took. */
  mostAttempts = 0;
  /** Purges that met us at each try, and were asked for again. */
  givenUp = 0;
  /** What was lost, and how. */
  readonly losses: string[] = [];
}

// Sessions of ours have an application's name; Synapse's and the test's have none.
const STOPS = `
  CREATE SEQUENCE writes;
  CREATE TABLE stop AS SELECT 0 AS before;
  CREATE FUNCTION stop_here() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('application_name') <> '' THEN
      IF nextval('writes') = (SELECT before FROM stop) THEN
        PERFORM pg_advisory_xact_lock_shared(1);
      END IF;
    END IF;
    RETURN NULL;
  END $$;
  ${STATE_TABLES.map((table) => `CREATE TRIGGER stop BEFORE INSERT OR UPDATE OR DELETE ON ${table} EXECUTE FUNCTION stop_here();`).join('\n')}
  CREATE CONSTRAINT TRIGGER stop_at_commit AFTER UPDATE ON state_groups INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.id IN (20, 60)) EXECUTE FUNCTION stop_here();`;

/**
 * A database of Synapse's, in which a purge of Synapse's own code and changes of ours meet, in a room that
 * is stored anew for each meeting. We can be stopped before each statement of ours that writes to a table,
 * and at commits; Synapse before each statement, and at its commit.
 */
export class MeetingPlace {
  readonly db: TestDatabase;
  readonly changes: readonly PlannedGroup[];
  readonly #version: Version;
  readonly #synapse: Synapse;
  readonly #before: States;
  readonly #storeAgain: string;

  private constructor(
    version: Version,
    db: TestDatabase,
    synapse: Synapse,
    before: States,
    changes: readonly PlannedGroup[],
  ) {
    this.#version = version;
    this.db = db;
    this.#synapse = synapse;
    this.#before = before;
    this.changes = changes;
    this.#storeAgain = [
      ...STATE_TABLES.map(
        (table) => `DELETE FROM ${table}; INSERT INTO ${table} SELECT * FROM stored_${table};`,
      ),
      version === '1.123.0' ? '' : 'DELETE FROM state_groups_pending_deletion;',
      "SELECT setval('writes', 1, false);",
    ].join('\n');
  }

  static async open(t: TestContext, version: Version): Promise<MeetingPlace> {
    const db = await (await testPostgres()).createDatabase({ schema: 'none' });
    t.after(() => db.drop());
    const synapse = await Synapse.on(t, version, db);
    await db.query(`ALTER DATABASE ${db.name} SET deadlock_timeout = '20ms'`);
    await store(db, ROOM_GROUPS);
    for (const table of STATE_TABLES) {
      await db.query(`CREATE TABLE stored_${table} AS TABLE ${table}`);
    }
    await db.query(STOPS);
    const changes: PlannedGroup[] = [];
    for (const [group, predecessor] of CHANGES) {
      changes.push(await planChange(db, group, predecessor));
    }
    return new MeetingPlace(version, db, synapse, await synapse.states(), changes);
  }

  /** Lets the two meet at each statement of a purge of these groups, or of the room, and at each write of ours. */
  async everyMeeting(
    groups: readonly number[] | undefined,
    apply: Apply,
    tally: Tally,
  ): Promise<void> {
    const purge = { room: ROOM, ...(groups && { groups }) };
    for (let stopBefore = 1; await this.#applyInPurge({ ...purge, stopBefore }, apply, tally);) {
      stopBefore++;
    }
    for (let write = 1; await this.#purgeInApply(purge, write, apply, tally);) write++;
  }

  /**
   * Purges up to a statement, applies until that waits or has ended, and lets the purge go on; where it
   * has fewer statements, applies after it. Resolves to whether it has that many.
   */
  async #applyInPurge(purge: PurgeSettings, apply: Apply, tally: Tally): Promise<boolean> {
    await this.db.query(`${this.#storeAgain}; UPDATE stop SET before = 0`);
    const { stopped, ended, go } = this.#synapse.purge(purge);
    const isStopped = await Promise.race([stopped.then(() => true), ended.then(() => false)]);
    const applied = apply();
    await this.#waits('us', applied);
    go();
    await this.#compare(await ended, await applied, purge, tally);
    return isStopped;
  }

  /** Applies up to a write, purges until that waits or has ended, and goes on; as `#applyInPurge`. */
  async #purgeInApply(
    purge: PurgeSettings,
    write: number,
    apply: Apply,
    tally: Tally,
  ): Promise<boolean> {
    await this.db.query(`${this.#storeAgain}; UPDATE stop SET before = ${write}`);
    await this.db.query('SELECT pg_advisory_lock(1)');
    const applied = apply();
    const isStopped = await this.#waits('us', applied);
    const { ended } = this.#synapse.purge(purge);
    await this.#waits('Synapse', ended);
    await this.db.query('SELECT pg_advisory_unlock(1)');
    await this.#compare(await ended, await applied, { ...purge, stopBefore: -write }, tally);
    return isStopped;
  }

  /** Whether we, or Synapse, came to wait for a lock before `work` ended. */
  async #waits(who: 'us' | 'Synapse', work: Promise<unknown>): Promise<boolean> {
    const ended = new AbortController();
    const end = (): void => ended.abort();
    work.then(end, end);
    while (!ended.signal.aborted) {
      const { rowCount } = await this.db.query(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
           AND (application_name <> '') = $1`,
        [who === 'us'],
      );
      if (rowCount! > 0) return true;
    }
    return false;
  }

  async #compare(
    { attempts, statements, gaveUp }: PurgeResult,
    { rewritten, skipped }: Applied,
    { room, groups = ALL, stopBefore }: PurgeSettings,
    tally: Tally,
  ): Promise<void> {
    if (gaveUp) {
      tally.givenUp++;
      const again = this.#synapse.purge({ room, ...(groups !== ALL && { groups }) });
      assert.equal((await again.ended).gaveUp, false);
    }
    assert.equal(rewritten + skipped, CHANGES.length);
    tally.meetings++;
    tally.rewritten += rewritten;
    tally.skipped += skipped;
    tally.mostAttempts = Math.max(tally.mostAttempts, attempts);
    const { rows: left } = await this.db.query<{ what: string }>(
      `SELECT 'group ' || id AS what FROM state_groups WHERE id = ANY ($1)
       UNION ALL SELECT 'row of ' || state_group FROM state_groups_state WHERE state_group = ANY ($1)
       UNION ALL SELECT 'edge of ' || state_group FROM state_group_edges
         WHERE state_group = ANY ($1) AND $2`,
      // The older version itself leaves edges.
      [groups, this.#version !== '1.123.0'],
    );
    const after = await this.#synapse.states();
    const differing = ALL.filter(
      (id) => after.get(id) !== (groups.includes(id) ? undefined : this.#before.get(id)),
    );
    if (left.length + differing.length === 0) return;
    const lost = [...differing.map((id) => `state of ${id}`), ...left.map(({ what }) => what)];
    tally.losses.push(
      `purge of ${groups.join()}, stop ${stopBefore}: ${lost.join()}\n  ${statements.join('\n  ')}`,
    );
  }
}
