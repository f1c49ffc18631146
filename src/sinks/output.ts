import { randomBytes } from 'node:crypto';
import { constants, createWriteStream, openSync, rmSync } from 'node:fs';
import {
  access,
  copyFile,
  lstat,
  open,
  readlink,
  realpath,
  rename,
  stat,
  truncate,
} from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import type { Stats } from 'node:fs';
import { Socket } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';
import { codeOf, OutputError } from '../errors.js';
import { outputError, temporaryFileError } from '../output-error.js';
import { FileWriter, PIECE, StreamWriter } from './output-writer.js';

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

const FILE_ADVICE = 'Free some, or name a file on another disk.';

/**
 * Opens a file that appears under its name with `keep()` and not before: until then it is a hidden
 * file beside it, or in `tmpdir` where its folder may not be written to. A link stays a link, and an existing file passes on its permissions. What is no
 * regular file (a FIFO, /dev/null) gets its bytes when they are complete, from a spool.
 *
 * @throws OutputError when the file can't be made here, or is a folder
 */
export async function openFileOutput(path: string, settings: SpoolSettings): Promise<OpenOutput> {
  const existing = await statIfThere(path);
  if (existing === undefined || existing.isFile()) {
    return openHiddenFile(path, existing, settings);
  }
  if (existing.isFIFO()) {
    return openSpool(path, settings, async () => [await openFifo(path, settings.signal), true]);
  }
  if (existing.isCharacterDevice()) {
    return openSpool(path, settings, async () => [createWriteStream(path), true]);
  }
  const what = existing.isDirectory() ? 'a folder' : 'no file that can be written to';
  throw new OutputError(`Can't write ${path}: it is ${what}. Name a file.`);
}

/**
 * Holds everything back in a temporary file, which has no name from the start, and gives it to
 * `target` with `keep()`. `target` is not ended.
 *
 * @throws OutputError when the temporary file can't be made
 */
export async function openSpooledOutput(
  target: Writable,
  name: string,
  settings: SpoolSettings,
): Promise<OpenOutput> {
  return openSpool(name, settings, async () => [target, false]);
}

/** Gives everything to `target` at once; only what was not given yet can be discarded. */
export function openStreamedOutput(target: Writable, name: string): OpenOutput {
  const writer = new StreamWriter(name, target, false);
  let done = false;
  return {
    name,
    isFile: false,
    stream: writer,
    get bytes() {
      return writer.bytes;
    },
    get sentBytes() {
      return writer.bytes;
    },
    get isCutOff() {
      return writer.isCutOff;
    },
    async keep() {
      done = true;
    },
    async discard() {
      if (!done) {
        done = true;
        writer.destroy();
        await writer.cutShort();
      }
    },
  };
}

async function openHiddenFile(
  path: string,
  existing: Stats | undefined,
  { tmpdir }: SpoolSettings,
): Promise<OpenOutput> {
  let target: string;
  let hidden: string;
  let handle: FileHandle;
  try {
    target = await followLinks(path);
    hidden = hiddenBeside(target);
    if (existing !== undefined) {
      await access(target, constants.W_OK);
    }
    handle = await open(hidden, 'wx', existing && permissions(existing)).catch((error: unknown) => {
      if (codeOf(error) !== 'EACCES') throw error;
      if (existing !== undefined) {
        hidden = hiddenBeside(join(tmpdir, basename(target)));
        return open(hidden, 'wx', 0o600);
      }
      throw new OutputError(
        `Can't write ${path}: permission is denied for its folder, in which a file waits beside it until it is complete.`,
        { cause: error },
      );
    });
  } catch (error) {
    throw outputError(path, error, FILE_ADVICE);
  }
  const writer = new FileWriter(handle, (error) => outputError(path, error, FILE_ADVICE));
  let done = false;
  return {
    name: path,
    isFile: true,
    stream: writer,
    get bytes() {
      return writer.bytes;
    },
    sentBytes: 0,
    isCutOff: false,
    async keep() {
      try {
        if (existing !== undefined) {
          await passOn(existing, handle);
        }
        await handle.sync();
        await handle.close();
        await replace(target, hidden);
        done = true;
      } catch (error) {
        throw outputError(path, error, FILE_ADVICE);
      }
    },
    async discard() {
      if (!done) {
        done = true;
        // Before anything is awaited: this also runs when the process is about to exit.
        rmSync(hidden, { force: true });
        writer.destroy();
        await handle.close();
      }
    },
  };
}

