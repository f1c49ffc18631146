/** Runs beside the tool that came before this one, where it is installed: `npm run test:old-tool`. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { Random } from '../bench/random.js';
import { writeRoomFiles } from '../bench/room-files.js';
import { ROOM_KINDS } from '../bench/rooms.js';
import { readTables, run } from './support/auto-run.js';
import { STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import {
  HAS_OLD_TOOL,
  NO_OLD_TOOL,
  oldAutoCompressor,
  WITHOUT_DOLLARS,
} from './support/old-tool.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { expectSameStates, readAllStates } from './support/states.js';

const options = { skip: HAS_OLD_TOOL ? false : NO_OLD_TOOL };
const LEVELS = [[100, 50, 25], [10, 5], [7]] as const;

/** A database of three rooms, of kinds and sizes by the seed, twice. */
async function twins(t: TestContext, seed: number): Promise<readonly [TestDatabase, TestDatabase]> {
  const random = new Random(seed);
  const folder = await temporaryFolder(t);
  const rooms = Array.from({ length: 3 }, (_, room) => ({
    kind: ROOM_KINDS[random.below(ROOM_KINDS.length)],
    groups: 50 + random.below(250),
    keys: 20 + random.below(60),
    seed: seed + room,
  }));
  writeRoomFiles(rooms, folder);
  const load = async (): Promise<TestDatabase> => {
    const db = await testDatabase(t);
    for (const table of STATE_TABLES) {
      await db.copyIn(table, createReadStream(join(folder, `${table}.copy`)));
    }
    await db.query(WITHOUT_DOLLARS);
    return db;
  };
  return [await load(), await load()];
}

async function runOld(
  db: TestDatabase,
  sizes: readonly number[],
  chunkSize: number,
  chunks: number,
): Promise<void> {
  const { command, args } = oldAutoCompressor(db.url, {
    chunkSize,
    chunks,
    levels: sizes.join(),
  });
  await promisify(execFile)(command, args);
}

for (let seed = 1; seed <= 6; seed++) {
  test(
    `chunks by either tool, or by both in turns, leave the same tables (${seed})`,
    options,
    async (t) => {
      const [alone, together] = await twins(t, seed);
      const states = await readAllStates(alone);
      const random = new Random(1000 + seed);
      const sizes = LEVELS[seed % LEVELS.length];
      const chunkSize = 5 + random.below(100);
      await runOld(alone, sizes, chunkSize, 1000);

      const ours = { strategy: { name: 'levels', sizes } as const, chunkSize };
      for (let turn = 0; turn < 6; turn++) {
        const chunks = 1 + random.below(3);
        if (turn % 2 === 0) await run(together, { ...ours, chunks });
        else await runOld(together, sizes, chunkSize, chunks);
      }
      await run(together, ours);
      assert.deepEqual(await readTables(together), await readTables(alone));
      expectSameStates(await readAllStates(together), states);
    },
  );
}

test(
  'the old tool goes on behind what adaptive compressed as on empty levels',
  options,
  async (t) => {
    const [marked, emptied] = await twins(t, 7);
    const states = await readAllStates(marked);
    for (const db of [marked, emptied]) {
      // The newest groups come when adaptive is done.
      await db.query(`
      CREATE TEMPORARY TABLE cut AS SELECT max(id) * 2 / 3 AS id FROM state_groups;
      CREATE TEMPORARY TABLE newest AS SELECT * FROM state_groups WHERE id > (SELECT id FROM cut);
      CREATE TEMPORARY TABLE edges AS SELECT * FROM state_group_edges WHERE state_group > (SELECT id FROM cut);
      CREATE TEMPORARY TABLE rows AS SELECT * FROM state_groups_state WHERE state_group > (SELECT id FROM cut);
      DELETE FROM state_groups USING cut WHERE state_groups.id > cut.id;
      DELETE FROM state_group_edges USING cut WHERE state_group > cut.id;
      DELETE FROM state_groups_state USING cut WHERE state_group > cut.id`);
      const { rows } = await db.query<{ name: string }>(
        'SELECT DISTINCT room_id AS name FROM state_groups',
      );
      const rooms = rows.map(({ name }) => name);
      const compressed = await run(db, { rooms });
      assert.deepEqual([compressed.rooms, compressed.failed], [rooms.length, []]);
      await db.query(`
      INSERT INTO state_groups SELECT * FROM newest;
      INSERT INTO state_group_edges SELECT * FROM edges;
      INSERT INTO state_groups_state SELECT * FROM rows`);
    }
    await emptied.query('DELETE FROM state_compressor_state WHERE level_num = 4');
    const tables = [];
    for (const db of [marked, emptied]) {
      await runOld(db, LEVELS[0], 20, 1000);
      await db.query('DELETE FROM state_compressor_state WHERE level_num = 4');
      tables.push(await readTables(db));
      expectSameStates(await readAllStates(db), states);
    }
    assert.deepEqual(tables[0], tables[1]);
  },
);
