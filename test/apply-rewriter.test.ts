import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import pg from 'pg';
import { Rewriter } from '../src/apply/rewriter.js';
import { BusyError, DatabaseError } from '../src/errors.js';
import { statementError } from '../src/sources/postgres/database-errors.js';
import { openRewriter, planRoom, ROOM, storedRoom } from './support/guarded-change.js';
import { testDatabase } from './support/postgres.js';
import type { TestDatabase } from './support/postgres.js';
import { expectSameStates, readAllStates } from './support/states.js';

const OLD_EDGES = '2\t1\n3\t2\n4\t3\n6\t5\n';
const NEW_EDGES = '2\t1\n3\t1\n4\t2\n5\t3\n';

async function edges(db: TestDatabase): Promise<string> {
  return text(db.copyOut('SELECT * FROM state_group_edges ORDER BY 1, 2'));
}

for (const schema of ['synapse', 'synapse-before-1.124'] as const) {
  test(`a batch is rewritten once, and a second time nothing (${schema})`, async (t) => {
    const db = await storedRoom(t, { schema });
    const states = await readAllStates(db);
    const changes = await planRoom(db);
    const rewriter = await openRewriter(t, db);

    const first = await rewriter.rewrite({ room: ROOM, changes });
    assert.deepEqual(
      { ...first, seconds: 0, secondsGiven: 0 },
      {
        rewritten: 4,
        alreadyDone: 0,
        skipped: [],
        blocked: 0,
        rowsDeleted: 10,
        rowsInserted: changes.reduce((sum, { newRows }) => sum + newRows, 0),
        seconds: 0,
        secondsGiven: 0,
      },
    );
    assert.equal(await edges(db), NEW_EDGES);
    expectSameStates(await readAllStates(db), states);

    const second = await rewriter.rewrite({ room: ROOM, changes });
    assert.deepEqual([second.rewritten, second.alreadyDone, second.skipped], [0, 4, []]);
    assert.deepEqual([second.rowsDeleted, second.rowsInserted], [0, 0]);
    assert.equal(await edges(db), NEW_EDGES);
    expectSameStates(await readAllStates(db), states);
  });
}

test('what a caller adds is committed with the batch, and undone with it', async (t) => {
  const db = await storedRoom(t);
  await db.query('CREATE TABLE bookkeeping (room text)');
  const changes = await planRoom(db);
  const rewriter = await openRewriter(t, db);

  const failure = new Error('no');
  const failing = rewriter.rewrite({ room: ROOM, changes }, async (client) => {
    await client.query("INSERT INTO bookkeeping VALUES ('undone')");
    throw failure;
  });
  await assert.rejects(failing, failure);
  assert.equal(await edges(db), OLD_EDGES);

  const note = async (client: pg.ClientBase): Promise<void> => {
    await client.query("INSERT INTO bookkeeping VALUES ('done')");
  };
  // Only the second of two batches that is left over from the first one's failure.
  const { rewritten } = await rewriter.rewrite({ room: ROOM, changes: changes.slice(0, 1) }, note);
  assert.equal(rewritten, 1);
  await rewriter.rewrite({ room: ROOM, changes: [] }, note);
  assert.deepEqual((await db.query('SELECT * FROM bookkeeping')).rows, [
    { room: 'done' },
    { room: 'done' },
  ]);
});

test('a table that another transaction holds is waited for, and no group is left', async (t) => {
  const db = await storedRoom(t);
  const states = await readAllStates(db);
  const changes = await planRoom(db);
  const other = new pg.Client(db.url);
  await other.connect();
  await other.query('BEGIN; LOCK TABLE state_groups_state');
  const troubles: string[] = [];
  const rewriter = await Rewriter.open({
    dsn: db.url,
    env: {},
    onTrouble(sentence) {
      troubles.push(sentence);
      void other.end();
    },
  });
  t.after(() => rewriter.close());
  const { rewritten, skipped } = await rewriter.rewrite({ room: ROOM, changes });
  assert.deepEqual([rewritten, skipped], [changes.length, []]);
  assert.equal(troubles.length, 1);
  assert.match(troubles[0], /^Process \d+ of the server holds a table that is to be changed, /);
  expectSameStates(await readAllStates(db), states);
});

