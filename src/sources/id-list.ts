const BLOCK = 2 ** 16;
/** So many ids that came in no order, and as many as are known, are put in order before more are taken. */
const UNORDERED_BLOCKS = 16;

/**
 * A set of state group ids that are added in any order and as often as they come, 8 bytes each. What
 * comes in ascending order, as most tables give it, is never sorted.
 */
export class IdList {
  #ids = new Float64Array(0);
  /** What came since `#ids` were put in order. */
  #blocks: Float64Array[] = [];
  /** Ids in the last block. */
  #length = BLOCK;
  #last = NaN;
  #ascending = true;

  add(id: number): void {
    if (id === this.#last) return;
    if (id < this.#last) this.#ascending = false;
    this.#last = id;
    if (this.#length === BLOCK) this.#addBlock();
    this.#blocks.at(-1)![this.#length++] = id;
  }

  /** The ids in ascending order, each once. */
  sorted(): Float64Array {
    const blocks = this.#blocks;
    if (blocks.length === 0) return this.#ids;
    const known = this.#ids.length;
    const ids = new Float64Array(known + (blocks.length - 1) * BLOCK + this.#length);
    ids.set(this.#ids);
    blocks.forEach((block, i) => {
      ids.set(i + 1 < blocks.length ? block : block.subarray(0, this.#length), known + i * BLOCK);
    });
    this.#ids = this.#ascending ? ids : sortedOnce(ids);
    this.#blocks = [];
    this.#length = BLOCK;
    this.#last = this.#ids.at(-1)!;
    this.#ascending = true;
    return this.#ids;
  }

  #addBlock(): void {
    const waiting = this.#blocks.length;
    // Rows in no order name their groups again and again.
    if (!this.#ascending && waiting >= Math.max(UNORDERED_BLOCKS, this.#ids.length / BLOCK)) {
      this.sorted();
    }
    this.#blocks.push(new Float64Array(BLOCK));
    this.#length = 0;
  }
}

/** Sorts the ids in their place, and returns of that what holds each once. */
function sortedOnce(ids: Float64Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  ids.sort();
  let length = 1;
  for (let i = 1; i < ids.length; i++) {
    if (ids[i] !== ids[length - 1]) ids[length++] = ids[i]!;
  }
  return ids.slice(0, length);
}

/** The first index of ascending `ids` whose id is at least `id`; `ids.length` if there is none. */
export function lowerBound(ids: Float64Array | Int32Array, id: number): number {
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
