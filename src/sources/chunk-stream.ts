import { Readable } from 'node:stream';

/**
 * A stream of a generator's chunks. Of `Readable.from`, which gives one as well, more is left behind than
 * a collection of young garbage frees: with a stream for each of many rooms, tens of megabytes.
 */
export function chunkStream(chunks: AsyncGenerator<Buffer, void, undefined>): Readable {
  return new Readable({
    read() {
      chunks.next().then(
        ({ value, done }) => this.push(done === true ? null : value),
        (error: Error) => this.destroy(error),
      );
    },
    destroy(error, destroyed) {
      chunks.return().then(() => destroyed(error), destroyed);
    },
  });
}
