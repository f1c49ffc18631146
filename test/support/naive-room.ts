/** Random rooms as real databases hold them, and the state of their groups as Synapse reads it. */
import fc from 'fast-check';
import { GroupTableBuilder } from '../../src/sources/group-table.js';
import type { GroupTable } from '../../src/sources/group-table.js';

/** In canonical COPY text; a key is a type, a tab and a state key. */
export type Row = readonly [key: string, event: string];

interface Group {
  readonly id: number;
  readonly reason: 'in-range' | 'out-of-range' | 'other-room' | 'missing-group';
  readonly predecessors: readonly number[];
  readonly rows: readonly Row[];
}

/** Groups in ascending id. */
export type Room = readonly Group[];

/** Each group's encoding by its id; what a plan changes. */
export type Encodings = ReadonlyMap<number, Pick<Group, 'predecessors' | 'rows'>>;

const TYPES = ['m.room.member', 'm.room.name', 'a', 'a\\tb', 'm', 'm.room.topic', 'z', ''];
const KEYS = TYPES.flatMap((type) =>
  ['@alice:example.org', '@bob:example.org', '', '\\n$$\\\\', "\u00f0'"].map(
    (key) => `${type}\t${key}`,
  ),
);

/** A large state to begin with, to which keys can still come. */
const LARGE = KEYS.slice(0, 22).map((key): Row => [key, '$0']);
const few = <T>(item: fc.Arbitrary<T>) => fc.array(item, { maxLength: 3, size: 'max' });
const row = fc
  .tuple(fc.nat(KEYS.length - 1), fc.integer({ min: 1, max: 5 }))
  .map(([key, event]): Row => [KEYS[key], `$${event}`]);
const rare = <T>(item: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 24, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: item });

const step = fc.record({
  gap: fc.integer({ min: 1, max: 3 }),
  kind: fc.constantFrom(
    ...(['delta', 'delta', 'delta', 'delta', 'delta', 'delta', 'delta'] as const),
    ...(['snapshot', 'snapshot', 'snapshot', 'root', 'no rows', 'nothing'] as const),
  ),
  // Mostly the group before; else a fork.
  back: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(15) }),
  changed: few(row),
  // As many rows of a delta as say nothing new.
  redundant: fc.oneof(
    { weight: 4, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.nat(3) },
  ),
  vanished: few(fc.constantFrom(...KEYS)),
  repeated: rare(fc.nat()),
  contradicted: rare(fc.nat()),
  reason: rare(fc.constantFrom('out-of-range', 'other-room', 'missing-group')),
  // Any group, itself and later ones among them.
  strange: rare(fc.nat()),
});

/** Rooms of up to `groups` groups; regular ones have one predecessor a group, and no contradictions. */
export function rooms(groups: number, { regular }: { regular: boolean }): fc.Arbitrary<Room> {
  return fc.array(step, { minLength: 1, maxLength: groups, size: 'max' }).map((steps) => {
    let last = 0;
    const ids = steps.map(({ gap }) => (last += gap));
    const states: ReadonlyMap<string, string>[] = [];
    return steps.map((plan, n): Group => {
      const before = n - 1 - plan.back;
      const rooted = before < 0 || ['snapshot', 'root', 'nothing'].includes(plan.kind);
      const inherited = new Map(plan.kind === 'root' ? LARGE : states[before]);
      if (rooted) for (const key of plan.vanished) inherited.delete(key);
      const changed = plan.kind.startsWith('no')
        ? []
        : [...[...inherited].slice(0, plan.redundant), ...plan.changed];
      const state = new Map(plan.kind === 'nothing' ? [] : [...inherited, ...changed]);
      states.push(state);
      const rows: Row[] = [...(rooted && plan.kind !== 'no rows' ? state : new Map(changed))];
      if (rows.length > 0 && plan.repeated !== undefined)
        rows.push(rows[plan.repeated % rows.length]);
      if (rows.length > 0 && plan.contradicted !== undefined && !regular) {
        rows.push([rows[plan.contradicted % rows.length][0], '$contradiction']);
      }
      const predecessors = rooted ? [] : [ids[before]];
      if (plan.strange !== undefined && !regular) predecessors.push(ids[plan.strange % ids.length]);
      return { id: ids[n], reason: plan.reason ?? 'in-range', predecessors, rows };
    });
  });
}

export function tableOf(room: Room): GroupTable {
  const ids = room.filter(({ reason }) => reason === 'in-range').map(({ id }) => id);
  const builder = new GroupTableBuilder(Float64Array.from(ids).sort());
  for (const { id, reason, predecessors } of room) {
    if (reason !== 'in-range') builder.addAncestor(id, reason);
    for (const predecessor of predecessors) builder.addEdge(id, predecessor);
  }
  return builder.finish();
}

/** What Synapse reads: of the rows of a group and all its ancestors, for each key those of the highest id. */
export function stateOf(id: number, encodings: Encodings): Map<string, Set<string>> {
  const ancestry = new Set([id]);
  for (const member of ancestry) {
    for (const predecessor of encodings.get(member)?.predecessors ?? []) ancestry.add(predecessor);
  }
  const state = new Map<string, Set<string>>();
  for (const member of [...ancestry].sort((a, b) => a - b)) {
    const rows = encodings.get(member)?.rows ?? [];
    for (const [key] of rows) state.set(key, new Set());
    for (const [key, event] of rows) state.get(key)!.add(event);
  }
  return state;
}