test('a second writer is turned away, and told who is there', async (t) => {
  const db = await storedRoom(t);
  const first = await openRewriter(t, db);
  const second = Rewriter.open({ dsn: db.url, env: {} });
  await assert.rejects(second, (error: Error) => {
    assert.ok(error instanceof BusyError);
    assert.match(
      error.message,
      /synapse_compress_state, as user postgres, from 127\.0\.0\.1, process/,
    );
    return true;
  });
  await first.close();
  await openRewriter(t, db);
});

for (const moment of ['between batches', 'within a batch'] as const) {
  test(`a connection that is lost ${moment} is made again, and the batch is done`, async (t) => {
    const db = await storedRoom(t);
    const states = await readAllStates(db);
    const changes = await planRoom(db);
    const troubles: string[] = [];
    const rewriter = await Rewriter.open({
      dsn: db.url,
      env: {},
      onTrouble: (sentence) => troubles.push(sentence),
    });
    t.after(() => rewriter.close());
    const cut = () =>
      db.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'synapse_compress_state' AND datname = current_database()",
      );
    let calls = 0;
    if (moment === 'between batches') await cut();
    const { rewritten } = await rewriter.rewrite({ room: ROOM, changes }, async () => {
      if (++calls === 1 && moment === 'within a batch') await cut();
    });
    assert.equal(rewritten, 4);
    assert.match(troubles.join(), /^The connection to the database was lost: .*Connected again/);
    assert.equal(await edges(db), NEW_EDGES);
    expectSameStates(await readAllStates(db), states);
  });
}

for (const code of [
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENETDOWN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'EPROTO',
  'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC',
]) {
  test(`a connection that ends with ${code} is made again, and a reader says what became of it`, async (t) => {
    const db = await storedRoom(t);
    const rewriter = await openRewriter(t, db);
    const changes = await planRoom(db);
    const error = Object.assign(new Error(`read ${code}`), { code });
    let calls = 0;
    const { rewritten } = await rewriter.rewrite({ room: ROOM, changes }, async (client) => {
      if (++calls === 1) (client as pg.Client).connection.stream.destroy(error);
    });
    assert.deepEqual([calls, rewritten], [2, 4]);
    assert.match(
      statementError(error, 'while rows were read').message,
      /^The connection to the database was lost while rows were read: read /,
    );
  });
}

test('a connection that is lost while its session is set up is made again', async (t) => {
  const db = await storedRoom(t);
  // Meanwhile the session waits for the writers' lock.
  await db.query('SELECT pg_advisory_lock(1396921137, 1)');
  const troubles: string[] = [];
  const opening = Rewriter.open({
    dsn: db.url,
    env: {},
    onTrouble: (sentence) => troubles.push(sentence),
  });
  const cut = () =>
    db.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%' AND datname = current_database()",
    );
  while ((await cut()).rowCount === 0);
  await db.query('SELECT pg_advisory_unlock_all()');
  const rewriter = await opening;
  t.after(() => rewriter.close());
  assert.match(troubles.join(), /^The connection to the database was lost: .*Connected again/);
  const { rewritten } = await rewriter.rewrite({ room: ROOM, changes: await planRoom(db) });
  assert.equal(rewritten, 4);
});

test('a database without the tables is refused', async (t) => {
  const db = await testDatabase(t, 'none');
  await assert.rejects(Rewriter.open({ dsn: db.url, env: {} }), (error: Error) => {
    assert.ok(error instanceof DatabaseError);
    assert.match(error.message, /has no state_groups, state_group_edges, state_groups_state/);
    return true;
  });
});

test('a pooler that may change sessions is refused', async (t) => {
  const db = await storedRoom(t);
  const url = new URL(db.url);
  // It gives a key for cancelling of its own, as all poolers do: process and secret, four bytes each.
  const pooler = createServer((client) => {
    const server = connect(db.address.port, db.address.host);
    client.on('error', () => {}).pipe(server.on('error', () => {}));
    server.on('data', (bytes) => {
      const key = bytes.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
      if (key >= 0) bytes.writeInt32BE(1, key + 5);
      client.write(bytes);
    });
    server.on('end', () => client.end());
  }).listen(0, '127.0.0.1');
  await once(pooler, 'listening');
  t.after(() => pooler.close());
  url.port = String((pooler.address() as AddressInfo).port);
  await assert.rejects(
    Rewriter.open({ dsn: `${url.href}?sslmode=disable`, env: {} }),
    (error: Error) => {
      assert.ok(error instanceof DatabaseError);
      assert.match(error.message, /A connection pooler, such as PgBouncer/);
      return true;
    },
  );
});

