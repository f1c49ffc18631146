import { IdFinder } from '../id-list.js';
import { Pieces } from '../sort/pieces.js';
import { copyStretches } from './copy-lines.js';
import type { EmptyTables } from './empty-tables.js';
import type { Input } from './input.js';
import type { RoomColumn } from './room-column.js';
import { StrayRows } from './stray-rows.js';

/** Picks the lines of the wanted groups out of `state_groups_state`. */
export class RoomRows {
  readonly #input: Input;
  readonly #room: RoomColumn;
  readonly #roomIds: Float64Array;
  readonly #wanted: IdFinder;
  readonly #emptyTables: EmptyTables;
  readonly #stray = new StrayRows();

  /** `wanted` are the groups whose lines are picked, `roomIds` all that the room has, both ascending. */
  constructor(
    input: Input,
    room: RoomColumn,
    wanted: Float64Array,
    roomIds: Float64Array,
    emptyTables: EmptyTables,
  ) {
    this.#input = input;
    this.#room = room;
    this.#roomIds = roomIds;
    this.#wanted = new IdFinder(wanted);
    this.#emptyTables = emptyTables;
  }

  /**
   * The wanted lines in the order of the input; for `isTrusted` see `copyStretches`.
   *
   * @throws InputError also at the end, if there were no rows, or no edges, and must be
   */
  async *read(isTrusted?: (group: number) => boolean): AsyncGenerator<Pieces, void, undefined> {
    const roomIds = new IdFinder(this.#roomIds);
    const pieces = new Pieces();
    let group = NaN;
    let isWanted = false;
    let isStray = false;
    let index = -1;
    for await (const lines of copyStretches(this.#input, isTrusted)) {
      const { bytes, position, count, starts, groups } = lines;
      pieces.reset(bytes, position);
      for (let i = 0; i < count; i++) {
        const start = starts[i];
        if (groups[i] !== group) {
          group = groups[i]!;
          isWanted = this.#wanted.has(group);
          index = roomIds.indexOf(group);
          isStray = !isWanted && index < 0 && this.#room.holdsRoom(bytes, start);
        }
        this.#emptyTables.addRows(index, bytes, start, starts[i + 1]);
        if (isWanted) pieces.add(group, start, starts[i + 1]);
        else if (isStray) this.#stray.add(group, bytes.subarray(start, starts[i + 1]));
      }
      if (pieces.count > 0) yield pieces;
    }
    this.#emptyTables.check(() => 0);
  }

  /** What was found while reading, in sentences. */
  warnings(): string[] {
    return this.#stray.warnings(' of the room');
  }
}
