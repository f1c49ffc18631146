/** The strategy `levels` as docs/ tells it, on whole states. */
import {
  ELSEWHERE,
  FROZEN,
  IN_RANGE,
  UNREADABLE,
  type GroupTable,
} from '../../src/sources/group-table.js';
import type { Room, Row } from './naive-room.js';

type State = ReadonlyMap<string, string>;

/** What becomes of a group; its new rows, or undefined if it stays as stored. */
export interface Planned {
  readonly stateGroup: number;
  readonly newPredecessor: number | undefined;
  readonly rows: readonly Row[] | undefined;
}

export function naiveLevels(room: Room, table: GroupTable, sizes: readonly number[]) {
  const levels = sizes.map(() => ({ head: undefined as number | undefined, length: 0 }));
  const states = new Map<number, State>();
  const newPredecessors = new Map<number, number | undefined>();
  const hopsBefore = new Map<number, number>();
  const hopsAfter = new Map<number, number>();
  const counts = {
    groups: table.length,
    rowsBefore: 0,
    rowsAfter: 0,
    stateGroupsChanged: 0,
    groupsWritten: 0,
    rowsDeleted: 0,
    rowsInserted: 0,
    groupsPassedThrough: 0,
    contradictoryGroups: 0,
    forcedResets: 0,
    forcedResetRows: 0,
  };

  /** Steps 2 to 4; undefined if the group is left as it is. */
  function choose(id: number, state: State, stored: number | undefined) {
    const roomy = levels.findIndex(({ length }, n) => length < sizes[n]);
    const candidate = roomy < 0 ? undefined : levels[roomy].head;
    for (const level of roomy < 0 ? levels : levels.slice(0, roomy)) level.length = 0;
    for (const level of roomy < 0 ? levels : levels.slice(0, roomy + 1)) {
      level.head = id;
      level.length++;
    }
    if (candidate === stored) return undefined;
    counts.stateGroupsChanged++;
    let base = candidate;
    const isNone = (group: number): boolean =>
      (table.flags[table.ids.indexOf(group)] & ELSEWHERE) !== 0 ||
      [...states.get(group)!.keys()].some((key) => !state.has(key));
    while (base !== undefined && isNone(base)) {
      base = newPredecessors.get(base);
    }
    if (candidate !== undefined && base === undefined) {
      counts.forcedResets++;
      counts.forcedResetRows += state.size;
    }
    return { base };
  }

  const planned = [...table.ids].map((id, index): Planned => {
    const { rows } = room.find((group) => group.id === id)!;
    const stored = table.prev[index] < 0 ? undefined : table.ids[table.prev[index]];
    const flags = table.flags[index];
    const kept = { stateGroup: id, newPredecessor: stored, rows: undefined };
    counts.rowsBefore += rows.length;
    counts.rowsAfter += rows.length;
    newPredecessors.set(id, stored);

    const below = stored === undefined ? new Map<string, string>() : states.get(stored);
    const clear = rows.every(([key, event]) => rows.every(([k, e]) => k !== key || e === event));
    if ((flags & UNREADABLE) !== 0 || below === undefined || !clear) {
      if ((flags & UNREADABLE) === 0 && below !== undefined) counts.contradictoryGroups++;
      if ((flags & IN_RANGE) !== 0) counts.groupsPassedThrough++;
      return kept;
    }
    const state = new Map([...below, ...rows]);
    states.set(id, state);
    hopsBefore.set(id, 1 + (hopsBefore.get(stored!) ?? 0));
    hopsAfter.set(id, 1 + (hopsAfter.get(stored!) ?? 0));
    if ((flags & IN_RANGE) === 0 || (flags & FROZEN) !== 0) {
      if ((flags & IN_RANGE) !== 0) counts.groupsPassedThrough++;
      return kept;
    }
    const chosen = choose(id, state, stored);
    if (chosen === undefined) return kept;
    const base = chosen.base === undefined ? undefined : states.get(chosen.base)!;
    newPredecessors.set(id, chosen.base);
    hopsAfter.set(id, 1 + (hopsAfter.get(chosen.base!) ?? 0));
    const delta = [...state].filter(([key, event]) => base?.get(key) !== event);
    if (chosen.base === stored && delta.length === new Map(rows).size) return kept;
    counts.groupsWritten++;
    counts.rowsDeleted += rows.length;
    counts.rowsInserted += delta.length;
    counts.rowsAfter += delta.length - rows.length;
    return { stateGroup: id, newPredecessor: chosen.base, rows: inOrder(delta) };
  });
  const hops = { before: summary(hopsBefore), after: summary(hopsAfter) };
  return { planned, counts, hops };
}

/** By the bytes of type and state key, each with the tab behind it. */
function inOrder(rows: Row[]): Row[] {
  const bytes = ([key]: Row) => Buffer.from(`${key}\t`, 'latin1');
  return rows.sort((a, b) => Buffer.compare(bytes(a), bytes(b)));
}

function summary(hops: ReadonlyMap<number, number>) {
  const all = [...hops.values()];
  const sum = all.reduce((total, length) => total + length, 0);
  return { largest: Math.max(0, ...all), mean: all.length === 0 ? 0 : sum / all.length };
}
