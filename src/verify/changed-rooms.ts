import type { NewEncoding } from '../changes/room-change.js';
import { InputError } from '../errors.js';
import type { SortSettings } from '../sources/sort/sort-lines.js';
import { withChanges } from './changed-room.js';
import { byteOrder, type RoomAfter, type RoomsAfter } from './compare-all-rooms.js';

/**
 * The rooms that changes are of, as they are with these, for `compareAllRooms`. The changes are read once,
 * a room after the other, which is the order in which changes of all rooms are written. Holds 8 bytes a
 * change, and what `withChanges` takes for one room.
 */
export class ChangedRooms implements RoomsAfter {
  readonly changed: number[] = [];
  readonly #changes: AsyncIterator<NewEncoding>;
  readonly #settings: SortSettings;
  /** The change that was read last, and is still to be given. */
  #next: NewEncoding | undefined;
  #failure: Error | undefined;

  constructor(changes: AsyncIterable<NewEncoding>, settings: SortSettings) {
    this.#changes = changes[Symbol.asyncIterator]();
    this.#settings = settings;
  }

  /**
   * Changes that nobody takes are left out.
   *
   * @throws InputError if the changes can't be read, or those of a room don't stand together and in order
   */
  async *rooms(): AsyncGenerator<RoomAfter, void, undefined> {
    try {
      await this.#read();
      for (let room = this.#next?.room; room !== undefined;) {
        const name = room;
        yield {
          name,
          openBeside: (before) => withChanges(before, this.#changesOf(name), this.#settings),
        };
        // Nothing comes after it any more, which must not be taken for the end.
        if (this.#failure !== undefined) throw this.#failure;
        while (this.#next?.room === name) await this.#read();
        room = this.#next?.room;
        if (room !== undefined && byteOrder(room, name) < 0) {
          throw new InputError(
            `The changes of room '${room}' stand behind those of room '${name}'. To compare all rooms, changes have to be as --all-rooms writes them: of one room after the other, in the order of the bytes of their ids. Compare room after room with -r, or make the changes again.`,
          );
        }
      }
    } finally {
      await this.#changes.return?.();
    }
  }

  async *#changesOf(room: string): AsyncGenerator<NewEncoding, void, undefined> {
    for (let next = this.#next; next?.room === room; next = this.#next) {
      yield next;
      await this.#read();
    }
  }

  async #read(): Promise<void> {
    try {
      const read = await this.#changes.next();
      this.#next = read.done === true ? undefined : read.value;
    } catch (error) {
      this.#failure = error as Error;
      throw error;
    }
    if (this.#next !== undefined) this.changed.push(this.#next.group.stateGroup);
  }
}
