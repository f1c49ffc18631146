import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { roomName, writeTables } from '../bench/room-tables.js';
import { CREATION_KEYS, Room, ROOM_KINDS } from '../bench/rooms.js';
import type { RoomSettings } from '../bench/rooms.js';
import { testPostgres } from './support/postgres.js';

/** A made group, with copies of its arrays, and what follows from its predecessors. */
interface Kept {
  readonly id: number;
  readonly predecessor: number | undefined;
  readonly rowKeys: readonly number[];
  readonly state: readonly number[];
  readonly chain: number;
}

/** All groups of a room by id; ids are the odd numbers. */
function grow(settings: RoomSettings): Map<number, Kept> {
  const room = new Room(settings);
  const groups = new Map<number, Kept>();
  for (let id = 1; room.left > 0; id += 2) {
    const { predecessor, rowKeys, state } = room.next(id);
    const chain = predecessor === undefined ? 1 : groups.get(predecessor)!.chain + 1;
    groups.set(id, { id, predecessor, rowKeys: [...rowKeys], state: [...state], chain });
  }
  return groups;
}

function successors(groups: Map<number, Kept>): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { predecessor } of groups.values()) {
    if (predecessor !== undefined) counts.set(predecessor, (counts.get(predecessor) ?? 0) + 1);
  }
  return counts;
}

function lines(chunks: readonly Buffer[]): string[][] {
  const text = Buffer.concat(chunks).toString();
  assert.ok(text === '' || text.endsWith('\n'));
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => line.split('\t'));
}

function tables(rooms: readonly RoomSettings[]) {
  const chunks = [0, 1, 2].map((): Buffer[] => []);
  const [stateGroups, stateGroupEdges, stateGroupsState] = chunks.map(
    (list) => (bytes: Uint8Array) => void list.push(Buffer.from(bytes)),
  );
  const counts = writeTables(rooms, { stateGroups, stateGroupEdges, stateGroupsState });
  const [groups, edges, rows] = chunks.map(lines);
  return { counts, groups, edges, rows, bytes: chunks.map((list) => Buffer.concat(list)) };
}

const anyRoom: fc.Arbitrary<RoomSettings> = fc.record({
  kind: fc.constantFrom(...ROOM_KINDS),
  groups: fc.integer({ min: 1, max: 600 }),
  keys: fc.integer({ min: CREATION_KEYS + 1, max: 60 }),
  seed: fc.nat(),
});

describe('a generated room', () => {
  it('stores, along each chain, the state that the group has', () => {
    fc.assert(
      fc.property(anyRoom, (settings) => {
        const groups = grow(settings);
        assert.equal(groups.size, settings.groups);
        for (const group of groups.values()) {
          const base = groups.get(group.predecessor ?? -1);
          const read = [...(base?.state ?? group.state.map(() => 0))];
          for (const key of group.rowKeys) read[key] = group.state[key];
          assert.deepEqual(read, group.state, `group ${group.id}`);
        }
      }),
    );
  });

  it('has smaller predecessors, chains of at most 100 groups, and no row that changes nothing', () => {
    fc.assert(
      fc.property(anyRoom, (settings) => {
        const groups = grow(settings);
        for (const { id, predecessor, rowKeys, state, chain } of groups.values()) {
          assert.equal(new Set(rowKeys).size, rowKeys.length, `group ${id} has a key twice`);
          assert.ok(chain <= 100, `group ${id} ends a chain of ${chain}`);
          if (predecessor === undefined) continue;
          assert.ok(predecessor < id);
          const before = groups.get(predecessor)!.state;
          for (const key of rowKeys) assert.notEqual(state[key], before[key], `group ${id}`);
        }
      }),
    );
  });

  it('writes a snapshot at every 101st group of a line', () => {
    const groups = [...grow({ kind: 'line', groups: 350, keys: 40, seed: 7 }).values()];
    const snapshots = groups.filter(({ predecessor }) => predecessor === undefined);
    assert.deepEqual(
      snapshots.map(({ id }) => (id - 1) / 2),
      [0, 100, 200, 300],
    );
  });

  it('forks, merges, drops keys and takes old history late, unless it is a line', () => {
    const line = grow({ kind: 'line', groups: 20_000, keys: 40, seed: 3 });
    assert.equal(Math.max(...successors(line).values()), 1);

    for (const kind of ['branching', 'backfill', 'resolution', 'churn', 'small'] as const) {
      const groups = grow({ kind, groups: 20_000, keys: 40, seed: 3 });
      assert.ok(Math.max(...successors(groups).values()) > 1, `${kind}: no fork`);
      const deltas = [...groups.values()].filter(({ predecessor }) => predecessor !== undefined);
      assert.ok(
        deltas.some(({ rowKeys }) => rowKeys.length > 1),
        `${kind}: no merge`,
      );
      assert.ok(
        deltas.some(({ id, predecessor }) => id - predecessor! > 1000),
        `${kind}: nothing stands on an old group`,
      );
      assert.ok(groups.size - deltas.length > 20_000 / 100, `${kind}: no early snapshot`);
    }
  });

  it('lets keys vanish, which needs a snapshot, and come back', () => {
    const groups = [...grow({ kind: 'branching', groups: 5000, keys: 200, seed: 3 }).values()];
    const known = new Set<number>();
    let vanished = 0;
    let cameBack = 0;
    for (const [i, { predecessor, rowKeys, state }] of groups.entries()) {
      const recent = groups.slice(Math.max(0, i - 20), i);
      const alike = recent.find((other) => state.filter((e, k) => e !== other.state[k]).length < 9);
      const lacks = alike?.state.some((event, key) => event !== 0 && state[key] === 0);
      if (predecessor === undefined && lacks) vanished++;
      if (predecessor !== undefined) {
        const before = groups[(predecessor - 1) / 2].state;
        if (rowKeys.some((key) => known.has(key) && before[key] === 0)) cameBack++;
      }
      for (const key of rowKeys) known.add(key);
    }
    assert.ok(vanished > 0);
    assert.ok(cameBack > 0);
  });
});

