import type { Run } from './run.js';

const CHUNK = 64 * 1024;

/** Gives a run's bytes in chunks cut anywhere, one range of keys after the other. */
export class RunChunks {
  readonly #run: Run;
  /** Whether the run stands at a piece that was not given yet. */
  #isWaiting = false;

  constructor(run: Run) {
    this.#run = run;
  }

  /** The pieces with a key of at least `from` and below `to`. Pieces before these are left out for good. */
  async *between(from: number, to: number): AsyncGenerator<Buffer, void, undefined> {
    const run = this.#run;
    let chunk = Buffer.allocUnsafeSlow(CHUNK);
    let used = 0;
    do {
      while (this.#isWaiting || run.next()) {
        this.#isWaiting = run.key >= to;
        if (this.#isWaiting) break;
        if (run.key < from) continue;
        for (let at = run.start; at < run.end;) {
          const end = Math.min(run.end, at + CHUNK - used);
          chunk.set(run.bytes.subarray(at, end), used);
          used += end - at;
          at = end;
          if (used === CHUNK) {
            yield chunk;
            chunk = Buffer.allocUnsafeSlow(CHUNK);
            used = 0;
          }
        }
      }
    } while (!this.#isWaiting && (await run.more()));
    if (used > 0) yield chunk.subarray(0, used);
  }
}
