import type { RoomSource } from './sources/room-source.js';
import type { Statistics } from './report/statistics.js';

/** How far a run has come; totals are known from the headers. */
export interface Progress {
  readonly groups: number;
  readonly totalGroups: number;
  readonly rows: number;
}

export interface CompressSettings {
  /** An open source; it is closed when the run ends, however it ends. */
  readonly source: RoomSource;
  /** Sizes of the levels, lowest first; default 100, 50, 25. */
  readonly levels?: readonly number[];
  /** Fewer saved rows than this: nothing is kept. */
  readonly minSavedRows?: number;
  /** Wraps each group's statements in a guarded transaction. */
  readonly transactions?: boolean;
  /** Default true. False skips the comparison of every planned state with the stored one. */
  readonly verify?: boolean;
  /** Receives the SQL. Without it only statistics are made. */
  readonly output?: Output;
  /** Folder for the four CSV files that Gephi reads. */
  readonly graphs?: string;
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

/** Where the changes go. Nothing of it may be seen under its final name before `keep()` resolved. */
export interface Output {
  readonly stream: NodeJS.WritableStream;
  /** The stream has ended and all is verified: put it where it belongs. */
  keep(): Promise<void>;
  /** Forget all that was written. Safe to call at any time, and twice. */
  discard(): Promise<void>;
}

/** Compresses one room: reads it, plans, verifies, writes SQL to `output`, and counts. */
export async function compressRoom(_settings: CompressSettings): Promise<Statistics> {
  throw new Error('to come');
}
