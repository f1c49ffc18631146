import { InputError, StatesDifferError } from '../errors.js';
import { counted } from '../report/counted.js';
import { groupsText, type SomeGroups } from '../sources/some-groups.js';
import type { RoomOutcome, RoomsCompared } from './compare-all-rooms.js';
import type { Comparison } from './compare-rooms.js';

/** What comparing a room gave, in lines. */
export function comparisonText(room: string, comparison: Comparison): string {
  const { compared, difference, onlyBefore, onlyAfter, notCompared } = comparison;
  const lines = [
    `Room '${room}': ${counted(compared, 'state group')} compared, ${difference === undefined ? 'all states are equal' : 'the last state differs'}.`,
  ];
  if (difference !== undefined) {
    const { stateGroup, keys, type, stateKey, before, after } = difference;
    lines.push(
      `State group ${stateGroup} differs in ${keys === 1 ? 'one key' : `${keys} keys, the first of them`}:`,
      `  type:      ${JSON.stringify(type)}`,
      `  state_key: ${JSON.stringify(stateKey)}`,
      `  before:    ${events(before)}`,
      `  after:     ${events(after)}`,
    );
  }
  const some = (what: string, found: SomeGroups): void => {
    if (found.count > 0)
      lines.push(`${what}: ${counted(found.count, 'state group')} (${groupsText(found)}).`);
  };
  some('Only in BEFORE', onlyBefore);
  some('Only in AFTER', onlyAfter);
  some('Not compared, because too many groups with several predecessors lead there', notCompared);
  return `${lines.join('\n')}\n`;
}

function events(ids: readonly string[]): string {
  return ids.length === 0 ? 'no event' : ids.map((id) => JSON.stringify(id)).join(' or ');
}

/** Why a room is not the same on both sides, as far as it was compared; undefined if it is. */
export function whatDiffers(room: string, comparison: Comparison): string | undefined {
  const { difference, onlyBefore, notCompared } = comparison;
  if (difference !== undefined) {
    return `State group ${difference.stateGroup} of room '${room}' has another state in AFTER than in BEFORE.`;
  }
  if (onlyBefore.count > 0) {
    return `AFTER lacks ${counted(onlyBefore.count, 'state group')} of room '${room}' that BEFORE has. If it has no table state_groups, put BEFORE's beside it: groups without rows are not known otherwise.`;
  }
  if (notCompared.count > 0) {
    return `The states of ${counted(notCompared.count, 'state group')} of room '${room}' could not be compared.`;
  }
  return undefined;
}

/** What there is to say of a room among all; undefined if it is the same on both sides. */
export function findingText({ room, outcome }: RoomOutcome): string | undefined {
  if (outcome === 'unchanged') return undefined;
  if (outcome === 'only-before') return `Room '${room}': only in BEFORE.\n`;
  if (outcome === 'only-after') return `Room '${room}': only in AFTER.\n`;
  if (outcome instanceof InputError || outcome instanceof StatesDifferError) {
    return `Room '${room}' can't be compared: ${outcome.message}\n`;
  }
  return whatDiffers(room, outcome) === undefined ? undefined : comparisonText(room, outcome);
}

/** What comparing all rooms gave, in lines. */
export function totalsText(totals: RoomsCompared): string {
  const { compared, groups, different, failed, unchanged, groupsOnlyAfter } = totals;
  const found = [
    different > 0 && counted(different, 'room differs', 'rooms differ'),
    failed > 0 && `${counted(failed, 'room')} can't be read`,
  ].filter((part) => part !== false);
  const lines = [
    `All rooms: ${counted(compared, 'room')} with ${counted(groups, 'state group')} compared, ${found.join(', ') || 'all states are equal'}.`,
  ];
  if (unchanged > 0)
    lines.push(`Without changes, and not compared: ${counted(unchanged, 'room')}.`);
  if (groupsOnlyAfter > 0) {
    lines.push(
      `Only in AFTER: ${counted(groupsOnlyAfter, 'state group')} of rooms that both have.`,
    );
  }
  return `${lines.join('\n')}\n`;
}
