import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadTables, readFixture, synapseStates } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';
import { expectSameStates, readAllStates } from './support/states.js';

test("every state is what Synapse's own code reads, keys of all kinds included", async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const expected = await synapseStates();
  assert.equal(expected.length, 6014);
  expectSameStates(
    await readAllStates(db),
    new Map(expected.map(({ group, sha256 }) => [group, sha256])),
  );
});

test('what the old tool re-encoded reads as it did before', async (t) => {
  const [before, after] = [await testDatabase(t), await testDatabase(t)];
  await loadTables(before, 'golden/two-levels/before');
  await loadTables(after, 'golden/two-levels/before');
  await after.query('TRUNCATE state_group_edges, state_groups_state');
  for (const table of ['state_group_edges', 'state_groups_state']) {
    await after.copyIn(table, readFixture(`golden/two-levels/after/${table}.copy.gz`));
  }
  expectSameStates(await readAllStates(after), await readAllStates(before));
});

test('one changed row is noticed in its group and in every group that reads through it', async (t) => {
  const db = await testDatabase(t);
  await db.query(`
    INSERT INTO state_groups SELECT id, '!room', '$event' || id FROM generate_series(1, 5) AS id;
    INSERT INTO state_group_edges VALUES (2, 1), (3, 2), (4, 1);
    INSERT INTO state_groups_state VALUES
      (1, '!room', 'a', '', '$1'), (2, '!room', 'b', '', '$2'), (3, '!room', 'a', '', '$3'),
      (5, '!room', 'a', '', '$1')`);
  const before = await readAllStates(db, '!room');
  assert.deepEqual([...before.keys()], [1, 2, 3, 4, 5]);
  assert.equal(before.get(5), before.get(1), 'equal states have equal digests');
  assert.equal((await readAllStates(db, '!other')).size, 0);

  await db.query(`UPDATE state_groups_state SET event_id = '$9' WHERE state_group = 2`);
  const after = await readAllStates(db, '!room');
  assert.deepEqual(
    [...after].filter(([group, digest]) => before.get(group) !== digest).map(([group]) => group),
    [2, 3],
  );
  assert.throws(() => expectSameStates(after, before), /2 of 5 state groups have another state/);
});

test('the highest group id wins, even where that is the predecessor', async (t) => {
  const db = await testDatabase(t);
  await db.query(`
    INSERT INTO state_groups VALUES (1, '!room', ''), (2, '!room', '');
    INSERT INTO state_group_edges VALUES (1, 2);
    INSERT INTO state_groups_state VALUES
      (1, '!room', 'a', '', '$1'), (2, '!room', 'a', '', '$2')`);
  const states = await readAllStates(db);
  assert.equal(states.get(1), states.get(2));
});

test('a missing predecessor and a cycle are read without failing or hanging', async (t) => {
  const db = await testDatabase(t);
  await db.query(`
    INSERT INTO state_groups VALUES (1, '!room', ''), (2, '!room', ''), (3, '!room', '');
    INSERT INTO state_group_edges VALUES (1, 2), (2, 1), (3, 99);
    INSERT INTO state_groups_state VALUES (1, '!room', 'a', '', '$1'), (99, '!room', 'a', '', '$1')`);
  const states = await readAllStates(db);
  assert.deepEqual(
    [...states.keys()].toSorted((a, b) => a - b),
    [1, 2, 3, 99],
  );
  assert.equal(new Set(states.values()).size, 1);
});
