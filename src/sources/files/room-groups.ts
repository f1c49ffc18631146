import { IdList } from '../id-list.js';
import type { TemporaryFile } from '../../temporary-file.js';
import { copyLines, copyStretches } from './copy-lines.js';
import { CopiedInput, type Input } from './input.js';
import { RoomColumn } from './room-column.js';

const OTHER_ROOMS = 3;
const LINES_TO_LOOK_AT = 10_000;

/** The state groups of one room, and what is known of others. */
export interface RoomGroups {
  /** Ascending. */
  readonly ids: Float64Array;
  /** A few of the other rooms in the table, for a message. */
  readonly otherRooms: ReadonlySet<string>;
  /** Which of `ids`, none of them the room's, belong to another room. */
  otherRoomsGroups(ids: ReadonlySet<number>): Promise<ReadonlySet<number>>;
}

/** Reads the room's groups from `state_groups`, which may be read again. */
export async function roomGroups(stateGroups: Input, room: RoomColumn): Promise<RoomGroups> {
  const ids = new IdList();
  const others = new OtherRooms();
  for await (const { bytes, count, starts, groups } of copyLines(stateGroups, 'state_groups')) {
    for (let i = 0; i < count; i++) {
      if (room.holdsRoom(bytes, starts[i])) ids.add(groups[i]);
      else others.look(bytes, starts[i]);
    }
  }
  return {
    ids: ids.sorted(),
    otherRooms: others.names,
    async otherRoomsGroups(wanted) {
      const found = new Set<number>();
      if (wanted.size === 0) return found;
      for await (const { count, groups } of copyLines(stateGroups, 'state_groups')) {
        for (let i = 0; i < count; i++) {
          if (wanted.has(groups[i])) found.add(groups[i]);
        }
      }
      return found;
    },
  };
}

/**
 * Reads the room's groups from `state_groups_state`: those that have rows. If the rows can be read only
 * once, the room's are copied to a temporary file; the others are gone then. The ids of other rooms'
 * groups go to a temporary file too, 8 bytes each, since the room's edges are not known yet.
 */
export async function roomGroupsWithRows(
  rows: Input,
  room: RoomColumn,
  temporaryFile: () => Promise<TemporaryFile>,
): Promise<RoomGroups & { readonly rows: Input }> {
  const ids = new IdList();
  const others = new OtherRooms();
  const othersIds = await temporaryFile();
  const copy = rows.rereadable ? undefined : await temporaryFile();
  let group = NaN;
  let isOfRoom = false;
  for await (const { bytes, count, starts, groups } of copyStretches(rows)) {
    const ofOthers = new Float64Array(count);
    let ofOthersCount = 0;
    const kept = copy && Buffer.allocUnsafe(bytes.length);
    let keptLength = 0;
    for (let i = 0; i < count; i++) {
      const start = starts[i];
      if (groups[i] !== group) {
        group = groups[i]!;
        isOfRoom = room.holdsRoom(bytes, start);
        if (isOfRoom) {
          ids.add(group);
        } else {
          others.look(bytes, start);
          ofOthers[ofOthersCount++] = group;
        }
      }
      if (isOfRoom && kept !== undefined) {
        keptLength += bytes.copy(kept, keptLength, start, starts[i + 1]);
      }
    }
    await othersIds.append(new Uint8Array(ofOthers.buffer, 0, 8 * ofOthersCount));
    await copy?.append(kept!.subarray(0, keptLength));
  }
  return {
    ids: ids.sorted(),
    otherRooms: others.names,
    rows: copy === undefined ? rows : new CopiedInput(rows, copy),
    async otherRoomsGroups(wanted) {
      const found = new Set<number>();
      if (wanted.size === 0) return found;
      for await (const chunk of othersIds.chunks()) {
        for (const id of new Float64Array(chunk.buffer, chunk.byteOffset, chunk.length / 8)) {
          if (wanted.has(id)) found.add(id);
        }
      }
      return found;
    },
  };
}

/** Remembers the names of a few rooms. */
class OtherRooms {
  readonly names = new Set<string>();
  #lines = 0;

  look(bytes: Buffer, start: number): void {
    if (this.names.size === OTHER_ROOMS || this.#lines === LINES_TO_LOOK_AT) return;
    this.#lines++;
    this.names.add(RoomColumn.roomAt(bytes, start));
  }
}
