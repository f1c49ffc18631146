const CHUNK = 256 * 1024;

/**
 * Chunks of one size, of which those that were given back are filled again: buffers that come and go
 * cost as much time as what is done with them, and twice as much memory as is used.
 */
export class ChunkPool {
  readonly #free: Buffer[] = [];
  readonly #lent = new WeakSet<Buffer>();

  take(): Buffer {
    const chunk = this.#free.pop() ?? Buffer.allocUnsafeSlow(CHUNK);
    this.#lent.add(chunk);
    return chunk;
  }

  /** Takes a chunk back that nobody will look at again. What is not of this pool, or was cut, is left alone. */
  giveBack(chunk: Buffer): void {
    if (this.#lent.delete(chunk)) this.#free.push(chunk);
  }
}