/** How the way to the server is struck while changes are copied, and what lies between. */
const STROKES = {
  'is cut': (client: Socket) => void client.destroy(),
  'is reset': (client: Socket) => void client.resetAndDestroy(),
  'is ended, and nothing is read any more': (client: Socket) => void client.pause().end(),
  'is silent': (client: Socket) => void client.pause(),
} as const;

for (const [what, strike] of Object.entries(STROKES)) {
  test(
    `a connection that ${what} while changes are copied is made again, and all is done`,
    { timeout: 60_000 },
    async (t) => {
      // A silence of eleven minutes takes two seconds.
      const after = Reflect.get(Socket.prototype, 'setTimeout');
      t.mock.method(
        Socket.prototype,
        'setTimeout',
        function (this: Socket, ms: number, end: () => void) {
          return after.call(this, Math.min(ms, 2000), end);
        },
      );
      for (const bytes of [0, 300, 1_000_000]) {
        const db = await storedRoom(t);
        const states = await readAllStates(db);
        const { url, strokes } = await fragileWay(t, db, bytes, strike);
        let losses = 0;
        const rewriter = await Rewriter.open({
          dsn: `${url}?sslmode=disable`,
          env: {},
          onTrouble: (sentence) => void (losses += sentence.startsWith('The connection') ? 1 : 0),
        });
        t.after(() => rewriter.close());
        // The large one, more than sockets hold, is left as it is: its rows are not those of its hash.
        const [change, ...others] = await planRoom(db);
        const rows = Buffer.alloc(16_000_000, `type\tkey\t${'$'.padEnd(1590, 'e')}\n`);
        const large = { ...change, newRows: 10_000, change: { ...change.change, rows } };
        const outcome = await rewriter.rewrite({ room: ROOM, changes: [large, ...others] });
        assert.deepEqual([outcome.rewritten, outcome.skipped.length], [3, 1]);
        assert.deepEqual([strokes(), losses], [1, 1]);
        expectSameStates(await readAllStates(db), states);
      }
    },
  );
}

/** Lets the server do what is asked of it, and cuts the connection in the place of its answer. */
function loseTheAnswer(client: Socket, server: Socket, asked: Buffer): void {
  server.write(asked);
  server.once('data', () => client.destroy());
}

for (const strokes of [['COMMIT'], ['COMMIT', 'COPY pg_temp'], ['COMMIT', 'COMMIT']]) {
  test(`what was committed counts though the answer is lost: ${strokes.join(', then ')}`, async (t) => {
    const db = await storedRoom(t);
    const { url } = await fragileWay(t, db, 0, loseTheAnswer, strokes);
    const rewriter = await Rewriter.open({ dsn: `${url}?sslmode=disable`, env: {} });
    t.after(() => rewriter.close());
    const changes = await planRoom(db);
    const outcome = await rewriter.rewrite({ room: ROOM, changes });
    assert.deepEqual([outcome.rewritten, outcome.alreadyDone, outcome.rowsDeleted], [4, 0, 10]);
    const again = await rewriter.rewrite({ room: ROOM, changes });
    assert.deepEqual([again.rewritten, again.alreadyDone, again.rowsDeleted], [0, 4, 0]);
  });
}

test('what may have been committed is told where the server stays away', async (t) => {
  const db = await storedRoom(t);
  const stop = new AbortController();
  const { url } = await fragileWay(t, db, 0, loseTheAnswer, ['COMMIT']);
  const troubles: string[] = [];
  const rewriter = await Rewriter.open({
    dsn: `${url}?sslmode=disable`,
    env: {},
    signal: stop.signal,
    onTrouble(sentence) {
      troubles.push(sentence);
      stop.abort();
    },
  });
  t.after(() => rewriter.close());
  const rewriting = rewriter.rewrite({ room: ROOM, changes: await planRoom(db) });
  await assert.rejects(rewriting, { name: 'AbortError' });
  assert.match(troubles.at(-1)!, /the 4 state groups of it may be rewritten too/);
});

