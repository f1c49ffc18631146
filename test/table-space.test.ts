import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import pg from 'pg';
import { Rewriter } from '../src/apply/rewriter.js';
import { readSpace } from '../src/apply/table-space.js';
import { loadTables } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';

async function rewriterOf(t: TestContext, dsn: string): Promise<Rewriter> {
  const rewriter = await Rewriter.open({ dsn, env: {} });
  t.after(() => rewriter.close());
  return rewriter;
}

test('the space that rows need is what they take when they are written anew', async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  // The server's statistics are of before.
  await db.query('ANALYZE; DELETE FROM state_groups_state WHERE state_group % 10 > 0');
  const rewriter = await rewriterOf(t, db.url);
  const before = (await readSpace(rewriter))!;
  await db.query(
    'CLUSTER state_groups_state USING state_groups_state_type_idx; REINDEX TABLE state_groups_state',
  );
  const after = (await readSpace(rewriter))!;
  for (const [kind, size] of [
    ['neededTableBytes', 'tableBytes'],
    ['neededIndexBytes', 'indexBytes'],
  ] as const) {
    assert.ok(before[size] > 3 * after[size]);
    const ratio = before[kind] / after[size];
    assert.ok(ratio > 0.8 && ratio < 1.2, `${kind}: ${before[kind]}, in fact ${after[size]}`);
    assert.ok(after[kind] > 0.8 * after[size] && after[kind] <= after[size]);
  }
});

test('no space is told where another transaction holds the table', async (t) => {
  const db = await testDatabase(t);
  const rewriter = await rewriterOf(t, db.url);
  const other = new pg.Client(db.url);
  await other.connect();
  await other.query('BEGIN; LOCK TABLE state_groups_state');
  assert.equal(await readSpace(rewriter), undefined);
  await other.end();
  assert.equal((await readSpace(rewriter))!.neededTableBytes, 0);
});
