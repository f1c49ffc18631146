import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCompressCommand } from '../src/cli/compress-arguments.js';
import type { CompressCommand } from '../src/cli/compress-arguments.js';
import { UsageError } from '../src/errors.js';

const ROOM = '!abc:example.com';

function parsed(args: string[], env: NodeJS.ProcessEnv = {}): CompressCommand {
  const command = parseCompressCommand(args, env);
  assert.ok(!('text' in command));
  return command;
}

/** A command line that is right but for `args`. */
function refused(args: string[], message: RegExp, env: NodeJS.ProcessEnv = {}): void {
  assert.throws(
    () => parseCompressCommand(args, env),
    (error: Error) => {
      assert.ok(error instanceof UsageError, String(error.stack));
      assert.match(error.message, message);
      return true;
    },
    args.join(' '),
  );
}

test('what is not given is left to the defaults', () => {
  assert.deepEqual(parsed(['-i', 'exports/', '-r', ROOM]), {
    source: { kind: 'files', inputs: ['exports/'] },
    room: ROOM,
    range: {},
    output: undefined,
    format: 'sql',
    batch: undefined,
    commit: undefined,
    unbuffered: false,
    statsFile: undefined,
    minSavedRows: undefined,
    transactions: false,
    strategy: { name: 'adaptive', settings: { rebaseDeep: false } },
    graphs: false,
    verify: true,
    memory: 64_000_000,
    tmpdir: undefined,
  });
});

test('every option has its effect, by its short name and by its long one', () => {
  const expected = {
    source: { kind: 'postgres', dsn: 'host=/run/postgresql dbname=synapse' },
    room: ROOM,
    range: { minStateGroup: 5, maxStateGroup: 900, groupsToCompress: 100 },
    output: 'out.sql',
    format: 'copy',
    batch: 9,
    commit: undefined,
    unbuffered: false,
    statsFile: 'stats.json',
    minSavedRows: 7,
    transactions: true,
    strategy: { name: 'levels', sizes: [3, 4] },
    graphs: true,
    verify: false,
    memory: 128_000_000,
    tmpdir: '/var/tmp',
  };
  const short = ['-p', 'host=/run/postgresql dbname=synapse', '-r', ROOM, '-b', '5', '-s', '900'];
  short.push('-n', '100', '-o', 'out.sql', '-m', '7', '-l', '3,4', '-tgN');
  const others = ['--stats-file', 'stats.json', '--memory', '128', '--tmpdir', '/var/tmp'];
  others.push('--format', 'copy', '--batch', '9');
  assert.deepEqual(parsed([...short, ...others]), expected);
  const long = [
    ['--postgres-url', 'host=/run/postgresql dbname=synapse'],
    ['--room-id', ROOM],
    ['--min-state-group', '5'],
    ['--max-state-group', '900'],
    ['--groups-to-compress', '100'],
    ['--output-file', 'out.sql'],
    ['--min-saved-rows', '7'],
    ['--level-sizes', '3, 4'],
  ].flat();
  const switches = ['--transactions', '--graphs', '--no-verify'];
  assert.deepEqual(parsed([...long, ...switches, ...others]), expected);
});

test('values may be joined to their option, as the old tool takes them', () => {
  const command = parsed(['-iexports', `-r=${ROOM}`, '-oout.sql', '-l100,50', '-b5', '-tm7']);
  assert.deepEqual(command.source, { kind: 'files', inputs: ['exports'] });
  assert.equal(command.room, ROOM);
  assert.equal(command.output, 'out.sql');
  assert.deepEqual(command.strategy, { name: 'levels', sizes: [100, 50] });
  assert.deepEqual(command.range, { minStateGroup: 5 });
  assert.equal(command.transactions, true);
  assert.equal(command.minSavedRows, 7);
  for (const joined of [['-tgoout.sql'], ['-tgo', 'out.sql'], ['-to=out.sql', '-g']]) {
    const { output, transactions, graphs } = parsed(['-iexports', '-r', ROOM, ...joined]);
    assert.deepEqual([output, transactions, graphs], ['out.sql', true, true], joined.join(' '));
  }
});

