/**
 * Loaded before each test file: random inputs are the same in each run, so that a run that fails is the fault
 * of a change. New ones are found with FUZZ_SECONDS.
 */
import fc from 'fast-check';

if (process.env.FUZZ_SECONDS === undefined) fc.configureGlobal({ seed: 1 });

/** Each run so many times, or as often as there is time for. */
export function limits(numRuns: number) {
  const seconds = process.env.FUZZ_SECONDS;
  return seconds === undefined
    ? { numRuns }
    : { numRuns: Number.MAX_SAFE_INTEGER, interruptAfterTimeLimit: Number(seconds) * 1000 };
}
