import type { GroupTable } from '../sources/group-table.js';
import type { LiveStates } from '../state/live-states.js';

/** What a planner chose for one group: a base and the entries by which the group's state differs from it. */
export class Plan {
  /** The state to become the group's predecessor, or `NO_STATE` for a snapshot. */
  base = 0;
  /** The rows to store, `length` of them. */
  delta = new Int32Array(1024);
  length = 0;
}

/**
 * Chooses each group's new predecessor. It is asked for the groups in range, in ascending order, and
 * holds those states that it may still choose.
 */
export interface Planner {
  /** The name of the strategy, with its settings, as the header of the output gives it. */
  readonly description: string;
  /** Groups with a predecessor that are to be written in full: no base had only keys of theirs, or none was worth it. */
  readonly forcedResets: number;
  readonly forcedResetRows: number;
  /** What an operator should know, once all groups are planned. */
  readonly warnings: readonly string[];
  /** Whether the changes are wanted though they may cost rows, once all groups are planned. */
  readonly mayCostRows?: boolean;
  /** Is told of all groups before the first, for a planner that looks ahead. */
  begin?(groups: GroupTable): void;
  /** Is told of each group that is only read, before those in range; for a planner that starts from such. */
  read?(states: LiveStates, state: number, stored: number): void;
  /** Is told of each group in range that stays as it is stored, whatever would be planned. */
  stays?(states: LiveStates, state: number, stored: number): void;
  /** Is told of a state that the last of the groups stored on it has come, planned or passed by. */
  endOfSuccessors?(states: LiveStates, stored: number): void;
  /**
   * Plans for the group whose state is `state` and whose stored predecessor's state is `stored`, or
   * `NO_STATE`. So many groups in range are `toCome`. Returns false if the group is to stay as it is;
   * otherwise `plan` is filled.
   */
  plan(states: LiveStates, state: number, stored: number, plan: Plan, toCome: number): boolean;
}