describe('generated tables', () => {
  const rooms = [1, 2, 3].map((seed): RoomSettings => {
    return { kind: 'branching', groups: 300, keys: 60, seed };
  });

  it('hold each room as it grew, in ascending and interleaved ids', () => {
    const { counts, groups, edges, rows } = tables(rooms);
    assert.deepEqual(counts, { groups: groups.length, edges: edges.length, rows: rows.length });
    for (const table of [groups, edges, rows]) {
      assert.ok(table.every((line, i) => i === 0 || Number(line[0]) >= Number(table[i - 1][0])));
    }

    for (const [index, settings] of rooms.entries()) {
      const name = roomName(settings.seed, index);
      const room = new Room(settings);
      const ids = groups.filter((line) => line[1] === name).map(([id]) => id);
      assert.equal(ids.length, settings.groups);
      assert.ok(Number(ids.at(-1)) > ids.length, 'no other room wrote meanwhile');
      for (const id of ids) {
        const made = room.next(Number(id));
        assert.deepEqual(
          edges.filter(([group]) => group === id),
          made.predecessor === undefined ? [] : [[id, String(made.predecessor)]],
        );
        const stored = rows.filter(([group]) => group === id);
        assert.equal(stored.length, made.rowKeys.length);
        assert.ok(stored.every((line) => line[1] === name && line.length === 5));
      }
    }
  });

  it('name one key and one event by one text, and others by others', () => {
    const settings = rooms[0];
    const { groups, rows } = tables([settings]);
    const room = new Room(settings);
    const keyTexts = new Map<number, string>();
    const eventTexts = new Map<number, string>();
    let row = 0;
    for (const [id] of groups) {
      const { rowKeys, state } = room.next(Number(id));
      for (const key of rowKeys) {
        const [, , type, stateKey, event] = rows[row++];
        assert.match(event, /^\$[A-Za-z0-9_-]{43}$/);
        assert.equal(keyTexts.get(key) ?? `${type}\t${stateKey}`, `${type}\t${stateKey}`);
        assert.equal(eventTexts.get(state[key]) ?? event, event);
        keyTexts.set(key, `${type}\t${stateKey}`);
        eventTexts.set(state[key], event);
      }
    }
    assert.equal(new Set(keyTexts.values()).size, keyTexts.size);
    assert.equal(new Set(eventTexts.values()).size, eventTexts.size);
  });

  it('are the same for the same seed, and others for another', () => {
    assert.deepEqual(tables(rooms).bytes, tables(rooms).bytes);
    const [, ...others] = rooms;
    assert.notDeepEqual(tables([others[0]]).bytes, tables([others[1]]).bytes);
  });

  it('load into Postgres, odd state keys as well', async () => {
    const { counts, bytes } = tables(rooms);
    const postgres = await testPostgres();
    const db = await postgres.createDatabase({ schema: 'synapse' });
    try {
      const names = ['state_groups', 'state_group_edges', 'state_groups_state'];
      for (const [i, name] of names.entries()) await db.copyIn(name, Readable.from([bytes[i]]));
      const { rows } = await db.query<{ distinct: string; odd: string }>(
        `SELECT count(DISTINCT (state_group, type, state_key)) AS distinct,
            count(*) FILTER (WHERE state_key = E'tab\\tnewline\\nbackslash\\\\') AS odd
          FROM state_groups_state`,
      );
      assert.equal(Number(rows[0].distinct), counts.rows);
      assert.ok(Number(rows[0].odd) > 0);
    } finally {
      await db.drop();
    }
  });
});
