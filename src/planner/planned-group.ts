/** What becomes of one state group. Groups appear in ascending order, each once. */
export interface PlannedGroup {
  readonly stateGroup: number;
  /** As stored. */
  readonly oldPredecessor: number | undefined;
  readonly newPredecessor: number | undefined;
  /** Rows of `state_groups_state` stored for the group, and what will be stored. */
  readonly oldRows: number;
  readonly newRows: number;
  /** What to write; undefined if the group stays as it is stored. */
  readonly change: Change | undefined;
}

/** A group that is to be written. */
export interface ChangedGroup extends PlannedGroup {
  readonly change: Change;
}

export function isChanged(group: PlannedGroup): group is ChangedGroup {
  return group.change !== undefined;
}

/** The new encoding of a group, and what a guard can compare the stored one with. */
export interface Change {
  /**
   * The sum, over the stored rows, of `hashtextextended(event_id, hashtextextended(state_key, hashtextextended(type, 0)))`,
   * and the `idsHash`.
   */
  readonly oldHash: bigint;
  /** The sum alone, over the new rows. */
  readonly newRowsHash: bigint;
  /** The new rows in the order of their keys, each as `type \t state_key \t event_id \n` in COPY text. */
  readonly rows: Buffer;
}
