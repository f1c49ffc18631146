/** Exports that are read without complaint unless someone looks closely, and would lose state. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { dump, FORMATS } from './support/export-formats.js';
import { temporaryFolder } from './support/fixtures.js';
import { CLI, runCli } from './support/run-cli.js';

const ROOM = '!room:example.org';
const OTHER = '!other:example.org';
const MEMBERS = 800;

interface Tables {
  readonly state_groups: string;
  readonly state_group_edges: string;
  readonly state_groups_state: string;
}

type Row = readonly [group: number, room: string, type: string, stateKey: string, event: string];

/** Snapshots that a room would be compressed to deltas from; the create event comes behind many members. */
function rowsOf(room: string): Row[] {
  return [1, 2, 3].flatMap((group) => [
    ...Array.from({ length: MEMBERS }, (_, n): Row => {
      const event = `$${n === 0 ? group : ''}joins-${n}-${'x'.repeat(40)}`;
      return [group, room, 'm.room.member', `@member-${n}:example.org`, event];
    }),
    [group, room, 'm.room.create', '', '$create'],
  ]);
}

const text = (rows: readonly (readonly unknown[])[]): string =>
  rows.map((row) => `${row.join('\t')}\n`).join('');

const WHOLE: Tables = {
  state_groups: text([1, 2, 3].map((id) => [id, ROOM, `$${id}`])),
  state_group_edges: '',
  state_groups_state: text(rowsOf(ROOM)),
};

/** A further group, which is stored as a delta. */
const WITH_DELTA: Tables = {
  state_groups: `${WHOLE.state_groups}4\t${ROOM}\t$4\n`,
  state_group_edges: '4\t3\n',
  state_groups_state: text([...rowsOf(ROOM), [4, ROOM, 'm.room.topic', '', '$topic']]),
};

async function exportOf(folder: string, tables: Partial<Tables>): Promise<string> {
  await mkdir(folder, { recursive: true });
  for (const [table, rows] of Object.entries({ ...WHOLE, ...tables })) {
    await writeFile(join(folder, `${table}.copy`), rows);
  }
  return folder;
}

const asEmpty = (quotes: string): string =>
  text(rowsOf(ROOM).map((row) => row.map((field) => (field === '' ? quotes : field))));
const inOrder = (...order: number[]): string =>
  text(rowsOf(ROOM).map((row) => order.map((column) => row[column])));

const REFUSED: Readonly<Record<string, readonly [Partial<Tables>, RegExp]>> = {
  'CSV with tabs': [{ state_groups_state: asEmpty('""') }, /state key "", .* this is CSV/],
  'CSV with other quotes': [{ state_groups_state: asEmpty("''") }, /state key '', .* this is CSV/],
  'key and type changed places': [
    { state_groups_state: inOrder(0, 1, 3, 2, 4) },
    /'' for a type, 'm\.room\.create' for a state key .* in another order/,
  ],
  'event and key changed places': [
    { state_groups_state: inOrder(0, 1, 2, 4, 3) },
    /'\$create' for a state key and '' for an event: the columns are in another order/,
  ],
};

for (const [what, [tables, message]] of Object.entries(REFUSED)) {
  test(`refuses what is no COPY text of the table: ${what}`, async (t) => {
    const folder = await exportOf(await temporaryFolder(t), tables);
    for (const room of [['-r', ROOM], ['--all-rooms']]) {
      const { code, stderr } = await runCli(['-i', folder, ...room]);
      assert.equal(code, 3, stderr);
      assert.match(stderr, message);
    }
  });
}

test('leaves groups as they are whose rows are of another room', async (t) => {
  const rows = rowsOf(ROOM);
  const mixed = [
    ...rows.filter(([group]) => group !== 2),
    ...rowsOf(OTHER).filter(([g]) => g === 2),
  ];
  for (const [what, given, left] of [
    ['all', rowsOf(OTHER), '1, 2, 3'],
    ['one', mixed, '2'],
    [
      'a row of one',
      [...rows.slice(0, -2), [3, OTHER, 'm.room.topic', '', '$1'], ...rows.slice(-2)],
      '3',
    ],
  ] as const) {
    const folder = await exportOf(await temporaryFolder(t), { state_groups_state: text(given) });
    const output = join(folder, 'out.jsonl');
    for (const room of [['-r', ROOM], ['--all-rooms']]) {
      const { code, stderr } = await runCli([
        '-i',
        folder,
        ...room,
        '--format',
        'jsonl',
        '-o',
        output,
      ]);
      assert.equal(code, 0, stderr);
      const warning = new RegExp(
        `state groups? ha(s|ve) rows of another room .*the first: ${left}\\)`,
      );
      assert.match(stderr, warning, what);
      const written = await readFile(output, 'utf8');
      for (const group of left.split(', ')) {
        assert.doesNotMatch(written, new RegExp(`"state_group":${group}[,}]`));
        assert.doesNotMatch(written, new RegExp(`predecessor":${group}[,}]`));
      }
    }
  }
});

