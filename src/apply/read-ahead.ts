import type { RoomChange } from '../changes/room-change.js';

/** Of new rows, which are held in memory until they are taken. */
const MOST_BYTES = 8 * 1024 * 1024;

/**
 * The same changes, read while the server is busy with those before: as many as have 8 MB of new rows, or
 * one. What is wrong with the source shows when all before it is taken.
 */
export async function* readAhead(changes: AsyncIterable<RoomChange>): AsyncGenerator<RoomChange> {
  const read: RoomChange[] = [];
  let bytes = 0;
  let hasEnded = false;
  let isWanted = true;
  // Of the two sides at most one waits for the other.
  let proceed = (): void => {};
  const turn = (): Promise<void> => new Promise((resolve) => (proceed = resolve));

  const reading = (async () => {
    try {
      for await (const change of changes) {
        read.push(change);
        bytes += change.group.change.rows.length;
        proceed();
        while (bytes >= MOST_BYTES && isWanted) await turn();
        if (!isWanted) return;
      }
    } finally {
      hasEnded = true;
      proceed();
    }
  })();
  // It is told below; until then it is no rejection that nobody handles.
  reading.catch(() => {});

  try {
    for (;;) {
      const change = read.shift();
      if (change !== undefined) {
        bytes -= change.group.change.rows.length;
        proceed();
        yield change;
      } else if (hasEnded) {
        await reading;
        return;
      } else {
        await turn();
      }
    }
  } finally {
    isWanted = false;
    proceed();
    await reading.catch(() => {});
  }
}
