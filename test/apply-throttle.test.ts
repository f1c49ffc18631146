import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Throttle } from '../src/apply/throttle.js';
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

/** How long after a batch that took so many seconds the next one may begin, in milliseconds. */
async function rest(throttle: Throttle, seconds: number): Promise<number> {
  const begun = performance.now();
  throttle.took(OUTCOME, seconds);
  await throttle.pause();
  return performance.now() - begun;
}

test('a pause is what the pace asks for beyond the time that the batch took', async () => {
  const { rewriter } = server();
  const rows = new Throttle(rewriter, { pace: { rowsPerSecond: 500 } });
  assert.equal(rows.mostRows, 500);
  assert.ok((await rest(rows, 0.1)) >= 95);
  const share = new Throttle(rewriter, { pace: { share: 0.25 } });
  assert.equal(share.mostRows, Infinity);
  assert.ok((await rest(share, 0.05)) >= 145);
});

test('a signal ends a pause', async () => {
  const signal = AbortSignal.timeout(20);
  const throttle = new Throttle(server().rewriter, { pace: { rowsPerSecond: 1 }, signal });
  assert.ok((await rest(throttle, 0.1)) < 50_000);
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
