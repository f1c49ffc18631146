import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { restAfter, Throttle } from '../src/apply/throttle.js';
import type { Pace } from '../src/apply/throttle.js';
import type { Outcome, Rewriter } from '../src/apply/rewriter.js';

const OUTCOME: Outcome = {
  rewritten: 1,
  alreadyDone: 0,
  skipped: [],
  blocked: 0,
  rowsDeleted: 60,
  rowsInserted: 40,
  seconds: 0.1,
  secondsGiven: 0,
};

/** A server that answers so, one after the other, and then that it has nothing to do. */
function server(...loads: readonly object[]): { rewriter: Pick<Rewriter, 'query'>; looks: number } {
  const answers = loads.values();
  const state = {
    looks: 0,
    rewriter: {
      async query() {
        state.looks++;
        return [answers.next().value ?? { lag: null, pid: null, age: null }] as never;
      },
    },
  };
  return state;
}

test('a pause is what the pace asks for beyond the time that the batch took', () => {
  const rests = (pace: Pace, seconds: number, secondsGiven = 0): string =>
    restAfter(pace, { ...OUTCOME, secondsGiven }, seconds).toFixed(3);
  assert.equal(rests({ rowsPerSecond: 500 }, 0.125), '0.075');
  assert.equal(rests({ rowsPerSecond: 500 }, 0.5), '-0.300');
  assert.equal(rests({ share: 0.25 }, 0.5), '1.500');
  // Others had half of the time.
  assert.equal(rests({ share: 0.25 }, 0.5, 0.25), '0.500');
  assert.equal(new Throttle(server().rewriter, { pace: { rowsPerSecond: 500 } }).mostRows, 500);
  assert.equal(new Throttle(server().rewriter, { pace: { share: 0.25 } }).mostRows, Infinity);
});

test('a pause lasts until a signal ends it', async () => {
  const ending = new AbortController();
  const settings = { pace: { rowsPerSecond: 1 }, signal: ending.signal };
  const throttle = new Throttle(server().rewriter, settings);
  throttle.took(OUTCOME, 0.1);
  let isOver = false;
  const pause = throttle.pause().then(() => (isOver = true));
  await setImmediate();
  assert.equal(isOver, false);
  ending.abort();
  await pause;
});

test('a standby that is behind is waited for, and so is an old transaction', async () => {
  const busy = server(
    { lag: 30, pid: null, age: null },
    { lag: 2, pid: null, age: null },
    { lag: null, pid: 77, age: 7200 },
  );
  const said: string[] = [];
  const throttle = new Throttle(busy.rewriter, { onTrouble: (sentence) => said.push(sentence) });
  await throttle.pause();
  assert.deepEqual(said, [
    'A standby is 30 s behind: waiting for it, 300 s at most.',
    "A transaction, of process 77 of the server, is 120 minutes old, and keeps VACUUM from making the rows' space usable: waiting for it, 60 s at most.",
  ]);
  assert.equal(busy.looks, 4);
  // The next look is seconds away.
  await throttle.pause();
  assert.equal(busy.looks, 4);
});
