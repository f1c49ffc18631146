const LINE_FEED = 10;

/** Lines of bytes. Only where a chunk ends is there something to wait for. */
export class LineReader {
  /** How many lines were taken. */
  count = 0;
  readonly #chunks: AsyncIterator<Buffer>;
  #bytes = Buffer.alloc(0);
  #at = 0;

  /** Each of `chunks` need be valid only until the next is asked for. */
  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** The next line without its end, if it is here already; valid until the next is taken. */
  ready(): Buffer | undefined {
    const end = this.#bytes.indexOf(LINE_FEED, this.#at);
    if (end < 0) return undefined;
    const line = this.#bytes.subarray(this.#at, end);
    this.#at = end + 1;
    this.count++;
    return line;
  }

  /** The next line, once it is here; undefined at the end. What follows the last line feed is no line. */
  async next(): Promise<Buffer | undefined> {
    for (;;) {
      const line = this.ready();
      if (line !== undefined) return line;
      const rest = this.#bytes.subarray(this.#at);
      const chunk = await this.#chunks.next();
      if (chunk.done === true) return undefined;
      this.#bytes = Buffer.concat([rest, chunk.value]);
      this.#at = 0;
    }
  }

  /** Whether something is left that no line feed ends. */
  get hasRest(): boolean {
    return this.#at < this.#bytes.length;
  }

  /** Closes what the chunks come from. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
