import assert from 'node:assert/strict';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setImmediate } from 'node:timers/promises';
import { describe, it, test } from 'node:test';
import fc from 'fast-check';
import { writeRoomFiles } from '../bench/room-files.js';
import { roomName } from '../bench/room-tables.js';
import { LevelsPlanner } from '../src/planner/levels.js';
import type { Hops } from '../src/planner/room-counts.js';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import { RoomPlan } from '../src/planner/room-plan.js';
import { applied, rowsOf } from './support/applied-room.js';
import { temporaryFolder } from './support/fixtures.js';
import * as naive from './support/naive-copy-text.js';
import { naiveLevels } from './support/naive-levels.js';
import { rooms, stateOf, tableOf, type Encodings, type Room } from './support/naive-room.js';
import { planRoom } from './support/plan-room.js';
import { runCli } from './support/run-cli.js';

const sizes = fc.oneof(
  fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
  fc.constant([100, 50, 25]),
);

const encodingsOf = (room: Room): Encodings => new Map(room.map((group) => [group.id, group]));

/** The counts of a plan and its planner, as `naiveLevels` has them. */
function countsOf({ counts }: RoomPlan, planner: LevelsPlanner) {
  const { groups, rowsBefore, rowsAfter, stateGroupsChanged, groupsWritten } = counts;
  const { rowsDeleted, rowsInserted, groupsPassedThrough, contradictory } = counts;
  const { forcedResets, forcedResetRows } = planner;
  return {
    groups,
    rowsBefore,
    rowsAfter,
    stateGroupsChanged,
    groupsWritten,
    rowsDeleted,
    rowsInserted,
    groupsPassedThrough,
    contradictoryGroups: contradictory.count,
    forcedResets,
    forcedResetRows,
  };
}

describe("a room's plan", () => {
  for (const regular of [true, false]) {
    const what = regular ? 'regular' : 'any';
    const room = rooms(regular ? 150 : 60, { regular });

    it(`is what a naive model of levels plans, for ${what} rooms`, async () => {
      await fc.assert(
        fc.asyncProperty(room, sizes, async (groups, levels) => {
          const table = tableOf(groups);
          const planner = new LevelsPlanner(levels);
          const { planned, plan } = await planRoom(groups, table, planner);
          const expected = naiveLevels(groups, table, levels);
          assert.deepEqual(
            planned.map(({ stateGroup, newPredecessor, change }) => ({
              stateGroup,
              newPredecessor,
              rows: change && rowsOf(change.rows),
            })),
            expected.planned,
          );
          const { counts } = plan;
          assert.deepEqual(countsOf(plan, planner), expected.counts);
          assert.deepEqual(
            {
              before: largestAndMean(counts.hopsBefore.figures),
              after: largestAndMean(counts.hopsAfter.figures),
            },
            expected.hops,
          );
          assert.equal(plan.groupsVerified, counts.groupsWritten);
        }),
        { numRuns: 150 },
      );
    });

    it(`keeps the state of every group, for ${what} rooms`, async () => {
      await fc.assert(
        fc.asyncProperty(room, sizes, async (groups, levels) => {
          const { planned } = await planRoom(groups, tableOf(groups), new LevelsPlanner(levels));
          const before = encodingsOf(groups);
          const after = encodingsOf(applied(groups, planned));
          for (const { id } of groups) {
            assert.deepEqual(stateOf(id, after), stateOf(id, before), `state group ${id}`);
          }
          for (const { stateGroup, oldPredecessor, oldRows, newRows, ...group } of planned) {
            const { predecessors, rows } = before.get(stateGroup)!;
            assert.equal(oldRows, rows.length);
            assert.equal(newRows, after.get(stateGroup)!.rows.length);
            if (group.change === undefined) assert.equal(group.newPredecessor, oldPredecessor);
            else assert.deepEqual([...new Set(predecessors)], [oldPredecessor ?? []].flat());
          }
        }),
        { numRuns: 150 },
      );
    });
  }

  it('leaves alone what is irregular, and what irregular groups read through', async () => {
    await fc.assert(
      fc.asyncProperty(rooms(60, { regular: false }), sizes, async (groups, levels) => {
        const { planned } = await planRoom(groups, tableOf(groups), new LevelsPlanner(levels));
        const changed = new Set(
          planned.flatMap(({ stateGroup, change }) => (change === undefined ? [] : [stateGroup])),
        );
        const untouched = untouchable(groups);
        assert.deepEqual(
          [...untouched].filter((id) => changed.has(id)),
          [],
        );
        for (const { id, reason } of groups) {
          if (reason !== 'in-range') assert.ok(!changed.has(id));
        }
      }),
      { numRuns: 100 },
    );
  });

  it('does not depend on the order of a group’s rows, on their columns, nor on how chunks are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        rooms(60, { regular: false }),
        naive.lengths,
        fc.infiniteStream(fc.nat()),
        async (groups, lengths, numbers) => {
          const table = tableOf(groups);
          const shuffled = groups.map((group) => ({
            ...group,
            rows: group.rows
              .map((row) => ({ row, place: numbers.next().value as number }))
              .sort((a, b) => a.place - b.place)
              .map(({ row }) => row),
          }));
          const first = await planRoom(groups, table, new LevelsPlanner([3, 2]));
          const second = await planRoom(shuffled, table, new LevelsPlanner([3, 2]), {
            columns: 'with-room',
            lengths,
          });
          assert.deepEqual(second.planned, first.planned);
        },
      ),
      { numRuns: 60 },
    );
  });
});

