import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import pg from 'pg';
import { testPostgres } from './support/postgres.js';

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
  const db = await (await testPostgres()).createDatabase({ schema: 'none' });
  t.after(() => db.drop());
  const url = new URL(db.url);
  url.password = 'wrong';
  const client = new pg.Client(url.href);
  await assert.rejects(client.connect(), { code: '28P01' });
});
