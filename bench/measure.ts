import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';

/** A command to be measured, whose output nobody reads. */
export interface Program {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  /** Variables beside those of this process. */
  readonly env?: Readonly<Record<string, string>>;
}

/** What a program took, from its start to its end. */
export interface Usage {
  readonly wallSeconds: number;
  /** User and system time, in steps of 10 ms; NaN where there is no /proc. */
  readonly cpuSeconds: number;
  /** Largest resident memory in units of 10^6 bytes; NaN where there is no /proc. */
  readonly peakMegabytes: number;
}

const POLL_MILLISECONDS = 10;
/** What Linux calls USER_HZ, on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100;

/**
 * Runs a program to its end. Memory is the kernel's own high-water mark, read while the program runs,
 * so that only what it takes on in its last 10 ms can be missed. (`ru_maxrss` would count the memory of
 * this process, which the program is forked from.) CPU time is what waiting for the program adds to
 * our own: end no other child meanwhile.
 *
 * @throws Error with what it wrote to stderr, where it does not end with 0.
 */
export async function measure({ name, command, args, env }: Program): Promise<Usage> {
  const cpuBefore = cpuSecondsOfEndedChildren();
  const start = performance.now();
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let peakMegabytes = highWaterMark(child.pid) ?? NaN;
  const poll = setInterval(() => {
    peakMegabytes = highWaterMark(child.pid) ?? peakMegabytes;
  }, POLL_MILLISECONDS);
  let wallSeconds = NaN;
  child.once('exit', () => {
    wallSeconds = (performance.now() - start) / 1000;
  });
  try {
    const [errors, [code]] = await Promise.all([
      text(child.stderr),
      once(child, 'close') as Promise<[number | null]>,
    ]);
    if (code !== 0) throw new Error(`${name} ended with ${code}:\n${errors}`);
  } finally {
    clearInterval(poll);
  }
  return { wallSeconds, cpuSeconds: cpuSecondsOfEndedChildren() - cpuBefore, peakMegabytes };
}

/**
 * Measures the programs in turn, A B A B, after one run of each that does not count: what else the
 * machine does meanwhile then meets all of them alike.
 *
 * @returns For each program its runs; the runs at one index were neighbours.
 */
export async function measureInTurn(
  programs: readonly Program[],
  repeats: number,
): Promise<Usage[][]> {
  const usages: Usage[][] = programs.map(() => []);
  for (const program of programs) await measure(program);
  for (let run = 0; run < repeats; run++) {
    for (const [i, program] of programs.entries()) usages[i].push(await measure(program));
  }
  return usages;
}

function highWaterMark(pid: number | undefined): number | undefined {
  const status = readProc(`${pid}/status`);
  const kibibytes = status && /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  return kibibytes ? (Number(kibibytes) * 1024) / 1e6 : undefined;
}

/** What a process' children have taken that it knows the end of; NaN where there is no /proc. */
export function cpuSecondsOfEndedChildren(pid: number | 'self' = 'self'): number {
  const stat = readProc(`${pid}/stat`);
  if (stat === undefined) return NaN;
  // Fields are counted after the program's name, which may hold spaces; see proc(5) on cutime, cstime.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[13]) + Number(fields[14])) / TICKS_PER_SECOND;
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(`/proc/${path}`, 'utf8');
  } catch {
    // The process is gone, or this is not Linux.
    return undefined;
  }
}
