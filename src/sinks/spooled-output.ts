import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { TemporaryFile } from '../temporary-file.js';
import { StreamWriter } from './output-writer.js';
import type { OpenOutput, SpoolSettings } from './output.js';

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

/** The same for a target that is opened, and perhaps waited for, when everything is complete. */
export async function openSpool(
  name: string,
  { tmpdir, signal }: SpoolSettings,
  openTarget: () => Promise<[target: Writable, end: boolean]>,
): Promise<OpenOutput> {
  const file = await TemporaryFile.create(tmpdir);
  const stream = file.writable();
  let writer: StreamWriter | undefined;
  let done = false;
  return {
    name,
    isFile: false,
    stream,
    get bytes() {
      return file.length;
    },
    get sentBytes() {
      return writer?.bytes ?? 0;
    },
    get isCutOff() {
      return writer?.isCutOff ?? false;
    },
    async keep() {
      writer = new StreamWriter(name, ...(await openTarget()));
      await pipeline(file.readable(), writer, signal === undefined ? {} : { signal });
      done = true;
      await file.close();
    },
    async discard() {
      if (!done) {
        done = true;
        stream.destroy();
        await writer?.cutShort();
        await file.close();
      }
    },
  };
}