async function openSpool(
  name: string,
  { tmpdir, signal }: SpoolSettings,
  openTarget: () => Promise<[target: Writable, end: boolean]>,
): Promise<OpenOutput> {
  const file = join(tmpdir, `synapse_compress_state-${randomBytes(6).toString('hex')}.spool`);
  let handle: FileHandle;
  try {
    handle = await open(file, 'wx+', 0o600);
    rmSync(file);
  } catch (error) {
    throw temporaryFileError(tmpdir, error);
  }
  const spool = new FileWriter(handle, (error) => temporaryFileError(tmpdir, error));
  let writer: StreamWriter | undefined;
  let done = false;
  return {
    name,
    isFile: false,
    stream: spool,
    get bytes() {
      return spool.bytes;
    },
    get sentBytes() {
      return writer?.bytes ?? 0;
    },
    get isCutOff() {
      return writer?.isCutOff ?? false;
    },
    async keep() {
      writer = new StreamWriter(name, ...(await openTarget()));
      const copy = handle.createReadStream({ start: 0, autoClose: false, highWaterMark: PIECE });
      await pipeline(copy, writer, signal === undefined ? {} : { signal });
      done = true;
      await handle.close();
    },
    async discard() {
      if (!done) {
        done = true;
        spool.destroy();
        await writer?.cutShort();
        await handle.close();
      }
    },
  };
}

const NOT_TO_BE_REPLACED = new Set(['EACCES', 'EBUSY', 'EXDEV']);

/** Lets the hidden file take the place of the target. */
async function replace(target: string, hidden: string): Promise<void> {
  try {
    await rename(hidden, target);
  } catch (error) {
    if (!NOT_TO_BE_REPLACED.has(codeOf(error))) throw error;
    // A file that is mounted by itself, as into a container, or whose folder is another's, can be filled anew.
    await fill(target, hidden).catch(async (reason: unknown) => {
      await truncate(target).catch(() => {});
      throw reason;
    });
    rmSync(hidden);
  }
}

async function fill(target: string, hidden: string): Promise<void> {
  await copyFile(hidden, target);
  const handle = await open(target, 'r+');
  await handle.sync();
  await handle.close();
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

/** What an output is called until it appears under its name. */
export function hiddenBeside(target: string): string {
  return join(dirname(target), `.synapse_compress_state-${randomBytes(6).toString('hex')}.partial`);
}

/** Waits for a reader without blocking: an `open` that blocks would keep the process from ending. */
async function openFifo(path: string, signal: AbortSignal | undefined): Promise<Socket> {
  for (;;) {
    try {
      const descriptor = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
      return new Socket({ fd: descriptor, readable: false, writable: true });
    } catch (error) {
      if (codeOf(error) !== 'ENXIO') {
        throw outputError(path, error, FILE_ADVICE);
      }
    }
    await setTimeout(100, undefined, signal && { signal });
  }
}

/** The file that `path` leads to, which need not be there yet, under its own name. */
export async function followLinks(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') {
      throw error;
    }
  }
  const folder = await realpath(dirname(path));
  const isLink = (await statIfThere(path, lstat))?.isSymbolicLink() === true;
  return isLink ? followLinks(resolve(folder, await readlink(path))) : join(folder, basename(path));
}

async function statIfThere(path: string, statOf = stat): Promise<Stats | undefined> {
  try {
    return await statOf(path);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') {
      return undefined;
    }
    throw outputError(path, error, FILE_ADVICE);
  }
}

function permissions(existing: Stats): number {
  return existing.mode & 0o777;
}

async function passOn(existing: Stats, handle: FileHandle): Promise<void> {
  await handle.chmod(permissions(existing));
  // Giving a file away is for root alone; anyone else's file stays their own.
  await handle.chown(existing.uid, existing.gid).catch(() => {});
}
