/**
 * Pieces in ascending order of key, one after the other. Each is `bytes` from `start` to `end` until
 * the next call.
 */
export interface Run {
  readonly key: number;
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
  /** Goes on to the next piece, if that is in memory. */
  next(): boolean;
  /** To be called after `next()` was false: gets more into memory. False at the run's end. */
  more(): Promise<boolean>;
}
