import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import { writeRoomFiles } from '../bench/room-files.js';
import { roomName } from '../bench/room-tables.js';
import { compressRoom } from '../src/compress.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import type { RoomSource } from '../src/sources/room-source.js';
import { ChunkPool } from '../src/sources/sort/chunk-pool.js';
import { temporaryFolder } from './support/fixtures.js';
import { memoryOutput } from './support/memory-output.js';

test('a pool lends only what it lent before and what came back, each once', () => {
  const pool = new ChunkPool();
  const [one, two] = [pool.take(), pool.take()];
  pool.giveBack(one.subarray(0, 10));
  pool.giveBack(Buffer.alloc(one.length));
  assert.ok(![one, two].includes(pool.take()));
  pool.giveBack(one);
  pool.giveBack(one);
  assert.equal(pool.take(), one);
  assert.notEqual(pool.take(), one);
});

/** The changes of a room of many chunks. */
async function changes(
  t: TestContext,
  giveBackOf: (source: RoomSource) => RoomSource['giveBack'],
): Promise<string> {
  const folder = await temporaryFolder(t);
  writeRoomFiles([{ kind: 'branching', groups: 4000, keys: 700, seed: 3 }], folder);
  const source = await openFilesSource({
    inputs: [folder],
    stdin: Readable.from([]),
    room: roomName(3, 0),
    range: {},
    memory: 2 ** 20,
    tmpdir: folder,
  });
  const giveBack = giveBackOf(source);
  const output = memoryOutput();
  await compressRoom({
    source: {
      room: source.room,
      groups: source.groups,
      rowColumns: source.rowColumns,
      snapshotTime: source.snapshotTime,
      warnings: source.warnings,
      rows: () => source.rows(),
      close: () => source.close(),
      ...(giveBack && { giveBack }),
    },
    output,
  });
  return output.text();
}

test('what is given back may be written over at once', async (t) => {
  const untouched = await changes(t, () => undefined);
  assert.ok(untouched.length > 100_000);
  let times = 0;
  const overwritten = await changes(t, (source) => (chunk) => {
    times++;
    chunk.fill('\n');
    source.giveBack?.(chunk);
  });
  assert.equal(overwritten, untouched);
  assert.ok(times > 5);
});
