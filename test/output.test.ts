import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, readdirSync, readlinkSync } from 'node:fs';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { after, before, beforeEach, test } from 'node:test';
import { OutputError } from '../src/errors.js';
import { outputError } from '../src/output-error.js';
import { openFileOutput } from '../src/sinks/file-output.js';
import { openSpooledOutput } from '../src/sinks/spooled-output.js';
import { openStreamedOutput } from '../src/sinks/streamed-output.js';
import type { OpenOutput } from '../src/sinks/output.js';

let root: string;
let folder: string;
let cases = 0;

before(async () => {
  root = await mkdtemp(join(tmpdir(), 'output-test-'));
});

beforeEach(async () => {
  folder = join(root, String(cases++));
  await mkdir(folder);
});

after(() => rm(root, { recursive: true }));

async function fill(output: OpenOutput, ...chunks: string[]): Promise<void> {
  await pipeline(Readable.from(chunks, { objectMode: false }), output.stream);
}

class Reader extends Writable {
  taken = '';

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.taken += chunk.toString();
    done();
  }
}

class BrokenPipe extends Writable {
  override _write(_chunk: Buffer, _encoding: string, done: (error: Error) => void): void {
    done(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
  }
}

test('a file appears when it is kept, and nothing else stays beside it', async () => {
  const path = join(folder, 'out.sql');
  const output = await openFileOutput(path, { tmpdir: folder });
  await fill(output, 'BEGIN;', 'COMMIT;');
  assert.equal(existsSync(path), false);
  await output.keep();
  assert.equal(await readFile(path, 'utf8'), 'BEGIN;COMMIT;');
  assert.equal(output.bytes, 13);
  assert.deepEqual(await readdir(folder), ['out.sql']);
  await output.discard();
  assert.deepEqual(await readdir(folder), ['out.sql']);
});

test('what waits for keep() is hidden', async () => {
  const output = await openFileOutput(join(folder, 'out.sql'), { tmpdir: root });
  const [partial, ...others] = await readdir(folder);
  assert.match(partial, /^\./);
  assert.deepEqual(others, []);
  await output.discard();
});

test('a discarded file leaves nothing and spares the one that was there', async () => {
  const path = join(folder, 'out.sql');
  await writeFile(path, 'earlier');
  const output = await openFileOutput(path, { tmpdir: folder });
  await fill(output, 'new');
  await output.discard();
  await output.discard();
  assert.equal(await readFile(path, 'utf8'), 'earlier');
  assert.deepEqual(await readdir(folder), ['out.sql']);
});

test('the partial file is gone before discard() is awaited, for a process about to exit', async () => {
  const output = await openFileOutput(join(folder, 'out.sql'), { tmpdir: folder });
  output.stream.write('half');
  const discarded = output.discard();
  assert.deepEqual(await readdir(folder), []);
  await discarded;
});

test(
  'discarding says nothing of a file that does not close',
  { skip: !existsSync('/proc/self/fd') && 'open files can not be listed here' },
  async () => {
    const output = await openFileOutput(join(folder, 'out.sql'), { tmpdir: folder });
    const spool = await openSpooledOutput(new Reader(), 'standard output', { tmpdir: folder });
    // Closing them once more is an error.
    for (const descriptor of readdirSync('/proc/self/fd')) {
      const path = join('/proc/self/fd', descriptor);
      if (existsSync(path) && readlinkSync(path).startsWith(folder)) closeSync(Number(descriptor));
    }
    await output.discard();
    await spool.discard();
  },
);

test('an existing file passes on its permissions', async () => {
  const path = join(folder, 'out.sql');
  await writeFile(path, 'earlier');
  await chmod(path, 0o640);
  const output = await openFileOutput(path, { tmpdir: folder });
  await fill(output, 'new');
  await output.keep();
  assert.equal((await stat(path)).mode & 0o777, 0o640);
  assert.equal(await readFile(path, 'utf8'), 'new');
});

test('a link stays a link, also when its end is not there yet', async () => {
  await mkdir(join(folder, 'elsewhere'));
  const link = join(folder, 'out.sql');
  await symlink('elsewhere/real.sql', link);
  for (const content of ['first', 'second']) {
    const output = await openFileOutput(link, { tmpdir: folder });
    await fill(output, content);
    await output.keep();
    assert.equal(await readlink(link), 'elsewhere/real.sql');
    assert.equal(await readFile(join(folder, 'elsewhere/real.sql'), 'utf8'), content);
  }
});

test('a folder, a missing folder and a file as folder are refused by name', async () => {
  await writeFile(join(folder, 'file'), '');
  const refused = (path: string, why: RegExp) =>
    assert.rejects(openFileOutput(path, { tmpdir: folder }), (error: Error) => {
      assert.ok(error instanceof OutputError);
      assert.ok(error.message.includes(path), error.message);
      assert.match(error.message, why);
      return true;
    });
  await refused(folder, /it is a folder/);
  await refused(join(folder, 'missing/out.sql'), /its folder does not exist/);
  await refused(join(folder, 'file/out.sql'), /should be its folder/);
});

test(
  'a file that may not be written is refused, and stays',
  { skip: process.getuid?.() === 0 && 'root may write anything' },
  async () => {
    const path = join(folder, 'out.sql');
    await writeFile(path, 'earlier', { mode: 0o444 });
    await assert.rejects(openFileOutput(path, { tmpdir: folder }), /permission is denied/);
    assert.equal(await readFile(path, 'utf8'), 'earlier');
  },
);

test(
  'a file in a folder that may not be written to is filled in its place',
  { skip: process.getuid?.() === 0 && 'root may write anything' },
  async (t) => {
    const path = join(folder, 'out.sql');
    await writeFile(path, 'earlier, and longer');
    await chmod(folder, 0o500);
    t.after(() => chmod(folder, 0o700));
    const output = await openFileOutput(path, { tmpdir: root });
    await fill(output, 'new');
    assert.equal(await readFile(path, 'utf8'), 'earlier, and longer');
    await output.keep();
    assert.equal(await readFile(path, 'utf8'), 'new');
    await assert.rejects(
      openFileOutput(join(folder, 'other.sql'), { tmpdir: root }),
      /permission is denied for its folder/,
    );
  },
);

test('a file that is mounted by itself is filled in its place', async (t) => {
  const path = join(folder, 'out.sql');
  const mounted = join(root, 'mounted.sql');
  await writeFile(mounted, 'earlier, and longer');
  await writeFile(path, '');
  if (spawnSync('mount', ['--bind', mounted, path]).status !== 0) {
    t.skip('nothing can be mounted here');
    return;
  }
  try {
    const output = await openFileOutput(path, { tmpdir: folder });
    await fill(output, 'new');
    await output.keep();
    assert.equal(await readFile(mounted, 'utf8'), 'new');
    assert.deepEqual(await readdir(folder), ['out.sql']);
  } finally {
    spawnSync('umount', [path]);
  }
});

test('a file that is mounted by itself stays as it is where the new one has no room', async (t) => {
  const disk = join(folder, 'disk');
  const path = join(folder, 'out.sql');
  await mkdir(disk);
  await writeFile(path, '');
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk]).status !== 0) {
    t.skip('nothing can be mounted here');
    return;
  }
  t.after(() => spawnSync('umount', [path, disk]));
  const mounted = join(disk, 'mounted.sql');
  await writeFile(mounted, 'earlier'.padEnd(30_000));
  assert.equal(spawnSync('mount', ['--bind', mounted, path]).status, 0);
  const keep = async (length: number) => {
    const output = await openFileOutput(path, { tmpdir: folder });
    await fill(output, 'new'.padEnd(length));
    try {
      await output.keep();
    } finally {
      await output.discard();
    }
  };
  await assert.rejects(keep(70_000), /out\.sql: there is no space left on the disk\./);
  assert.equal(await readFile(path, 'utf8'), 'earlier'.padEnd(30_000));
  assert.deepEqual(await readdir(folder), ['disk', 'out.sql']);
  // What the earlier one takes counts as room.
  await keep(60_000);
  assert.equal(await readFile(path, 'utf8'), 'new'.padEnd(60_000));
});

