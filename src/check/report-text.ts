import { SYNAPSE_HOPS } from '../planner/chains-to-come.js';
import { counted } from '../report/counted.js';
import type { CheckReport } from './check-tables.js';
import type { Example, FindingKind } from './findings.js';

/** What is said of one, and of several. */
const SENTENCES: Record<FindingKind, readonly [one: string, several: string]> = {
  'edge-from-missing-group': [
    'edge belongs to a state group that is not in state_groups',
    'edges belong to state groups that are not in state_groups',
  ],
  'edge-to-missing-group': [
    'edge leads to a state group that is not in state_groups',
    'edges lead to state groups that are not in state_groups',
  ],
  'edge-between-rooms': ['edge leads to another room', 'edges lead to another room'],
  'predecessor-not-smaller': [
    'edge leads to a state group that is not smaller, so that Synapse reads the wrong state',
    'edges lead to state groups that are not smaller, so that Synapse reads the wrong state',
  ],
  'several-edges': [
    'state group has edges to different predecessors',
    'state groups have edges to different predecessors',
  ],
  'repeated-edge': [
    'edge is stored once more, which changes nothing',
    'edges are stored once more, which changes nothing',
  ],
  'own-ancestor': [
    'state group is its own ancestor, so that Synapse reads it until the statement times out',
    'state groups are their own ancestors, so that Synapse reads them until the statement times out',
  ],
  'deep-chain': [
    `state group has a chain of more than ${SYNAPSE_HOPS}, so that Synapse writes a full one after it`,
    `state groups have chains of more than ${SYNAPSE_HOPS}, so that Synapse writes full ones after them`,
  ],
  'contradictory-key': [
    'key has different events in one state group, whose state is undefined',
    'keys have different events in one state group, whose state is undefined',
  ],
  'repeated-row': [
    'row is stored once more, which changes nothing',
    'rows are stored once more, which changes nothing',
  ],
  'row-of-no-group': [
    'row belongs to a state group that is not in state_groups',
    'rows belong to state groups that are not in state_groups',
  ],
  'empty-group': [
    'state group has neither rows nor an edge, as the first of a room may',
    'state groups have neither rows nor an edge, as the first of a room may',
  ],
};

/** A report in lines for people. */
export function reportText(report: CheckReport): string {
  const { room, rooms, stateGroups, edges, rows, longestChain, isClean, findings } = report;
  const of = room === undefined ? counted(rooms, 'room') : `Room '${room}'`;
  const lines = [
    `${of}: ${counted(stateGroups, 'state group')}, ${counted(edges, 'edge')}, ${counted(rows, 'row')}; the longest chain has ${counted(longestChain, 'state group')}.`,
    isClean ? 'Nothing is wrong.' : 'Wrong:',
  ];
  for (const isInformation of [false, true]) {
    const told = findings.filter(
      (finding) => finding.count > 0 && finding.isInformation === isInformation,
    );
    if (isInformation && told.length > 0) lines.push('For information:');
    for (const { kind, count, examples } of told) {
      const more = count > examples.length ? ', …' : '';
      lines.push(
        `  ${counted(count, ...SENTENCES[kind])}: ${examples.map(exampleText).join(', ')}${more}`,
      );
    }
  }
  return `${lines.join('\n')}\n`;
}

function exampleText({ stateGroup, predecessor, type, stateKey }: Example): string {
  if (predecessor !== undefined) return `${stateGroup} → ${predecessor}`;
  if (type === undefined) return String(stateGroup);
  return `${stateGroup} (${JSON.stringify(type)}, ${JSON.stringify(stateKey)})`;
}