test('changes are applied at the pace that is given, also where -t says what is so anyway', () => {
  const database = ['-p', 'postgresql://host/db', '-r', ROOM];
  const { commit, format } = parsed([...database, '-ct', '--pace', '20%', '--vacuum']);
  assert.deepEqual([commit, format], [{ pace: { share: 0.2 }, vacuum: true }, 'copy']);
  assert.deepEqual(parsed([...database, '--commit_changes', '--pace=5000']).commit, {
    pace: { rowsPerSecond: 5000 },
    vacuum: false,
  });
  refused([...database, '--pace', '5000'], /go with -c/);
  refused([...database, '--vacuum'], /go with -c/);
  refused(
    [...database, '-c', '--format', 'sql'],
    /--format is about changes that are left in a file/,
  );
  for (const [options, transactions, kept] of [
    [[], true, 'sql'],
    [['--format', 'jsonl'], false, 'jsonl'],
  ] as const) {
    const command = parsed([...database, '-c', '-o', 'x', ...options]);
    assert.deepEqual([command.format, command.transactions], [kept, transactions]);
    assert.equal(command.output, 'x');
  }
  refused([...database, '-c', '-o', '-'], /in a file, .* and not on standard output/);
  refused([...database, '-c', '-o', 'x', '--format', 'tables'], /and not as tables/);
  for (const pace of ['0', '0%', '101%', '-5', '1.5', 'fast', '5 %']) {
    refused([...database, '-c', `--pace=${pace}`], /--pace takes rows a second/);
  }
  refused(['-i', 'x', '-r', ROOM, '-c'], /applies to the database that is read with -p/);
});

test('a room id is taken as it is, whatever it begins with', () => {
  for (const room of [
    '-dash:example.com',
    '--x',
    'no-sigil',
    '\\!abc:example.com',
    'a=b',
    "it's",
  ]) {
    assert.equal(parsed(['-i', 'x', `--room-id=${room}`]).room, room);
    assert.equal(parsed(['-i', 'x', `--room_id=${room}`]).room, room);
    assert.equal(parsed(['-i', 'x', `-r=${room}`]).room, room);
  }
  refused(['-i', 'x', '-r', '-dash:x'], /-r \(--room-id\) needs a value\. .* --room-id=-dash:x$/);
});

test('inputs add up, with one standard input among them', () => {
  const { source } = parsed(['-i', 'edges.copy', '--input', '-', '-i', 'more', '-r', ROOM]);
  assert.deepEqual(source, { kind: 'files', inputs: ['edges.copy', '-', 'more'] });
  refused(['-i', '-', '-i', '-', '-r', ROOM], /-i - is given twice/);
  refused(['-i', 'a', 'b', '-r', ROOM], /'b' belongs to no option/);
});

test('a database or files, not both and not neither', () => {
  refused(['-p', 'x', '-i', 'y', '-r', ROOM], /-p and -i are both given/);
  refused(['-r', ROOM], /Where is the room\?/);
  refused(['-r', ROOM], /Where is the room\?/, { PGUSER: 'synapse' });
});

test('PG variables stand in for a missing or empty -p', () => {
  const expected = { kind: 'postgres', dsn: '' };
  assert.deepEqual(parsed(['-r', ROOM], { PGHOST: '/run/postgresql' }).source, expected);
  assert.deepEqual(parsed(['-r', ROOM], { PGDATABASE: 'synapse' }).source, expected);
  assert.deepEqual(parsed(['-p', '', '-r', ROOM], {}).source, expected);
});

test('standard output by its device is standard output', () => {
  assert.equal(parsed(['-i', 'x', '-r', ROOM, '-o', '/dev/stdout']).output, '-');
  assert.equal(parsed(['-i', 'x', '-r', ROOM, '--stats-file', '/dev/stdout']).statsFile, '-');
});

