import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, readdirSync } from 'node:fs';
import { appendFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { CompressStateError, InputError } from '../src/errors.js';
import { dumpTables } from '../src/sources/files/dump.js';
import { DumpReader } from '../src/sources/files/dump-reader.js';
import { openFilesSource } from '../src/sources/files/files-source.js';
import { TemporaryFile } from '../src/temporary-file.js';
import { COLUMNS, copyText, dump } from './support/export-formats.js';
import type { Table, Tables } from './support/export-formats.js';
import {
  fixture,
  LARGE_ROOM,
  loadTables,
  readFixture,
  STATE_TABLES,
  temporaryFolder,
} from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { readRoom } from './support/read-room.js';
import { runCli } from './support/run-cli.js';

const small: Tables = {
  state_groups: [
    ['1', '!a:x', '$'],
    ['2', '!b:x', '$'],
    ['3', '!a:x', '$'],
  ],
  state_group_edges: [['3', '1']],
  state_groups_state: [
    ['3', '!a:x', 'm', '\\.', '$3'],
    ['1', '!a:x', 'm', '\n\\.\n', '$1'],
    ['2', '!b:x', 'm', 'k', '$2'],
  ],
};
const sorted = copyText([small.state_groups_state[1], small.state_groups_state[0]]);

/** The three tables of a dump that comes in these chunks, as COPY text. */
async function tablesOf(
  chunks: readonly Buffer[],
  tmpdir: string,
): Promise<Partial<Record<Table, string>>> {
  const files: TemporaryFile[] = [];
  const temporaryFile = async () => {
    const file = await TemporaryFile.create(tmpdir);
    files.push(file);
    return file;
  };
  const input = {
    name: 'x',
    rereadable: false,
    read: () => Readable.from(chunks),
    place: () => 'x',
  };
  const texts: Partial<Record<Table, string>> = {};
  try {
    const tables = await dumpTables(input, temporaryFile);
    for (const table of STATE_TABLES) {
      const rows = tables[table];
      if (rows === undefined) continue;
      const parts: Buffer[] = [];
      for await (const lines of rows.read()) parts.push(Buffer.from(lines));
      texts[table] = Buffer.concat(parts).toString();
    }
  } finally {
    await Promise.all(files.map((file) => file.close()));
  }
  return texts;
}

describe('a dump', () => {
  it('gives the SQL that the COPY files give, as a file, packed, or from a pipe', async () => {
    const sqlOf = async (args: readonly string[], stdin?: Readable) => {
      const { code, stdout, stderr } = await runCli(
        [...args, '-r', LARGE_ROOM, '-o', '-', '-t'],
        stdin && { stdin },
      );
      assert.equal(code, 0, stderr);
      return stdout;
    };
    const path = fixture('synapse', 'pg_dump.sql.gz');
    const expected = await sqlOf(['-i', fixture('synapse')]);
    assert.equal(await sqlOf(['-i', path]), expected);
    assert.equal(await sqlOf(['-i', '-'], createReadStream(path)), expected);
  });

  it('may hold the tables in any order, cut anywhere, among others that look like them', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const folder = await temporaryFolder(t);
    const path = join(folder, 'dump.sql');
    const given = fc.record({
      order: fc.shuffledSubarray([...STATE_TABLES], { minLength: 3 }),
      how: fc.constantFrom('file', 'gzip', 'pipe', 'gzip in a pipe'),
      chunk: fc.integer({ min: 1, max: 3000 }),
    });
    await fc.assert(
      fc.asyncProperty(given, async ({ order, how, chunk }) => {
        const bytes = how.startsWith('gzip') ? gzipSync(dump(small, order)) : dump(small, order);
        const isPiped = how.endsWith('pipe');
        if (!isPiped) await writeFile(path, bytes);
        const read = await readRoom({
          inputs: [isPiped ? '-' : path],
          ...(isPiped && { stdin: Readable.from(pieces(bytes, chunk)) }),
          tmpdir,
        });
        assert.deepEqual(read, { ids: [1, 3], prev: [-1, 0], rows: sorted, warnings: [] });
      }),
      { numRuns: 150 },
    );
    assert.deepEqual(readdirSync(tmpdir), []);
  });

  it('may be cut at any two places', async () => {
    const bytes = Buffer.from(
      "SET client_encoding = 'UTF8';\n" +
        'COPY public.state_group_edges (state_group, prev_state_group) FROM stdin;\n3\t1\n\\.\n' +
        'COPY o (t) FROM stdin;\n\\\\.\n\\.\n' +
        'COPY public.state_groups (id, room_id, event_id) FROM stdin;\n\\.\n',
    );
    for (let i = 0; i <= bytes.length; i++) {
      for (let j = i; j <= bytes.length; j++) {
        const chunks = [bytes.subarray(0, i), bytes.subarray(i, j), bytes.subarray(j)];
        const reader = new DumpReader('x', Readable.from(chunks));
        const found: string[] = [];
        for (let block; (block = await reader.nextBlock()) !== undefined;) {
          found.push(`${block.table} at line ${block.line}, byte ${block.position}`);
          for await (const lines of reader.rows(block)) found.push(lines.toString());
        }
        assert.deepEqual(
          found,
          [
            `state_group_edges at line 3, byte ${bytes.indexOf('3\t1')}`,
            '3\t1\n',
            `state_groups at line 9, byte ${bytes.length - 3}`,
          ],
          `cut at ${i} and ${j}`,
        );
      }
    }
  });

  it('that ends too early is refused, wherever that is, or gives all that it gave', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const bytes = dump(small);
    const whole = await tablesOf([bytes], tmpdir);
    let complete = 0;
    for (let length = 0; length < bytes.length; length++) {
      const chunks = pieces(bytes.subarray(0, length), 700);
      const tables = await tablesOf(chunks, tmpdir).catch((error: unknown) => {
        assert.ok(error instanceof InputError);
        assert.match(error.message, /^x is cut off: it ends at line \d+, in the rows of a table/);
      });
      if (tables === undefined) continue;
      // A table that is not there at all is told by who asks for it.
      for (const table of STATE_TABLES)
        assert.ok([undefined, whole[table]].includes(tables[table]));
      if (Object.keys(tables).length === 3) complete++;
    }
    assert.ok(complete > 0 && complete < bytes.length);
  });

  it('may have the columns in another order, another schema, and quotes', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const path = join(await temporaryFolder(t), 'dump.sql');
    const backwards = (table: Table) => copyText(small[table].map((row) => row.toReversed()));
    await writeFile(
      path,
      'COPY "my ""own"" (schema).x"."state_group_edges" ("prev_state_group", "state_group") FROM stdin;\n' +
        `${backwards('state_group_edges')}\\.\n` +
        'COPY other.state_groups (event_id, room_id, id) FROM stdin;\n' +
        `${backwards('state_groups')}\\.\n` +
        'COPY state_groups_state (event_id, state_key, "type", room_id, state_group) FROM stdin;\n' +
        `${backwards('state_groups_state')}\\.\n`,
    );
    for (const given of [
      { inputs: [path], tmpdir },
      { inputs: ['-'], stdin: createReadStream(path, { highWaterMark: 9 }), tmpdir },
    ]) {
      assert.deepEqual(await readRoom(given), {
        ids: [1, 3],
        prev: [-1, 0],
        rows: sorted,
        warnings: [],
      });
    }
  });

  it('may lack state_groups, which is said', async (t) => {
    const tmpdir = await temporaryFolder(t);
    const path = join(await temporaryFolder(t), 'dump.sql');
    const bytes = dump(small, ['state_group_edges', 'state_groups_state']);
    await writeFile(path, bytes);
    const read = await readRoom({ inputs: [path], tmpdir });
    assert.deepEqual([read.ids, read.prev, read.rows], [[1, 3], [-1, 0], sorted]);
    assert.match(read.warnings.join(), /^Without the table state_groups/);
    const stdin = Readable.from([bytes]);
    assert.deepEqual(await readRoom({ inputs: ['-'], stdin, tmpdir }), read);
  });

  describe('that can not be read says why', () => {
    const line = (bytes: Buffer, text: string): number =>
      bytes.subarray(0, bytes.indexOf(text)).toString().split('\n').length;
    const good = dump(small);
    const edit = (from: string | RegExp, to: string): Buffer =>
      Buffer.from(good.toString().replace(from, to));
    const insert = "INSERT INTO public.state_groups_state VALUES (1, '!a:x', 'm', 'k', '$');\n";
    const cases: readonly [what: string, bytes: Buffer, message: RegExp][] = [
      [
        'INSERT statements',
        Buffer.from(`--\n-- PostgreSQL database dump\n--\n\nINSERT INTO x VALUES (1);\n${insert}`),
        /^Line 6 of .* INSERT statement: .* --inserts or --column-inserts\. Dump them without/,
      ],
      ['another encoding', edit("'UTF8'", "'LATIN1'"), /^Line 5 of .* LATIN1\. .*--encoding=UTF8/],
      ['other columns', edit(/^(COPY .*), event_id\)/m, '$1)'), / \(id, room_id\) than/],
      [
        'a table twice',
        Buffer.concat([good, Buffer.from(good.toString().replaceAll('public.', 'old.'))]),
        /(state_group\w+) twice: of public\.\1 from line \d+, and of old\.\1 from/,
      ],
      [
        'no tables',
        edit(/COPY public\.state_group/g, 'COPY public.state_grope'),
        /SQL that holds no/,
      ],
      [
        'no edges',
        dump(small, ['state_groups', 'state_groups_state']),
        /^None of the inputs .* holds state_group_edges\. .* pg_dump -t 'state_group\*'/,
      ],
      [
        'Windows line ends',
        Buffer.from(good.toString().replaceAll('\n', '\r\n')),
        /carriage return/,
      ],
      [
        'a row that is cut short',
        edit('3\t!a:x\tm', '3\t!a:x'),
        new RegExp(
          `^Line ${line(good, '3\t!a:x\tm')} of .* has 4 columns, where state_groups_state`,
        ),
      ],
      [
        'a group that is no number',
        edit('2\t!b:x\t$', '2x\t!b:x\t$'),
        new RegExp(`^Line ${line(good, '2\t!b:x\t$')} of .*'2x'`),
      ],
      [
        'an end in the middle of rows',
        edit('3\t!a:x\tm', '\\.\n3\t!a:x\tm'),
        new RegExp(
          `^Line ${line(good, '3\t!a:x\tm') + 1} of .* stands behind the end of a table's rows`,
        ),
      ],
      [
        'a row without end',
        edit('3\t!a:x\tm', `3\t${'x'.repeat(5e6)}`),
        /is longer than \d+ bytes/,
      ],
    ];
    for (const [what, bytes, message] of cases) {
      it(what, async (t) => {
        const tmpdir = await temporaryFolder(t);
        const path = join(await temporaryFolder(t), 'dump.sql');
        await writeFile(path, bytes);
        const stdin = Readable.from(pieces(bytes, 1000));
        for (const given of [{ inputs: [path] }, { inputs: ['-'], stdin }]) {
          await assert.rejects(readRoom({ ...given, tmpdir }), (error: unknown) => {
            assert.ok(error instanceof CompressStateError);
            assert.match(error.message, message);
            return true;
          });
        }
        assert.deepEqual(readdirSync(tmpdir), []);
      });
    }
  });

  it('leaves nothing open when it is closed before its rows were read', async (t) => {
    if (process.platform !== 'linux') return t.skip('open files are looked at in /proc');
    const tmpdir = await temporaryFolder(t);
    const path = join(await temporaryFolder(t), 'dump.sql.gz');
    await writeFile(path, gzipSync(dump(small)));
    const before = readdirSync('/proc/self/fd').length;
    const given = { stdin: Readable.from([]), room: '!a:x', range: {}, memory: 2 ** 20, tmpdir };
    const source = await openFilesSource({ inputs: [path], ...given });
    await source.close();
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(readdirSync('/proc/self/fd').length, before);
  });
});

