import { grown } from './grown.js';

/**
 * Byte strings in one array, each at a whole word, so that they can be compared a word at a time.
 * Freed places are used again for strings of as many words.
 */
export class ByteArena {
  bytes: Uint8Array;
  words: Int32Array;
  view: DataView;
  #top = 0;
  /** For each size in words the first free place; a free place holds the next one in its first word. */
  readonly #free = new Map<number, number>();

  constructor(bytes = 4096) {
    this.words = new Int32Array(bytes >> 2);
    this.bytes = new Uint8Array(this.words.buffer);
    this.view = new DataView(this.words.buffer);
  }

  /** Copies bytes `start` to `end` of `from` and returns the place: an offset in words. */
  add(from: Uint8Array, start: number, end: number): number {
    const length = end - start;
    const size = (length + 3) >> 2;
    let place = this.#free.get(size) ?? 0;
    if (place > 0) {
      this.#free.set(size, this.words[place - 1]);
      place--;
    } else {
      place = this.#top;
      this.#top += size;
      if (this.#top > this.words.length) {
        this.words = grown(this.words, this.#top);
        this.bytes = new Uint8Array(this.words.buffer);
        this.view = new DataView(this.words.buffer);
      }
    }
    if (size > 0) this.words[place + size - 1] = 0;
    let to = place << 2;
    for (let i = start; i < end; i++) this.bytes[to++] = from[i]!;
    return place;
  }

  /** Whether bytes `start` to `end` of `view` are the first ones at `place`, where as many were added. */
  holds(place: number, view: DataView, start: number, end: number): boolean {
    const { view: own, bytes } = this;
    let from = place << 2;
    let at = start;
    for (; at + 4 <= end; at += 4, from += 4) {
      if (view.getInt32(at, true) !== own.getInt32(from, true)) return false;
    }
    for (; at < end; at++, from++) if (view.getUint8(at) !== bytes[from]) return false;
    return true;
  }

  /** Gives back the place of a string of `length` bytes. */
  remove(place: number, length: number): void {
    const size = (length + 3) >> 2;
    if (size === 0) return;
    this.words[place] = this.#free.get(size) ?? 0;
    this.#free.set(size, place + 1);
  }
}
