import { fieldOf } from '../../state/copy-text.js';

const TAB = 9;

/** Recognizes the lines of one room in tables whose second column is `room_id`. */
export class RoomColumn {
  readonly #room: Buffer;

  constructor(room: string) {
    this.#room = fieldOf(room);
  }

  /** Whether the line that begins at `start` is the room's. */
  holdsRoom(bytes: Buffer, start: number): boolean {
    const room = this.#room;
    const from = bytes.indexOf(TAB, start) + 1;
    if (bytes[from + room.length] !== TAB) return false;
    for (let i = 0; i < room.length; i++) {
      if (bytes[from + i] !== room[i]) return false;
    }
    return true;
  }

  /** The room of the line that begins at `start`, as COPY writes it. */
  static roomAt(bytes: Buffer, start: number): string {
    const from = bytes.indexOf(TAB, start) + 1;
    return bytes.toString('utf8', from, bytes.indexOf(TAB, from));
  }
}
