import assert from 'node:assert/strict';
import type { PlannedGroup } from '../../src/planner/planned-group.js';
import type { Room, Row } from './naive-room.js';

/** The room as it is once the changes are applied. */
export function applied(room: Room, planned: readonly PlannedGroup[]): Room {
  const changes = new Map(planned.map((group) => [group.stateGroup, group]));
  return room.map((group) => {
    const { newPredecessor, change } = changes.get(group.id) ?? {};
    if (change === undefined) return group;
    const predecessors = newPredecessor === undefined ? [] : [newPredecessor];
    return { ...group, predecessors, rows: rowsOf(change.rows) };
  });
}

/** The rows of a change. */
export function rowsOf(text: Buffer): Row[] {
  const lines = text.toString('latin1').split('\n');
  assert.equal(lines.pop(), '');
  return lines.map((line) => {
    const tab = line.lastIndexOf('\t');
    return [line.slice(0, tab), line.slice(tab + 1)];
  });
}
