import { transform } from 'through2';
import type { Transform } from 'node:stream';
import { isChanged } from '../src/planner/planned-group.js';
import type { PlannedGroup } from '../src/planner/planned-group.js';
import { END_OF_COPY } from '../src/sinks/copy.js';
import { fieldOf } from '../src/state/copy-text.js';

/**
 * A sink that writes changes as the least that a server has to do for them, a limit to measure by: one
 * transaction for all that deletes the old rows in the fastest way that was found, and takes the new ones by
 * COPY. It checks nothing, and keeps all that it deletes locked to its end.
 */
export function unguardedScript(room: string): Transform {
  return transform(
    { writableObjectMode: true, writableHighWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      let groups = '';
      let edges = '';
      const rows: string[] = [];
      const roomField = fieldOf(room).toString();
      for await (const planned of source) {
        for (const group of planned) {
          if (!isChanged(group)) continue;
          const { stateGroup, newPredecessor, change } = group;
          groups += `${stateGroup}\n`;
          if (newPredecessor !== undefined) edges += `${stateGroup}\t${newPredecessor}\n`;
          rows.push(change.rows.toString().replace(/^(?=.)/gm, `${stateGroup}\t${roomField}\t`));
        }
      }
      yield Buffer.from(`CREATE TEMPORARY TABLE changed (state_group bigint);
COPY changed FROM STDIN;
${groups}${END_OF_COPY}
SET enable_seqscan = off;
SET enable_indexscan = off;
BEGIN;
${DELETE}COPY state_group_edges FROM STDIN;
${edges}${END_OF_COPY}
COPY state_groups_state (state_group, room_id, type, state_key, event_id) FROM STDIN;
`);
      for (const text of rows) yield Buffer.from(text);
      yield Buffer.from(`${END_OF_COPY}\nCOMMIT;\n`);
    },
  ) as Transform;
}

/** Group by group, as one statement for all takes longer. */
const DELETE = `DO $$
DECLARE
    changed_group bigint;
BEGIN
    FOR changed_group IN SELECT state_group FROM changed ORDER BY state_group LOOP
        DELETE FROM state_group_edges WHERE state_group = changed_group;
        DELETE FROM state_groups_state WHERE state_group = changed_group;
    END LOOP;
END
$$;
`;
