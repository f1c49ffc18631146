import type { Pace } from '../apply/throttle.js';
import type { Progress } from '../report/progress-text.js';
import type { Strategy } from '../planner/strategy.js';

export interface AutoSettings {
  /** A URL, libpq's keywords, or a database's name; see `parseConnection`. */
  readonly dsn: string;
  /** Where the `PG*` variables are looked up. */
  readonly env: NodeJS.ProcessEnv;
  readonly strategy: Strategy;
  /** Rooms with the largest gain first, or the room of the lowest state group that is not compressed. */
  readonly order: 'gain' | 'id';
  /** State groups that levels compress at a time. */
  readonly chunkSize: number;
  /** So many chunks at most; with adaptive rooms of so many chunks' groups together, the last one as a whole. */
  readonly chunks: number;
  /** Only these rooms; all if there are none. */
  readonly rooms: readonly string[];
  readonly except: readonly string[];
  readonly maxRooms: number;
  /** Milliseconds after which nothing is begun any more. */
  readonly timeBudget: number | undefined;
  /** How fast changes are applied; as fast as it goes if undefined. */
  readonly pace: Pace | undefined;
  /** Whether the tables are vacuumed once rows were deleted. */
  readonly vacuum: boolean;
  /** Only plans, and writes nothing to the database. */
  readonly dryRun: boolean;
  /** Folder for changes that wait to be applied. */
  readonly tmpdir: string;
  /** Ends the run once the transaction under way is committed. */
  readonly signal: AbortSignal;
  readonly log: (level: 'info' | 'warning', message: string, fields?: object) => void;
  readonly onProgress: (progress: Progress) => void;
}

/** What a run did. Rows are rows of `state_groups_state`. */
export interface AutoSummary {
  /** Rooms that were planned, in whole or in part. */
  readonly rooms: number;
  /** Chunks, or with adaptive whole rooms, and how many of them gained nothing. */
  readonly chunks: number;
  readonly withoutGain: number;
  readonly groupsRewritten: number;
  /** Groups that were left as they are because they had changed since they were read. */
  readonly groupsSkipped: number;
  readonly rowsDeleted: number;
  readonly rowsInserted: number;
  /** With a dry run: rows that would be saved. */
  readonly rowsToSave: number;
  readonly failed: readonly { readonly room: string; readonly reason: string }[];
  /** What ended the run before all was done. */
  readonly stoppedBy: 'signal' | 'time' | undefined;
  readonly seconds: number;
}

/** What is counted while rooms are worked on; see `AutoSummary`. */
export function noCounts() {
  return {
    chunks: 0,
    withoutGain: 0,
    groupsRewritten: 0,
    groupsSkipped: 0,
    rowsDeleted: 0,
    rowsInserted: 0,
    rowsToSave: 0,
  };
}

/** The summary of a run that has not begun. */
export function nothingDone(): AutoSummary {
  return { rooms: 0, ...noCounts(), failed: [], stoppedBy: undefined, seconds: 0 };
}
