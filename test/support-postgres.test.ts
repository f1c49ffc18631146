import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import pg from 'pg';
import { applySql } from './support/apply-sql.js';
import { temporaryFolder } from './support/fixtures.js';
import { testDatabase, testPostgres } from './support/postgres.js';

test('a database has the schema that was asked for, UTF8 and collation C', async (t) => {
  const postgres = await testPostgres();
  const tables = async (schema: 'synapse' | 'synapse-before-1.124' | 'none') => {
    const db = await postgres.createDatabase({ schema });
    t.after(() => db.drop());
    const { rows } = await db.query<{ name: string }>(
      `SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`,
    );
    const { rows: settings } = await db.query(
      `SELECT pg_encoding_to_char(encoding) AS encoding, datcollate, datctype
         FROM pg_database WHERE datname = current_database()`,
    );
    assert.deepEqual(settings, [{ encoding: 'UTF8', datcollate: 'C', datctype: 'C' }]);
    return rows.map(({ name }) => name);
  };
  const before = [
    'event_to_state_groups',
    'state_group_edges',
    'state_groups',
    'state_groups_state',
  ];
  const [, synapse, old] = await Promise.all([
    tables('none').then((names) => assert.deepEqual(names, [])),
    tables('synapse'),
    tables('synapse-before-1.124'),
  ]);
  assert.deepEqual(old, before);
  assert.deepEqual(
    synapse,
    [...before, 'state_groups_pending_deletion', 'state_groups_persisting'].toSorted(),
  );
});

test('databases are separate, take COPY text, and are reached by their URL', async (t) => {
  const postgres = await testPostgres();
  const [one, other] = await Promise.all([
    postgres.createDatabase({ schema: 'synapse' }),
    postgres.createDatabase({ schema: 'synapse' }),
  ]);
  t.after(() => Promise.all([one.drop(), other.drop()]));
  await one.copyIn('state_group_edges', Readable.from(['2\t1\n3', '\t2\n']));

  const client = new pg.Client(one.url);
  await client.connect();
  const edges = 'SELECT state_group, prev_state_group FROM state_group_edges ORDER BY 1';
  const { rows } = await client.query({ text: edges, rowMode: 'array' });
  await client.end();
  assert.deepEqual(rows, [
    ['2', '1'],
    ['3', '2'],
  ]);
  assert.equal((await other.query(edges)).rowCount, 0);
});

test('the URL with a wrong password is refused', async (t) => {
  const db = await testDatabase(t, 'none');
  const url = new URL(db.url);
  url.password = 'wrong';
  const client = new pg.Client(url.href);
  await assert.rejects(client.connect(), { code: '28P01' });
});

for (const psql of ['psql', 'no psql']) {
  test(`a file of SQL is applied at once or in one transaction, with ${psql} on the path`, async (t) => {
    const db = await testDatabase(t, 'none');
    const file = join(await temporaryFolder(t), 'changes.sql');
    const { PATH } = process.env;
    if (psql === 'no psql') {
      t.after(() => (process.env['PATH'] = PATH));
      process.env['PATH'] = '';
    }
    await writeFile(file, 'CREATE TABLE one (); BEGIN; CREATE TABLE two (); COMMIT; SELECT 1;');
    await applySql(db, file, { oneTransaction: false });
    await writeFile(file, 'CREATE TABLE three (); SELECT 1 / 0;');
    await assert.rejects(applySql(db, file, { oneTransaction: true }), /division by zero/);
    const { rows } = await db.query('SELECT tablename FROM pg_tables WHERE schemaname = $1', [
      'public',
    ]);
    assert.deepEqual(rows.map((row) => row['tablename'] as string).toSorted(), ['one', 'two']);
  });
}