test('warns of groups that lack an edge, as a full state has the create event', async (t) => {
  // An edge of another room shows that the table is there.
  const folder = await exportOf(await temporaryFolder(t), {
    ...WITH_DELTA,
    state_group_edges: '8\t7\n',
  });
  const warning = /1 state group has neither an edge nor an m\.room\.create event.*first: 4\)/;
  const cut = await runCli(['-i', folder, '-r', ROOM]);
  assert.match(cut.stderr, warning);
  await exportOf(folder, WITH_DELTA);
  const whole = await runCli(['-i', folder, '-r', ROOM]);
  assert.equal(whole.code, 0);
  assert.doesNotMatch(whole.stderr, /neither an edge/);
});

/** What a table without rows looks like. */
const EMPTY: Readonly<Record<string, (table: keyof Tables) => Buffer | string>> = {
  nothing: () => '',
  'nothing, packed': () => gzipSync(''),
  "COPY's end marker": () => '\\.\n',
  'the header of CSV': (table) => FORMATS['CSV with a header'](table, []),
  'an array of JSON': () => '[]\n',
  'binary data': (table) => FORMATS['binary COPY data'](table, []),
};

/** Reads the export in each way there is, and sees that it is refused. */
async function refusedEverywhere(inputs: readonly string[], message: RegExp): Promise<void> {
  for (const args of [
    ['-r', ROOM],
    ['-r', ROOM, '-o', '-', '--unbuffered', '-t'],
    ['--all-rooms'],
  ]) {
    const { code, stdout, stderr } = await runCli([...inputs, ...args]);
    assert.equal(code, 3, stderr);
    assert.match(stderr, message);
    assert.doesNotMatch(stdout, /DELETE/);
  }
}

for (const [table, message] of [
  ['state_groups_state', /The table state_groups_state has no rows .*its export failed/],
  ['state_group_edges', /The table state_group_edges has no rows .*its export failed/],
] as const) {
  for (const [what, empty] of Object.entries(EMPTY)) {
    test(`takes no failed export for an empty table: ${table}, ${what}`, async (t) => {
      const folder = await exportOf(await temporaryFolder(t), WITH_DELTA);
      await writeFile(join(folder, `${table}.copy`), empty(table));
      await refusedEverywhere(['-i', folder], message);
      await rm(join(folder, 'state_groups.copy'));
      await refusedEverywhere(['-i', folder], message);
    });
  }

  test(`takes no failed export for an empty table: ${table} in a dump`, async (t) => {
    const path = join(await temporaryFolder(t), 'dump.sql');
    const tables = Object.fromEntries(
      Object.entries({ ...WITH_DELTA, [table]: '' }).map(([name, rows]) => [
        name,
        rows
          .split('\n')
          .slice(0, -1)
          .map((row) => row.split('\t')),
      ]),
    ) as unknown as Parameters<typeof dump>[0];
    await writeFile(path, dump(tables));
    await refusedEverywhere(['-i', path], message);
    const piped = await runCli(['-i', '-', '-r', ROOM], { stdin: await readFile(path) });
    assert.equal(piped.code, 3, piped.stderr);
    assert.match(piped.stderr, message);
  });

  test(`takes no empty pipe for an empty table: ${table}`, async (t) => {
    const folder = await exportOf(await temporaryFolder(t), WITH_DELTA);
    await rm(join(folder, `${table}.copy`));
    const inputs = ['-i', folder, `--table=${table}=-`];
    await refusedEverywhere(inputs, message);
    await rm(join(folder, 'state_groups.copy'));
    await refusedEverywhere(inputs, message);
  });

  test(`verify refuses, and check reports, an empty table: ${table}`, async (t) => {
    const root = await temporaryFolder(t);
    const whole = await exportOf(join(root, 'whole'), WITH_DELTA);
    const empty = await exportOf(join(root, 'empty'), { ...WITH_DELTA, [table]: '' });
    const verified = await runCli(['verify', empty, whole, '-r', ROOM]);
    assert.equal(verified.code, 3, verified.stderr);
    assert.match(verified.stderr, message);
    const checked = await runCli(['check', empty]);
    assert.ok([0, 9].includes(checked.code!), checked.stderr);
  });
}

