/**
 * Spreads the bits of a 32-bit integer; a bijection, so that different inputs stay different.
 * The finalizer of MurmurHash3 (Austin Appleby, public domain).
 */
export function mix(bits: number): number {
  let hash = bits;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/** Pseudo-random numbers that are the same for the same seed on every machine: a mixed Weyl sequence. */
export class Random {
  #position: number;

  constructor(seed: number) {
    this.#position = mix(seed);
  }

  /** At least 0, less than 1. */
  next(): number {
    this.#position = (this.#position + 0x9e3779b9) | 0;
    return mix(this.#position) / 2 ** 32;
  }

  /** An integer of at least 0 and less than `limit`. */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** An integer of at least 1, in the geometric distribution of this mean. */
  around(mean: number): number {
    if (mean <= 1) return 1;
    return 1 + Math.floor(Math.log(1 - this.next()) / Math.log(1 - 1 / mean));
  }
}
