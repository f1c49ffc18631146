import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  ELSEWHERE,
  FROZEN,
  GroupTableBuilder,
  IN_RANGE,
  NO_PREDECESSOR,
  PENDING,
  UNREADABLE,
  withPending,
  type GroupTable,
  type IrregularityKind,
} from '../src/sources/group-table.js';

type Reason = 'in-range' | 'out-of-range' | 'other-room' | 'unread-rows' | 'missing-group';
type Edge = readonly [group: number, prev: number];

/** The room's ids are those in range, and those below and above that are out of range. */
function build(groups: Iterable<readonly [number, Reason]>, edges: Iterable<Edge>): GroupTable {
  const added = [...groups];
  const idsOf = (reason: Reason) => added.filter(([, why]) => why === reason).map(([id]) => id);
  const inside = idsOf('in-range');
  const least = inside.reduce((a, b) => Math.min(a, b), Infinity);
  const most = inside.reduce((a, b) => Math.max(a, b), -Infinity);
  const outside = idsOf('out-of-range').filter((id) => id < least || id > most);
  const known = new Set([...inside, ...outside]);
  const ids = Float64Array.from(known).sort();
  const [from, to] = [ids.indexOf(least), ids.indexOf(most) + 1];
  const builder = new GroupTableBuilder(ids, Math.max(0, from), to);
  for (const [id, reason] of added) {
    if (reason !== 'in-range' && !known.has(id)) builder.addAncestor(id, reason);
  }
  for (const [group, prev] of edges) builder.addEdge(group, prev);
  return builder.finish();
}

const inRange = (...ids: number[]) => ids.map((id) => [id, 'in-range'] as const);

function kinds(table: GroupTable) {
  return Object.fromEntries(
    table.irregularities.map(({ kind, count, examples }) => [kind, { count, examples }]),
  );
}

/** The same by sets and plain recursion, from the words of the interface. */
function model(groups: readonly (readonly [number, Reason])[], edges: readonly Edge[]) {
  const order: Reason[] = [
    'in-range',
    'out-of-range',
    'other-room',
    'unread-rows',
    'missing-group',
  ];
  const reason = new Map<number, Reason>();
  for (const [id, why] of groups) {
    const known = reason.get(id);
    if (known === undefined || order.indexOf(why) < order.indexOf(known)) reason.set(id, why);
  }
  const previous = (id: number) => new Set(edges.filter(([g]) => g === id).map(([, p]) => p));
  const ancestors = (id: number) => {
    const found = new Set<number>();
    const visit = (at: number): void => {
      for (const prev of previous(at)) {
        if (!found.has(prev)) visit((found.add(prev), prev));
      }
    };
    visit(id);
    return found;
  };
  const all = [...reason.keys()].sort((a, b) => a - b);
  const above = new Map(all.map((id) => [id, ancestors(id)]));
  const several = (id: number) => previous(id).size > 1;
  const larger = (id: number) => [...previous(id)].some((prev) => prev > id);
  const own = (id: number) => above.get(id)!.has(id);
  const irregular = (id: number) =>
    several(id) || larger(id) || own(id) || reason.get(id) === 'unread-rows';
  const ids = all.filter(
    (id) =>
      reason.get(id) === 'in-range' ||
      all.some((other) => reason.get(other) === 'in-range' && above.get(other)!.has(id)),
  );
  const tests: Record<Exclude<IrregularityKind, 'pending-deletion'>, (id: number) => boolean> = {
    'several-edges': several,
    'larger-predecessor': larger,
    'own-ancestor': own,
    'repeated-edge': (id) => previous(id).size < edges.filter(([g]) => g === id).length,
    'missing-group': (id) => reason.get(id) === 'missing-group',
    'other-room': (id) => reason.get(id) === 'other-room',
    'unread-rows': (id) => reason.get(id) === 'unread-rows',
  };
  const prev = ids.map((id) => Math.max(-1, ...[...previous(id)].filter((p) => p < id)));
  return {
    ids,
    prev,
    hanging: ids.map((id) => {
      const hangingOn = (at: number): number =>
        Math.max(
          0,
          ...all
            .filter((other) => reason.get(other) === 'out-of-range')
            .filter((other) => Math.max(...[...previous(other)].filter((p) => p < other)) === at)
            .map((other) => 1 + hangingOn(other)),
        );
      return hangingOn(id);
    }),
    successors: ids.map((id) => prev.filter((other) => other === id).length),
    flags: ids.map(
      (id) =>
        (reason.get(id) === 'in-range' ? IN_RANGE : 0) |
        (all.some((other) => irregular(other) && above.get(other)!.has(id)) ? FROZEN : 0) |
        ([id, ...above.get(id)!].some(irregular) ? UNREADABLE : 0) |
        (/^(other-room|missing-group)$/.test(reason.get(id)!) ? ELSEWHERE : 0),
    ),
    kinds: Object.fromEntries(
      Object.entries(tests)
        .map(([kind, test]) => [kind, ids.filter(test)] as const)
        .filter(([, found]) => found.length > 0)
        .map(([kind, found]) => [kind, { count: found.length, examples: found.slice(0, 5) }]),
    ),
  };
}

