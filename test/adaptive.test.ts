import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Room as GrowingRoom, CREATION_KEYS, ROOM_KINDS } from '../bench/rooms.js';
import type { RoomSettings } from '../bench/rooms.js';
import { Random } from '../bench/random.js';
import { withPending } from '../src/sources/group-table.js';
import { AdaptivePlanner, type AdaptiveSettings } from '../src/planner/adaptive.js';
import { applied } from './support/applied-room.js';
import { rooms, stateOf, tableOf, type Encodings, type Room } from './support/naive-room.js';
import { planRoom } from './support/plan-room.js';

/** So many last groups have hops left under them. */
const NEWEST = 10;

const settings = fc
  .record({
    maxHops: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constant(100)),
    kept: fc.double({ min: 0, max: 1, noNaN: true }),
    rebaseDeep: fc.boolean(),
  })
  .map(({ maxHops, kept, rebaseDeep }): Required<AdaptiveSettings> => {
    return { maxHops, headroom: Math.floor(kept * (maxHops - 1)), rebaseDeep };
  });

const generated: fc.Arbitrary<RoomSettings> = fc.record({
  kind: fc.constantFrom(...ROOM_KINDS),
  groups: fc.integer({ min: 1, max: 400 }),
  keys: fc.integer({ min: CREATION_KEYS + 1, max: 60 }),
  seed: fc.nat(),
});

/** Views of a room, which differ in so many keys and take turns at random, each group stored on the last one. */
const views = fc
  .record({
    groups: fc.integer({ min: 1, max: 400 }),
    count: fc.integer({ min: 2, max: 5 }),
    apart: fc.integer({ min: 1, max: 40 }),
    seed: fc.nat(),
  })
  .map(takingTurns);

/** Random trees with all that real databases hold, and rooms that grow as Synapse's do. */
const anyRoom = fc.oneof(rooms(150, { regular: true }), generated.map(grown), views);
const oddRoom = rooms(60, { regular: false });

function grown(room: RoomSettings): Room {
  const growing = new GrowingRoom(room);
  return Array.from({ length: room.groups }, (_, n): Room[number] => {
    const { id, predecessor, rowKeys, state } = growing.next(n + 1);
    return {
      id,
      reason: 'in-range',
      predecessors: predecessor === undefined ? [] : [predecessor],
      rows: Array.from(rowKeys, (key) => [`type\t${key}`, `$${state[key]}`] as const),
    };
  });
}

/** One key of all views changes with each group; a chain ends after a hundred groups, as Synapse's do. */
function takingTurns(room: { groups: number; count: number; apart: number; seed: number }): Room {
  const { groups, count, apart, seed } = room;
  const random = new Random(seed);
  const common = Array.from({ length: 60 }, () => 0);
  let last: Map<string, string> | undefined;
  return Array.from({ length: groups }, (_, n): Room[number] => {
    common[random.below(common.length)] = n;
    const view = random.below(count);
    const state = new Map(common.map((event, key) => [`common\t${key}`, `$${key} ${event}`]));
    for (let key = 0; key < apart; key++) state.set(`own\t${key}`, `$${view} ${key}`);
    const isDelta = n % 100 > 0;
    const rows = [...state].filter(([key, event]) => !isDelta || last!.get(key) !== event);
    last = state;
    return { id: n + 1, reason: 'in-range', predecessors: isDelta ? [n] : [], rows };
  });
}

async function compress(
  room: Room,
  chosen: AdaptiveSettings,
  isPending: (group: number) => boolean = () => false,
) {
  const planner = new AdaptivePlanner(chosen);
  const pending = Float64Array.from(room.map(({ id }) => id).filter(isPending));
  const { planned, plan } = await planRoom(room, withPending(tableOf(room), pending), planner);
  return { planned, planner, counts: plan.counts, after: applied(room, planned) };
}

const encodingsOf = (room: Room): Encodings => new Map(room.map((group) => [group.id, group]));

/** For each group the number of groups in its chain; only for rooms without circles. */
function chains(room: Room): Map<number, number> {
  const hops = new Map<number, number>();
  for (const { id, predecessors } of room) hops.set(id, 1 + (hops.get(predecessors[0]) ?? 0));
  return hops;
}

/** Groups that are planned: of a regular room those in range. */
const inRange = (room: Room) => room.filter(({ reason }) => reason === 'in-range');

const newestOf = (room: Room) => inRange(room).slice(-NEWEST);

