import { transform } from 'through2';
import type { Transform } from 'node:stream';
import type { PlannedGroup } from '../planner/planned-group.js';
import { fieldOf } from '../state/copy-text.js';
import { LEAST_PIECE, PIECE } from './output-writer.js';

const LINE_FEED = 10;

/** What the line of a changed group begins with, and no row does. */
export const CHANGED = 62;

/**
 * The sink for `openTablesOutput`: arrays of planned groups in, bytes out. Of a changed group there is a
 * line `>` with its edge as COPY text of `state_group_edges`, or with its id alone, and then its new
 * rows as COPY text of `state_groups_state`.
 */
export function tablesSink({ room }: { readonly room: string }): Transform {
  return transform(
    { writableObjectMode: true, writableHighWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      const name = fieldOf(room).toString();
      let pieces: Buffer[] = [];
      let length = 0;
      const add = (piece: Buffer): void => {
        pieces.push(piece);
        length += piece.length;
      };
      const take = (): Buffer => {
        const all = Buffer.concat(pieces, length);
        pieces = [];
        length = 0;
        return all;
      };
      for await (const planned of source) {
        for (const { stateGroup, newPredecessor, change } of planned) {
          if (change === undefined) continue;
          const edge = newPredecessor === undefined ? '' : `\t${newPredecessor}`;
          add(Buffer.from(`>${stateGroup}${edge}\n`));
          const prefix = Buffer.from(`${stateGroup}\t${name}\t`);
          const { rows } = change;
          for (let at = 0; at < rows.length;) {
            const end = rows.indexOf(LINE_FEED, at) + 1;
            add(prefix);
            add(rows.subarray(at, end));
            at = end;
            if (length >= PIECE) yield take();
          }
        }
        if (length >= LEAST_PIECE) yield take();
      }
      if (length > 0) yield take();
    },
  ) as Transform;
}
