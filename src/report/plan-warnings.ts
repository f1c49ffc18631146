import type { RoomPlan } from '../planner/room-plan.js';
import { counted } from './counted.js';

/** What an operator should know of the groups that came, in sentences; an export may lack a part. */
export function planWarnings({ counts, hasCreate }: RoomPlan, isExport: boolean): string[] {
  const { contradictory, foreign, empty, withoutCreate } = counts;
  const warnings: string[] = [];
  const have = (count: number): string => counted(count, 'state group has', 'state groups have');
  if (contradictory.count > 0) {
    warnings.push(
      `${have(contradictory.count)} two events for one key, so that their state is undefined (the first: ${contradictory.examples.join(', ')}). They and the groups built on them were left as they are.`,
    );
  }
  if (foreign.count > 0) {
    warnings.push(
      `${have(foreign.count)} rows of another room than state_groups gives them, as where tables of two databases are mixed up (the first: ${foreign.examples.join(', ')}). They and the groups built on them were left as they are.`,
    );
  }
  // Synapse makes one, before the room's first event. An export that failed midway ends behind a whole row.
  if (empty.count > 1) {
    warnings.push(
      `${have(empty.count)} neither rows nor an edge, as only the first of a room should (the first: ${empty.examples.join(', ')}). If the tables were exported, see that all rows of state_groups_state were: with rows missing, the changes would lose state.`,
    );
  }
  // Synapse has such groups of its own, of invitations for instance.
  if (isExport && hasCreate && withoutCreate.count > 0) {
    warnings.push(
      `${have(withoutCreate.count)} neither an edge nor an m.room.create event, as full states have (the first: ${withoutCreate.examples.join(', ')}). See that all of state_group_edges was exported: with edges missing, the changes would lose state.`,
    );
  }
  return warnings;
}
