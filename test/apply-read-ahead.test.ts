import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { readAhead } from '../src/apply/read-ahead.js';
import type { RoomChange } from '../src/changes/room-change.js';

const MEGABYTE = 1024 * 1024;

/** Changes of groups 1, 2, 3, … with so many bytes of new rows each; tells how far they were read. */
function source(count: number, bytes: number, failure?: Error) {
  const told = { read: 0, isClosed: false };
  async function* changes(): AsyncGenerator<RoomChange> {
    try {
      for (let stateGroup = 1; stateGroup <= count; stateGroup++) {
        await setImmediate();
        told.read++;
        yield change(stateGroup, bytes);
      }
      if (failure !== undefined) throw failure;
    } finally {
      told.isClosed = true;
    }
  }
  return { told, changes: changes() };
}

function change(stateGroup: number, bytes: number): RoomChange {
  return {
    room: '!room:example.org',
    group: {
      stateGroup,
      oldPredecessor: undefined,
      newPredecessor: undefined,
      oldRows: 1,
      newRows: 1,
      change: { oldHash: 0n, newRowsHash: 0n, rows: Buffer.alloc(bytes) },
    },
  };
}

/** Lets all that can go on do so. */
async function settle(turns = 200): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await setImmediate();
}

async function groupsOf(changes: AsyncIterable<RoomChange>): Promise<number[]> {
  const groups: number[] = [];
  for await (const { group } of changes) groups.push(group.stateGroup);
  return groups;
}

for (const count of [0, 1, 5, 50]) {
  for (const megabytes of [0, 3, 9]) {
    test(`${count} changes of ${megabytes} MB come in their order`, async () => {
      const { changes, told } = source(count, megabytes * MEGABYTE);
      const expected = Array.from({ length: count }, (_, index) => index + 1);
      assert.deepEqual(await groupsOf(readAhead(changes)), expected);
      assert.ok(told.isClosed);
    });
  }
}

test('changes are read while those before are applied, up to 8 MB of rows', async () => {
  const { changes, told } = source(50, MEGABYTE);
  const ahead = readAhead(changes);
  await ahead.next();
  await settle();
  assert.equal(told.read, 9);
  await ahead.next();
  await settle();
  assert.equal(told.read, 10);
  await ahead.return(undefined);
});

test('changes without rows are not read without end', async () => {
  const { changes, told } = source(20_000, 0);
  const ahead = readAhead(changes);
  await ahead.next();
  await settle(10_000);
  assert.equal(told.read, 8193);
  await ahead.return(undefined);
});

test('one change that is larger is read, and no other', async () => {
  const { changes, told } = source(50, 9 * MEGABYTE);
  const ahead = readAhead(changes);
  await ahead.next();
  await settle();
  assert.equal(told.read, 2);
  await ahead.return(undefined);
});

test('what is wrong with the source shows after all that came before it', async () => {
  const failure = new Error('cut off');
  const ahead = readAhead(source(3, 1, failure).changes);
  const groups: number[] = [];
  await assert.rejects(async () => {
    for await (const { group } of ahead) {
      groups.push(group.stateGroup);
      await settle();
    }
  }, failure);
  assert.deepEqual(groups, [1, 2, 3]);
});

for (const megabytes of [0, 3]) {
  test(`the source is closed where no more is taken, with changes of ${megabytes} MB`, async () => {
    const { changes, told } = source(50, megabytes * MEGABYTE);
    for await (const { group } of readAhead(changes)) {
      if (group.stateGroup === 2) break;
    }
    await settle();
    assert.ok(told.isClosed);
    assert.ok(told.read < 50);
  });
}

test('a source that is silent keeps nobody who takes no more', { timeout: 5000 }, async () => {
  async function* changes(): AsyncGenerator<RoomChange> {
    yield change(1, 1);
    await new Promise(() => {});
  }
  const ahead = readAhead(changes());
  await ahead.next();
  await ahead.return(undefined);
});
