import type { Hops } from '../planner/room-counts.js';

/** Every figure of one room's run. Rows are rows of `state_groups_state`. */
export interface Statistics {
  readonly room: string;
  readonly strategy: string;
  /** Groups read: those in range and the ancestors that were only read. */
  readonly stateGroups: number;
  /** The last group in range: `-b` of the run that continues one with `-n`. */
  readonly lastStateGroup: number;
  readonly rowsBefore: number;
  readonly rowsAfter: number;
  /** Estimated bytes of the rows and their index entries, before and after. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** What groups of other rooms, or of none, have of these: they are only read. */
  readonly elsewhere: { readonly groups: number; readonly rows: number; readonly bytes: number };
  /**
   * Groups with a predecessor that are written in full, and their rows. By levels because no base has only keys of
   * theirs; by adaptive also because none saves enough for the hops that it takes.
   */
  readonly forcedResets: number;
  readonly forcedResetRows: number;
  /** Groups for which the planner chose another predecessor than the stored one. */
  readonly stateGroupsChanged: number;
  /** Groups that the output rewrites, the rows it deletes and the rows it inserts. */
  readonly groupsWritten: number;
  readonly rowsDeleted: number;
  readonly rowsInserted: number;
  /** Groups in range without a predecessor, which are stored in full, but those that Synapse is about to delete. */
  readonly snapshotsBefore: number;
  readonly snapshotsAfter: number;
  readonly hopsBefore: Hops;
  readonly hopsAfter: Hops;
  /** Whether each new encoding was compared with the stored one, and how many there were. */
  readonly verified: boolean;
  readonly groupsVerified: number;
  /** Groups in range that were left as stored because their edges or rows are irregular, or Synapse is about to delete them. */
  readonly groupsPassedThrough: number;
  /** Whether the changes were kept; if not, why. */
  readonly outcome:
    'written' | 'no-output-asked' | 'no-gain' | 'below-minimum' | 'nothing-to-change';
  readonly outputBytes: number;
  readonly warnings: readonly string[];
  readonly seconds: number;
}