for (const [what, asked] of [
  ['a session is set up', 'pg_backend_pid'],
  ['something is asked', 'SELECT 1 AS look'],
  ['changes are copied', 'COPY pg_temp'],
] as const) {
  test(
    `the signal ends at once what waits for a server that is silent while ${what}`,
    { timeout: 30_000 },
    async (t) => {
      const db = await storedRoom(t);
      const stop = new AbortController();
      const { url } = await fragileWay(t, db, 0, () => stop.abort(), [asked]);
      const changes = await planRoom(db);
      const work = async (): Promise<void> => {
        const dsn = `${url}?sslmode=disable`;
        const rewriter = await Rewriter.open({ dsn, env: {}, signal: stop.signal });
        t.after(() => rewriter.close());
        await rewriter.query('SELECT 1 AS look');
        await rewriter.rewrite({ room: ROOM, changes });
      };
      await assert.rejects(work(), { name: 'AbortError' });
      assert.equal(await edges(db), OLD_EDGES);
    },
  );
}

for (const [what, asked] of [
  ['a transaction is committed', 'COMMIT'],
  ['others go first', 'CALL pg_temp.let_them_go_first'],
] as const) {
  test(
    `a server that is silent while ${what} is not waited for longer than a minute after the signal`,
    { timeout: 30_000 },
    async (t) => {
      // The minute takes no time.
      const after = Reflect.get(Socket.prototype, 'setTimeout');
      t.mock.method(
        Socket.prototype,
        'setTimeout',
        function (this: Socket, ms: number, end?: () => void) {
          return after.call(this, ms === 60_000 ? 10 : ms, end);
        },
      );
      const db = await storedRoom(t);
      const stop = new AbortController();
      const { url } = await fragileWay(t, db, 0, () => stop.abort(), [asked]);
      const dsn = `${url}?sslmode=disable`;
      const rewriter = await Rewriter.open({ dsn, env: {}, signal: stop.signal });
      t.after(() => rewriter.close());
      const rewriting = rewriter.rewrite({ room: ROOM, changes: await planRoom(db) });
      if (asked === 'COMMIT') await assert.rejects(rewriting, { name: 'AbortError' });
      else assert.equal((await rewriting).rewritten, 4);
    },
  );
}

test('a server that stays away is waited for once', { timeout: 60_000 }, async (t) => {
  const db = await storedRoom(t);
  const { url, close } = await fragileWay(t, db, 0, (client) => client.destroy(), ['SELECT 1']);
  const troubles: string[] = [];
  const rewriter = await Rewriter.open({
    dsn: `${url}?sslmode=disable`,
    env: {},
    onTrouble: (sentence) => troubles.push(sentence),
  });
  t.after(() => rewriter.close());
  close();
  // Five minutes take three looks at the clock.
  let now = 0;
  t.mock.method(performance, 'now', () => (now += 101_000));
  const gone = /No Postgres server listens at 127\.0\.0\.1/;
  await assert.rejects(rewriter.query('SELECT 1'), gone);
  await assert.rejects(rewriter.query('SELECT 1'), gone);
  assert.equal(troubles.length, 1);
});

/** A way to the database that is struck once for each text, so many bytes after a client has sent it. */
async function fragileWay(
  t: TestContext,
  db: TestDatabase,
  after: number,
  strike: (client: Socket, server: Socket, asked: Buffer) => void,
  texts: readonly string[] = ['COPY pg_temp'],
) {
  let strokes = 0;
  const way = createServer((client) => {
    const server = connect(db.address.port, db.address.host);
    let bytes = -1;
    let isStruck = false;
    client.on('error', () => {}).on('close', () => server.destroy());
    server.on('error', () => {}).on('close', () => isStruck || client.destroy());
    server.on('data', (chunk) => isStruck || client.write(chunk));
    client.on('data', (chunk) => {
      if (isStruck) return;
      if (bytes >= 0 || chunk.includes(texts[strokes] ?? 'nothing')) bytes += chunk.length;
      if (strokes < texts.length && bytes > after) {
        strokes++;
        isStruck = true;
        strike(client, server, chunk);
      } else if (!server.write(chunk)) {
        client.pause();
        server.once('drain', () => client.resume());
      }
    });
  }).listen(0, '127.0.0.1');
  await once(way, 'listening');
  t.after(() => way.close());
  const url = new URL(db.url);
  url.host = `127.0.0.1:${(way.address() as AddressInfo).port}`;
  return { url: url.href, strokes: () => strokes, close: () => void way.close() };
}
