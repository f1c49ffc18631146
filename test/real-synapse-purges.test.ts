import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import pg from 'pg';
import { Rewriter } from '../src/apply/rewriter.js';
import type { ChangedGroup } from '../src/planner/planned-group.js';
import { copySink } from '../src/sinks/copy.js';
import { sqlSink } from '../src/sinks/sql.js';
import { MeetingPlace, Tally } from './real-synapse/meeting-place.js';
import type { Apply } from './real-synapse/meeting-place.js';
import { VERSIONS, withSynapse } from './real-synapse/synapse.js';
import { apply, guardedSql, ROOM } from './support/guarded-change.js';
import { hasPsql, psql } from './support/psql.js';

/** What Synapse deletes: of a change the group, either predecessor, a child, and further off; or the room. */
const PURGES: readonly (readonly number[] | undefined)[] = [
  undefined,
  [20],
  [30],
  [10],
  [40],
  [10, 20],
  [30, 40],
  [10, 20, 30, 40, 45],
  [5],
  [50],
  [70],
];

/** Gets ready to apply the changes of a place. */
type Way = (t: TestContext, place: MeetingPlace) => Promise<Apply>;

const byRewriter: Way = async (t, { db, changes }) => {
  const rewriter = await Rewriter.open({ dsn: db.url, env: {} });
  t.after(() => rewriter.close());
  return async () => {
    const { rewritten, alreadyDone, skipped } = await rewriter.rewrite({
      room: ROOM,
      changes: changes as ChangedGroup[],
    });
    return { rewritten, skipped: alreadyDone + skipped.length };
  };
};

const bySql: Way = async (t, { db, changes }) => {
  const client = await connect(t, db.url);
  const sql = await guardedSql(changes);
  return () => apply(client, sql);
};

const byCopyScript: Way = async (_t, { db, changes }) => {
  const script = await text(
    Readable.from([changes]).pipe(copySink({ room: ROOM, header: [], batch: 2 })),
  );
  return async () => {
    const { stdout, stderr } = await psql(db, Readable.from([script]), ['-At']);
    const counts = /^(\d+)\|(\d+)\|(\d+)$/m.exec(stdout)?.slice(1).map(Number);
    assert.ok(counts, stdout + stderr);
    return { rewritten: counts[0], skipped: counts[1] + counts[2] };
  };
};

/** What operators must not do beside a running Synapse: it shows that a meeting can go wrong. */
const bySqlWithoutGuard: Way = async (t, { db, changes }) => {
  const client = await connect(t, db.url);
  const sink = sqlSink({ room: ROOM, transactions: false, header: [] });
  const sql = await text(Readable.from([changes]).pipe(sink));
  return async () => {
    try {
      await client.query(`BEGIN; ${sql} COMMIT`);
      return { rewritten: changes.length, skipped: 0 };
    } catch (error) {
      assert.equal((error as pg.DatabaseError).code, '40P01');
      await client.query('ROLLBACK');
      return { rewritten: 0, skipped: changes.length };
    }
  };
};

async function connect(t: TestContext, url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'psql' });
  // The database goes first, and takes the connection with it.
  client.on('error', () => {});
  t.after(() => client.end());
  await client.connect();
  return client;
}

for (const version of VERSIONS) {
  test(`a purge of Synapse ${version} meets us`, withSynapse, async (t) => {
    const places = await Promise.all([0, 1, 2].map(() => MeetingPlace.open(t, version)));

    /** Lets each purge meet us, at several places at once. */
    async function meet(
      step: TestContext,
      way: Way,
      purges: readonly (readonly number[] | undefined)[],
    ): Promise<Tally> {
      const tally = new Tally();
      const left = purges.values();
      await Promise.all(
        places.map(async (place) => {
          const applying = await way(step, place);
          for (const groups of left) await place.everyMeeting(groups, applying, tally);
        }),
      );
      step.diagnostic(
        `${tally.meetings} meetings: ${tally.rewritten} groups rewritten, ${tally.skipped} left, ` +
          `at most ${tally.mostAttempts} tries of a purge, ${tally.givenUp} purges given up`,
      );
      return tally;
    }

    for (const { what, way, purges, skip = false } of [
      { what: 'in batches', way: byRewriter, purges: PURGES },
      { what: 'in the SQL of -t', way: bySql, purges: PURGES },
      { what: 'in a copy script', way: byCopyScript, purges: PURGES.slice(0, 4), skip: !hasPsql },
    ]) {
      await t.test(`${what} at every statement, and nothing is lost`, { skip }, async (step) => {
        const { losses, rewritten, skipped, mostAttempts } = await meet(step, way, purges);
        assert.deepEqual(losses, []);
        assert.ok(rewritten > skipped && skipped > 0);
        assert.ok(mostAttempts > 1);
      });
    }

    await t.test('in SQL without -t, and states are lost', async (step) => {
      assert.notDeepEqual((await meet(step, bySqlWithoutGuard, PURGES.slice(0, 3))).losses, []);
    });
  });
}
