import { ChunkPool } from './chunk-pool.js';
import type { Run } from './run.js';

/** Gives a run's bytes in chunks cut anywhere, one range of keys after the other. */
export class RunChunks {
  readonly #run: Run;
  readonly #pool: ChunkPool;
  /** Whether the run stands at a piece that was not given yet. */
  #isWaiting = false;

  /** Chunks are of `pool`, and may be given back to it. */
  constructor(run: Run, pool = new ChunkPool()) {
    this.#run = run;
    this.#pool = pool;
  }

  /** The pieces with a key of at least `from` and below `to`. Pieces before these are left out for good. */
  async *between(from: number, to: number): AsyncGenerator<Buffer, void, undefined> {
    const run = this.#run;
    let chunk = this.#pool.take();
    let used = 0;
    do {
      while (this.#isWaiting || run.next()) {
        this.#isWaiting = run.key >= to;
        if (this.#isWaiting) break;
        if (run.key < from) continue;
        for (let at = run.start; at < run.end;) {
          const end = Math.min(run.end, at + chunk.length - used);
          chunk.set(run.bytes.subarray(at, end), used);
          used += end - at;
          at = end;
          if (used === chunk.length) {
            yield chunk;
            chunk = this.#pool.take();
            used = 0;
          }
        }
      }
    } while (!this.#isWaiting && (await run.more()));
    // Of what is small a copy is, and many ranges are.
    const last = Buffer.from(chunk.subarray(0, used));
    this.#pool.giveBack(chunk);
    if (used > 0) yield last;
  }
}
