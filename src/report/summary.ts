import { readableSize } from './size.js';
import type { Hops, Statistics } from './statistics.js';

/**
 * What a run found and did, line by line. The first lines are in the words of rust-synapse-compress-state,
 * which scripts may look for.
 */
export function summaryLines(statistics: Statistics): string[] {
  return [
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
        `Saves ${saved} rows, about ${readableSize(statistics.bytesBefore - statistics.bytesAfter)} of table and index.`,
        `Rewrites ${statistics.groupsWritten} state groups: deletes ${statistics.rowsDeleted} rows, inserts ${statistics.rowsInserted}.`,
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

function percentage({ rowsBefore, rowsAfter }: Statistics): string {
  return (rowsBefore === 0 ? 100 : (100 * rowsAfter) / rowsBefore).toFixed(2);
}

function depths({ hopsBefore, hopsAfter }: Statistics, read: (hops: Hops) => string): string {
  return `${read(hopsBefore)} before, ${read(hopsAfter)} after`;
}
