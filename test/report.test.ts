import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nextSteps } from '../src/report/next-steps.js';
import { progressText } from '../src/report/progress-text.js';
import { readableSize } from '../src/report/size.js';
import type { Statistics } from '../src/report/statistics.js';
import { summaryLines } from '../src/report/summary.js';

const statistics: Statistics = {
  room: '!room:example.com',
  strategy: 'levels 100,50,25',
  stateGroups: 2500,
  lastStateGroup: 9061,
  rowsBefore: 17585,
  rowsAfter: 14421,
  bytesBefore: 5_000_000,
  bytesAfter: 4_000_000,
  forcedResets: 8,
  forcedResetRows: 3250,
  stateGroupsChanged: 122,
  groupsWritten: 120,
  rowsDeleted: 9000,
  rowsInserted: 5836,
  snapshotsBefore: 26,
  snapshotsAfter: 5,
  hopsBefore: { largest: 100, mean: 50.44, distribution: [] },
  hopsAfter: {
    largest: 175,
    mean: 42,
    distribution: [
      { upTo: 1, groups: 5 },
      { upTo: 10, groups: 0 },
      { upTo: 25, groups: 2000 },
      { upTo: null, groups: 495 },
    ],
  },
  verified: true,
  groupsVerified: 2500,
  elsewhere: { groups: 0, rows: 0, bytes: 0 },
  groupsPassedThrough: 1,
  outcome: 'written',
  outputBytes: 2048,
  warnings: ['State group 7 has two edges; it is left as it is.'],
  seconds: 1.5,
};

const outFile = { name: 'out.sql', isFile: true };

test('the summary begins in the words of the existing tool', () => {
  assert.deepEqual(summaryLines(statistics), [
    'Fetched state groups up to 9061',
    'Number of state groups: 2500',
    'Number of rows in current table: 17585',
    'Number of rows after compression: 14421 (82.01%)',
    'Compression Statistics:',
    '  Number of forced resets due to lacking prev: 8',
    '  Number of compressed rows caused by the above: 3250',
    '  Number of state groups changed: 122',
    'New state map matches old one',
    'Warning: State group 7 has two edges; it is left as it is.',
    'Saves 3164 rows, about 976.6 kB of table and index.',
    'Rewrites 120 state groups: deletes 9000 rows, inserts 5836.',
    'Longest chain of state groups: 100 before, 175 after; on average 50.4 before, 42.0 after.',
    'State groups by the length of their chain, after: 1: 5, 11–25: 2000, 26 and more: 495.',
  ]);
});

test('a run that did not verify does not say that the states match', () => {
  const lines = summaryLines({ ...statistics, verified: false });
  assert.equal(lines.includes('New state map matches old one'), false);
});

test('each refusal to write has its sentence and no next steps', () => {
  const refusals: [Statistics['outcome'], string][] = [
    ['no-gain', 'This compression would not remove any rows. Aborting.'],
    ['below-minimum', 'Only 3164 rows would be saved by this compression. Skipping output.'],
    [
      'nothing-to-change',
      'Every state group is already as it should be: there is nothing to change.',
    ],
  ];
  for (const [outcome, sentence] of refusals) {
    const refused = { ...statistics, outcome };
    assert.equal(summaryLines(refused).at(-1), sentence);
    assert.deepEqual(
      nextSteps(refused, { output: outFile, format: 'sql', transactions: true }),
      [],
    );
    const tables = { output: { name: 'new', isFile: false }, format: 'tables' } as const;
    assert.deepEqual(nextSteps(refused, { ...tables, transactions: false }), [
      'No new tables were made: there is no new.',
    ]);
  }
});

test('a room without rows has no percentage to divide by', () => {
  const lines = summaryLines({ ...statistics, rowsBefore: 0, rowsAfter: 0 });
  assert.equal(lines[3], 'Number of rows after compression: 0 (100.00%)');
});

test('the next step is a psql line that keeps the state whole', () => {
  const guarded = nextSteps(statistics, { output: outFile, format: 'sql', transactions: true });
  assert.deepEqual(guarded.slice(0, 5), [
    'The changes (2.0 kB of SQL) are in out.sql. Apply them to your database with',
    '  synapse_compress_state apply out.sql -p DSN',
    'or',
    '  psql -f out.sql DATABASE',
    'Synapse may run meanwhile: a state group that has changed since is skipped.',
  ]);
  const bare = nextSteps(statistics, { output: outFile, format: 'sql', transactions: false });
  assert.equal(bare[1], '  psql -1 -v ON_ERROR_STOP=1 -f out.sql DATABASE');
  const objects = nextSteps(statistics, { output: outFile, format: 'jsonl', transactions: false });
  assert.equal(objects[1], '  synapse_compress_state apply out.sql -p DSN');
  assert.match(bare[2], /^while Synapse is stopped\./);
  for (const steps of [guarded, bare, objects]) {
    assert.match(steps.at(-1)!, /VACUUM/);
  }
});

test('the psql line can be pasted whatever the file is called', () => {
  const pasted = (name: string) =>
    nextSteps(statistics, { output: { name, isFile: true }, format: 'sql', transactions: true })[3];
  assert.equal(pasted('my out.sql'), "  psql -f 'my out.sql' DATABASE");
  assert.equal(pasted("it's"), "  psql -f 'it'\\''s' DATABASE");
  assert.equal(pasted('-out.sql'), '  psql -f ./-out.sql DATABASE');
});

test('what went to standard output needs no psql line', () => {
  const steps = nextSteps(statistics, {
    output: { name: 'standard output', isFile: false },
    format: 'sql',
    transactions: true,
  });
  assert.equal(steps[0], 'The changes (2.0 kB of SQL) went to standard output.');
  assert.equal(
    steps.some((line) => line.includes('psql')),
    false,
  );
});

test('without an output the option for one is named', () => {
  const steps = nextSteps(
    { ...statistics, outcome: 'no-output-asked' },
    { output: undefined, format: 'sql', transactions: false },
  );
  assert.deepEqual(steps, ['To have the changes as SQL, name a file with -o.']);
});

test('sizes read as those of pg_size_pretty', () => {
  assert.equal(readableSize(0), '0 bytes');
  assert.equal(readableSize(1023), '1023 bytes');
  assert.equal(readableSize(1024), '1.0 kB');
  assert.equal(readableSize(1.5 * 1024 ** 3), '1.5 GB');
  assert.equal(readableSize(5000 * 1024 ** 4), '5000.0 TB');
});

test('progress says share, rows, rate and the time left', () => {
  const progress = { groups: 18_500, totalGroups: 74_000, rows: 500_000 };
  assert.equal(
    progressText(progress, 2),
    '25% of 74,000 state groups, 500,000 rows, 250,000 rows/s, 6 s left',
  );
  assert.match(progressText(progress, 100), /, 5 min left$/);
  assert.match(progressText(progress, 3600), /, 3 h 0 min left$/);
  assert.match(progressText({ ...progress, groups: 74_000 }, 2), /^100% .* 0 s left$/);
});

test('progress before the first group promises no time', () => {
  assert.equal(
    progressText({ groups: 0, totalGroups: 74_000, rows: 0 }, 0),
    '0% of 74,000 state groups, 0 rows, 0 rows/s',
  );
});
