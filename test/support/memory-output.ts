import { Writable } from 'node:stream';
import type { Output } from '../../src/sinks/output.js';

/** An output that tells what was kept. */
export function memoryOutput(): Output & { text(): string } {
  const chunks: Buffer[] = [];
  let kept = '';
  return {
    stream: new Writable({
      write(chunk: Buffer, _encoding, done) {
        chunks.push(Buffer.from(chunk));
        done();
      },
    }),
    get bytes() {
      return Buffer.concat(chunks).length;
    },
    async keep() {
      kept = Buffer.concat(chunks).toString();
    },
    async discard() {},
    text: () => kept,
  };
}
