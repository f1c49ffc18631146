import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { fixture, loadTables, temporaryFolder } from './support/fixtures.js';
import { testDatabase } from './support/postgres.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const ROOM = '!ORrIj_ngefPxK_xykJweOcBeKDOqcbRfKolM2O2VoCY';

/** Runs a module that imports the package by its name, and gives what it prints. */
async function runModule(code: string): Promise<string> {
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', code], {
    cwd: ROOT,
  });
  return stdout;
}

test("the README's program compresses a room", async (t) => {
  const db = await testDatabase(t);
  await loadTables(db, 'synapse');
  const file = join(await temporaryFolder(t), 'out.sql');
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  const [, program] = /```js\n(.*?)```/s.exec(readme)!;
  const ours = [
    ['host=/var/run/postgresql dbname=synapse', db.url],
    ['!room:example.com', ROOM],
    ['out.sql', file],
  ] as const;
  for (const [example] of ours) assert.ok(program.includes(example), example);
  const printed = await runModule(
    ours.reduce((text, [example, own]) => text.replace(example, own), program),
  );
  const [rowsBefore, rowsAfter] = printed.trim().split(' ').map(Number);
  assert.ok(rowsAfter > 0 && rowsAfter < rowsBefore, printed);
  assert.match(await readFile(file, 'utf8'), /^CALL pg_temp\.take_state_group/m);
});

test('the stages are streams that are piped', async (t) => {
  const tmpdir = await temporaryFolder(t);
  const printed = await runModule(`
    import { pipeline } from 'node:stream/promises';
    import { AdaptivePlanner, openFilesSource, RoomPlan, sqlSink } from 'synapse-compress-state';
    const room = ${JSON.stringify(ROOM)};
    const source = await openFilesSource({
      inputs: [${JSON.stringify(fixture('synapse'))}], stdin: process.stdin, room, range: {}, memory: 2 ** 24,
      tmpdir: ${JSON.stringify(tmpdir)},
    });
    const plan = new RoomPlan(source, new AdaptivePlanner());
    await pipeline(source.rows(), plan, sqlSink({ room, transactions: true, header: ['made by a test'] }), process.stdout);
    await source.close();`);
  assert.match(printed, /^-- made by a test$/m);
  assert.match(printed, /^CALL pg_temp\.take_state_group/m);
});
