import { grown } from '../state/grown.js';

/**
 * A set of state group ids that are added in any order and as often as they come, 8 bytes each. What
 * comes in ascending order, as most tables give it, is never sorted.
 */
export class IdList {
  #ids = new Float64Array(1024);
  #length = 0;
  #ascending = true;

  add(id: number): void {
    const length = this.#length;
    if (length > 0 && id <= this.#ids[length - 1]) {
      if (id === this.#ids[length - 1]) return;
      this.#ascending = false;
    }
    this.#ids = grown(this.#ids, length + 1);
    this.#ids[length] = id;
    this.#length = length + 1;
  }

  /** The ids in ascending order, each once; valid until the next `add()`. */
  sorted(): Float64Array {
    if (!this.#ascending) {
      const ids = this.#ids.subarray(0, this.#length).sort();
      let length = 1;
      for (let i = 1; i < ids.length; i++) {
        if (ids[i] !== ids[length - 1]) ids[length++] = ids[i]!;
      }
      this.#length = length;
      this.#ascending = true;
    }
    return this.#ids.subarray(0, this.#length);
  }
}

/** The first index of ascending `ids` whose id is at least `id`; `ids.length` if there is none. */
export function lowerBound(ids: Float64Array, id: number): number {
  let low = 0;
  let high = ids.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ids[middle] < id) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The index of `id` in ascending `ids`, or -1. */
export function indexOfId(ids: Float64Array, id: number): number {
  const index = lowerBound(ids, id);
  return ids[index] === id ? index : -1;
}

/** Looks ids up that mostly come in ascending order, so that most are found beside the one before. */
export class IdFinder {
  readonly #ids: Float64Array;
  #near = 0;

  /** `ids` must be ascending. */
  constructor(ids: Float64Array) {
    this.#ids = ids;
  }

  /** The index of `id`, or -1. */
  indexOf(id: number): number {
    const ids = this.#ids;
    let near = this.#near;
    if (near < ids.length && ids[near] < id) near++;
    const isBound = (near === ids.length || ids[near] >= id) && (near === 0 || ids[near - 1] < id);
    this.#near = isBound ? near : lowerBound(ids, id);
    return ids[this.#near] === id ? this.#near : -1;
  }

  has(id: number): boolean {
    return this.indexOf(id) >= 0;
  }
}
