import type { Applied } from '../apply/apply-changes.js';
import { groupsText } from '../sources/some-groups.js';
import { counted } from './counted.js';

/** What was done, or would be, line by line. */
export function appliedLines(applied: Applied, dryRun: boolean): string[] {
  const { rewritten, alreadyDone, skipped, rowsDeleted, rowsInserted, batches } = applied;
  return [
    dryRun
      ? `Would rewrite ${counted(rewritten, 'state group')}: delete ${counted(rowsDeleted, 'row')} and insert ${rowsInserted}.`
      : `Rewrote ${counted(rewritten, 'state group')}: deleted ${counted(rowsDeleted, 'row')} and inserted ${rowsInserted}, in ${counted(batches, 'transaction')} of at most ${applied.longestSeconds.toFixed(2)} s.`,
    ...(alreadyDone > 0
      ? [`As it should be already: ${counted(alreadyDone, 'state group')}.`]
      : []),
    ...(skipped > 0
      ? [
          `${dryRun ? 'Would leave' : 'Left'} ${counted(skipped, 'state group')} as stored, which is safe: a group keeps its state either way.`,
        ]
      : []),
    ...[...applied.reasons].map(
      ([reason, found]) => `  ${found.count}, because ${reason} (${groupsText(found)})`,
    ),
  ];
}

/** How far it is: of all groups where their number is known. */
export function applyProgress(
  { rewritten, alreadyDone, skipped, rowsDeleted, rowsInserted }: Applied,
  seconds: number,
  totalGroups: number | undefined,
): string {
  const done = rewritten + alreadyDone + skipped;
  const rows = rowsDeleted + rowsInserted;
  const rate = seconds > 0 ? Math.round(rows / seconds) : 0;
  const share =
    totalGroups === undefined
      ? `${done.toLocaleString('en')} state groups`
      : `${Math.floor((100 * done) / totalGroups)}% of ${totalGroups.toLocaleString('en')} state groups`;
  return `Applied: ${share}, ${rows.toLocaleString('en')} rows, ${rate.toLocaleString('en')} rows/s`;
}
