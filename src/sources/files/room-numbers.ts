import { fieldOf } from '../../state/copy-text.js';
import { KeyTable } from '../../state/key-table.js';

const TAB = 9;

/** Numbers for rooms; about 100 bytes a room. */
export class RoomNumbers {
  /** The room between two tabs has the form of a key without a type. */
  readonly #names = KeyTable.seeded();

  get count(): number {
    return this.#names.length;
  }

  /** The number of the room in the line that begins at `start`. */
  at(bytes: Buffer, view: DataView, start: number): number {
    const from = bytes.indexOf(TAB, start);
    return this.#names.intern(bytes, view, from, bytes.indexOf(TAB, from + 1) + 1, 0);
  }

  /** The room's id in COPY text. */
  bytesOf(number: number): Buffer {
    const { arena, place, byteLength } = this.#names;
    const start = place[number] << 2;
    return Buffer.from(arena.bytes.buffer, start + 1, byteLength[number] - 2);
  }

  /** The number of the room, which is taken for one from now on. */
  ofName(room: string): number {
    const line = Buffer.concat([Buffer.of(TAB), fieldOf(room), Buffer.of(TAB)]);
    return this.at(line, new DataView(line.buffer, line.byteOffset, line.length), 0);
  }
}
