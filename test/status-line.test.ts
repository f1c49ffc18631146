import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import type { WriteStream } from 'node:tty';
import { StatusLine } from '../src/cli/status-line.js';

/** What is written to a terminal of this width, or to a file. */
function recorded(isTTY: boolean, columns: number) {
  const stream = Object.assign(new PassThrough({ encoding: 'utf8' }), { isTTY, columns });
  return {
    stream: stream as unknown as WriteStream,
    written: () => (stream.read() as string | null) ?? '',
  };
}

/** A clock that stands still unless it is moved; it does not start at zero, as no real one does. */
function stoppedClock(t: TestContext) {
  let now = 1000;
  t.mock.method(performance, 'now', () => now);
  return { advance: (milliseconds: number) => (now += milliseconds) };
}

const progress = { groups: 1, totalGroups: 4, rows: 1000 };

test('a terminal has one line that is rewritten, at most ten times a second', (t) => {
  const clock = stoppedClock(t);
  const { stream, written } = recorded(true, 80);
  const status = new StatusLine(stream, 'xterm');
  status.progress(progress);
  clock.advance(99);
  status.progress(progress);
  assert.equal(written(), '');
  clock.advance(901);
  status.progress(progress);
  assert.equal(written(), '\r25% of 4 state groups, 1,000 rows, 1,000 rows/s, 3 s left\x1b[K');
  clock.advance(99);
  status.progress(progress);
  assert.equal(written(), '');
});

test('the time that is left is that of the room which is under way', (t) => {
  const clock = stoppedClock(t);
  const { stream, written } = recorded(true, 80);
  const status = new StatusLine(stream, 'xterm');
  for (const room of [progress, { ...progress, totalGroups: 5 }, { ...progress, totalGroups: 5 }]) {
    status.progress({ ...room, groups: 0 });
    clock.advance(1000);
    status.progress({ ...room, groups: 3 });
  }
  const shown = written().match(/\d+ s left/g);
  assert.deepEqual(shown, ['1 s left', '1 s left', '1 s left']);
});

test('a line that stays takes the place of the progress', (t) => {
  const clock = stoppedClock(t);
  const { stream, written } = recorded(true, 80);
  const status = new StatusLine(stream, 'xterm');
  status.progress(progress);
  clock.advance(1000);
  status.progress(progress);
  written();
  status.say('Done.');
  assert.equal(written(), '\r\x1b[KDone.\n');
  status.clear();
  assert.equal(written(), '');
});

test('the line never reaches the last column, and an unknown width counts as 80', (t) => {
  const clock = stoppedClock(t);
  for (const [columns, widest] of [
    [20, 19],
    [0, 79],
  ]) {
    const { stream, written } = recorded(true, columns);
    const status = new StatusLine(stream, 'xterm');
    const large = { groups: 123_456_789, totalGroups: 987_654_321, rows: 123_456_789_012_345 };
    status.progress(large);
    clock.advance(1000);
    status.progress(large);
    assert.equal(written().length, widest + '\r\x1b[K'.length);
  }
});

test('a log has a line each half minute and no control characters', (t) => {
  for (const [isTTY, term] of [
    [false, 'xterm'],
    [true, 'dumb'],
  ] as const) {
    const clock = stoppedClock(t);
    const { stream, written } = recorded(isTTY, 80);
    const status = new StatusLine(stream, term);
    for (let second = 0; second < 60; second++) {
      status.progress(progress);
      clock.advance(1000);
    }
    status.clear();
    assert.equal(written(), '25% of 4 state groups, 1,000 rows, 33 rows/s, 2 min left\n');
    t.mock.restoreAll();
  }
});
