import type { RoomSource } from './room-source.js';
import type { StoredTables } from './stored-tables.js';

/** Every room of a database or of exports. */
export interface AllRooms {
  /** How many rooms there are. */
  readonly count: number;
  /**
   * The rooms in the order of the bytes of their names. One is opened after the other, each when the one
   * before was closed; its rows may be left unread.
   */
  rooms(): AsyncIterable<RoomToOpen>;
  /** As `RoomSource.storedTables`, once all rooms were read. */
  storedTables?(): StoredTables;
  /** What concerns no room by itself; complete once all rooms were read. */
  readonly warnings: readonly string[];
  /** Closes connections and removes temporary files. Safe to call at any time, and twice. */
  close(): Promise<void>;
}

export interface RoomToOpen {
  readonly name: string;
  /** @throws InputError if something is wrong with this room alone */
  open(): Promise<RoomSource>;
}
