import type { RoomChange } from '../changes/room-change.js';

/** What is held in memory until it is taken, and what a change takes beside its new rows. */
const MOST_BYTES = 8 * 1024 * 1024;
const BYTES_PER_CHANGE = 1024;

/**
 * The same changes, read while the server is busy with those before: as many as take 8 MB, or one. What is
 * wrong with the source shows when all before it is taken. When no more is taken, the source is closed; but
 * what was asked of it, which may be silent, is not waited for.
 */
export async function* readAhead(changes: AsyncIterable<RoomChange>): AsyncGenerator<RoomChange> {
  const read: RoomChange[] = [];
  let bytes = 0;
  let hasEnded = false;
  let isWanted = true;
  const isFull = (): boolean => isWanted && bytes >= MOST_BYTES;
  // Of the two sides at most one waits for the other.
  let proceed = (): void => {};
  const turn = (): Promise<void> => new Promise((resolve) => (proceed = resolve));

  const reading = (async () => {
    try {
      for await (const change of changes) {
        read.push(change);
        bytes += bytesOf(change);
        proceed();
        while (isFull()) await turn();
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
        bytes -= bytesOf(change);
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
  }
}

function bytesOf({ group }: RoomChange): number {
  return BYTES_PER_CHANGE + group.change.rows.length;
}
