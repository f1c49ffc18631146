/**
 * Lets two read what can be read once. What one has not read yet of what the other has is held, so both
 * should keep in step.
 */
export class Tee {
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #held: readonly [Buffer[], Buffer[]] = [[], []];
  #hasEnded = false;
  #reading: Promise<void> | undefined;

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  async *branch(number: 0 | 1): AsyncGenerator<Buffer, void, undefined> {
    const held = this.#held[number];
    for (;;) {
      const chunk = held.shift();
      if (chunk !== undefined) yield chunk;
      else if (this.#hasEnded) return;
      else await (this.#reading ??= this.#read());
    }
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }

  async #read(): Promise<void> {
    const next = await this.#chunks.next();
    this.#reading = undefined;
    if (next.done === true) this.#hasEnded = true;
    else for (const held of this.#held) held.push(next.value);
  }
}