it('writes a group anew on its own predecessor if that saves rows', async () => {
  const { planned } = await planGroups([
    [1, [], ['a', '$1']],
    [2, [1], ['b', '$2']],
    [3, [1], ['a', '$1'], ['c', '$3']],
  ]);
  assert.deepEqual(
    planned.map(({ newPredecessor, oldRows, newRows }) => [newPredecessor, oldRows, newRows]),
    [
      [undefined, 1, 1],
      [1, 1, 1],
      [1, 2, 1],
    ],
  );
  assert.equal(planned[2].change?.rows.toString(), 'type\tc\t$3\n');
});

it('knows that a group without predecessor and rows has an empty state', async () => {
  const { planned, plan } = await planGroups([
    [1, [], ['a', '$1'], ['b', '$2']],
    [2, []],
    [3, [2], ['a', '$1']],
    [4, [3], ['b', '$2']],
  ]);
  assert.deepEqual(
    planned.map(({ newPredecessor, change }) => [newPredecessor, change]),
    [undefined, undefined, 2, 3].map((predecessor) => [predecessor, undefined]),
  );
  assert.equal(plan.counts.stateGroupsChanged, 1);
});

type Stored = [id: number, predecessors: number[], ...rows: [key: string, event: string][]];

function planGroups(groups: readonly Stored[]) {
  const room = groups.map(([id, predecessors, ...rows]): Room[number] => ({
    id,
    reason: 'in-range',
    predecessors,
    rows: rows.map(([key, event]) => [`type\t${key}`, event]),
  }));
  return planRoom(room, tableOf(room), new LevelsPlanner([10]));
}

/** Irregular and contradictory groups with all that descends from them, and all that irregular ones descend from. */
function untouchable(room: Room): Set<number> {
  const found = new Set<number>();
  for (const { id, predecessors, rows } of room) {
    const ancestors = ancestorsOf(id, room);
    const irregular =
      ancestors.has(id) || new Set(predecessors).size > 1 || predecessors.some((p) => p > id);
    const contradictory = new Set(rows.map(([key]) => key)).size < new Set(rows.map(String)).size;
    if (irregular) for (const ancestor of ancestors) found.add(ancestor);
    if (!irregular && !contradictory) continue;
    found.add(id);
    for (const other of room) if (ancestorsOf(other.id, room).has(id)) found.add(other.id);
  }
  return found;
}

function ancestorsOf(id: number, room: Room): Set<number> {
  const found = new Set<number>();
  const look = (from: number): void => {
    for (const predecessor of room.find((group) => group.id === from)!.predecessors) {
      if (!found.has(predecessor)) look((found.add(predecessor), predecessor));
    }
  };
  look(id);
  return found;
}

function largestAndMean({ largest, mean }: Hops): Pick<Hops, 'largest' | 'mean'> {
  return { largest, mean };
}

test('a small chunk that becomes many large changes is passed on in pieces, as they are taken', async () => {
  // Of two snapshots neither can be the other's base, and groups stand on them in turns: to levels all are snapshots.
  const keys = Array.from({ length: 1500 }, (_, n) => `type\t@member${n}:example.org`);
  const groups = Array.from({ length: 400 }, (_, n): Room[number] => ({
    id: n + 1,
    reason: 'in-range',
    predecessors: n < 2 ? [] : [(n % 2) + 1],
    rows: n < 2 ? [...keys, `only\t${n}`].map((key) => [key, '$event']) : [[keys[n], `$${n}`]],
  }));
  const lines = groups.flatMap(({ id, rows }) => rows.map((row) => `${id}\t${row.join('\t')}\n`));
  const source = { groups: tableOf(groups), room: '!room', rowColumns: 'without-room' } as const;
  // Wherever in a chunk its last piece ends.
  for (const cutAt of [1e6, ...Array.from({ length: 35 }, (_, n) => 700 + 20 * n)]) {
    const chunks = naive.cut(Buffer.from(lines.join('')), [cutAt]);
    const plan = new RoomPlan(source, new LevelsPlanner());
    let waiting = 0;
    plan.on('planned', () => waiting++);
    let largest = 0;
    let total = 0;
    const slow = new Writable({
      objectMode: true,
      highWaterMark: 2,
      write(planned: readonly PlannedGroup[], _encoding, written) {
        assert.ok(waiting <= 8, `${waiting} pieces wait`);
        if (planned.length > 0) waiting--;
        const bytes = planned.map(({ change }) => change?.rows.length ?? 0);
        const sum = bytes.reduce((before, length) => before + length, 0);
        largest = Math.max(largest, sum);
        total += sum;
        process.nextTick(written);
      },
    });
    await pipeline(Readable.from(oneByOne(chunks)), plan, slow);
    assert.ok(total > 12_000_000, `${total} bytes`);
    assert.ok(largest < 1_200_000, `${largest} bytes`);
  }
});

test('a plan that is ten times the room comes to its end, however it is written', async (t) => {
  const folder = await temporaryFolder(t);
  writeRoomFiles([{ kind: 'resolution', groups: 20_000, keys: 1112, seed: 1 }], folder);
  const args = ['-i', folder, '-r', roomName(1, 0), '-l', '100,50,25', '-t', '-o', 'out.sql'];
  const { code, stderr } = await runCli(args, { cwd: folder });
  assert.equal(code, 0, stderr);
  assert.match(stderr, /would not remove any rows/);
});

/** One chunk after the other is taken: streams do not hold back what is written once the last one is. */
async function* oneByOne(chunks: readonly Buffer[]): AsyncGenerator<Buffer> {
  for (const chunk of chunks) {
    yield chunk;
    await setImmediate();
  }
}
