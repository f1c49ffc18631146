/**
 * Changes of several rooms as one script: what it sets up stands before the changes of the first room, a line
 * before those of each further one, and its end, which nobody knows before the last room is done, once after all.
 */

/** Which of a script's rooms it is whose changes are written. */
export type AmongRooms = 'first' | 'further';

const ROOM = '-- Room ';

/** The line before the changes of a further room. */
export function roomLine(room: string): string {
  return `${ROOM}${JSON.stringify(room)}\n`;
}

/** The room that such a line names, which comes without its end; undefined if it is none. */
export function roomOfLine(line: string): string | undefined {
  if (!line.startsWith(ROOM)) return undefined;
  try {
    const room: unknown = JSON.parse(line.slice(ROOM.length));
    return typeof room === 'string' && roomLine(room) === `${line}\n` ? room : undefined;
  } catch {
    return undefined;
  }
}
