import { join } from 'node:path';
import { AdaptivePlanner } from '../src/planner/adaptive.js';
import { LevelsPlanner } from '../src/planner/levels.js';
import { startServer, TestPostgres } from '../test/support/postgres.js';
import type { TestDatabase } from '../test/support/postgres.js';
import { count, spread, table } from './figures.js';
import { loadRoom } from './load-room.js';
import { describeMachine } from './machine.js';
import { Random } from './random.js';
import { rewriteRoom } from './rewrite-room.js';
import { cachedRoom } from './room-cache.js';
import type { CachedRoom } from './room-cache.js';
import type { RoomSettings } from './rooms.js';

const SAMPLED_GROUPS = 300;
const ROUNDS = 3;

const METHOD = `How long a client on the same machine waits for the whole state of a group, by the statement that Synapse
reads it with: ${SAMPLED_GROUPS} groups drawn from the room, ${ROUNDS} times each, in turns before, levels, adaptive, after one
round that does not count. Each encoding lies in a database of its own, in order of its groups, in memory.
Milliseconds of the groups' medians: the median, the mean, and the slowest hundredth; hops are those of the
sampled groups.
`;

/**
 * The state of a group along its chain, as Synapse 1.163 reads it with no filter
 * (synapse/storage/databases/state/bg_updates.py), but for the names.
 */
const READ_STATE = `
  WITH RECURSIVE chain(state_group) AS (
    VALUES($1::bigint)
    UNION ALL
    SELECT prev_state_group FROM state_group_edges e, chain c WHERE c.state_group = e.state_group
  )
  SELECT DISTINCT ON (type, state_key) type, state_key, event_id
    FROM state_groups_state
    WHERE state_group IN (SELECT state_group FROM chain)
    ORDER BY type, state_key, state_group DESC`;

const CHAIN_LENGTH = `
  WITH RECURSIVE chain(state_group) AS (
    VALUES($1::bigint)
    UNION ALL
    SELECT prev_state_group FROM state_group_edges e, chain c WHERE c.state_group = e.state_group
  )
  SELECT count(*) AS hops FROM chain`;

/** Measures how long reading states takes in rooms as stored, and as each strategy leaves them. */
export async function measureReads(
  rooms: Readonly<Record<string, RoomSettings>>,
  temporary: string,
): Promise<void> {
  const server = await startServer();
  try {
    const postgres = new TestPostgres(server.address);
    const lines = [['Reads', 'rows', 'mean hops', 'median ms', 'mean ms', '99 % ms']];
    for (const [name, settings] of Object.entries(rooms)) {
      const before = cachedRoom(name, settings);
      const encodings: Readonly<Record<string, CachedRoom>> = {
        before,
        levels: await rewriteRoom(before, new LevelsPlanner(), join(temporary, 'levels')),
        adaptive: await rewriteRoom(before, new AdaptivePlanner(), join(temporary, 'adaptive')),
      };
      const databases: TestDatabase[] = [];
      for (const room of Object.values(encodings)) databases.push(await loadRoom(postgres, room));
      if (lines.length === 1) {
        const { rows } = await databases[0].query<{ server_version: string }>(
          'SHOW server_version',
        );
        process.stdout.write(`${describeMachine(rows[0].server_version)}${METHOD}\n`);
      }
      const figures = await readInTurn(databases, await sampleOf(databases[0], settings.seed));
      lines.push([`  ${name}`]);
      for (const [i, [encoding, { counts }]] of Object.entries(encodings).entries()) {
        lines.push([`    ${encoding}`, count(counts.rows), ...figures[i]]);
      }
      for (const db of databases) await db.drop();
    }
    process.stdout.write(table(lines));
  } finally {
    await server.stop();
  }
}

async function sampleOf(db: TestDatabase, seed: number): Promise<number[]> {
  const { rows } = await db.query<{ id: string }>('SELECT id FROM state_groups ORDER BY id');
  const random = new Random(seed);
  return Array.from({ length: SAMPLED_GROUPS }, () => Number(rows[random.below(rows.length)].id));
}

async function readInTurn(
  databases: readonly TestDatabase[],
  groups: readonly number[],
): Promise<string[][]> {
  // Synapse reads so: https://github.com/element-hq/synapse, same file.
  for (const db of databases) await db.query('SET enable_seqscan = off');
  const medians: number[][] = databases.map(() => []);
  const hops = databases.map(() => 0);
  for (const group of groups) {
    const times: number[][] = databases.map(() => []);
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [i, db] of databases.entries()) {
        const start = performance.now();
        await db.query(READ_STATE, [group]);
        if (round > 0) times[i].push(performance.now() - start);
      }
    }
    for (const [i, db] of databases.entries()) {
      medians[i].push(spread(times[i]).median);
      const { rows } = await db.query<{ hops: string }>(CHAIN_LENGTH, [group]);
      hops[i] += Number(rows[0].hops);
    }
  }
  return medians.map((values, i) => {
    const sorted = values.toSorted((a, b) => a - b);
    const mean = sorted.reduce((sum, value) => sum + value, 0) / sorted.length;
    return [
      (hops[i] / groups.length).toFixed(0),
      spread(values).median.toFixed(2),
      mean.toFixed(2),
      sorted[Math.floor(sorted.length * 0.99)].toFixed(2),
    ];
  });
}
