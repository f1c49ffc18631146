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
  statfs,
  truncate,
} from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import type { Stats } from 'node:fs';
import { Socket } from 'node:net';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { codeOf, OutputError } from '../errors.js';
import { outputError } from '../output-error.js';
import { FileWriter } from './output-writer.js';
import type { OpenOutput, SpoolSettings } from './output.js';
import { openSpool } from './spooled-output.js';

const FILE_ADVICE = 'Free some, or name a file on another disk.';

/**
 * Opens a file that appears under its name with `keep()` and not before: until then it is a hidden
 * file beside it, or in `tmpdir` where its folder may not be written to. A link stays a link, and an
 * existing file passes on its permissions. What is no regular file (a FIFO, /dev/null) gets its bytes
 * when they are complete, from a spool.
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
        // What is thrown away need not be whole; why it is has to be told.
        await handle.close().catch(() => {});
      }
    },
  };
}

/** What `blocks` of a file counts, whatever the file system's blocks are. */
const STAT_BLOCK = 512;

const NOT_TO_BE_REPLACED = new Set(['EACCES', 'EBUSY', 'EXDEV']);

/** Lets the hidden file take the place of the target. */
async function replace(target: string, hidden: string): Promise<void> {
  try {
    await rename(hidden, target);
  } catch (error) {
    if (!NOT_TO_BE_REPLACED.has(codeOf(error))) throw error;
    // A file that is mounted by itself, as into a container, or whose folder is another's, can be filled anew.
    await checkRoom(target, hidden);
    await fill(target, hidden);
    rmSync(hidden);
  }
}

/** What the target holds is given up before the new contents are written: they had better have room. */
async function checkRoom(target: string, hidden: string): Promise<void> {
  const [{ size }, { blocks }, disk] = await Promise.all([
    stat(hidden),
    stat(target),
    statfs(target),
  ]);
  // Some file systems say nothing of their size.
  if (disk.blocks > 0 && size > disk.bavail * disk.bsize + blocks * STAT_BLOCK) {
    throw Object.assign(new Error('there is no room to fill it in its place'), { code: 'ENOSPC' });
  }
}

async function fill(target: string, hidden: string): Promise<void> {
  try {
    await copyFile(hidden, target);
    const handle = await open(target, 'r+');
    await handle.sync();
    await handle.close();
  } catch (error) {
    // Half of it must not pass for all.
    await truncate(target).catch(() => {});
    const advice = 'It could only be filled in its place, and what it held before is lost.';
    throw outputError(target, error, `${advice} ${FILE_ADVICE}`, advice);
  }
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