const programs = ['pg_dump', 'pg_restore'];
const missing = programs.filter((name) => spawnSync(name, ['--version']).status !== 0);
const run = promisify(execFile);

describe('pg_dump', { skip: missing.length > 0 && `${missing.join(' and ')} not found` }, () => {
  /** A database that has more in it than the three tables. */
  async function fullDatabase(t: TestContext): Promise<TestDatabase> {
    const db = await testDatabase(t);
    await loadTables(db, 'synapse');
    await db.query(`
      CREATE SCHEMA "Other";
      CREATE TABLE "Other"."copy of (state_groups)" (id bigint, "a, ""b""" text);
      INSERT INTO "Other"."copy of (state_groups)" VALUES
        (1, E'COPY public.state_groups (id, room_id, event_id) FROM stdin;\\n\\\\.\\n'),
        (2, E'\\n\\\\.\\nCOPY public.state_groups (id, room_id, event_id) FROM stdin;\\n1');
      CREATE TABLE account_data AS SELECT i, repeat(E'\\n\\\\.\\n', 20) FROM generate_series(1, 900) i;
      CREATE TABLE zebras AS SELECT * FROM account_data;
      CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$
SELECT 'a function
COPY public.users (name) TO stdout;
INSERT INTO elsewhere VALUES (1);
'
$$;
      COMMENT ON TABLE zebras IS E'COPY that\\nCOPY ';
      SELECT lo_from_bytea(0, 'large object');
    `);
    return db;
  }

  async function dumped(db: TestDatabase, path: string, ...options: string[]): Promise<void> {
    await run('pg_dump', [...options, '-f', path, '-d', db.url]);
  }

  async function sqlOf(args: readonly string[], stdin?: Readable): Promise<string> {
    const { code, stdout, stderr } = await runCli(
      [...args, '-r', LARGE_ROOM, '-o', '-', '-t', '--strategy', 'levels'],
      stdin && { stdin },
    );
    assert.equal(code, 0, stderr);
    return stdout;
  }

  it('of a whole database, of the tables, with any option, or through pg_restore', async (t) => {
    const db = await fullDatabase(t);
    const folder = await temporaryFolder(t);
    const expected = await sqlOf(['-i', fixture('synapse')]);
    for (const [i, options] of [
      [],
      ['-t', 'state_group*'],
      ['--data-only', '--quote-all-identifiers'],
      ['--no-owner', '--no-comments', '--schema=public', '--encoding=SQL_ASCII'],
    ].entries()) {
      const path = join(folder, `${i}.sql`);
      await dumped(db, path, ...options);
      assert.equal(await sqlOf(['-i', path]), expected, options.join(' '));
      assert.equal(await sqlOf(['-i', '-'], createReadStream(path)), expected, options.join(' '));
    }
    const marked = join(folder, 'marked.sql');
    await writeFile(marked, '\ufeff');
    await appendFile(marked, await readFile(join(folder, '0.sql')));
    assert.equal(await sqlOf(['-i', marked]), expected, 'with a byte order mark');
    for (const format of ['custom', 'directory', 'tar']) {
      const path = join(folder, format);
      await dumped(db, path, `--format=${format}`);
      const restore = spawn('pg_restore', ['-f', '-', path], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = once(restore, 'close');
      assert.equal(await sqlOf(['-i', '-'], restore.stdout), expected, format);
      assert.deepEqual(await ended, [0, null]);
      const { code, stderr } = await runCli(['-i', path, '-r', LARGE_ROOM]);
      assert.equal(code, 3);
      assert.match(stderr, /pg_restore -f - .* \| synapse_compress_state -i -/);
    }
  });

  it('with INSERT statements is refused', async (t) => {
    const db = await fullDatabase(t);
    const path = join(await temporaryFolder(t), 'inserts.sql');
    for (const option of ['--inserts', '--column-inserts', '--rows-per-insert=100']) {
      await dumped(db, path, option);
      const { code, stderr } = await runCli(['-i', path, '-r', LARGE_ROOM]);
      assert.equal(code, 3);
      assert.match(stderr, /Line \d+ of .* INSERT statement/);
    }
  });

  it('of tables whose columns stand in another order', async (t) => {
    const db = await testDatabase(t, 'none');
    await db.query(`
      CREATE TABLE state_groups (event_id text, id bigint, room_id text);
      CREATE TABLE state_group_edges (prev_state_group bigint, state_group bigint);
      CREATE TABLE state_groups_state
        (type text, event_id text, state_group bigint, state_key text, room_id text);
    `);
    for (const table of STATE_TABLES) {
      await db.copyIn(
        `${table} (${COLUMNS[table].join()})`,
        readFixture('synapse', `${table}.copy.gz`),
      );
    }
    const path = join(await temporaryFolder(t), 'dump.sql');
    await dumped(db, path);
    assert.equal(await sqlOf(['-i', path]), await sqlOf(['-i', fixture('synapse')]));
  });
});

/** Chunks of the size given. */
function pieces(bytes: Buffer, size: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
  return chunks;
}
