import { InputError, StatesDifferError } from '../errors.js';
import type { Progress } from '../report/progress-text.js';
import type { AllRooms, RoomToOpen } from '../sources/all-rooms.js';
import { FROZEN, IN_RANGE, type GroupTable } from '../sources/group-table.js';
import type { RoomSource } from '../sources/room-source.js';
import { compareRooms, type Comparison } from './compare-rooms.js';
import { whatDiffers } from './comparison-text.js';

/** What the rooms of a source are compared with. */
export interface RoomsAfter {
  /** The rooms in the order of the bytes of their names, each to be opened before the next is asked for. */
  rooms(): AsyncIterable<RoomAfter>;
  /** Where they are what changes make of rooms: the groups changed so far. Rooms that are not among them stay. */
  readonly changed?: readonly number[];
}

export interface RoomAfter {
  readonly name: string;
  /** Both sides of the room, for `compareRooms`. */
  openBeside(before: RoomSource): Promise<readonly [before: RoomSource, after: RoomSource]>;
}

/** What came out of a room: the comparison, or why there is none. */
export interface RoomOutcome {
  readonly room: string;
  readonly outcome:
    Comparison | 'only-before' | 'only-after' | 'unchanged' | InputError | StatesDifferError;
}

/** The figures of all rooms together. */
export interface RoomsCompared {
  /** Rooms of either side. */
  rooms: number;
  compared: number;
  /** Rooms whose states are not, or can't be shown to be, the same; also those that one side alone has. */
  different: number;
  /** Rooms that could not be compared because of what is wrong with their data. */
  failed: number;
  /** Rooms that no change is of, which were not compared. */
  unchanged: number;
  /** State groups that were compared, and those of the same rooms that only the later side has. */
  groups: number;
  groupsOnlyAfter: number;
}

export interface CompareAllSettings {
  /** All rooms, open. */
  readonly before: AllRooms;
  readonly after: RoomsAfter;
  /** Called after each chunk of rows. */
  readonly onProgress?: (progress: Progress) => void;
  /** Called with what came out of a room, and awaited. */
  readonly onRoom: (result: RoomOutcome) => Promise<void>;
}

/**
 * Compares every room as `compareRooms` does, one after the other. What is wrong with the data of one room
 * leaves out that room alone; everything else ends the run.
 *
 * @throws InputError, DatabaseError from the sources and the changes
 */
export function compareAllRooms(settings: CompareAllSettings): Promise<RoomsCompared> {
  return new AllRoomsComparison(settings).run();
}