describe('adaptive', () => {
  for (const [what, room] of [
    ['regular', anyRoom],
    ['irregular', oddRoom],
  ] as const) {
    it(`keeps the state of every group of ${what} rooms`, async () => {
      await fc.assert(
        fc.asyncProperty(room, settings, async (groups, chosen) => {
          const before = encodingsOf(groups);
          const after = encodingsOf((await compress(groups, chosen)).after);
          for (const { id } of groups) {
            assert.deepEqual(stateOf(id, after), stateOf(id, before), `state group ${id}`);
          }
        }),
        { numRuns: 60 },
      );
    });

    it(`changes nothing in ${what} rooms that it compressed`, async () => {
      await fc.assert(
        fc.asyncProperty(room, settings, async (groups, chosen) => {
          const { after } = await compress(groups, chosen);
          const again = await compress(after, chosen);
          assert.deepEqual(
            again.planned.filter(({ change }) => change !== undefined),
            [],
          );
        }),
        { numRuns: 150 },
      );
    });

    it(`plans the same for the same, in ${what} rooms`, async () => {
      await fc.assert(
        fc.asyncProperty(room, settings, async (groups, chosen) => {
          const first = await compress(groups, chosen);
          const second = await compress(groups, chosen);
          assert.deepEqual(second.planned, first.planned);
        }),
        { numRuns: 30 },
      );
    });
  }

  for (const kind of ROOM_KINDS) {
    it(`changes nothing in a room of the kind ${kind} that it compressed`, async () => {
      const room = grown({ kind, groups: 3000, keys: kind === 'small' ? 30 : 600, seed: 8 });
      const { counts, after } = await compress(room, {});
      assert.ok(counts.rowsAfter <= counts.rowsBefore);
      assert.equal((await compress(after, {})).counts.groupsWritten, 0);
      const beside = await compress(after, {}, (group) => group % 7 === 3);
      assert.equal(beside.counts.groupsWritten, 0, 'also where Synapse is about to delete groups');
    });
  }

  it('leaves what Synapse is about to delete as it is, and bases nothing on it anew', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(anyRoom, oddRoom),
        settings,
        fc.integer({ min: 2, max: 7 }),
        async (groups, chosen, share) => {
          const isPending = (group: number): boolean => group % share === 1;
          const { planned, after } = await compress(groups, chosen, isPending);
          for (const { stateGroup, oldPredecessor, newPredecessor = 0, change } of planned) {
            if (change === undefined) continue;
            assert.ok(!isPending(stateGroup), `state group ${stateGroup}`);
            assert.ok(!isPending(newPredecessor), `${oldPredecessor} became ${newPredecessor}`);
          }
          const [before, now] = [encodingsOf(groups), encodingsOf(after)];
          for (const { id } of groups) {
            assert.deepEqual(stateOf(id, now), stateOf(id, before), `state group ${id}`);
          }
          const again = await compress(after, chosen, isPending);
          assert.equal(again.counts.groupsWritten, 0);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('makes no chain longer than asked for, unless it was, and says how many it left', async () => {
    await fc.assert(
      fc.asyncProperty(anyRoom, settings, async (groups, chosen) => {
        const { after, planner } = await compress(groups, chosen);
        const before = chains(groups);
        let deep = 0;
        const longest = chains(after);
        for (const { id, reason } of groups) {
          const hops = longest.get(id)!;
          if (/other-room|missing-group/.test(reason) || hops <= chosen.maxHops) continue;
          assert.ok(hops <= before.get(id)!, `${id}: ${before.get(id)} hops became ${hops}`);
          if (reason === 'in-range') deep++;
        }
        if (chosen.rebaseDeep) assert.equal(deep, 0);
        assert.deepEqual(
          planner.warnings.map((warning) => Number.parseInt(warning, 10)),
          deep === 0 ? [] : [deep],
        );
      }),
      { numRuns: 150 },
    );
  });

  it('shortens what a run that was cut off has left too long, where rows are saved before it', async () => {
    const room = grown({ kind: 'backfill', groups: 3000, keys: 300, seed: 8 });
    const changes = (await compress(room, {})).planned.filter(({ change }) => change !== undefined);
    const cutOff = applied(room, changes.slice(0, changes.length / 4));
    assert.equal(Math.max(...chains(cutOff).values()), 108);
    const { after, counts, planner } = await compress(cutOff, {});
    assert.equal(Math.max(...chains(after).values()), 100);
    assert.deepEqual(planner.warnings, []);
    assert.ok(counts.rowsAfter < counts.rowsBefore && !planner.mayCostRows);
  });

  it('leaves hops under the newest groups, unless that costs more rows than were saved', async () => {
    await fc.assert(
      fc.asyncProperty(anyRoom, settings, async (groups, chosen) => {
        const { planned, after } = await compress(groups, chosen);
        const hops = chains(after);
        const newest = new Set(newestOf(groups).map(({ id }) => id));
        let saved = 0;
        for (const { stateGroup, newRows, change } of planned) {
          // A row that is stored twice is one to the planner.
          const { rows } = groups.find(({ id }) => id === stateGroup)!;
          if (change !== undefined) saved += new Map(rows).size - newRows;
          const length = hops.get(stateGroup)!;
          if (!newest.has(stateGroup) || length <= chosen.maxHops - chosen.headroom) continue;
          if (length > chosen.maxHops && !chosen.rebaseDeep) continue;
          assert.ok(
            saved < stateOf(stateGroup, encodingsOf(after)).size,
            `state group ${stateGroup} has ${length} hops, though ${saved} rows were saved`,
          );
        }
      }),
      { numRuns: 100 },
    );
  });

  it('rewrites only groups that take fewer rows then, or whose chain has grown too long', async () => {
    await fc.assert(
      fc.asyncProperty(anyRoom, settings, async (groups, chosen) => {
        const { planned, after } = await compress(groups, chosen);
        const hops = chains(after);
        const newest = new Set(newestOf(groups).map(({ id }) => id));
        const { ids, hanging } = tableOf(groups);
        for (const { stateGroup, oldPredecessor, oldRows, newRows, change } of planned) {
          if (change === undefined || newRows < oldRows) continue;
          const headroom = newest.has(stateGroup) ? chosen.headroom : 0;
          const above = hanging[ids.indexOf(stateGroup)] ?? 0;
          assert.ok(
            hops.get(oldPredecessor!)! >= chosen.maxHops - headroom - above,
            `state group ${stateGroup} gains nothing: ${oldRows} rows became ${newRows}`,
          );
        }
      }),
      { numRuns: 150 },
    );
  });

  it('writes no group on one that is not of the room', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(anyRoom, oddRoom), settings, async (groups, chosen) => {
        const { planned } = await compress(groups, chosen);
        for (const { stateGroup, newPredecessor, change } of planned) {
          if (change === undefined || newPredecessor === undefined) continue;
          const { reason } = groups.find(({ id }) => id === newPredecessor)!;
          assert.doesNotMatch(
            reason,
            /other-room|missing-group/,
            `${stateGroup} on ${newPredecessor}`,
          );
        }
      }),
      { numRuns: 300 },
    );
  });

  it('bases a view of a room on its own last group, though each is stored on the other', async () => {
    for (const apart of [7, 30, 90]) {
      const room = takingTurns({ groups: 2000, count: 2, apart, seed: 1 });
      const { counts } = await compress(room, {});
      assert.ok(counts.rowsAfter < 4 * room.length, `${apart} apart: ${counts.rowsAfter}`);
    }
  });

  it('holds the states that it may still choose, and no more in a longer room', async () => {
    const planner = new Watched();
    const room = grown({ kind: 'line', groups: 6000, keys: 40, seed: 5 });
    await planRoom(room, tableOf(room), planner);
    assert.ok(planner.mostStates < 1000, `${planner.mostStates} states were live at one time`);
  });

  it('holds no state for groups on it that were passed by', async () => {
    const planner = new Watched();
    const room = Array.from({ length: 6000 }, (_, n): Room[number] => ({
      id: n + 1,
      reason: 'in-range',
      predecessors: n === 0 ? [] : [n % 3 === 2 ? n - 1 : n],
      rows: [
        [`type\t${n % 40}`, `$${n}`],
        // The last of two groups on one has no state that is known.
        ...(n % 3 === 2 ? [[`type\t${n % 40}`, '$other'] as const] : []),
      ],
    }));
    await planRoom(room, tableOf(room), planner);
    assert.ok(planner.mostStates < 1500, `${planner.mostStates} states were live at one time`);
  });

  it('holds no more of a chain that is stored far too deep', async () => {
    const planner = new Watched();
    const room = Array.from({ length: 6000 }, (_, n): Room[number] => ({
      id: n + 1,
      reason: 'in-range',
      predecessors: n === 0 ? [] : [n],
      rows: [[`type\t${n % 40}`, `$${n}`]],
    }));
    await planRoom(room, tableOf(room), planner);
    assert.match(planner.warnings.join(), /^5900 state groups are in stored chains/);
    assert.ok(planner.mostStates < 1000, `${planner.mostStates} states were live at one time`);
  });
});

/** Notes how many states live at one time. */
class Watched extends AdaptivePlanner {
  mostStates = 0;

  override plan(...group: Parameters<AdaptivePlanner['plan']>): boolean {
    [{ length: this.mostStates }] = group;
    return super.plan(...group);
  }
}
