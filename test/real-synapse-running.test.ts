import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Homeserver } from './real-synapse/homeserver.js';
import { recordStates, writtenStates } from './real-synapse/record-states.js';
import { databasesSettings, Synapse, VERSIONS, withSynapse } from './real-synapse/synapse.js';
import { Traffic } from './real-synapse/traffic.js';
import type { Applied } from './real-synapse/meeting-place.js';
import { testPostgres } from './support/postgres.js';
import { runCli } from './support/run-cli.js';

/** How long people talk without us, and then with us. */
const SECONDS = Number(process.env['SYNAPSE_SECONDS'] ?? 6);

for (const version of VERSIONS) {
  test(
    `a homeserver of Synapse ${version} goes on while its rooms are compressed`,
    withSynapse,
    async (t) => {
      const postgres = await testPostgres();
      const main = await postgres.createDatabase({ schema: 'none' });
      t.after(() => main.drop());
      // The current one has its state groups in a database of their own.
      const db = version === '1.123.0' ? main : await postgres.createDatabase({ schema: 'none' });
      if (db !== main) t.after(() => db.drop());
      const synapse = await Synapse.on(t, version, main, db);
      await recordStates(db);
      const homeserver = await Homeserver.start(t, version, databasesSettings(main, db));
      const traffic = await Traffic.begin(homeserver, 3);

      await traffic.goOn(AbortSignal.timeout(SECONDS * 1000));
      const withoutUs = homeserver.log();

      const signal = AbortSignal.timeout(SECONDS * 1000);
      let runs = 0;
      let rewritten = 0;
      let skipped = 0;
      const compressing = async () => {
        while (!signal.aborted) {
          const { id } = traffic.rooms[runs++ % traffic.rooms.length];
          const applied = await compress(db.url, id);
          rewritten += applied.rewritten;
          skipped += applied.skipped;
        }
      };
      await Promise.all([traffic.goOn(signal), compressing()]);
      // What is marked for deletion goes.
      await setTimeout(3000);

      const written = await writtenStates(db);
      const states = await synapse.states();
      const differing = [...states].filter(([group, state]) => written.get(group) !== state);
      assert.deepEqual(differing, []);
      const { rows: kept } = await main.query<{ event: string; group: string }>(
        'SELECT event_id AS event, state_group AS group FROM event_to_state_groups',
      );
      assert.deepEqual(
        kept.filter(({ group }) => !states.has(Number(group))),
        [],
      );

      // What Synapse has in its caches goes.
      await homeserver.restart();
      const asked = kept.filter(({ event }) => traffic.states.has(event));
      for (const { event } of asked) {
        const { room, state } = traffic.states.get(event)!;
        assert.deepEqual(await traffic.stateAt(room, event), state);
      }
      assert.notEqual(asked.length, 0);
      await traffic.goOn(AbortSignal.timeout(1000));

      t.diagnostic(
        `${traffic.sent} events, ${written.size} groups of which ${written.size - states.size} were deleted, ` +
          `${traffic.purges} purges of history, ${traffic.deletedRooms} deleted rooms; ${runs} runs, ` +
          `${rewritten} groups rewritten, ${skipped} left; ${asked.length} events' states asked for`,
      );
      assert.notEqual(rewritten, 0);
      const retries = homeserver.log().filter((message) => RETRY.test(message));
      t.diagnostic(`Synapse began ${retries.length} transactions anew`);
      const others = homeserver
        .log()
        .filter((message) => !RETRY.test(message) && !BANNER.test(message));
      assert.deepEqual(
        [...new Set(others)].filter((message) => !withoutUs.includes(message)),
        [],
      );
    },
  );
}

/** What Synapse logs of its start. */
const BANNER = /^WARNING (root|synapse\.config\.logger|synapse\.metrics) /;
/** What Synapse logs of a transaction that met another one, before it does it again. */
const RETRY =
  /^WARNING synapse\.storage\.txn \[TXN (OPERROR|DEADLOCK)\].*(could not serialize|deadlock)/s;

/** Compresses a room, and counts what became of its groups. */
async function compress(url: string, room: string): Promise<Applied> {
  const { code, stdout, stderr } = await runCli(['-c', '-p', url, '-r', room, '--stats-file=-']);
  assert.equal(code, 0, stderr);
  const { applied } = JSON.parse(stdout) as { applied?: Applied };
  // There is nothing to apply where nothing can be gained.
  return applied ?? { rewritten: 0, skipped: 0 };
}
