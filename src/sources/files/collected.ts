import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Bytes after which it is worth the fifth of a millisecond that it takes to look for what is no longer used. */
const ENOUGH = 2 * 2 ** 20;

/**
 * Passes on chunks of which each is a buffer of its own, and has those freed that nobody holds any more.
 * V8 looks for them only when its own heap has grown, which reading hardly lets grow, or when they have
 * come to some 60 MB, by which the process would be larger.
 */
export async function* collected(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let passed = 0;
  for await (const chunk of chunks) {
    passed += chunk.length;
    if (passed >= ENOUGH) {
      passed = 0;
      collectYoung();
    }
    yield chunk;
  }
}

let collect: ((options: { type: 'minor' }) => void) | undefined;

function collectYoung(): void {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as NonNullable<typeof collect>;
    setFlagsFromString('--no-expose-gc');
  }
  collect({ type: 'minor' });
}
