import type { Readable } from 'node:stream';
import type { RowColumns } from '../state/row-parser.js';
import type { GroupTable } from './group-table.js';
import type { StoredTables } from './stored-tables.js';

/**
 * One room's state groups, from wherever they are stored. Nothing after a source knows where its
 * data came from.
 */
export interface RoomSource {
  readonly room: string;
  /** The headers of the groups in range and of all their ancestors, read before any row. */
  readonly groups: GroupTable;
  /** When the data was as it is read here; unknown for files. */
  readonly snapshotTime: Date | undefined;
  /**
   * The rows of every group in `groups`, as chunks of COPY text cut anywhere. Lines are in ascending
   * order of state group, and every line has the columns that `rowColumns` says, in that order.
   * May be called once.
   */
  rows(): Readable;
  /**
   * Whether the rows are given as they stand in files, on trust that they are in order and as they should
   * be. An InputError, of `rows()` or of who takes them, says no more then than that they are not: open
   * the source again without trust.
   */
  readonly isOnTrust?: boolean;
  /**
   * Takes a chunk of `rows()` back, to be filled again. Only for the sole reader of the rows, and only
   * once nothing looks at the chunk any more.
   */
  giveBack?(chunk: Buffer): void;
  readonly rowColumns: RowColumns;
  /**
   * The tables as they are stored, of all rooms, if the source was opened with `keepTables`. To be asked
   * once `rows()` has ended, and before `close()`.
   */
  storedTables?(): StoredTables;
  /** What was found that an operator should know; complete once `rows()` has ended. */
  readonly warnings: readonly string[];
  /** Closes connections and removes temporary files. Safe to call at any time, and twice. */
  close(): Promise<void>;
}
