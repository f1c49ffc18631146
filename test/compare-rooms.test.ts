import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compareRooms } from '../src/verify/compare-rooms.js';
import type { Comparison } from '../src/verify/compare-rooms.js';
import { RoomStates, SharedStates } from '../src/verify/room-states.js';
import { decoded } from './support/naive-copy-text.js';
import { rooms, stateOf } from './support/naive-room.js';
import type { Room } from './support/naive-room.js';
import { shape, sourceOf } from './support/naive-source.js';

/** What a run of `compareRooms` must find, from the whole states. */
function model(before: Room, after: Room) {
  const encodings = [before, after].map((room) => new Map(room.map((group) => [group.id, group])));
  const [idsBefore, idsAfter] = [before, after].map((room) =>
    room.filter(({ reason }) => reason === 'in-range').map(({ id }) => id),
  );
  const common = idsBefore.filter((id) => idsAfter.includes(id));
  const differences = new Map(
    common.flatMap((id) => {
      const [was, is] = encodings.map((encoding) => stateOf(id, encoding));
      const events = (state: typeof was, key: string) => [...(state.get(key) ?? [])].sort();
      const keys = [...new Set([...was.keys(), ...is.keys()])]
        .filter((key) => events(was, key).join() !== events(is, key).join())
        .sort((a, b) => (`${a}\t` < `${b}\t` ? -1 : 1));
      if (keys.length === 0) return [];
      const utf8 = (text: string) => Buffer.from(decoded(text), 'latin1').toString();
      const [type, stateKey] = keys[0].split('\t').map(utf8);
      const [first] = keys;
      return [
        [
          id,
          {
            stateGroup: id,
            keys: keys.length,
            type,
            stateKey,
            before: events(was, first),
            after: events(is, first),
          },
        ] as const,
      ];
    }),
  );
  const some = (ids: readonly number[]) => ({ count: ids.length, examples: ids.slice(0, 5) });
  return {
    common,
    differences,
    onlyBefore: some(idsBefore.filter((id) => !idsAfter.includes(id))),
    onlyAfter: some(idsAfter.filter((id) => !idsBefore.includes(id))),
  };
}

const some = ({ count, examples }: Comparison['onlyBefore']) => ({ count, examples });

/** Some rows, edges or groups of a room made otherwise. */
function changed(room: Room, changes: readonly [number, number, number][]): Room {
  const groups = room.map((group) => ({ ...group }));
  for (const [at, what, which] of changes) {
    const group = groups[at % groups.length];
    const { rows, predecessors } = group;
    const row = which % Math.max(1, rows.length);
    if (what === 0) group.rows = rows.filter((_, n) => n !== row);
    if (what === 1)
      group.rows = rows.map((stored, n) => (n === row ? [stored[0], '$changed'] : stored));
    if (what === 2) group.predecessors = [...predecessors, groups[which % groups.length].id];
    if (what === 3) group.predecessors = predecessors.slice(1);
    if (what === 4) group.rows = [...rows, ...groups[which % groups.length].rows.slice(0, 1)];
    if (what === 5) group.reason = 'missing-group';
  }
  return groups;
}

for (const regular of [true, false]) {
  test(`states of ${regular ? 'regular' : 'any'} rooms are compared as Synapse reads them`, async () => {
    await fc.assert(
      fc.asyncProperty(
        rooms(40, { regular }),
        fc.array(fc.tuple(fc.nat(), fc.nat(regular ? 1 : 5), fc.nat()), { maxLength: 3 }),
        shape,
        shape,
        async (before, changes, shapeBefore, shapeAfter) => {
          const after = changed(before, changes);
          const expected = model(before, after);
          const comparison = await compareRooms({
            before: sourceOf(before, shapeBefore),
            after: sourceOf(after, shapeAfter),
          });
          assert.deepEqual(some(comparison.onlyBefore), expected.onlyBefore);
          assert.deepEqual(some(comparison.onlyAfter), expected.onlyAfter);
          assert.equal(comparison.notCompared.count, 0);
          const { difference } = comparison;
          if (difference === undefined) {
            assert.deepEqual([...expected.differences.keys()], []);
            assert.equal(comparison.compared, expected.common.length);
          } else {
            const { stateGroup } = difference;
            assert.deepEqual(difference, expected.differences.get(stateGroup));
            if (regular) {
              assert.equal(stateGroup, [...expected.differences.keys()][0]);
              assert.equal(comparison.compared, expected.common.indexOf(stateGroup) + 1);
            }
          }
        },
      ),
      { numRuns: 500 },
    );
  });
}

test('states are forgotten when nothing is built on them any more', async () => {
  await fc.assert(
    fc.asyncProperty(rooms(40, { regular: false }), shape, async (room, shapeOfRoom) => {
      const source = sourceOf(room, shapeOfRoom);
      const shared = new SharedStates();
      const states = new RoomStates(source, shared, (_group, state) => {
        shared.states.release(state);
      });
      for await (const chunk of source.rows()) states.write(chunk as Buffer);
      states.end();
      // The last state is kept for the next snapshot; it has no more than one entry a key.
      const { holders, key, length } = shared.entries;
      const left = [...key.subarray(0, length)].filter((_, entry) => holders[entry] > 0);
      assert.equal(new Set(left).size, left.length);
      assert.ok(holders.subarray(0, length).every((count) => count <= 1));
    }),
    { numRuns: 300 },
  );
});

test('groups that too many irregular ones lead to are counted, not compared', async () => {
  const room: Room = Array.from({ length: 2200 }, (_, n) => ({
    id: n + 1,
    reason: 'in-range',
    predecessors: [n, n - 1].filter((id) => id > 0),
    rows: n % 500 === 0 ? [[`key${n}\t`, '$event']] : [],
  }));
  const same = { columns: 'without-room', lengths: [65_536] } as const;
  const comparison = await compareRooms({
    before: sourceOf(room, same),
    after: sourceOf(room, same),
  });
  const { compared, notCompared, difference } = comparison;
  assert.equal(difference, undefined);
  assert.equal(compared + notCompared.count, 2200);
  assert.deepEqual(
    notCompared.examples,
    [0, 1, 2, 3, 4].map((n) => compared + 1 + n),
  );
  assert.ok(compared > 2000);
});
