import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, createReadStream, existsSync, openSync, writeSync } from 'node:fs';
import { chmod, link, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import type { TestContext } from 'node:test';
import type { Hops } from '../src/planner/room-counts.js';
import type { Statistics } from '../src/report/statistics.js';
import { NO_CHANGES } from '../src/sinks/no-changes.js';
import { openStreamedOutput } from '../src/sinks/streamed-output.js';
import { STATE_TABLES, temporaryFolder } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import { hasPsql } from './support/psql.js';
import { CLI, runCli } from './support/run-cli.js';

const ROOM = '!room:example.com';

/**
 * COPY files of a room whose `groups` state groups are all full snapshots of `keys` keys, half of which
 * change each time: every group but the first takes half the rows, once compressed.
 */
async function exportRoom(t: TestContext, { groups = 20, keys = 10 } = {}): Promise<string> {
  const folder = join(await temporaryFolder(t), 'export');
  await mkdir(folder);
  let headers = '';
  let rows = '';
  for (let group = 1; group <= groups; group++) {
    headers += `${group}\t${ROOM}\t$event${group}\n`;
    for (let key = 0; key < keys; key++) {
      const changed = key % 2 === 0 ? group : 0;
      rows += `${group}\t${ROOM}\tm.room.member\t@user${key}:example.com\t$event${changed}-${key}\n`;
    }
  }
  await writeFile(join(folder, 'state_groups.copy'), headers);
  await writeFile(join(folder, 'state_group_edges.copy'), '');
  await writeFile(join(folder, 'state_groups_state.copy'), rows);
  return folder;
}

/** A folder to write to, and what is in it. */
async function outputFolder(t: TestContext) {
  const folder = await temporaryFolder(t);
  return { file: join(folder, 'out.sql'), folder, left: () => readdir(folder) };
}

type Running = ChildProcessByStdio<Writable, Readable, Readable>;

/** The program while it runs, for signals and pipes; `runCli` waits for its end. */
function start(t: TestContext, args: readonly string[]): Running {
  const child = spawn(process.execPath, [CLI, ...args], { stdio: 'pipe' });
  t.after(() => child.kill('SIGKILL'));
  return child;
}

async function exitCode(child: Running): Promise<number | null> {
  const [code] = (await once(child, 'exit')) as [number | null];
  return code;
}

test('a room is compressed: status on stderr, SQL in the file, nothing on stdout', async (t) => {
  const folder = await exportRoom(t);
  const { file, left } = await outputFolder(t);
  const result = await runCli(['-i', folder, '-r', ROOM, '-o', file, '-t', '-l', '100,50,25']);
  assert.equal(result.code, 0, result.stderr);
  assert.equal(result.stdout, '');
  assert.deepEqual(result.stderr.split('\n').slice(0, 10), [
    `Fetching state from files for room '${ROOM}'...`,
    'Fetched state groups up to 20',
    'Number of state groups: 20',
    'Number of rows in current table: 200',
    'Number of rows after compression: 105 (52.50%)',
    'Compression Statistics:',
    '  Number of forced resets due to lacking prev: 0',
    '  Number of compressed rows caused by the above: 0',
    '  Number of state groups changed: 19',
    'New state map matches old one',
  ]);
  assert.match(result.stderr, /^Saves 95 rows, about /m);
  assert.match(result.stderr, /^Longest chain of state groups: 1 before, 20 after/m);
  assert.ok(result.stderr.includes(`psql -f ${file} DATABASE`));
  assert.match(result.stderr, /VACUUM/);
  assert.match(await readFile(file, 'utf8'), /^-- .*COMMIT;/s);
  assert.deepEqual(await left(), ['out.sql']);
});

test('stdout has the SQL alone, the same as a file and as a stream', async (t) => {
  const folder = await exportRoom(t);
  const { file } = await outputFolder(t);
  const args = ['-i', folder, '-r', ROOM, '-t'];
  const [toFile, spooled, streamed] = await Promise.all([
    runCli([...args, '-o', file]),
    runCli([...args, '-o', '-']),
    runCli([...args, '-o', '-', '--unbuffered']),
  ]);
  for (const { code, stderr } of [toFile, spooled, streamed]) {
    assert.equal(code, 0, stderr);
  }
  const sql = await readFile(file, 'utf8');
  assert.equal(spooled.stdout, sql);
  assert.equal(streamed.stdout, sql);
  assert.match(spooled.stderr, /went to standard output/);
});

test('no output takes the place of what is read, by whatever name', async (t) => {
  const folder = await exportRoom(t);
  const { folder: beside, file } = await outputFolder(t);
  const rows = join(folder, 'state_groups_state.copy');
  const before = await readFile(rows, 'utf8');
  await symlink(rows, join(beside, 'link'));
  await link(rows, join(beside, 'other-name'));
  const others = ['-i', join(folder, 'state_group_edges.copy')];
  for (const [input, output] of [
    [
      ['-i', folder],
      ['-o', rows],
    ],
    [
      ['-i', folder],
      ['-o', join(beside, 'link')],
    ],
    [
      ['-i', folder],
      ['-o', file, '--stats-file', join(beside, 'other-name')],
    ],
    [
      [...others, '-i', join(beside, 'link')],
      ['-o', rows],
    ],
    [
      [...others, '--table', `state_groups_state=${rows}`],
      ['-o', join(folder, '.', 'state_groups_state.copy')],
    ],
  ] as const) {
    const result = await runCli([...input, '-r', ROOM, ...output]);
    assert.equal(result.code, 2, result.stderr);
    assert.match(result.stderr, /is read, and would be overwritten: name another file/);
  }
  const descriptor = openSync(rows, 'r');
  t.after(() => closeSync(descriptor));
  const redirected = spawnSync(
    process.execPath,
    [CLI, ...others, '-i', '-', '-r', ROOM, '-o', rows],
    { stdio: [descriptor, 'ignore', 'pipe'], encoding: 'utf8' },
  );
  assert.equal(redirected.status, 2, redirected.stderr);
  assert.equal(await readFile(rows, 'utf8'), before);
  assert.deepEqual((await readdir(beside)).sort(), ['link', 'other-name']);

  const within = await runCli(['-i', folder, '-r', ROOM, '-o', join(folder, 'out.sql')]);
  assert.equal(within.code, 0, within.stderr);
});

test('no output takes the place of another, by whatever name', async (t) => {
  const folder = await exportRoom(t);
  const { folder: beside } = await outputFolder(t);
  await symlink('out.sql', join(beside, 'link'));
  await symlink(beside, join(beside, 'here'));
  for (const outputs of [
    ['-o', 'out.sql', '--stats-file', './out.sql'],
    ['-o', 'out.sql', '--stats-file', 'link'],
    ['-o', 'here/out.sql', '--stats-file', 'out.sql'],
    ['-o', 'before_edges.csv', '-g'],
    ['--stats-file', 'here/after_nodes.csv', '-g'],
  ]) {
    const { code, stderr } = await runCli(['-i', folder, '-r', ROOM, ...outputs], { cwd: beside });
    assert.equal(code, 2, stderr);
    assert.match(stderr, /are one file, and would hold two outputs/);
  }
  assert.deepEqual((await readdir(beside)).sort(), ['here', 'link']);
  const nowhere = ['-o', '/dev/null', '--stats-file', '/dev/null'];
  const { code, stderr } = await runCli(['-i', folder, '-r', ROOM, ...nowhere]);
  assert.equal(code, 0, stderr);
});

test('a current folder that is gone is told', async (t) => {
  const folder = join(await temporaryFolder(t), 'gone');
  await mkdir(folder);
  const script = 'rmdir "$PWD" && exec "$0" "$@"';
  const { status, stderr } = spawnSync(
    'sh',
    ['-c', script, process.execPath, CLI, '-i', '/dev/null', '-r', ROOM],
    { cwd: folder, encoding: 'utf8' },
  );
  assert.equal(status, 2, stderr);
  assert.match(stderr, /^synapse_compress_state: The current folder is gone\./);
});

test('a folder that may not be read is told', async (t) => {
  if (process.getuid?.() === 0) return t.skip('root may read all folders');
  const folder = await exportRoom(t);
  await chmod(folder, 0);
  t.after(() => chmod(folder, 0o700));
  const { code, stderr } = await runCli(['-i', folder, '-r', ROOM]);
  assert.equal(code, 3, stderr);
  assert.match(stderr, /Can't read .*export: permission is denied\.$/m);
});

test('a terminal obeys nothing of a room, and no password is shown that stands in the wrong place', async (t) => {
  const folder = await exportRoom(t);
  const room = '!x\u001b[2J\u009b\u202e\rDone';
  const { stderr } = await runCli(['-i', folder, '-r', room]);
  assert.ok(stderr.includes(String.raw`room '!x\u001b[2J\u009b\u202e\u000dDone'`), stderr);
  for (const [connection, shown] of [
    ['postgresql://u:s3cret@h/d', 'postgresql://u:…@h/d'],
    ['postgresql://u:my@s3cret@h/d', 'postgresql://u:…@h/d'],
    ['postgresql://u:my s3cret@h/d', 'postgresql://u:…@h/d'],
    ['host=h password=s3cret user=u', 'host=h password=… user=u'],
    [`host=h password = 'my \\'s3cret' user=u`, 'host=h password = … user=u'],
  ]) {
    for (const args of [['-i', connection], [connection]]) {
      const misplaced = await runCli([...args, '-r', ROOM]);
      assert.notEqual(misplaced.code, 0);
      assert.ok(misplaced.stderr.includes(shown), misplaced.stderr);
      assert.doesNotMatch(misplaced.stderr, /s3cret|my/);
    }
  }
});

test('a range that ends behind the room leaves hops under its newest groups', async (t) => {
  const folder = await exportRoom(t);
  const edges = Array.from({ length: 19 }, (_, i) => `${i + 2}\t${i + 1}\n`);
  await writeFile(join(folder, 'state_group_edges.copy'), edges.join(''));
  for (const [range, headroom] of [
    [['-n', '100'], 50],
    [['-s', '99999'], 50],
    [['-n', '10'], 0],
  ] as const) {
    const { stdout } = await runCli(['-i', folder, '-r', ROOM, ...range, '--stats-file', '-']);
    const { strategy } = JSON.parse(stdout) as Statistics;
    assert.match(strategy, new RegExp(`, ${headroom} left under the newest`), range.join(' '));
  }
});

test('every figure is one JSON object, on stdout or in a file', async (t) => {
  const folder = await exportRoom(t);
  const { file } = await outputFolder(t);
  const statsFile = `${file}.json`;
  const levels = ['-i', folder, '-r', ROOM, '-l', '100,50,25'];
  const toStdout = await runCli([...levels, '-o', file, '--stats-file', '-']);
  const toFile = await runCli([...levels, '--stats-file', statsFile]);
  assert.equal(toStdout.code, 0, toStdout.stderr);
  const statistics = JSON.parse(toStdout.stdout) as Statistics;
  const { bytesBefore, bytesAfter, seconds, ...exact } = statistics;
  assert.ok(bytesBefore > bytesAfter && bytesAfter > 0);
  assert.ok(seconds > 0);
  assert.deepEqual(exact, {
    room: ROOM,
    strategy: exact.strategy,
    stateGroups: 20,
    lastStateGroup: 20,
    rowsBefore: 200,
    rowsAfter: 105,
    forcedResets: 0,
    forcedResetRows: 0,
    stateGroupsChanged: 19,
    groupsWritten: 19,
    rowsDeleted: 190,
    rowsInserted: 95,
    snapshotsBefore: 20,
    snapshotsAfter: 1,
    hopsBefore: { largest: 1, mean: 1, distribution: ranges({ 1: 20 }) },
    hopsAfter: { largest: 20, mean: 10.5, distribution: ranges({ 1: 1, 10: 9, 25: 10 }) },
    verified: true,
    groupsVerified: 19,
    elsewhere: { groups: 0, rows: 0, bytes: 0 },
    groupsPassedThrough: 0,
    outcome: 'written',
    outputBytes: (await readFile(file)).length,
    warnings: [],
  });
  const inFile = JSON.parse(await readFile(statsFile, 'utf8')) as Statistics;
  assert.equal(inFile.outcome, 'no-output-asked');
  assert.equal(inFile.rowsAfter, 105);
  assert.match(toFile.stderr, /name a file with -o/);
});

test('standard input is read where - stands', async (t) => {
  const folder = await exportRoom(t);
  const rows = await readFile(join(folder, 'state_groups_state.copy'));
  const result = await runCli(
    ['-i', join(folder, 'state_group_edges.copy'), '-i', '-', '-r', ROOM, '-N'],
    { stdin: rows },
  );
  assert.equal(result.code, 0, result.stderr);
  assert.match(result.stderr, /Number of rows after compression: 105 /);
  assert.doesNotMatch(result.stderr, /New state map matches old one/);
});

test('too few saved rows: the words of the old tool, and no changes, also where earlier ones were', async (t) => {
  const folder = await exportRoom(t);
  const { file, left } = await outputFolder(t);
  const args = ['-i', folder, '-r', ROOM, '-m', '96'];
  for (const format of ['sql', 'copy', 'jsonl']) {
    // The first finds no file there, and the others that of the one before.
    const result = await runCli([...args, '-o', file, '--format', format]);
    assert.equal(result.code, 0);
    assert.match(
      result.stderr,
      /^Only 95 rows would be saved by this compression. Skipping output.$/m,
    );
    assert.ok(result.stderr.includes(`There are no changes in ${file}.\n`));
    assert.equal(await readFile(file, 'utf8'), format === 'jsonl' ? '\n' : `${NO_CHANGES}\n`);
    const applied = await runCli(['apply', file, '-p', 'host=127.0.0.1 port=1']);
    assert.deepEqual(
      [applied.code, applied.stderr],
      [0, `There are no changes in ${file}.\n`],
      'no database is asked',
    );
    assert.deepEqual(await left(), [basename(file)]);
    const piped = await runCli([...args, '-o', '-', '--format', format]);
    assert.equal(piped.stdout, await readFile(file, 'utf8'));
  }
});

test('a chain that is stored too long is shortened where that is asked for, also if it costs rows', async (t) => {
  const folder = await exportRoom(t, { groups: 9, keys: 1 });
  const edges = Array.from({ length: 8 }, (_, i) => `${i + 2}\t${i + 1}\n`);
  await writeFile(join(folder, 'state_group_edges.copy'), edges.join(''));
  // A group each that has a key of its own, so that every snapshot costs as many rows as groups before it.
  const rows = edges.map((_, i) => `${i + 1}\t${ROOM}\tm.room.member\t@${i}\t$${i}\n`);
  await writeFile(join(folder, 'state_groups_state.copy'), rows.join(''));
  const { file } = await outputFolder(t);
  const args = ['-i', folder, '-r', ROOM, '--max-hops', '5', '-o', file];
  const left = await runCli(args);
  assert.match(left.stderr, /4 state groups are in stored chains of more than 5 hops.*left so/);
  const { code, stderr } = await runCli([...args, '--rebase-deep']);
  assert.equal(code, 0, stderr);
  assert.match(stderr, /^Costs \d+ rows, about [\d.]+ \w+ of table and index\.$/m);
  assert.match(stderr, /^Longest chain of state groups: 9 before, 5 after/m);
  assert.match(await readFile(file, 'utf8'), /INSERT INTO state_groups_state/);
});

test('changes that were streamed before they turned out to be unwanted are an error', async (t) => {
  const folder = await exportRoom(t);
  const result = await runCli([
    '-i',
    folder,
    '-r',
    ROOM,
    '-o',
    '-',
    '-t',
    '--unbuffered',
    '-m',
    '96',
  ]);
  assert.equal(result.code, 7);
  assert.match(result.stderr, /Without --unbuffered they are held back/);
});

test('graphs are written to the current folder', async (t) => {
  const folder = await exportRoom(t);
  const { folder: cwd, left } = await outputFolder(t);
  const result = await runCli(['-i', folder, '-r', ROOM, '-g'], { cwd });
  assert.equal(result.code, 0, result.stderr);
  assert.deepEqual((await left()).sort(), [
    'after_edges.csv',
    'after_nodes.csv',
    'before_edges.csv',
    'before_nodes.csv',
  ]);
});

test('help and version go to stdout and end well', async () => {
  const help = await runCli(['--help']);
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^Usage: synapse_compress_state/);
  assert.equal(help.stderr, '');
  const version = await runCli(['--version']);
  assert.match(version.stdout, /^\d+\.\d+\.\d+\n$/);
  assert.equal(version.code, 0);
});

test(
  'help and version that can not be written are no success',
  { skip: !existsSync('/dev/full') && 'there is no /dev/full' },
  async (t) => {
    for (const option of ['--help', '--version']) {
      const full = openSync('/dev/full', 'w');
      const child = spawn(process.execPath, [CLI, option], { stdio: ['ignore', full, 'pipe'] });
      t.after(() => child.kill());
      closeSync(full);
      const closed = once(child, 'close') as Promise<[number]>;
      const [stderr, [code]] = await Promise.all([text(child.stderr!), closed]);
      assert.equal(code, 7, stderr);
      assert.match(stderr, /Can't write standard output: there is no space left/);
    }
  },
);

test('wrong usage says what is wrong and where help is, without a stack trace', async () => {
  const result = await runCli(['-i', 'x']);
  assert.equal(result.code, 2);
  assert.equal(result.stdout, '');
  assert.equal(
    result.stderr,
    "synapse_compress_state: Which room? Give its id in single quotes: -r '!abc:example.com', or --all-rooms.\n" +
      'See synapse_compress_state --help for all options.\n',
  );
  const ofCommand = await runCli(['auto', '-p', 'x', '--metrics-file', '-']);
  assert.equal(ofCommand.code, 2);
  assert.equal(
    ofCommand.stderr,
    'synapse_compress_state: --metrics-file is to name a file, not standard output.\n' +
      'See synapse_compress_state auto --help for all options.\n',
  );
});

test('a room that is not there has its exit code, and a hint where the id is odd', async (t) => {
  const folder = await exportRoom(t);
  const { file, left } = await outputFolder(t);
  const missing = await runCli(['-i', folder, '-r', '!other:example.com', '-o', file]);
  assert.equal(missing.code, 4, missing.stderr);
  assert.doesNotMatch(missing.stderr, /single quotes/);
  const eaten = await runCli(['-i', folder, '-r', 'room:example.com', '-o', file]);
  assert.equal(eaten.code, 4, eaten.stderr);
  assert.match(eaten.stderr, /A room id starts with !.* single quotes/);
  const address = await runCli(['-i', folder, '-r', '#room:example.com', '-o', file]);
  assert.match(address.stderr, /is not the id/);
  assert.deepEqual(await left(), []);
});

test('places that cannot be written to are told before anything is read', async (t) => {
  const { folder } = await outputFolder(t);
  const args = ['-i', await exportRoom(t), '-r', ROOM];
  for (const option of ['-o', '--stats-file']) {
    const result = await runCli([...args, option, join(folder, 'missing', 'out')]);
    assert.equal(result.code, 7);
    assert.match(result.stderr, /its folder does not exist/);
    assert.doesNotMatch(result.stderr, /Fetching/);
  }
  const result = await runCli([...args, '--tmpdir', join(folder, 'missing')]);
  assert.equal(result.code, 2);
  assert.match(result.stderr, /is no folder/);
});

test('a full disk ends the run with its exit code', async (t) => {
  const folder = await exportRoom(t);
  const result = await runCli(['-i', folder, '-r', ROOM, '-o', '/dev/full']);
  assert.equal(result.code, 7);
  assert.match(result.stderr, /Can't write \/dev\/full: there is no space left on the disk\./);
});

test('a disk that fills midway leaves nothing of the output', async (t) => {
  const folder = await exportRoom(t, { groups: 100, keys: 100 });
  const { file, folder: outputs, left } = await outputFolder(t);
  // The limit on the size of files, in blocks of 512 bytes, stands in for the disk.
  for (const output of [
    ['-o', file],
    ['-o', '-', '--tmpdir', outputs],
  ]) {
    const { status, stderr, stdout } = spawnSync(
      'sh',
      [
        '-c',
        'ulimit -f 100; exec "$@"',
        'sh',
        process.execPath,
        CLI,
        '-i',
        folder,
        '-r',
        ROOM,
        ...output,
      ],
      { encoding: 'utf8' },
    );
    assert.equal(status, 7, stderr);
    assert.match(stderr, /Can't write .*: it would be larger than files may be here\./);
    assert.ok(stderr.includes(outputs));
    assert.equal(stdout, '');
    assert.deepEqual(await left(), []);
  }
});

for (const [signal, code] of [
  ['SIGHUP', 129],
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`${signal} ends a run that waits for its input, and nothing is left`, async (t) => {
    const { file, folder, left } = await outputFolder(t);
    const child = start(t, ['-i', '-', '-r', ROOM, '-o', file, '--tmpdir', folder]);
    let status = '';
    child.stderr.setEncoding('utf8').on('data', (data: string) => {
      status += data;
      if (data.startsWith('Fetching')) child.kill(signal);
    });
    // A whole row would tell which table this is, and that another one is missing.
    child.stdin.write(`1\t${ROOM}\tm.room.create\t\t$ev`);
    assert.equal(await exitCode(child), code);
    assert.equal(
      status,
      `Fetching state from files for room '${ROOM}'...\n` +
        `synapse_compress_state: Stopped by ${signal}. Nothing was written.\n`,
    );
    assert.deepEqual(await left(), []);
  });
}

/** Reads so slowly that a signal overtakes what is read. */
async function slowText(stream: Readable): Promise<string> {
  let read = '';
  for await (const chunk of stream.setEncoding('utf8')) {
    read += chunk;
    await setTimeout(20);
  }
  return read;
}

/** Runs until the SQL begins to come, and then reads no more of it. */
async function startedOutput(t: TestContext, ...args: string[]): Promise<Running> {
  const folder = await exportRoom(t, { groups: 200, keys: 200 });
  const child = start(t, ['-i', folder, '-r', ROOM, '-o', '-', '-t', ...args]);
  await once(child.stdout, 'readable');
  return child;
}

for (const [kind, ...option] of [['spooled'], ['streamed', '--unbuffered']]) {
  test(`a signal while ${kind} SQL goes out marks its end`, async (t) => {
    const child = await startedOutput(t, ...option);
    child.kill('SIGINT');
    const [code, stdout, stderr] = await Promise.all([
      exitCode(child),
      slowText(child.stdout),
      text(child.stderr),
    ]);
    assert.equal(code, 130);
    assert.match(
      stdout,
      /\nthe rest is missing because synapse_compress_state was stopped here\n;\n$/,
    );
    assert.match(stderr, /Stopped by SIGINT\. .* had gone to standard output already/);
  });
}

test('a second signal does not wait for a reader that has stopped', async (t) => {
  const child = await startedOutput(t);
  child.kill('SIGINT');
  const ended = exitCode(child);
  const again = setInterval(() => child.kill('SIGINT'), 200);
  t.after(() => clearInterval(again));
  assert.equal(await ended, 130);
});

for (const [kind, ...option] of [['spooled'], ['streamed', '--unbuffered']]) {
  test(`a closed pipe ends ${kind} SQL without a word`, async (t) => {
    const child = await startedOutput(t, ...option);
    child.stdout.destroy();
    const [code, stderr] = await Promise.all([exitCode(child), text(child.stderr)]);
    assert.equal(code, 141);
    assert.equal(stderr, `Fetching state from files for room '${ROOM}'...\n`);
  });
}

test(
  'a signal ends a run whose standard error is full, and that nobody reads',
  { timeout: 30_000 },
  async (t) => {
    const { folder, file } = await outputFolder(t);
    const input = await exportRoom(t);
    const fifo = join(folder, 'fifo');
    assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
    const reader = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    t.after(() => closeSync(reader));
    assert.throws(() => {
      for (;;) writeSync(reader, Buffer.alloc(4096));
    }, /EAGAIN/);
    const stderr = openSync(fifo, 'w');
    const child = spawn(process.execPath, [CLI, '-i', input, '-r', ROOM, '-o', file], {
      stdio: ['ignore', 'ignore', stderr],
    });
    t.after(() => child.kill('SIGKILL'));
    closeSync(stderr);
    while (!existsSync(file)) {
      assert.equal(child.exitCode, null);
      await setTimeout(20);
    }
    child.kill('SIGTERM');
    const [code] = (await once(child, 'exit')) as [number | null];
    assert.notEqual(code, null);
  },
);

test('a signal ends the wait for a database', async (t) => {
  const db = await testDatabase(t);
  const { file, left } = await outputFolder(t);
  await db.query('BEGIN; LOCK TABLE state_groups IN ACCESS EXCLUSIVE MODE');
  const child = start(t, ['-p', db.url, '-r', ROOM, '-o', file]);
  const stderr = text(child.stderr);
  const waiting = `SELECT FROM pg_locks WHERE NOT granted AND relation = 'state_groups'::regclass`;
  while (child.exitCode === null && (await db.query(waiting)).rowCount === 0);
  child.kill('SIGTERM');
  assert.equal(await exitCode(child), 143);
  assert.match(await stderr, /Stopped by SIGTERM\. Nothing was written\.\n$/);
  assert.deepEqual(await left(), []);
});

test('a lost stderr does not stop a run', async (t) => {
  const folder = await exportRoom(t);
  const { file, left } = await outputFolder(t);
  const child = start(t, ['-i', folder, '-r', ROOM, '-o', file]);
  child.stderr.destroy();
  assert.equal(await exitCode(child), 0);
  assert.deepEqual(await left(), ['out.sql']);
});

test(
  'psql -1 keeps nothing of changes that were cut short, wherever that was',
  { skip: !hasPsql && 'psql is missing' },
  async (t) => {
    const folder = await exportRoom(t, { groups: 3, keys: 4 });
    const { file } = await outputFolder(t);
    const db = await testDatabase(t);
    for (const table of STATE_TABLES) {
      await db.copyIn(table, createReadStream(join(folder, `${table}.copy`)));
    }
    const stored = async () => [
      (await db.query('SELECT * FROM state_group_edges')).rows,
      (await db.query('SELECT * FROM state_groups_state ORDER BY 1, 3, 4, 5')).rows,
    ];
    const before = await stored();
    const result = await runCli(['-p', db.url, '-r', ROOM, '-o', file]);
    assert.equal(result.code, 0, result.stderr);
    const sql = await readFile(file, 'utf8');
    assert.match(sql, /DELETE FROM state_groups_state/);

    for (let length = 17; length < sql.length; length += 17) {
      const reader = new PassThrough();
      const output = openStreamedOutput(reader, 'standard output');
      output.stream.write(sql.slice(0, length));
      await output.discard();
      const psql = spawnSync('psql', ['-X', '-1', '-d', db.url], {
        input: reader.read() as Buffer,
        encoding: 'utf8',
      });
      assert.match(psql.stderr, /ERROR/);
      assert.deepEqual(await stored(), before, `cut after ${sql.slice(0, length)}`);
    }
  },
);

const hasScript = spawnSync('script', ['--version']).status === 0;

test(
  'a terminal shows progress, and clears it before the figures',
  { skip: !hasScript && 'the program script, which makes a terminal, is missing' },
  async (t) => {
    const folder = await exportRoom(t, { groups: 2000, keys: 60 });
    const command = `stty cols 60; '${process.execPath}' '${CLI}' -i '${folder}' -r '${ROOM}'`;
    const { stdout, status } = spawnSync('script', ['-qec', command, '/dev/null'], {
      encoding: 'utf8',
      env: { ...process.env, TERM: 'xterm' },
    });
    assert.equal(status, 0, stdout);
    const shown = stdout
      .split('\r')
      .filter((line) => line.endsWith('\x1b[K') && line.includes('%'));
    assert.notEqual(shown.length, 0, stdout);
    for (const line of shown) {
      assert.match(line, /^\d+% of 2,000 state groups, [\d,]+ rows/);
      assert.ok(line.length - '\x1b[K'.length < 60, line);
    }
    assert.ok(stdout.includes('\r\x1b[KFetched state groups up to 2000\r\n'), stdout);
  },
);

/** How many groups have chains of which lengths, from the ranges that have any. */
function ranges(groups: Readonly<Record<number, number>>): Hops['distribution'] {
  return [1, 10, 25, 50, 75, 100, 150, 200, null].map((upTo) => ({
    upTo,
    groups: groups[upTo ?? Infinity] ?? 0,
  }));
}
