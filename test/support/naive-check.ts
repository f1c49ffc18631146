/** Random state tables with all that can be wrong, and what `check` must find in them. */
import fc from 'fast-check';
import { KINDS } from '../../src/check/findings.js';
import { SYNAPSE_HOPS } from '../../src/planner/chains-to-come.js';
import type { Example, FindingKind } from '../../src/check/findings.js';

export const ROOMS = ['!a:example.org', '!b\\t:example.org', '!c:example.org'];

/** The tables' rows in no order, in COPY text. */
export interface Tables {
  readonly groups: readonly (readonly [id: number, room: string])[];
  readonly edges: readonly (readonly [group: number, prev: number])[];
  readonly rows: readonly StateRow[];
}

interface StateRow {
  readonly group: number;
  readonly room: string;
  readonly type: string;
  readonly stateKey: string;
  readonly event: string;
}

const id = fc.integer({ min: 1, max: 30 });
const room = fc.constantFrom(...ROOMS);

export const tables: fc.Arbitrary<Tables> = fc
  .record({
    // Below the random groups a chain that some of them stand on.
    chain: fc.constantFrom(0, 0, 98, 99, 100, 101),
    groups: fc.uniqueArray(fc.tuple(id, room), { maxLength: 25, selector: ([group]) => group }),
    edges: fc.array(fc.tuple(id, fc.integer({ min: 0, max: 30 })), { maxLength: 40, size: 'max' }),
    // Edges as they should be, so that chains come about.
    regular: fc.array(fc.tuple(id, fc.integer({ min: 1, max: 3 })), { maxLength: 15 }),
    rows: fc.array(
      fc.record<StateRow>({
        group: fc.integer({ min: 1, max: 32 }),
        room,
        type: fc.constantFrom('m.room.member', 'a\\tb', ''),
        stateKey: fc.constantFrom('@a:example.org', 'b\\\\c', ''),
        event: fc.constantFrom('$1', '$2', '$3'),
      }),
      { maxLength: 60, size: 'max' },
    ),
  })
  .map(({ chain, groups, edges, regular, rows }) => {
    const below = Array.from({ length: chain }, (_, n) => n + 1);
    return {
      groups: [
        ...groups.map(([group, name]) => [group + chain, name] as const),
        ...below.map((group) => [group, ROOMS[0]] as const),
      ],
      edges: [
        ...edges.map(([group, prev]) => [group + chain, prev + chain] as const),
        ...regular.map(
          ([group, gap]) => [group + chain, Math.max(1, group + chain - gap)] as const,
        ),
        ...below.slice(1).map((group) => [group, group - 1] as const),
      ],
      rows: rows.map((row) => ({ ...row, group: row.group + chain })),
    };
  });

/** What a check of these tables, or of one room (in COPY text) in them, gives. */
export interface Model {
  readonly counts: {
    readonly rooms: number;
    readonly stateGroups: number;
    readonly edges: number;
    readonly rows: number;
    readonly longestChain: number;
  };
  /** Where each finding is, in ascending id of group; once for each thing that is counted. */
  readonly findings: Readonly<Record<FindingKind, readonly Example[]>>;
}

/**
 * @param strays whether rows that name the room are found though neither `state_groups` nor an edge names
 *   their group
 */
