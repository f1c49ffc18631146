import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { goldenDatabase, GOLDEN_ROOMS } from './support/auto-run.js';
import { loadTables, temporaryFolder } from './support/fixtures.js';
import { startServer, TestPostgres } from './support/postgres.js';
import { runCli } from './support/run-cli.js';

const [ROOM] = GOLDEN_ROOMS;

/** What writes; no room of these is compressed yet. */
const WRITING = [
  ['-r', ROOM, '-c'],
  ['auto', '-l', '100,50,25'],
  ['auto', '--vacuum'],
] as const;

async function expectRefusal(args: readonly string[], message: RegExp): Promise<void> {
  const { code, stderr } = await runCli(args);
  assert.match(stderr, message);
  assert.doesNotMatch(stderr, /^ +at /m);
  assert.equal(code, 5);
}

test('a standby is read, and not written to', async (t) => {
  const server = await startServer();
  t.after(() => server.stop());
  const db = await new TestPostgres(server.address).createDatabase({ schema: 'synapse' });
  await loadTables(db, 'golden/auto/before');
  await db.release();
  await writeFile(join(server.address.socketDirectory, 'data', 'standby.signal'), '');
  await server.restart();

  const changes = join(await temporaryFolder(t), 'changes.copy');
  const read = await runCli(['-p', db.url, '-r', ROOM, '-o', changes, '--format', 'copy']);
  assert.equal(read.code, 0, read.stderr);
  for (const args of [...WRITING, ['apply', changes], ['apply', changes, '--dry-run']]) {
    await expectRefusal([...args, '-p', db.url], /is a standby, which takes no changes/);
  }
  for (const args of [['rooms'], ['auto', '--dry-run']]) {
    const { code, stderr } = await runCli([...args, '-p', db.url]);
    assert.equal(code, 0, stderr);
  }
});

test('where transactions are read-only unless they say otherwise, it is said what to switch', async (t) => {
  const db = await goldenDatabase(t);
  await db.query(`ALTER DATABASE ${db.name} SET default_transaction_read_only = on`);
  for (const args of WRITING) {
    await expectRefusal(
      [...args, '-p', db.url],
      /User postgres may only read here, because default_transaction_read_only is on/,
    );
  }
});

test('a full disk of the server ends an automatic run at once', async (t) => {
  const db = await goldenDatabase(t);
  // As Postgres does: "could not extend file: No space left on device".
  await db.query(`
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN RAISE ''could not extend file'' USING ERRCODE = ''disk_full''; END';
    CREATE TRIGGER full_disk BEFORE INSERT ON state_groups_state EXECUTE FUNCTION full_disk()`);
  const { code, stderr } = await runCli(['auto', '-p', db.url]);
  assert.equal(code, 5, stderr);
  assert.match(
    stderr,
    /disk is full while room '!room2:example\.org'.* free some, then run it again/,
  );
  assert.doesNotMatch(stderr, /!room1/);
});
