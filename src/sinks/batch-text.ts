import type { ChangedGroup } from '../planner/planned-group.js';
import { PIECE } from './output-writer.js';

const LINE_FEED = 10;

/** What `COPY_CHANGES` takes for one group: a line of COPY text. */
export function changeLine(group: ChangedGroup): string {
  const { stateGroup, oldPredecessor, newPredecessor, oldRows, newRows, change } = group;
  const { oldHash, newRowsHash } = change;
  return `${stateGroup}\t${oldPredecessor ?? '\\N'}\t${newPredecessor ?? '\\N'}\t${oldRows}\t${oldHash}\t${newRows}\t${newRowsHash}\n`;
}

/**
 * What `COPY_ROWS` takes for the groups: their new rows, each with its state group before it. Comes in
 * pieces of a few hundred kilobytes, however large a group is.
 */
export function* rowLines(groups: Iterable<ChangedGroup>): Generator<Buffer> {
  let piece = Buffer.allocUnsafe(PIECE);
  let length = 0;
  for (const { stateGroup, change } of groups) {
    const { rows } = change;
    const prefix = Buffer.from(`${stateGroup}\t`);
    for (let start = 0; start < rows.length;) {
      const end = rows.indexOf(LINE_FEED, start) + 1;
      const needed = prefix.length + end - start;
      if (length + needed > piece.length) {
        if (length > 0) yield piece.subarray(0, length);
        piece = Buffer.allocUnsafe(Math.max(PIECE, needed));
        length = 0;
      }
      length += prefix.copy(piece, length);
      length += rows.copy(piece, length, start, end);
      start = end;
    }
  }
  if (length > 0) yield piece.subarray(0, length);
}
