import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { writeRoomFiles } from '../bench/room-files.js';
import { roomName } from '../bench/room-tables.js';
import { Synapse, VERSIONS, withSynapse } from './real-synapse/synapse.js';
import { applySql } from './support/apply-sql.js';
import { loadTables, STATE_TABLES, synapseStates, temporaryFolder } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { hasPsql } from './support/psql.js';
import { runCli } from './support/run-cli.js';
import { expectSameStates } from './support/states.js';
import type { States } from './support/states.js';

/** Compresses a room of the database, and leaves it so. */
type Way = (db: TestDatabase, room: string, folder: string) => Promise<void>;

async function succeed(...args: readonly string[]): Promise<void> {
  const { code, stderr } = await runCli(args);
  assert.equal(code, 0, stderr);
}

const WAYS: Record<string, Way> = {
  'SQL in one transaction': async (db, room, folder) => {
    const sql = join(folder, 'changes.sql');
    await succeed('-p', db.url, '-r', room, '-o', sql);
    await applySql(db, sql, { oneTransaction: true });
  },
  'SQL of -t': async (db, room, folder) => {
    const sql = join(folder, 'changes.sql');
    await succeed('-p', db.url, '-r', room, '-o', sql, '-t');
    await applySql(db, sql, { oneTransaction: false });
  },
  'a copy script': async (db, room, folder) => {
    const script = join(folder, 'changes.copy');
    await succeed('-p', db.url, '-r', room, '--format', 'copy', '-o', script);
    await applySql(db, script, { oneTransaction: false });
  },
  apply: async (db, room, folder) => {
    const changes = join(folder, 'changes.copy.gz');
    await succeed('-p', db.url, '-r', room, '--format', 'copy', '-o', changes);
    await succeed('apply', changes, '-p', db.url);
  },
  '-c': (db, room) => succeed('-c', '-p', db.url, '-r', room),
  '-c by a user who may do no more': async (db, room) =>
    succeed('-c', '-p', await limitedUser(db), '-r', room),
  auto: (db, room) => succeed('auto', '-p', db.url, '-r', room),
};

/** The URL of the database for a user who has the privileges that README.md lists. */
async function limitedUser(db: TestDatabase): Promise<string> {
  const user = `${db.name}_compressor`;
  const { rows } = await db.query<{ pending: boolean; known: boolean }>(
    `SELECT to_regclass('state_groups_pending_deletion') IS NOT NULL AS pending,
       EXISTS (SELECT FROM pg_roles WHERE rolname = '${user}') AS known`,
  );
  const [{ pending, known }] = rows;
  if (!known) {
    await db.query(
      `REVOKE ALL ON DATABASE ${db.name} FROM PUBLIC;
       CREATE ROLE ${user} LOGIN PASSWORD 'secret';
       GRANT CONNECT, TEMPORARY ON DATABASE ${db.name} TO ${user};
       GRANT USAGE ON SCHEMA public TO ${user};
       GRANT SELECT, UPDATE ON state_groups TO ${user};
       GRANT SELECT, INSERT, DELETE ON state_group_edges, state_groups_state TO ${user};
       ${pending ? `GRANT SELECT ON state_groups_pending_deletion TO ${user}` : ''}`,
    );
  }
  const url = new URL(db.url);
  url.username = user;
  url.password = 'secret';
  return url.href;
}

const EXPORT = 'the rooms of an export';

/** Rooms, and how they come into a database that has Synapse's tables. */
const ROOMS: Record<string, (t: TestContext, db: TestDatabase) => Promise<readonly string[]>> = {
  [EXPORT]: async (_t, db) => {
    await loadTables(db, 'synapse');
    const { rows } = await db.query<{ room: string }>(
      'SELECT DISTINCT room_id AS room FROM state_groups',
    );
    return rows.map(({ room }) => room);
  },
  'rooms that were made': async (t, db) => {
    const folder = await temporaryFolder(t);
    const rooms = (['branching', 'resolution'] as const).map((kind, index) => ({
      kind,
      groups: 1000,
      keys: 300,
      seed: 7 + index,
    }));
    writeRoomFiles(rooms, folder);
    for (const table of STATE_TABLES) {
      await db.copyIn(table, createReadStream(join(folder, `${table}.copy`)));
    }
    await db.query('ANALYZE');
    return rooms.map(({ seed }, index) => roomName(seed, index));
  },
};

for (const version of VERSIONS) {
  for (const [what, load] of Object.entries(ROOMS)) {
    test(`Synapse ${version} reads ${what} as before`, withSynapse, async (t) => {
      const db = await testDatabase(t, 'none');
      const synapse = await Synapse.on(t, version, db);
      await load(t, db);
      const before = await synapse.states();
      if (what === EXPORT) {
        const known = await synapseStates();
        expectSameStates(before, new Map(known.map(({ group, sha256 }) => [group, sha256])));
      }

      // Ways that leave equal tables are read once: reading takes long.
      const read = new Map<string, States>();
      for (const [way, compress] of Object.entries(WAYS)) {
        const skip = way === 'a copy script' && !hasPsql;
        await t.test(`after ${way}`, { skip }, async (step) => {
          await db.query(`TRUNCATE ${STATE_TABLES.join()}`);
          const rooms = await load(step, db);
          const folder = await temporaryFolder(step);
          const rows = await countRows(db);
          for (const room of rooms) await compress(db, room, folder);
          assert.ok((await countRows(db)) < 0.8 * rows);

          const tables = await contents(db);
          if (!read.has(tables)) read.set(tables, await synapse.states());
          expectSameStates(read.get(tables)!, before);
        });
      }
    });
  }
}

/** A digest of all edges and rows. */
async function contents(db: TestDatabase): Promise<string> {
  const { rows } = await db.query<{ digest: string }>(
    `SELECT md5(string_agg(line, E'\\n' ORDER BY line)) AS digest FROM (
       SELECT row_to_json(edge)::text AS line FROM state_group_edges AS edge
       UNION ALL SELECT row_to_json(row)::text FROM state_groups_state AS row) AS lines`,
  );
  return rows[0].digest;
}

async function countRows(db: TestDatabase): Promise<number> {
  const { rows } = await db.query<{ count: string }>('SELECT count(*) FROM state_groups_state');
  return Number(rows[0].count);
}
