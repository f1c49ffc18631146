import type { Progress } from '../report/progress-text.js';
import { InputError } from '../errors.js';
import { GroupCount, type SomeGroups } from '../sources/some-groups.js';
import { IN_RANGE } from '../sources/group-table.js';
import { IdFinder } from '../sources/id-list.js';
import type { RoomSource } from '../sources/room-source.js';
import { NO_STATE } from '../state/live-states.js';
import { differenceOf, type StateDifference } from './state-difference.js';
import { RoomStates, SharedStates, UNKNOWN } from './room-states.js';

const NOTHING = new Int32Array(0);

/** What comparing two sources of a room gave. */
export interface Comparison {
  /** State groups of the room whose states were compared; all are equal unless there is a `difference`. */
  readonly compared: number;
  /** The first group whose states differ, in ascending id. Nothing after it was compared. */
  readonly difference: StateDifference | undefined;
  /** State groups of the room that only one of the sources has. */
  readonly onlyBefore: SomeGroups;
  readonly onlyAfter: SomeGroups;
  /** Groups of both whose state can't be known, because too many irregular groups lead to them. */
  readonly notCompared: SomeGroups;
}

export interface CompareSettings {
  /** Open sources of one room, all of it; they are closed when it ends, however it ends. */
  readonly before: RoomSource;
  readonly after: RoomSource;
  /** Called after each chunk of rows. */
  readonly onProgress?: (progress: Progress) => void;
}

/**
 * Compares the state of every group of a room in two sources, entry by entry, as Synapse reads it. No
 * plan, delta or fingerprint of the compression is looked at.
 *
 * Both sources are read in ascending id, always the one that is behind, so that two states of a group
 * meet soon. Two that are equal become one, and what is built on it shares its nodes. So memory grows
 * with the room's state, not twice, and with 25 bytes a group and source; and a comparison costs what
 * was built anew since the last.
 *
 * @throws InputError, DatabaseError from the sources
 */
export async function compareRooms(settings: CompareSettings): Promise<Comparison> {
  const { before, after } = settings;
  try {
    return await new RoomComparison(before, after).run(settings.onProgress);
  } finally {
    await Promise.all([before.close(), after.close()]);
  }
}

class RoomComparison {
  readonly #shared = new SharedStates();
  readonly #before: Side;
  readonly #after: Side;
  readonly #notCompared = new GroupCount();
  #compared = 0;
  #difference: StateDifference | undefined;

  constructor(before: RoomSource, after: RoomSource) {
    this.#before = new Side(before, this.#shared, (group, state) =>
      this.#ready(this.#before, this.#after, group, state),
    );
    this.#after = new Side(after, this.#shared, (group, state) =>
      this.#ready(this.#after, this.#before, group, state),
    );
  }

  async run(onProgress?: (progress: Progress) => void): Promise<Comparison> {
    const [before, after] = [this.#before, this.#after];
    const onlyBefore = before.groupsMissingIn(after);
    const totalGroups = before.roomGroups - onlyBefore.count;
    try {
      while (this.#difference === undefined && !(before.ended && after.ended)) {
        await (before.position <= after.position ? before : after).read();
        const rows = before.states.rows + after.states.rows;
        onProgress?.({ groups: this.#compared, totalGroups, rows });
      }
    } finally {
      await Promise.all([before.stop(), after.stop()]);
    }
    return {
      compared: this.#compared,
      difference: this.#difference,
      onlyBefore,
      onlyAfter: after.groupsMissingIn(before),
      notCompared: this.#notCompared,
    };
  }

  /** A state is complete: compares it, unless the other side's is still to come. */
  #ready(side: Side, other: Side, group: number, state: number): void {
    const theirs = side.isOfRoom(group) ? other.stateOf(side.states.groups.ids[group]) : undefined;
    if (theirs === NO_STATE) return;
    if (theirs !== undefined && this.#difference === undefined) {
      if (side === this.#before) this.#compare(group, state, theirs);
      else this.#compare(this.#before.indexOf(side.states.groups.ids[group]), theirs, state);
    }
    for (const complete of [state, theirs ?? UNKNOWN]) {
      if (complete >= 0) this.#shared.states.release(complete);
    }
  }

  #compare(group: number, before: number, after: number): void {
    const { states } = this.#shared;
    const stateGroup = this.#before.states.groups.ids[group];
    if (before === UNKNOWN || after === UNKNOWN) {
      this.#notCompared.add(stateGroup);
      return;
    }
    this.#compared++;
    if (states.difference(before, after, NOTHING, 0) === 0) this.#shared.unite(before, after);
    else this.#difference = differenceOf(stateGroup, states, before, after);
  }
}

/** One of the two sources. */
class Side {
  readonly states: RoomStates;
  ended = false;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #finder: IdFinder;

  constructor(
    source: RoomSource,
    shared: SharedStates,
    onState: (group: number, state: number) => void,
  ) {
    if (source.groups.irregularities.some(({ kind }) => kind === 'unread-rows')) {
      throw new InputError(
        'Some ancestors belong to other rooms, and their rows had gone by when that was known. Give the rows as a file, or the table state_groups as well.',
      );
    }
    this.states = new RoomStates(source, shared, onState);
    this.#finder = new IdFinder(source.groups.ids);
    const rows = source.rows();
    // Nobody may be reading it when the signal comes.
    rows.on('error', () => {});
    this.#chunks = rows[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  }

  get roomGroups(): number {
    return this.states.groups.flags.reduce((count, flags) => count + (flags & IN_RANGE), 0);
  }

  /** The id up to which rows were read. */
  get position(): number {
    if (this.ended) return Infinity;
    return this.states.groups.ids[this.states.latest] ?? -1;
  }

  isOfRoom(group: number): boolean {
    return (this.states.groups.flags[group] & IN_RANGE) !== 0;
  }

  /** The index of a group of the room, or -1. */
  indexOf(id: number): number {
    const group = this.#finder.indexOf(id);
    return group >= 0 && this.isOfRoom(group) ? group : -1;
  }

  /** As `RoomStates.stateOf`, by id; undefined if the room has no such group here. */
  stateOf(id: number): number | undefined {
    const group = this.indexOf(id);
    return group < 0 ? undefined : this.states.stateOf[group];
  }

  async read(): Promise<void> {
    const next = await this.#chunks.next();
    if (next.done === true) {
      this.states.end();
      this.ended = true;
    } else {
      this.states.write(next.value);
    }
  }

  async stop(): Promise<void> {
    await this.#chunks.return?.();
  }

  groupsMissingIn(other: Side): GroupCount {
    const missing = new GroupCount();
    this.states.groups.ids.forEach((id, group) => {
      if (this.isOfRoom(group) && other.indexOf(id) < 0) missing.add(id);
    });
    return missing;
  }
}
