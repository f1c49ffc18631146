import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

/** The built program, as an operator runs it. */
export const CLI = fileURLToPath(
  new URL('../../dist/cli/synapse-compress-state.js', import.meta.url),
);

export interface CliResult {
  /** The exit code; null where a signal ended the program. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the built program to its end. Without `stdin` it has none to read from. */
export async function runCli(
  args: readonly string[],
  options: {
    readonly stdin?: Readable | string | Uint8Array;
    /** Variables beside those of this process. */
    readonly env?: Record<string, string>;
    readonly cwd?: string;
  } = {},
): Promise<CliResult> {
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: run "npm run build" first.`);
  const { stdin } = options;
  const child = spawn(process.execPath, [CLI, ...args], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: [stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout!),
    text(child.stderr!),
    once(child, 'close') as Promise<[number | null]>,
    stdin !== undefined && feed(child.stdin!, stdin),
  ]);
  // What Node itself warns of, such as too many listeners, is no operator's.
  assert.doesNotMatch(stderr, /^\(node:\d+\) /m);
  return { code, stdout, stderr };
}

async function feed(
  into: NodeJS.WritableStream,
  input: Readable | string | Uint8Array,
): Promise<void> {
  const from = input instanceof Readable ? input : Readable.from([input]);
  await pipeline(from, into).catch((error: NodeJS.ErrnoException) => {
    // A program that refuses its input need not read it to the end.
    if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
  });
}