export function naiveCheck(
  { groups, edges, rows }: Tables,
  only: string | undefined,
  strays: boolean,
): Model {
  const roomOf = new Map(groups);
  const isKnown = (group: number) => roomOf.has(group);
  const isWanted = (group: number) => only === undefined || roomOf.get(group) === only;
  const distinct = [...new Map(edges.map((edge) => [edge.join(), edge])).values()];
  const named = [...new Set([...roomOf.keys(), ...edges.flat()])].sort((a, b) => a - b);
  const prevsOf = (group: number) =>
    distinct.filter(([from]) => from === group).map(([, to]) => to);

  const reaches = (from: number, to: number) => {
    const seen = new Set(prevsOf(from));
    for (const group of seen) for (const prev of prevsOf(group)) seen.add(prev);
    return seen.has(to);
  };
  const own = new Set(named.filter((group) => reaches(group, group)));
  const lengths = new Map<number, number>();
  const lengthOf = (group: number): number => {
    if (own.has(group)) return Infinity;
    let length = lengths.get(group);
    if (length === undefined) {
      length = 1 + Math.max(0, ...prevsOf(group).map(lengthOf));
      lengths.set(group, length);
    }
    return length;
  };

  const beside = new Set(
    distinct.flatMap(([group, prev]) => [
      ...(isWanted(group) ? [prev] : []),
      ...(isWanted(prev) ? [group] : []),
    ]),
  );
  const wantedRows = rows.filter(({ group, room: name }) =>
    isKnown(group)
      ? isWanted(group)
      : only === undefined || beside.has(group) || (strays && name === only),
  );
  const byKey = new Map<string, StateRow[]>();
  for (const row of wantedRows) {
    const key = JSON.stringify([row.group, row.type, row.stateKey]);
    byKey.set(key, [...(byKey.get(key) ?? []), row]);
  }

  const findings = Object.fromEntries(KINDS.map((kind) => [kind, [] as Example[]])) as Record<
    FindingKind,
    Example[]
  >;
  for (const [stateGroup, predecessor] of distinct) {
    const edge = { stateGroup, predecessor };
    const [from, to] = [isWanted(stateGroup), isWanted(predecessor)];
    const areKnown = isKnown(stateGroup) && isKnown(predecessor);
    if (to && !isKnown(stateGroup)) findings['edge-from-missing-group'].push(edge);
    if (from && !isKnown(predecessor)) findings['edge-to-missing-group'].push(edge);
    if ((from || to) && areKnown && roomOf.get(stateGroup) !== roomOf.get(predecessor)) {
      findings['edge-between-rooms'].push(edge);
    }
    if (from && predecessor >= stateGroup) findings['predecessor-not-smaller'].push(edge);
  }
  for (const stateGroup of named.filter(isWanted)) {
    const stored = edges.filter(([group]) => group === stateGroup).length;
    const prevs = prevsOf(stateGroup);
    if (prevs.length > 1) findings['several-edges'].push({ stateGroup });
    for (let n = prevs.length; n < stored; n++) findings['repeated-edge'].push({ stateGroup });
    if (own.has(stateGroup)) findings['own-ancestor'].push({ stateGroup });
    const length = lengthOf(stateGroup);
    if (length > SYNAPSE_HOPS && length < Infinity) findings['deep-chain'].push({ stateGroup });
    const isEmpty = prevs.length === 0 && rows.every(({ group }) => group !== stateGroup);
    if (isKnown(stateGroup) && isEmpty) findings['empty-group'].push({ stateGroup });
  }
  for (const same of byKey.values()) {
    const [{ group: stateGroup, type, stateKey }] = same;
    const key = { stateGroup, type: decoded(type), stateKey: decoded(stateKey) };
    const events = new Set(same.map(({ event }) => event));
    if (events.size > 1) findings['contradictory-key'].push(key);
    for (let n = events.size; n < same.length; n++) findings['repeated-row'].push(key);
  }
  for (const { group } of wantedRows) {
    if (!isKnown(group)) findings['row-of-no-group'].push({ stateGroup: group });
  }
  for (const found of Object.values(findings)) found.sort((a, b) => a.stateGroup - b.stateGroup);
  return {
    counts: {
      rooms: only === undefined ? new Set(roomOf.values()).size : 1,
      stateGroups: [...roomOf.keys()].filter(isWanted).length,
      edges: edges.filter(([group]) => isWanted(group)).length,
      rows: wantedRows.length,
      longestChain: Math.max(0, ...named.filter(isWanted).map(lengthOf).filter(Number.isFinite)),
    },
    findings,
  };
}

function decoded(field: string): string {
  return field.replaceAll('\\t', '\t').replaceAll('\\\\', '\\');
}
