import { ELSEWHERE, IN_RANGE, PENDING } from '../sources/group-table.js';
import { GroupCount } from '../sources/some-groups.js';
import type { EntryPool } from '../state/entry-pool.js';
import type { GroupRows } from '../state/row-parser.js';
import type { Plan } from './planner.js';

/** What a room's plan counts on its way. Rows are rows of `state_groups_state`. */
export class RoomCounts {
  groups = 0;
  rowsBefore = 0;
  rowsAfter = 0;
  bytesBefore = 0;
  bytesAfter = 0;
  stateGroupsChanged = 0;
  groupsWritten = 0;
  rowsDeleted = 0;
  rowsInserted = 0;
  groupsPassedThrough = 0;
  /** Groups in range without a predecessor, but those that Synapse is about to delete. */
  snapshotsBefore = 0;
  snapshotsAfter = 0;
  /** What groups of other rooms, or of none, have of the above: they are only read. */
  readonly elsewhere = { groups: 0, rows: 0, bytes: 0 };
  /** Groups with two events for one key. */
  readonly contradictory = new GroupCount();
  /** Groups that have rows of another room. */
  readonly foreign = new GroupCount();
  /** Groups with neither rows nor an edge. */
  readonly empty = new GroupCount();
  /** Groups without an edge that have rows, but not that of the room's m.room.create event. */
  readonly withoutCreate = new GroupCount();
  readonly hopsBefore = new HopCounts();
  readonly hopsAfter = new HopCounts();

  constructor(
    readonly entries: EntryPool,
    readonly roomLength: number,
  ) {}

  /** A group that is not planned on, in range or only read for others. */
  passThrough(flags: number): void {
    if ((flags & IN_RANGE) !== 0) this.groupsPassedThrough++;
  }

  kept(rows: GroupRows, flags: number, isSnapshot: boolean): void {
    if (isSnapshot && (flags & (IN_RANGE | PENDING)) === IN_RANGE) {
      this.snapshotsBefore++;
      this.snapshotsAfter++;
    }
    const bytes = this.#bytesOf(rows.entries, rows.length);
    if ((flags & ELSEWHERE) !== 0) {
      this.elsewhere.groups++;
      this.elsewhere.rows += rows.rows;
      this.elsewhere.bytes += bytes;
    }
    this.groups++;
    this.rowsBefore += rows.rows;
    this.rowsAfter += rows.rows;
    this.bytesBefore += bytes;
    this.bytesAfter += bytes;
  }

  rewritten(rows: GroupRows, plan: Plan, wasSnapshot: boolean, isSnapshot: boolean): void {
    if (wasSnapshot) this.snapshotsBefore++;
    if (isSnapshot) this.snapshotsAfter++;
    this.groups++;
    this.rowsBefore += rows.rows;
    this.rowsAfter += plan.length;
    this.bytesBefore += this.#bytesOf(rows.entries, rows.length);
    this.bytesAfter += this.#bytesOf(plan.delta, plan.length);
    this.groupsWritten++;
    this.rowsDeleted += rows.rows;
    this.rowsInserted += plan.length;
  }

  /**
   * Bytes that rows take in the table and its index: a heap tuple is a line pointer of 4, a header of
   * 24, the group's 8 and four texts with a byte of length each; an index tuple a line pointer, a header
   * of 8, the group and two texts; both rounded up to 8
   * (https://www.postgresql.org/docs/current/storage-page-layout.html).
   */
  #bytesOf(list: Int32Array, length: number): number {
    const { keys, key, byteLength } = this.entries;
    let bytes = 0;
    for (let i = 0; i < length; i++) {
      const entry = list[i];
      // The tabs and the line feed of COPY text stand for the texts' bytes of length.
      const keyBytes = keys.byteLength[key[entry]];
      const heap = 24 + 8 + 1 + this.roomLength + keyBytes + byteLength[entry];
      bytes += 8 + ((heap + 7) & ~7) + ((16 + keyBytes + 7) & ~7);
    }
    return bytes;
  }
}

/** Chain lengths, counted in groups, the group itself included, as Synapse counts hops. */
export interface Hops {
  readonly largest: number;
  readonly mean: number;
  /** How many groups have a chain of at most `upTo` groups but more than the range before; null is without end. */
  readonly distribution: readonly { readonly upTo: number | null; readonly groups: number }[];
}

/** The upper ends of the ranges in which chain lengths are counted. */
const RANGES = [1, 10, 25, 50, 75, 100, 150, 200] as const;

/** Counts chain lengths. */
class HopCounts {
  #largest = 0;
  #sum = 0;
  #groups = 0;
  readonly #counts = new Float64Array(RANGES.length + 1);

  add(hops: number): void {
    this.#groups++;
    this.#sum += hops;
    if (hops > this.#largest) this.#largest = hops;
    let range = 0;
    while (range < RANGES.length && hops > RANGES[range]) range++;
    this.#counts[range]++;
  }

  get figures(): Hops {
    return {
      largest: this.#largest,
      mean: this.#groups === 0 ? 0 : this.#sum / this.#groups,
      distribution: Array.from(this.#counts, (groups, range) => ({
        upTo: RANGES[range] ?? null,
        groups,
      })),
    };
  }
}
