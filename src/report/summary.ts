import type { Hops } from '../planner/room-counts.js';
import { counted } from './counted.js';
import type { RoomFailure, Totals } from './room-totals.js';
import { readableSize } from './size.js';
import type { Statistics } from './statistics.js';

/**
 * What a run found and did, line by line. The first lines are in the words of rust-synapse-compress-state,
 * which scripts may look for.
 */
export function summaryLines(statistics: Statistics): string[] {
  return [
    `Fetched state groups up to ${statistics.lastStateGroup}`,
    `Number of state groups: ${statistics.stateGroups}`,
    `Number of rows in current table: ${statistics.rowsBefore}`,
    `Number of rows after compression: ${statistics.rowsAfter} (${percentage(statistics)}%)`,
    'Compression Statistics:',
    `  Number of forced resets due to lacking prev: ${statistics.forcedResets}`,
    `  Number of compressed rows caused by the above: ${statistics.forcedResetRows}`,
    `  Number of state groups changed: ${statistics.stateGroupsChanged}`,
    ...(statistics.verified ? ['New state map matches old one'] : []),
    ...statistics.warnings.map((warning) => `Warning: ${warning}`),
    ...outcomeLines(statistics),
  ];
}

/** What the figures of a room and of all rooms have in common. */
type Savings = Pick<
  Statistics,
  | 'rowsBefore'
  | 'rowsAfter'
  | 'bytesBefore'
  | 'bytesAfter'
  | 'groupsWritten'
  | 'rowsDeleted'
  | 'rowsInserted'
>;

/** What a run of all rooms found and did in one of them. */
export function roomLines(result: Statistics | RoomFailure): string[] {
  if ('reason' in result) return [`Room '${result.room}' was left out: ${result.reason}`];
  const { room, stateGroups, rowsBefore, rowsAfter, groupsWritten, warnings } = result;
  const of = `Room '${room}': ${counted(stateGroups, 'state group')}, ${counted(rowsBefore, 'row')}`;
  return [
    `${of}, ${OUTCOMES[result.outcome] ?? `${rowsAfter} after (${percentage(result)}%), ${groupsWritten} rewritten`}.`,
    ...warnings.map((warning) => `Warning: room '${room}': ${warning}`),
  ];
}

const OUTCOMES: Partial<Record<Statistics['outcome'], string>> = {
  'no-gain': 'which compression would not make fewer',
  'below-minimum': 'of which too few would be saved',
  'nothing-to-change': 'nothing to change',
};

/** What a run of all rooms found and did. */
export function totalLines(totals: Totals): string[] {
  const { rooms, roomsChanged, rowsBefore, rowsAfter } = totals;
  return [
    ...totals.warnings.map((warning) => `Warning: ${warning}`),
    `Number of rooms: ${rooms}, of which ${roomsChanged} ${roomsChanged === 1 ? 'has' : 'have'} changes`,
    `Number of state groups: ${totals.stateGroups}`,
    `Number of rows in current table: ${rowsBefore}`,
    `Number of rows after compression: ${rowsAfter} (${percentage(totals)}%)`,
    ...(roomsChanged === 0 ? [] : savingLines(totals)),
  ];
}

function savingLines(figures: Savings): string[] {
  const saved = figures.rowsBefore - figures.rowsAfter;
  const bytes = readableSize(Math.abs(figures.bytesBefore - figures.bytesAfter));
  return [
    `${saved < 0 ? 'Costs' : 'Saves'} ${counted(Math.abs(saved), 'row')}, about ${bytes} of table and index.`,
    `Rewrites ${counted(figures.groupsWritten, 'state group')}: deletes ${counted(figures.rowsDeleted, 'row')}, inserts ${figures.rowsInserted}.`,
  ];
}

function outcomeLines(statistics: Statistics): string[] {
  const saved = statistics.rowsBefore - statistics.rowsAfter;
  switch (statistics.outcome) {
    case 'no-gain':
      return ['This compression would not remove any rows. Aborting.'];
    case 'below-minimum':
      return [`Only ${saved} rows would be saved by this compression. Skipping output.`];
    case 'nothing-to-change':
      return ['Every state group is already as it should be: there is nothing to change.'];
    case 'written':
    case 'no-output-asked':
      return [
        ...savingLines(statistics),
        `Longest chain of state groups: ${depths(statistics, (hops) => String(hops.largest))}; ` +
          `on average ${depths(statistics, (hops) => hops.mean.toFixed(1))}.`,
        `State groups by the length of their chain, after: ${distribution(statistics.hopsAfter)}.`,
      ];
  }
}

function distribution({ distribution: ranges }: Hops): string {
  return ranges
    .flatMap(({ upTo, groups }, range) => {
      if (groups === 0) return [];
      const from = range === 0 ? 1 : (ranges[range - 1].upTo ?? 0) + 1;
      const span =
        upTo === null ? `${from} and more` : from === upTo ? `${upTo}` : `${from}–${upTo}`;
      return [`${span}: ${groups}`];
    })
    .join(', ');
}

function percentage({
  rowsBefore,
  rowsAfter,
}: Pick<Statistics, 'rowsBefore' | 'rowsAfter'>): string {
  return (rowsBefore === 0 ? 100 : (100 * rowsAfter) / rowsBefore).toFixed(2);
}

function depths({ hopsBefore, hopsAfter }: Statistics, read: (hops: Hops) => string): string {
  return `${read(hopsBefore)} before, ${read(hopsAfter)} after`;
}
