import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { checkTables } from '../src/check/check-tables.js';
import type { CheckReport, StateTables } from '../src/check/check-tables.js';
import { KINDS } from '../src/check/findings.js';
import type { Example, FindingKind } from '../src/check/findings.js';
import type { Input } from '../src/sources/files/input.js';
import { RoomNotFoundError } from '../src/errors.js';
import { fixture, LARGE_ROOM, loadTables, temporaryFolder } from './support/fixtures.js';
import { naiveCheck, ROOMS, tables } from './support/naive-check.js';
import type { Model, Tables } from './support/naive-check.js';
import { cut, lengths } from './support/naive-copy-text.js';
import { testDatabase } from './support/postgres.js';
import { runCli } from './support/run-cli.js';

/** The tables as COPY text, rows in the order that they have here. */
function copyText({ groups, edges, rows }: Tables) {
  return {
    state_groups: groups.map(([id, room]) => `${id}\t${room}\t$event\n`).join(''),
    state_group_edges: edges.map((edge) => `${edge.join('\t')}\n`).join(''),
    state_groups_state: rows
      .map(({ group, room, type, stateKey, event }) =>
        [group, room, type, stateKey, `${event}\n`].join('\t'),
      )
      .join(''),
  };
}

function inMemory(made: Tables, chunks: readonly number[]): StateTables {
  const input = (text: string): Input => ({
    name: 'a table',
    rereadable: false,
    read: () => Readable.from(cut(Buffer.from(text), chunks)) as AsyncIterable<Buffer>,
    place: (index) => `Line ${index + 1}`,
  });
  const texts = copyText(made);
  return {
    groups: input(texts.state_groups),
    edges: input(texts.state_group_edges),
    rows: (wanted) => {
      const rows = made.rows
        .filter((row) => wanted?.includes(row.group) ?? true)
        .toSorted((a, b) => a.group - b.group);
      return input(copyText({ groups: [], edges: [], rows }).state_groups_state);
    },
    close: () => Promise.resolve(),
  };
}

/** Kinds of which a group has one example however often it is counted. */
const ONE_EXAMPLE = new Set<FindingKind>(['repeated-edge', 'row-of-no-group']);

function assertReport(report: CheckReport, model: Model): void {
  const { rooms, stateGroups, edges, rows, longestChain } = report;
  assert.deepEqual({ rooms, stateGroups, edges, rows, longestChain }, model.counts);
  for (const { kind, count, examples } of report.findings) {
    const expected = model.findings[kind];
    assert.equal(count, expected.length, kind);
    const groups = expected.map(({ stateGroup }) => stateGroup);
    const named = ONE_EXAMPLE.has(kind) ? [...new Set(groups)] : groups;
    assert.deepEqual(
      examples.map(({ stateGroup }) => stateGroup),
      named.slice(0, 5),
      kind,
    );
    const isExpected = (example: Example) =>
      expected.some((other) => JSON.stringify(other) === JSON.stringify(example));
    assert.ok(examples.every(isExpected), `${kind}: ${JSON.stringify(examples)}`);
  }
  const notes = new Set(['empty-group', 'deep-chain']);
  const wrong = Object.entries(model.findings).filter(([kind]) => !notes.has(kind));
  assert.equal(
    report.isClean,
    wrong.every(([, found]) => found.length === 0),
  );
}

/** A room's name, which is in COPY text here, as it is given. */
const nameOf = (room: string | undefined) => room?.replace('\\t', '\t');

test('all that can be wrong is found and counted, in all rooms and in one', async () => {
  const seen = new Set<FindingKind>();
  await fc.assert(
    fc.asyncProperty(
      tables,
      fc.constantFrom(undefined, ...ROOMS),
      lengths,
      async (made, room, chunks) => {
        const check = checkTables({ tables: inMemory(made, chunks), room: nameOf(room) });
        if (room !== undefined && made.groups.every(([, name]) => name !== room)) {
          await assert.rejects(check, RoomNotFoundError);
        } else {
          const report = await check;
          assertReport(report, naiveCheck(made, room, false));
          for (const { kind, count } of report.findings) if (count > 0) seen.add(kind);
        }
      },
    ),
    { numRuns: 400 },
  );
  assert.deepEqual([...seen].sort(), [...KINDS].sort());
});

async function checked(args: readonly string[]): Promise<CheckReport> {
  const { code, stdout, stderr } = await runCli(['check', '--json', ...args]);
  const report = JSON.parse(stdout) as CheckReport;
  assert.equal(code, report.isClean ? 0 : 9, stderr);
  return report;
}

