import { InputError } from '../../errors.js';
import { grown } from '../../state/grown.js';
import type { Pieces } from './pieces.js';
import type { Run } from './run.js';

const PIECE_COST = 3 * 8;

/** Where the first pieces of an input stand, as far as they are in ascending order of key: 24 bytes each. */
export class OrderedPart {
  count = 0;
  keys = new Float64Array(1024);
  /** Where each piece begins in the whole input, and the offset after its end. */
  starts = new Float64Array(1024);
  ends = new Float64Array(1024);
  readonly #limit: number;

  /** At most `memory` bytes are used. */
  constructor(memory: number) {
    this.#limit = Math.floor(memory / PIECE_COST);
  }

  /** Takes pieces while they are in order; returns the number of the first one that is not taken. */
  add(pieces: Pieces): number {
    for (let i = 0; i < pieces.count; i++) {
      if (!this.#takes(pieces.keys[i], pieces.position + pieces.starts[i])) return i;
      this.ends[this.count - 1] = pieces.position + pieces.ends[i];
    }
    return pieces.count;
  }

  #takes(key: number, start: number): boolean {
    const last = this.count - 1;
    if (last >= 0) {
      if (key === this.keys[last] && start === this.ends[last]) return true;
      if (key < this.keys[last]) return false;
    }
    if (this.count === this.#limit) return false;
    if (this.count === this.keys.length) {
      this.keys = grown(this.keys, this.count + 1);
      this.starts = grown(this.starts, this.count + 1);
      this.ends = grown(this.ends, this.count + 1);
    }
    this.keys[this.count] = key;
    this.starts[this.count++] = start;
    return true;
  }
}

/** Reads the part again, from the input's bytes, without looking at them. */
export class OrderedPartReader implements Run {
  key = 0;
  bytes: Uint8Array = new Uint8Array(0);
  start = 0;
  end = 0;
  readonly #part: OrderedPart;
  readonly #chunks: AsyncIterator<Uint8Array>;
  /** Where `bytes` stand in the whole input. */
  #position = 0;
  /** Pieces end before it that were handed over. */
  #handedOver = 0;
  #next = 0;

  constructor(part: OrderedPart, chunks: AsyncIterable<Uint8Array>) {
    this.#part = part;
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  next(): boolean {
    const { count, keys, starts, ends } = this.#part;
    const at = this.#next;
    if (at === count) return false;
    // What the end of the last chunk cut goes on at the beginning of this one.
    const start = Math.max(starts[at], this.#handedOver) - this.#position;
    if (start >= this.bytes.length) return false;
    const end = ends[at] - this.#position;
    this.key = keys[at]!;
    this.start = start;
    this.end = Math.min(end, this.bytes.length);
    this.#handedOver = this.#position + this.end;
    if (end <= this.bytes.length) this.#next++;
    return true;
  }

  async more(): Promise<boolean> {
    if (this.#next === this.#part.count) return false;
    const next: IteratorResult<Uint8Array, unknown> = await this.#chunks.next();
    if (next.done === true)
      throw new InputError('The rows changed while they were read. Export them again.');
    this.#position += this.bytes.length;
    this.bytes = next.value;
    return true;
  }

  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}
