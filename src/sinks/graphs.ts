import { once } from 'node:events';
import { finished } from 'node:stream/promises';
import type { Transform, Writable } from 'node:stream';
import { transform } from 'through2';
import type { PlannedGroup } from '../planner/planned-group.js';

/** The names of the graph files, as the old tool gives them. */
export const GRAPH_FILES = [
  'before_edges.csv',
  'before_nodes.csv',
  'after_edges.csv',
  'after_nodes.csv',
] as const;

/**
 * A stage that passes planned groups on and writes them, as stored and as planned, as graphs that Gephi
 * reads: edges as `Source;Target`, from a group to its predecessor, and nodes as `Id;Rows;Root;Label`,
 * a root being a group without predecessor.
 *
 * @param files a stream for each of `GRAPH_FILES`; they are ended with the stage, and an error of one is
 *   the stage's error
 */
export function graphSink(files: readonly Writable[]): Transform {
  const [beforeEdges, beforeNodes, afterEdges, afterNodes] = files as [
    Writable,
    Writable,
    Writable,
    Writable,
  ];
  for (const edges of [beforeEdges, afterEdges]) edges.write('Source;Target\n');
  for (const nodes of [beforeNodes, afterNodes]) nodes.write('Id;Rows;Root;Label\n');

  const stage = transform(
    { objectMode: true, highWaterMark: 2 },
    async function* (source: AsyncIterable<readonly PlannedGroup[]>) {
      for await (const planned of source) {
        await Promise.all([
          put(beforeEdges, planned, (group) => edge(group.stateGroup, group.oldPredecessor)),
          put(beforeNodes, planned, (group) =>
            node(group.stateGroup, group.oldPredecessor, group.oldRows),
          ),
          put(afterEdges, planned, (group) => edge(group.stateGroup, group.newPredecessor)),
          put(afterNodes, planned, (group) =>
            node(group.stateGroup, group.newPredecessor, group.newRows),
          ),
        ]);
        yield planned;
      }
      for (const file of files) file.end();
      await Promise.all(files.map((file) => finished(file)));
    },
  ) as Transform;
  // A file may fail at any time, also while nobody waits for it.
  for (const file of files) file.on('error', (error) => stage.destroy(error));
  return stage;
}

async function put(
  file: Writable,
  planned: readonly PlannedGroup[],
  lineOf: (group: PlannedGroup) => string,
): Promise<void> {
  const lines = planned.map(lineOf).join('');
  if (lines !== '' && !file.write(lines)) await once(file, 'drain');
}

function edge(stateGroup: number, predecessor: number | undefined): string {
  return predecessor === undefined ? '' : `${stateGroup};${predecessor}\n`;
}

function node(stateGroup: number, predecessor: number | undefined, rows: number): string {
  return `${stateGroup};${rows};${predecessor === undefined};"${stateGroup}"\n`;
}