test('/dev/null is written to, not replaced', async () => {
  const output = await openFileOutput('/dev/null', { tmpdir: folder });
  await fill(output, 'changes');
  await output.keep();
  assert.equal(output.bytes, 7);
  assert.ok((await stat('/dev/null')).isCharacterDevice());
});

test('a full disk is told with the name of the file', async () => {
  const output = await openFileOutput('/dev/full', { tmpdir: folder });
  await fill(output, 'changes');
  await assert.rejects(output.keep(), (error: Error) => {
    assert.ok(error instanceof OutputError);
    assert.match(error.message, /^Can't write \/dev\/full: there is no space left on the disk\./);
    return true;
  });
  await output.discard();
});

test('a disk quota that is used up is told in words', () => {
  const errno = -constants.errno.EDQUOT;
  const cause = Object.assign(new Error('write'), { errno, code: `Unknown system error ${errno}` });
  const { message } = outputError('out.sql', cause, 'Free some.');
  assert.equal(message, "Can't write out.sql: the disk quota is used up. Free some.");
});

test('a FIFO gets its bytes once they are kept, also by a reader that comes late', async () => {
  const path = join(folder, 'fifo');
  execFileSync('mkfifo', [path]);
  const output = await openFileOutput(path, { tmpdir: folder });
  const changes = 'x'.repeat(300_000);
  await fill(output, changes);
  const kept = output.keep();
  const read = readFile(path, 'utf8');
  await kept;
  assert.equal(await read, changes);
});

test('waiting for the reader of a FIFO ends when it is aborted', async () => {
  const path = join(folder, 'fifo');
  execFileSync('mkfifo', [path]);
  const signal = AbortSignal.timeout(50);
  const output = await openFileOutput(path, { tmpdir: folder, signal });
  await fill(output, 'changes');
  await assert.rejects(output.keep(), { name: 'AbortError' });
  await output.discard();
});

test('a spool shows nothing, has no name, and goes out whole when kept', async () => {
  const reader = new PassThrough();
  const output = await openSpooledOutput(reader, 'standard output', { tmpdir: folder });
  const changes = 'changes;\n'.repeat(100_000);
  await fill(output, changes);
  assert.deepEqual(await readdir(folder), []);
  assert.equal(reader.readableLength, 0);
  assert.equal(output.sentBytes, 0);
  const read = text(reader);
  await output.keep();
  assert.equal(reader.writableEnded, false);
  reader.end();
  assert.equal(await read, changes);
  assert.equal(output.bytes, changes.length);
});

test('a discarded spool sends nothing', async () => {
  const reader = new Reader();
  const output = await openSpooledOutput(reader, 'standard output', { tmpdir: folder });
  await fill(output, 'changes');
  await output.discard();
  await output.discard();
  assert.equal(reader.taken, '');
});

test('a spool without a folder is refused with the option that helps', async () => {
  const missing = join(folder, 'missing');
  await assert.rejects(
    openSpooledOutput(new Reader(), 'standard output', { tmpdir: missing }),
    (error: Error) => error instanceof OutputError && error.message.includes(missing),
  );
});

test('a copy that is aborted midway is ended by what no transaction survives', async () => {
  const stop = new AbortController();
  const slow = new PassThrough({ highWaterMark: 1 });
  const output = await openSpooledOutput(slow, 'standard output', {
    tmpdir: folder,
    signal: stop.signal,
  });
  await fill(output, 'DELETE FROM a WHERE id IN (1);\n'.repeat(50_000));
  const kept = output.keep();
  await once(slow, 'readable');
  stop.abort();
  await assert.rejects(kept, { name: 'AbortError' });
  assert.ok(output.sentBytes > 0 && output.sentBytes < output.bytes);
  const read = text(slow);
  await output.discard();
  slow.end();
  assert.match(await read, /\nthe rest is missing [^\n]*\n;\n$/);
});

test('unbuffered bytes go out at once, and a discard after them is seen', async () => {
  const reader = new Reader();
  const output = openStreamedOutput(reader, 'standard output');
  await new Promise((resolve) => output.stream.write('BEGIN;', resolve));
  assert.equal(reader.taken, 'BEGIN;');
  assert.equal(output.sentBytes, 6);
  await output.discard();
  assert.match(reader.taken, /^BEGIN;\nthe rest is missing/);
});

test('an unbuffered output that is kept ends as it was written', async () => {
  const reader = new Reader();
  const output = openStreamedOutput(reader, 'standard output');
  await fill(output, 'BEGIN;', 'COMMIT;');
  await output.keep();
  await output.discard();
  assert.equal(reader.taken, 'BEGIN;COMMIT;');
  assert.equal(reader.writableEnded, false);
});

test('a reader that has gone is an OutputError with its cause, from spool and stream alike', async () => {
  const isClosedPipe = (error: Error) => {
    assert.ok(error instanceof OutputError);
    assert.equal((error.cause as NodeJS.ErrnoException).code, 'EPIPE');
    return true;
  };
  const streamed = openStreamedOutput(new BrokenPipe(), 'standard output');
  await assert.rejects(fill(streamed, 'changes'), isClosedPipe);
  await streamed.discard();
  const spooled = await openSpooledOutput(new BrokenPipe(), 'standard output', { tmpdir: folder });
  await fill(spooled, 'changes');
  await assert.rejects(spooled.keep(), isClosedPipe);
  await spooled.discard();
});
