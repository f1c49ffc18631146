import type { GroupTable, Irregularity, IrregularityKind } from './group-table.js';
import { groupsText } from './some-groups.js';

const LEFT_ALONE = 'with the groups that descend from it or that it reads through, stays as it is';
const ARE_LEFT_ALONE =
  'with the groups that descend from them or that they read through, stay as they are';

/** What is said of one group, and of several. */
const SENTENCES: Record<IrregularityKind, readonly [one: string, several: string]> = {
  'several-edges': [
    `has edges to different predecessors and, ${LEFT_ALONE}`,
    `have edges to different predecessors and, ${ARE_LEFT_ALONE}`,
  ],
  'larger-predecessor': [
    `has a predecessor with a larger id and, ${LEFT_ALONE}`,
    `have predecessors with larger ids and, ${ARE_LEFT_ALONE}`,
  ],
  'own-ancestor': [
    `is its own ancestor and, ${LEFT_ALONE}`,
    `are their own ancestors and, ${ARE_LEFT_ALONE}`,
  ],
  'unread-rows': [
    'is an ancestor that belongs to another room, whose rows had gone by when that was known. The groups that descend from it stay as they are; to compress them, give the rows as a file',
    'are ancestors that belong to other rooms, whose rows had gone by when that was known. The groups that descend from them stay as they are; to compress them, give the rows as a file',
  ],
  'repeated-edge': [
    'has an edge that is stored more than once, which changes nothing',
    'have edges that are stored more than once, which changes nothing',
  ],
  'missing-group': [
    "is an ancestor of the room's groups, but is not in state_groups. Its rows and edges count, as they do for Synapse",
    "are ancestors of the room's groups, but are not in state_groups. Their rows and edges count, as they do for Synapse",
  ],
  'other-room': [
    "is an ancestor of the room's groups, but belongs to another room. Its rows and edges count, as they do for Synapse",
    "are ancestors of the room's groups, but belong to other rooms. Their rows and edges count, as they do for Synapse",
  ],
  'pending-deletion': [
    'is marked for deletion by Synapse. It stays as it is, and no other group is based on it anew',
    'are marked for deletion by Synapse. They stay as they are, and no other groups are based on them anew',
  ],
};

/** A warning for each kind of irregularity in a room's edges, in sentences an operator understands. */
export function describeIrregularities(table: GroupTable): string[] {
  return table.irregularities.map(describe);
}

function describe(irregularity: Irregularity): string {
  const { kind, count } = irregularity;
  const [one, several] = SENTENCES[kind];
  const groups = groupsText(irregularity);
  return count === 1
    ? `State group ${groups} ${one}.`
    : `${count} state groups (${groups}) ${several}.`;
}