class AllRoomsComparison {
  readonly #settings: CompareAllSettings;
  readonly #totals: RoomsCompared = {
    rooms: 0,
    compared: 0,
    different: 0,
    failed: 0,
    unchanged: 0,
    groups: 0,
    groupsOnlyAfter: 0,
  };
  /** Groups of other rooms by whose rows, not only by whose states, a room is equal; and that room. */
  readonly #leanedOn = new Map<number, string>();

  constructor(settings: CompareAllSettings) {
    this.#settings = settings;
  }

  async run(): Promise<RoomsCompared> {
    const { before, after, onRoom } = this.#settings;
    for await (const pair of inStep(before.rooms(), after.rooms())) {
      const outcome = await this.#outcomeOf(pair);
      this.#totals.rooms++;
      this.#add(pair.name, outcome);
      await onRoom({ room: pair.name, outcome });
    }
    for (const room of this.#doubtful()) {
      this.#totals.different++;
      const outcome = new StatesDifferError(
        `Groups of room '${room}' with several predecessors are stored on groups of other rooms, which are changed: whether their states stay can't be told.`,
      );
      await onRoom({ room, outcome });
    }
    return this.#totals;
  }

  async #outcomeOf({ name, before, after }: Pair): Promise<RoomOutcome['outcome']> {
    const { changed } = this.#settings.after;
    if (before === undefined) return 'only-after';
    if (after === undefined && changed === undefined) return 'only-before';
    try {
      const source = await before.open();
      const elsewhere = changed === undefined ? [] : frozenElsewhere(source.groups);
      const outcome = await this.#compare(source, after);
      if (outcome === 'unchanged' || whatDiffers(name, outcome) === undefined) {
        for (const group of elsewhere) this.#leanedOn.set(group, name);
      }
      return outcome;
    } catch (error) {
      if (error instanceof InputError || error instanceof StatesDifferError) return error;
      throw error;
    }
  }

  async #compare(
    source: RoomSource,
    room: RoomAfter | undefined,
  ): Promise<Comparison | 'unchanged'> {
    const { onProgress } = this.#settings;
    try {
      if (room === undefined) return 'unchanged';
      const [before, after] = await room.openBeside(source);
      return await compareRooms({ before, after, ...(onProgress && { onProgress }) });
    } finally {
      await source.close();
    }
  }

  #add(room: string, outcome: RoomOutcome['outcome']): void {
    const totals = this.#totals;
    if (outcome === 'unchanged') totals.unchanged++;
    else if (outcome instanceof InputError) totals.failed++;
    else if (typeof outcome === 'string' || outcome instanceof StatesDifferError) {
      totals.different++;
    } else {
      totals.compared++;
      totals.groups += outcome.compared;
      totals.groupsOnlyAfter += outcome.onlyAfter.count;
      if (whatDiffers(room, outcome) !== undefined) totals.different++;
    }
  }

  /** Rooms that were found equal, and lean on what is changed. */
  #doubtful(): Set<string> {
    const rooms = new Set<string>();
    for (const group of this.#settings.after.changed ?? []) {
      const room = this.#leanedOn.get(group);
      if (room !== undefined) rooms.add(room);
    }
    return rooms;
  }
}

/** Another source as what rooms are compared with. */
export function roomsOf(source: AllRooms): RoomsAfter {
  return {
    async *rooms() {
      for await (const room of source.rooms()) {
        yield { name: room.name, openBeside: async (before) => [before, await room.open()] };
      }
    },
  };
}

/** Where the bytes of a room's name come: before (negative) or after (positive) those of another. */
export function byteOrder(room: string, other: string): number {
  return Buffer.from(room).compare(Buffer.from(other));
}

interface Pair {
  readonly name: string;
  readonly before: RoomToOpen | undefined;
  readonly after: RoomAfter | undefined;
}

/** The rooms of both sides, those of one name together. */
async function* inStep(
  roomsBefore: AsyncIterable<RoomToOpen>,
  roomsAfter: AsyncIterable<RoomAfter>,
): AsyncGenerator<Pair, void, undefined> {
  const [ours, theirs] = [roomsBefore[Symbol.asyncIterator](), roomsAfter[Symbol.asyncIterator]()];
  try {
    let [nextBefore, nextAfter] = [await ours.next(), await theirs.next()];
    while (nextBefore.done !== true || nextAfter.done !== true) {
      const before = nextBefore.done === true ? undefined : nextBefore.value;
      const after = nextAfter.done === true ? undefined : nextAfter.value;
      let order = 0;
      if (before === undefined) order = 1;
      else if (after === undefined) order = -1;
      else order = byteOrder(before.name, after.name);
      yield {
        name: (order <= 0 ? before : after)!.name,
        before: order <= 0 ? before : undefined,
        after: order >= 0 ? after : undefined,
      };
      if (order <= 0) nextBefore = await ours.next();
      if (order >= 0) nextAfter = await theirs.next();
    }
  } finally {
    await Promise.all([ours.return?.(), theirs.return?.()]);
  }
}

/** Groups of other rooms that irregular ones read through. */
function frozenElsewhere({ ids, flags }: GroupTable): Float64Array {
  return ids.filter((_, index) => (flags[index] & (FROZEN | IN_RANGE)) === FROZEN);
}