const id = fc.integer({ min: 1, max: 14 });
const reason = fc.constantFrom<Reason>(
  'in-range',
  'out-of-range',
  'other-room',
  'unread-rows',
  'missing-group',
);

describe('the group table', () => {
  it('puts groups and edges in order, each once', () => {
    const table = build(inRange(30, 10, 20, 10), [
      [30, 10],
      [20, 10],
    ]);
    assert.deepEqual([...table.ids], [10, 20, 30]);
    assert.deepEqual([...table.prev], [NO_PREDECESSOR, 0, 0]);
    assert.deepEqual([...table.successors], [2, 0, 0]);
    assert.deepEqual([...table.flags], [IN_RANGE, IN_RANGE, IN_RANGE]);
    assert.deepEqual(table.irregularities, []);
  });

  it('is empty without groups', () => {
    assert.equal(new GroupTableBuilder(new Float64Array(0)).finish().length, 0);
  });

  it('keeps ids up to the largest exact integer apart', () => {
    const largest = Number.MAX_SAFE_INTEGER;
    const table = build(inRange(largest, largest - 1), [[largest, largest - 1]]);
    assert.deepEqual([...table.ids], [largest - 1, largest]);
    assert.deepEqual([...table.prev], [NO_PREDECESSOR, 0]);
  });

  it('takes an edge that is stored twice as one', () => {
    const table = build(inRange(1, 2), [
      [2, 1],
      [2, 1],
      [2, 1],
    ]);
    assert.deepEqual([...table.flags], [IN_RANGE, IN_RANGE]);
    assert.deepEqual(kinds(table), { 'repeated-edge': { count: 1, examples: [2] } });
  });

  it('freezes what Synapse is about to delete', () => {
    const table = build(inRange(10, 20, 30), [[20, 10]]);
    assert.equal(withPending(table, Float64Array.of(15, 40)), table);
    const marked = withPending(table, Float64Array.of(10, 15, 30));
    assert.deepEqual(
      [...marked.flags],
      [IN_RANGE | PENDING | FROZEN, IN_RANGE, IN_RANGE | PENDING | FROZEN],
    );
    assert.deepEqual(kinds(marked), { 'pending-deletion': { count: 2, examples: [10, 30] } });
  });

  it('freezes what an irregular group out of range reads through, though it leaves that group out', () => {
    const table = build(
      [...inRange(1, 2, 3), [9, 'out-of-range']],
      [
        [3, 1],
        [9, 3],
        [9, 2],
      ],
    );
    assert.deepEqual([...table.ids], [1, 2, 3]);
    assert.deepEqual([...table.flags], Array(3).fill(IN_RANGE | FROZEN));
    assert.deepEqual(table.irregularities, []);
  });

  it('takes the ids as they are where all stay and none comes beside them', () => {
    const ids = Float64Array.of(4, 6, 9);
    const builder = new GroupTableBuilder(ids);
    builder.addEdge(9, 4);
    assert.equal(builder.finish().ids, ids);
  });

  it('leaves out a group of the room below the range that none in range reads through', () => {
    const builder = new GroupTableBuilder(Float64Array.of(1, 2, 3, 4, 5), 2, 4);
    builder.addEdge(4, 1);
    builder.addEdge(5, 2);
    const table = builder.finish();
    assert.deepEqual([...table.ids], [1, 3, 4]);
    assert.deepEqual([...table.prev], [NO_PREDECESSOR, NO_PREDECESSOR, 0]);
    assert.deepEqual([...table.flags], [0, IN_RANGE, IN_RANGE]);
  });

  it('walks chains of any length', () => {
    const length = 100_000;
    const ids = Array.from({ length }, (_, i) => i + 1);
    const line = build(
      ids.map((n) => [n, n === length ? 'in-range' : 'out-of-range']),
      ids.slice(1).map((n) => [n, n - 1]),
    );
    assert.equal(line.length, length);
    const circle = build(
      inRange(...ids),
      ids.map((n) => [n, n === 1 ? length : n - 1]),
    );
    assert.deepEqual(kinds(circle), {
      'larger-predecessor': { count: 1, examples: [1] },
      'own-ancestor': { count: length, examples: [1, 2, 3, 4, 5] },
    });
  });

  it('asks for the predecessors that are missing until all are there', () => {
    const builder = new GroupTableBuilder(Float64Array.of(9));
    builder.addEdge(9, 5);
    builder.addEdge(9, 4);
    assert.deepEqual([...builder.missingPredecessors()], [4, 5]);
    builder.addAncestor(5, 'other-room');
    builder.addEdge(5, 3);
    assert.deepEqual([...builder.missingPredecessors()], [3, 4]);
    builder.addAncestor(3, 'missing-group');
    builder.addAncestor(4, 'out-of-range');
    assert.deepEqual([...builder.missingPredecessors()], []);
    assert.deepEqual([...builder.finish().ids], [3, 4, 5, 9]);
  });

  it('refuses to be finished while a predecessor is missing', () => {
    const builder = new GroupTableBuilder(Float64Array.of(2));
    builder.addEdge(2, 1);
    assert.throws(() => builder.finish(), /State group 1 /);
  });

  it('agrees with a naive model on any edges', () => {
    const input = fc
      .record({
        groups: fc.array(fc.tuple(id, reason), { maxLength: 20 }),
        edges: fc.array(fc.tuple(id, id), { maxLength: 20 }),
        downward: fc.array(fc.tuple(id, id), { maxLength: 20 }),
      })
      .map(({ groups, edges, downward }) => ({
        groups,
        // Mostly regular edges, so that what descends from an irregular group and what doesn't both occur.
        edges: [
          ...edges.slice(0, edges.length % 4),
          ...downward.filter(([group, prev]) => prev < group),
        ].filter((edge) => edge.every((end) => groups.some(([group]) => group === end))),
      }));
    fc.assert(
      fc.property(input, ({ groups, edges }) => {
        const table = build(groups, edges);
        const expected = model(groups, edges);
        assert.deepEqual([...table.ids], expected.ids);
        assert.equal(table.length, expected.ids.length);
        assert.deepEqual(
          [...table.prev].map((prev) => (prev === NO_PREDECESSOR ? -1 : table.ids[prev])),
          expected.prev,
        );
        assert.deepEqual([...table.successors], expected.successors);
        assert.deepEqual([...table.flags], expected.flags);
        assert.deepEqual(
          table.ids.length === table.hanging.length
            ? [...table.hanging]
            : expected.ids.map(() => 0),
          expected.hanging,
        );
        assert.deepEqual(kinds(table), expected.kinds);
      }),
      { numRuns: 1000 },
    );
  });
});
