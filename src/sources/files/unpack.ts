import { spawn } from 'node:child_process';
import { pipeline, type Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { beginsZstd, zstdFrames } from './zstd-frames.js';

/** Two threads hand over so much at once; with less, zstd in zlib spends its time on that. */
const CHUNK = 256 * 1024;
/** What zlib's error is called where a frame takes more memory than zstd gives without being asked. */
export const WINDOW_TOO_LARGE = 'ZSTD_error_frameParameter_windowTooLarge';
/** So much of what zstd says goes into a message. */
const LONGEST_COMPLAINT = 1000;

/** Bytes that tell how a file is packed. */
export const LONGEST_MAGIC = 4;

export type Packing = 'gzip' | 'zstd';

/** How what begins so is packed; undefined if it isn't, or not in a way that is known here. */
export function packingOf(head: Buffer): Packing | undefined {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  return beginsZstd(head) ? 'zstd' : undefined;
}

/**
 * Unpacks; each of `chunks` need be valid only until the next is asked for.
 *
 * @throws Error with the reason alone: the caller knows the file's name
 */
export function unpack(
  chunks: AsyncIterable<Buffer>,
  packing: Packing,
  signal: AbortSignal,
): AsyncIterable<Buffer> {
  if (packing === 'gzip') return through(chunks, zlib.createGunzip({ chunkSize: CHUNK }));
  return 'createZstdDecompress' in zlib
    ? throughZstdInZlib(chunks, zlib as ZstdInZlib)
    : throughZstdProgram(chunks, signal);
}

/** Node.js has it since 22.15 and 23.8. */
interface ZstdInZlib {
  createZstdDecompress(options: { chunkSize: number }): Transform;
}

function through(chunks: AsyncIterable<Buffer>, unpacker: Transform): AsyncIterable<Buffer> {
  // Its errors come out where its chunks do.
  return pipeline(
    () => copies(chunks),
    unpacker,
    () => {},
  );
}

/** A stream may hold more than one chunk. */
async function* copies(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield Buffer.from(chunk);
}

async function* throughZstdInZlib(
  chunks: AsyncIterable<Buffer>,
  unpackers: ZstdInZlib,
): AsyncGenerator<Buffer> {
  for await (const frame of zstdFrames(chunks)) {
    yield* through(frame, unpackers.createZstdDecompress({ chunkSize: CHUNK }));
  }
}

async function* throughZstdProgram(
  chunks: AsyncIterable<Buffer>,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const zstd = spawn('zstd', ['-dcq'], { signal });
  const ended = new Promise<number | string | null>((resolve, reject) => {
    zstd.once('error', (error) => reject(explained(error)));
    zstd.once('close', (code, killedBy) => resolve(killedBy ?? code));
  });
  // It may be known before it is asked for.
  ended.catch(() => {});
  let complaint = '';
  zstd.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, LONGEST_COMPLAINT);
  });
  let unread: Error | undefined;
  pipeline(
    () => copies(chunks),
    zstd.stdin,
    (error: NodeJS.ErrnoException | null | undefined) => {
      // When zstd does not read on, its exit code tells why.
      if (error && error.code !== 'EPIPE') unread = error;
    },
  );
  try {
    yield* zstd.stdout;
    const end = await ended;
    if (unread !== undefined) throw unread;
    if (complaint.includes('too much memory')) {
      throw Object.assign(new Error(complaint), { code: WINDOW_TOO_LARGE });
    }
    if (end !== 0) {
      const why = complaint.trim() || `it ended with ${end}`;
      throw new Error(`it begins as zstd, but zstd can't unpack it: ${why}`);
    }
  } catch (error) {
    await ended;
    throw error;
  } finally {
    zstd.kill();
  }
}

function explained(error: NodeJS.ErrnoException): Error {
  if (error.code !== 'ENOENT') return error;
  return new Error(
    `it is packed with zstd, which Node.js ${process.versions.node} can't unpack, and there is no program zstd. Install zstd, or Node.js 22.15 or later`,
    { cause: error },
  );
}
