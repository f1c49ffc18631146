import type { Writable } from 'node:stream';
import { StreamWriter } from './output-writer.js';
import type { OpenOutput } from './output.js';

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