test('takes tables for empty that may be', async (t) => {
  const [row] = rowsOf(ROOM).slice(-1);
  for (const [what, tables] of Object.entries({
    'all are': { state_groups: '', state_groups_state: '' },
    'a room has one full state': {
      state_groups: text([[3, ROOM, '$3']]),
      state_groups_state: text([row]),
    },
    'a room was just begun': { state_groups: text([[3, ROOM, '$3']]), state_groups_state: '' },
    'all states are full': {},
    'rooms are of invitations': {
      state_groups_state: text(rowsOf(ROOM).filter(([, , type]) => type !== 'm.room.create')),
    },
  })) {
    const folder = await exportOf(await temporaryFolder(t), tables);
    const all = await runCli(['-i', folder, '--all-rooms']);
    assert.equal(all.code, 0, `${what}: ${all.stderr}`);
    const one = await runCli(['-i', folder, '-r', ROOM]);
    assert.equal(one.code, what === 'all are' ? 4 : 0, `${what}: ${one.stderr}`);
  }
});

test('takes no other table of Synapse for one of these, also if it is empty', async (t) => {
  const folder = await exportOf(await temporaryFolder(t), {});
  const plain = await runCli(['-i', folder, '--all-rooms', '-o', '-']);
  const others = [
    'state_groups_persisting',
    'state_groups_pending_deletion',
    'event_to_state_groups',
  ];
  for (const other of others) await writeFile(join(folder, `${other}.copy`), '');
  const beside = await runCli(['-i', folder, '--all-rooms', '-o', '-']);
  assert.equal(beside.code, 0, beside.stderr);
  assert.equal(beside.stdout, plain.stdout);

  await writeFile(join(folder, 'state_groups.copy'), '');
  const without = await runCli(['-i', folder, '--all-rooms']);
  assert.equal(without.code, 3);
  assert.match(without.stderr, /state_groups has no rows, though state_groups_state has/);
});

test('says which files of a folder were not looked at, and what changes are', async (t) => {
  const folder = await exportOf(await temporaryFolder(t), {});
  await writeFile(join(folder, 'Rows.CSV'), '');
  const output = join(folder, 'out.sql');
  await runCli(['-i', folder, '-r', ROOM, '-o', output]);
  const missing = await temporaryFolder(t);
  await writeFile(join(missing, 'Rows.CSV'), '');
  const named = await runCli(['-i', missing, '-r', ROOM]);
  assert.equal(named.code, 3);
  assert.match(named.stderr, /Not looked at, .*: .*Rows\.CSV\. To read them, name them with -i/);
  const changes = await runCli(['-i', output, '-r', ROOM]);
  assert.equal(changes.code, 3);
  assert.match(changes.stderr, /out\.sql holds no rows of .* It holds changes/);
  const nothing = await runCli(['-i', '-', '-r', ROOM]);
  assert.equal(nothing.code, 3);
  assert.match(nothing.stderr, /Nothing came from standard input: see what the program before/);
});

for (const [what, writer] of [
  ['has no writer', undefined],
  ['is silent', 'exec 3>"$0"; sleep 60'],
] as const) {
  test(
    `ends by a signal while a FIFO ${what}`,
    { skip: process.platform === 'win32' },
    async (t) => {
      const folder = await exportOf(await temporaryFolder(t), {});
      const fifo = join(folder, 'fifo');
      execFileSync('mkfifo', [fifo]);
      const silent =
        writer && spawn('sh', ['-c', writer, fifo], { stdio: 'ignore', detached: true });
      t.after(() => silent && process.kill(-silent.pid!));
      const files = ['state_groups', 'state_group_edges'].map((name) =>
        join(folder, `${name}.copy`),
      );
      const args = [...files, fifo].flatMap((file) => ['-i', file]);
      const child = spawn(process.execPath, [CLI, ...args, '-r', ROOM]);
      const closed = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
      setTimeout(() => child.kill('SIGTERM'), 1500);
      const [code, signal] = await closed;
      assert.deepEqual([code ?? signal], [143]);
    },
  );
}

test('reads a FIFO to its end', async (t) => {
  const folder = await exportOf(await temporaryFolder(t), {});
  const plain = await runCli(['-i', folder, '-r', ROOM, '-o', '-']);
  const rows = join(folder, 'state_groups_state.copy');
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  spawn('sh', ['-c', 'sleep 1; cat "$0" > "$1"', rows, fifo], { stdio: 'ignore' });
  const files = ['state_groups', 'state_group_edges'].map((name) => join(folder, `${name}.copy`));
  const args = [...files, fifo].flatMap((file) => ['-i', file]);
  const { code, stdout, stderr } = await runCli([...args, '-r', ROOM, '-o', '-']);
  assert.equal(code, 0, stderr);
  assert.equal(stdout, plain.stdout);
});
