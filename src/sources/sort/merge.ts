import type { Run } from './run.js';

/** Merges runs into one; of pieces with one key, those of an earlier run come first. */
export class Merge implements Run {
  key = 0;
  bytes: Uint8Array = new Uint8Array(0);
  start = 0;
  end = 0;
  readonly #runs: readonly Run[];
  /** Numbers of the runs that have a piece; the smallest piece's at the top. */
  readonly #heap: Int32Array;
  #size = 0;
  /** The key of each run's piece. */
  readonly #keys: Float64Array;
  #begun = false;
  /** Whether the piece at the top was not handed over yet. */
  #fresh = false;

  constructor(runs: readonly Run[]) {
    this.#runs = runs;
    this.#heap = new Int32Array(runs.length);
    this.#keys = new Float64Array(runs.length);
  }

  next(): boolean {
    if (this.#size === 0) return false;
    if (!this.#fresh) {
      const number = this.#heap[0];
      const run = this.#runs[number];
      if (!run.next()) return false;
      if (run.key !== this.#keys[number]) {
        this.#keys[number] = run.key;
        this.#sink(0);
      }
    }
    this.#fresh = false;
    const top = this.#runs[this.#heap[0]];
    this.key = top.key;
    this.bytes = top.bytes;
    this.start = top.start;
    this.end = top.end;
    return true;
  }

  async more(): Promise<boolean> {
    if (!this.#begun) {
      this.#begun = true;
      await this.#begin();
    } else if (this.#size > 0 && !(await this.#runs[this.#heap[0]].more())) {
      this.#heap[0] = this.#heap[--this.#size]!;
      this.#sink(0);
      this.#fresh = true;
    }
    return this.#size > 0;
  }

  async #begin(): Promise<void> {
    for (const [number, run] of this.#runs.entries()) {
      let has = run.next();
      while (!has && (await run.more())) has = run.next();
      if (!has) continue;
      this.#keys[number] = run.key;
      this.#heap[this.#size++] = number;
    }
    for (let at = this.#size >> 1; at >= 0; at--) this.#sink(at);
    this.#fresh = true;
  }

  #sink(from: number): void {
    const heap = this.#heap;
    const run = heap[from];
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && this.#isBefore(heap[child + 1], heap[child])) child++;
      if (!this.#isBefore(heap[child], run)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = run;
  }

  #isBefore(a: number, b: number): boolean {
    const difference = this.#keys[a] - this.#keys[b];
    return difference < 0 || (difference === 0 && a < b);
  }
}
