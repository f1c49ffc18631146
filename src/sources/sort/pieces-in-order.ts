import { InputError } from '../../errors.js';
import type { ChunkPool } from './chunk-pool.js';
import { Pieces } from './pieces.js';
import { RunChunks } from './run-chunks.js';
import type { Run } from './run.js';

/**
 * Yields the bytes of pieces that must be in ascending order of key, as `sortLines` does of those that
 * need not.
 *
 * @throws InputError where they are not in order; what is before that was yielded
 */
export async function* piecesInOrder(
  pieces: AsyncIterable<Pieces>,
  pool: ChunkPool,
): AsyncGenerator<Buffer, void, undefined> {
  const run = new OrderedRun(pieces);
  try {
    yield* new RunChunks(run, pool).between(-Infinity, Infinity);
  } finally {
    await run.close();
  }
}

class OrderedRun implements Run {
  key = -Infinity;
  bytes: Uint8Array = new Uint8Array(0);
  start = 0;
  end = 0;
  readonly #stretches: AsyncIterator<Pieces>;
  #pieces = new Pieces();
  #next = 0;

  constructor(pieces: AsyncIterable<Pieces>) {
    this.#stretches = pieces[Symbol.asyncIterator]();
  }

  next(): boolean {
    const { count, keys, starts, ends } = this.#pieces;
    if (this.#next === count) return false;
    const at = this.#next++;
    if (keys[at] < this.key) {
      throw new InputError(`Rows of ${keys[at]} stand behind rows of ${this.key}.`);
    }
    this.key = keys[at]!;
    this.start = starts[at]!;
    this.end = ends[at]!;
    return true;
  }

  async more(): Promise<boolean> {
    const next: IteratorResult<Pieces, unknown> = await this.#stretches.next();
    if (next.done === true) return false;
    this.#pieces = next.value;
    this.#next = 0;
    this.bytes = next.value.bytes;
    return true;
  }

  async close(): Promise<void> {
    await this.#stretches.return?.();
  }
}
