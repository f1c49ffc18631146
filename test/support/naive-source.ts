import { Readable } from 'node:stream';
import fc from 'fast-check';
import type { RoomSource } from '../../src/sources/room-source.js';
import { cut, lengths } from './naive-copy-text.js';
import { tableOf, type Room } from './naive-room.js';

export const ROOM = '!room:example.org';

/** In which form a source gives its rows. */
export interface Shape {
  readonly columns: RoomSource['rowColumns'];
  readonly lengths: readonly number[];
}

/** A source of a room, all of it. */
export function sourceOf(room: Room, shape: Shape): RoomSource {
  const groups = tableOf(room);
  const column = shape.columns === 'with-room' ? `${ROOM}\t` : '';
  const lines = room
    .filter(({ id }) => groups.ids.includes(id))
    .flatMap(({ id, rows }) => rows.map(([key, event]) => `${id}\t${column}${key}\t${event}\n`));
  return {
    room: ROOM,
    groups,
    snapshotTime: undefined,
    rowColumns: shape.columns,
    warnings: [],
    rows: () => Readable.from(cut(Buffer.from(lines.join(''), 'latin1'), shape.lengths)),
    close: () => Promise.resolve(),
  };
}

export const shape = fc.record<Shape>({
  columns: fc.constantFrom('with-room', 'without-room'),
  lengths,
});