test('the program finds the same in files, in any order, and in a database', async (t) => {
  const db = await testDatabase(t);
  // As in databases of old, where edges could be stored twice.
  await db.query(`
    DROP INDEX state_group_edges_unique_idx;
    CREATE INDEX ON state_group_edges (state_group, prev_state_group)`);
  for (const made of fc.sample(
    tables.filter(({ groups }) => groups.some(([, name]) => name === ROOMS[1])),
    { numRuns: 4, seed: 20 },
  )) {
    const folder = await temporaryFolder(t);
    await db.query('TRUNCATE state_groups, state_group_edges, state_groups_state');
    for (const [table, text] of Object.entries(copyText(made))) {
      await writeFile(join(folder, `${table}.copy`), text);
      await db.copyIn(table, Readable.from([text]));
    }
    for (const room of [undefined, ROOMS[1]]) {
      const options = room === undefined ? [] : ['-r', nameOf(room)!];
      assertReport(await checked([folder, ...options]), naiveCheck(made, room, true));
      assertReport(await checked([db.url, ...options]), naiveCheck(made, room, false));
    }
  }
});

test('a real export is clean, from files and from a database', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  for (const source of [fixture('synapse'), fixture('synapse', 'pg_dump.sql.gz'), db.url]) {
    const all = await runCli(['check', source]);
    assert.equal(all.code, 0, all.stderr);
    assert.equal(
      all.stdout,
      '2 rooms: 6014 state groups, 5953 edges, 19479 rows; the longest chain has 100 state groups.\n' +
        'Nothing is wrong.\n' +
        'For information:\n' +
        '  2 state groups have neither rows nor an edge, as the first of a room may: 1, 8\n',
    );
    const one = await runCli(['check', source, '-r', LARGE_ROOM]);
    assert.equal(one.code, 0, one.stderr);
    assert.match(one.stdout, /^Room '!ORr.*': 5394 state groups, \d+ edges, 18351 rows; /);
  }
});

test('what is wrong is told in words, with where it is', async (t) => {
  const folder = await temporaryFolder(t);
  const made: Tables = {
    groups: [1, 2, 3, 4, 5, 6, 7, 8].map((id) => [id, ROOMS[0]]),
    edges: [...([3, 4, 5, 6, 7, 8] as const).map((id) => [id, id === 5 ? 0 : 2] as const), [4, 1]],
    rows: ['$1', '$2', '$1'].map((event) => ({
      group: 2,
      room: ROOMS[0],
      type: 'm.room.topic',
      stateKey: '',
      event,
    })),
  };
  for (const [table, text] of Object.entries(copyText(made))) {
    await writeFile(join(folder, `${table}.copy`), text);
  }
  const { code, stdout, stderr } = await runCli(['check', folder]);
  assert.equal(code, 9);
  assert.equal(
    stdout,
    '1 room: 8 state groups, 7 edges, 3 rows; the longest chain has 2 state groups.\n' +
      'Wrong:\n' +
      '  1 edge leads to a state group that is not in state_groups: 5 → 0\n' +
      '  1 state group has edges to different predecessors: 4\n' +
      '  1 key has different events in one state group, whose state is undefined: 2 ("m.room.topic", "")\n' +
      '  1 row is stored once more, which changes nothing: 2 ("m.room.topic", "")\n' +
      'For information:\n' +
      '  1 state group has neither rows nor an edge, as the first of a room may: 1\n',
  );
  assert.equal(
    stderr,
    'Checking the state tables in files for all rooms...\n' +
      'synapse_compress_state: The state tables are not in order in 4 ways; the result on standard output says in which.\n',
  );
});

test('what can not be checked is told with the exit code of its kind', async (t) => {
  const db = await testDatabase(t, 'none');
  const files = fixture('synapse');
  for (const [args, code, message] of [
    [[], 2, /check takes one source, .* and is given 0\./],
    [[files, files], 2, /is given 2\./],
    [[''], 2, /empty name/],
    [[join(files, 'missing')], 3, /there is no such file/],
    [[fixture('golden', 'default', 'after')], 3, /holds state_groups, without which/],
    [[files, '-r', '!missing:example.org'], 4, /holds no state groups of room/],
    [[db.url], 5, /has no tables state_groups, state_group_edges and state_groups_state/],
    [[files, '--tmpdir', join(files, 'missing')], 2, /is no folder/],
    [[files, '--jsn'], 2, /Did you mean --json\?/],
  ] as const) {
    const result = await runCli(['check', ...args]);
    assert.equal(result.code, code, result.stderr);
    assert.match(result.stderr, message);
    assert.equal(result.stdout, '');
  }
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'state_groups.copy'), '1\t!a\t$1\n');
  await writeFile(join(folder, 'state_group_edges.copy'), '2\t1\n');
  for (const fields of ['t\t\\N\t$e', 't\t\\\t$e', 't\tk\t$e\\\\\\']) {
    await writeFile(join(folder, 'state_groups_state.copy'), `1\t!a\t${fields}\n`);
    const { code, stderr } = await runCli(['check', folder]);
    assert.equal(code, 3, fields);
    assert.match(stderr, /A row of state group 1 has a NULL/);
  }
  const help = await runCli(['check', '--help']);
  assert.equal(help.code, 0);
  assert.match(help.stdout, /^Usage: synapse_compress_state check SOURCE/);
});
