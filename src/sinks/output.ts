import type { Writable } from 'node:stream';
import { finished } from 'node:stream/promises';

/**
 * Where the changes go. Nothing of it may be seen under its final name before `keep()` resolved; but a file
 * that can't be replaced is filled during it.
 */
export interface Output {
  readonly stream: Writable;
  /** Bytes that `stream` has stored or sent. */
  readonly bytes: number;
  /** The stream has ended and all is verified: put it where it belongs. */
  keep(): Promise<void>;
  /** Forget all that was written. Safe to call at any time, and twice. */
  discard(): Promise<void>;
}

/** An output that knows its name, its size, and how much of it can no longer be taken back. */
export interface OpenOutput extends Output {
  /** What to call it in a sentence. */
  readonly name: string;
  /** Whether `name` is a file that is there to be read once it is kept. */
  readonly isFile: boolean;
  /** Bytes that `stream` was given and that are stored or sent. */
  readonly bytes: number;
  /** Bytes that a reader may have taken already; `discard()` cannot take them back. */
  readonly sentBytes: number;
  /** Whether these may end anywhere, because not even a line could be sent that makes psql roll back. */
  readonly isCutOff: boolean;
}

export interface SpoolSettings {
  /** Folder for what is held back until it is complete and verified. */
  readonly tmpdir: string;
  /** Ends a wait for a reader, and a copy that is under way. */
  readonly signal?: AbortSignal;
}

/** Writes the text, with which the output ends; resolves when it is stored or sent. */
export async function endWith(
  { stream }: Output,
  text: string,
  options: { readonly signal?: AbortSignal } = {},
): Promise<void> {
  stream.end(text);
  await finished(stream, options);
}
