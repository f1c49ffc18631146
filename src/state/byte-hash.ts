/**
 * The 64-bit hash of Postgres's `hashtextextended(text, seed)`, which is Bob Jenkins's lookup3 (public
 * domain) as `src/common/hashfn.c` of Postgres sets it up. With a seed of the run's own it keys the
 * interning tables and fingerprints; with seed 0 it lets a guard in SQL compare rows with what was read.
 *
 * One instance is one pair of result registers: `high` and `low` hold the last result.
 */
export class ByteHash {
  high = 0;
  low = 0;

  /** Hashes bytes `start` to `end` of `view`. */
  update(view: DataView, start: number, end: number, seedHigh: number, seedLow: number): void {
    let length = end - start;
    let a = (0x9e3779b9 + length + 3923095) | 0;
    let b = a;
    let c = a;
    let at = start;
    if (seedHigh !== 0 || seedLow !== 0) {
      a = (a + seedHigh) | 0;
      b = (b + seedLow) | 0;
      a = ((a - c) | 0) ^ ((c << 4) | (c >>> 28));
      c = (c + b) | 0;
      b = ((b - a) | 0) ^ ((a << 6) | (a >>> 26));
      a = (a + c) | 0;
      c = ((c - b) | 0) ^ ((b << 8) | (b >>> 24));
      b = (b + a) | 0;
      a = ((a - c) | 0) ^ ((c << 16) | (c >>> 16));
      c = (c + b) | 0;
      b = ((b - a) | 0) ^ ((a << 19) | (a >>> 13));
      a = (a + c) | 0;
      c = ((c - b) | 0) ^ ((b << 4) | (b >>> 28));
      b = (b + a) | 0;
    }
    while (length >= 12) {
      a = (a + view.getInt32(at, true)) | 0;
      b = (b + view.getInt32(at + 4, true)) | 0;
      c = (c + view.getInt32(at + 8, true)) | 0;
      a = ((a - c) | 0) ^ ((c << 4) | (c >>> 28));
      c = (c + b) | 0;
      b = ((b - a) | 0) ^ ((a << 6) | (a >>> 26));
      a = (a + c) | 0;
      c = ((c - b) | 0) ^ ((b << 8) | (b >>> 24));
      b = (b + a) | 0;
      a = ((a - c) | 0) ^ ((c << 16) | (c >>> 16));
      c = (c + b) | 0;
      b = ((b - a) | 0) ^ ((a << 19) | (a >>> 13));
      a = (a + c) | 0;
      c = ((c - b) | 0) ^ ((b << 4) | (b >>> 28));
      b = (b + a) | 0;
      at += 12;
      length -= 12;
    }
    // The lowest byte of c is left to the length, so its bytes start one place higher.
    let shift = 0;
    for (let i = 0; i < length; i++) {
      const byte = view.getUint8(at + i);
      if (i < 4) a = (a + (byte << shift)) | 0;
      else if (i < 8) b = (b + (byte << shift)) | 0;
      else c = (c + (byte << (shift + 8))) | 0;
      shift = (shift + 8) & 31;
    }
    c = ((c ^ b) - ((b << 14) | (b >>> 18))) | 0;
    a = ((a ^ c) - ((c << 11) | (c >>> 21))) | 0;
    b = ((b ^ a) - ((a << 25) | (a >>> 7))) | 0;
    c = ((c ^ b) - ((b << 16) | (b >>> 16))) | 0;
    a = ((a ^ c) - ((c << 4) | (c >>> 28))) | 0;
    b = ((b ^ a) - ((a << 14) | (a >>> 18))) | 0;
    c = ((c ^ b) - ((b << 24) | (b >>> 8))) | 0;
    this.high = b;
    this.low = c;
  }
}
