import { grown } from '../../state/grown.js';

/**
 * Consecutive lines with one key, `count` such pieces, in one stretch of bytes. The arrays are
 * used again for the next stretch.
 */
export class Pieces {
  bytes: Uint8Array = new Uint8Array(0);
  /** Where `bytes` stand in the whole input. */
  position = 0;
  count = 0;
  /** State groups; for all rooms, the number of a group's room times the number of groups, and its place among them. */
  keys = new Float64Array(1024);
  /** Where each piece begins in `bytes`, and the offset after its end. */
  starts = new Int32Array(1024);
  ends = new Int32Array(1024);

  reset(bytes: Uint8Array, position: number): void {
    this.bytes = bytes;
    this.position = position;
    this.count = 0;
  }

  add(key: number, start: number, end: number): void {
    const at = this.count++;
    if (at > 0 && this.keys[at - 1] === key && this.ends[at - 1] === start) {
      this.ends[at - 1] = end;
      this.count = at;
      return;
    }
    if (at === this.keys.length) {
      this.keys = grown(this.keys, at + 1);
      this.starts = grown(this.starts, at + 1);
      this.ends = grown(this.ends, at + 1);
    }
    this.keys[at] = key;
    this.starts[at] = start;
    this.ends[at] = end;
  }
}
