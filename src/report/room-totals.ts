import type { Statistics } from './statistics.js';

/** A room that was left out, and why. */
export interface RoomFailure {
  readonly room: string;
  readonly reason: string;
}

/** The figures of all rooms together. */
export interface Totals {
  readonly rooms: number;
  /** Rooms that have changes, and rooms that were left out because of what is wrong with their data. */
  readonly roomsChanged: number;
  readonly roomsFailed: number;
  /** Of the rooms that were not left out; rows after are those of the table if all changes are applied. */
  readonly stateGroups: number;
  readonly rowsBefore: number;
  readonly rowsAfter: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  readonly groupsWritten: number;
  readonly rowsDeleted: number;
  readonly rowsInserted: number;
  readonly outputBytes: number;
  readonly outcome: 'written' | 'no-output-asked' | 'nothing-to-change';
  /** What concerns no room by itself. */
  readonly warnings: readonly string[];
  readonly seconds: number;
}

/** Adds the figures of rooms up. */
export class RoomTotals {
  #isWritten = false;
  readonly #totals = {
    rooms: 0,
    roomsChanged: 0,
    roomsFailed: 0,
    stateGroups: 0,
    rowsBefore: 0,
    rowsAfter: 0,
    bytesBefore: 0,
    bytesAfter: 0,
    groupsWritten: 0,
    rowsDeleted: 0,
    rowsInserted: 0,
  };

  /** Whether any room's changes were written. */
  get isWritten(): boolean {
    return this.#isWritten;
  }

  /** State groups of the rooms that have changes, and their new rows. */
  get groupsWritten(): number {
    return this.#totals.groupsWritten;
  }

  get rowsInserted(): number {
    return this.#totals.rowsInserted;
  }

  add(result: Statistics | RoomFailure): void {
    const totals = this.#totals;
    totals.rooms++;
    if ('reason' in result) {
      totals.roomsFailed++;
      return;
    }
    const { outcome } = result;
    const isChanged = outcome === 'written' || outcome === 'no-output-asked';
    this.#isWritten ||= outcome === 'written';
    // What is read of other rooms is counted with them.
    const { groups, rows, bytes } = result.elsewhere;
    totals.stateGroups += result.stateGroups - groups;
    totals.rowsBefore += result.rowsBefore - rows;
    totals.rowsAfter += (isChanged ? result.rowsAfter : result.rowsBefore) - rows;
    totals.bytesBefore += result.bytesBefore - bytes;
    totals.bytesAfter += (isChanged ? result.bytesAfter : result.bytesBefore) - bytes;
    if (!isChanged) return;
    totals.roomsChanged++;
    totals.groupsWritten += result.groupsWritten;
    totals.rowsDeleted += result.rowsDeleted;
    totals.rowsInserted += result.rowsInserted;
  }

  figures(outputBytes: number, warnings: readonly string[], seconds: number): Totals {
    const { roomsChanged } = this.#totals;
    const unchanged = roomsChanged === 0 ? 'nothing-to-change' : 'no-output-asked';
    const outcome = this.#isWritten ? 'written' : unchanged;
    return { ...this.#totals, outcome, outputBytes, warnings, seconds };
  }
}