const WRONG: [args: string[], message: RegExp][] = [
  [['-b', '-5'], /-b \(--min-state-group\) takes a whole number from 0 .* not '-5'/],
  [['-b', '1.5'], /whole number/],
  [['-b', '1e3'], /whole number/],
  [['-b', '0x10'], /whole number/],
  [['-b', '9007199254740993'], /whole number/],
  [['-b', ' '], /whole number/],
  [['-n', '0'], /-n \(--groups-to-compress\) takes a whole number from 1/],
  [['-m', 'many'], /-m \(--min-saved-rows\)/],
  [['--memory', '0'], /--memory takes a whole number from 1/],
  [['-b', '9', '-s', '9'], /No state group is above 9 \(-b\) and not above 9 \(-s\)/],
  [['-l', '100,,25'], /Each size of -l takes a whole number from 1 .* not ''/],
  [['-l', '100,0'], /Each size of -l .* not '0'/],
  [['-l', '100;50'], /Each size of -l .* not '100;50'/],
  [['-b', ''], /-b \(--min-state-group\) is given an empty value/],
  [['-o', ''], /-o \(--output-file\) is given an empty value/],
  [['-o'], /-o \(--output-file\) needs a value/],
  [['-o', '-t'], /-o \(--output-file\) needs a value\. If '-t' is meant/],
  [['-to'], /-o \(--output-file\) needs a value\.$/],
  [['-o', 'a', '-o', 'b'], /-o \(--output-file\) is given 2 times/],
  [['-r', 'other'], /-r \(--room-id\) is given 2 times/],
  [['-i', ''], /-i is given an empty value/],
  [['-o', '-', '--stats-file', '-'], /would mix on standard output/],
  [['--unbuffered'], /goes with -o - alone/],
  [['--unbuffered', '-o', 'out.sql'], /goes with -o - alone/],
  [['-t=maybe'], /-t \(--transactions\) takes no value, but is given 'maybe'/],
  [['--graphs=no'], /--graphs\) takes no value/],
  [['--outputfile', 'x'], /There is no option --outputfile\. Did you mean --output-file\?/],
  [['--stat-file', 'x'], /Did you mean --stats-file\?/],
  [['--verify'], /There is no option --verify\./],
  [['-k'], /There is no option -k\./],
  [['-tx'], /There is no option -x\./],
  [['-txo', 'out.sql'], /There is no option -x\./],
  [['-to'], /-o \(--output-file\) needs a value/],
  [['-tg=no'], /-g \(--graphs\) takes no value, but is given 'no'/],
  [['--zzzzzzzz'], /There is no option --zzzzzzzz\.$/],
  [['stray'], /'stray' belongs to no option/],
];

for (const [args, message] of WRONG) {
  test(`wrong usage: ${args.map((arg) => arg || "''").join(' ')}`, () => {
    refused(['-i', 'x', '-r', ROOM, ...args], message);
  });
}

test('no room is wrong usage', () => {
  refused(['-i', 'x'], /Which room\?/);
  refused(['-i', 'x', '-r', ''], /-r \(--room-id\) is given an empty value/);
});

test('help and version answer whatever else is given, in any locale', () => {
  for (const args of [['--help'], ['-h'], ['-h', '-r', ROOM]]) {
    const answer = parseCompressCommand(args, { LANG: 'de_DE.UTF-8' });
    assert.ok('text' in answer);
    assert.match(answer.text, /^Usage: synapse_compress_state /);
    assert.match(answer.text, /Show help/);
  }
  const answer = parseCompressCommand(['--version'], {});
  assert.ok('text' in answer);
  assert.match(answer.text, /^\d+\.\d+\.\d+/);
});

test('help keeps to 90 columns', () => {
  const answer = parseCompressCommand(['--help'], {});
  assert.ok('text' in answer);
  const widest = Math.max(...answer.text.split('\n').map((line) => line.length));
  assert.ok(widest <= 90, String(widest));
});
