import assert from 'node:assert/strict';
import { chownSync, copyFileSync, chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import pg from 'pg';
import { DatabaseError, UsageError } from '../src/errors.js';
import { connect } from '../src/sources/postgres/connect.js';
import { parseConnection } from '../src/sources/postgres/connection-settings.js';
import { fixture, temporaryFolder } from './support/fixtures.js';
import { startServer } from './support/postgres.js';
import type { ServerAddress } from './support/postgres.js';

const [CA, OTHER_CA, CLIENT, CLIENT_KEY] = [
  'ca.crt',
  'other-ca.crt',
  'client.crt',
  'client.key',
].map((name) => fixture('tls', name));

let server: Awaited<ReturnType<typeof startServer>>;
let address: ServerAddress;
let admin: pg.Client;

before(async () => {
  server = await startServer();
  address = server.address;
  const { socketDirectory, port, user } = address;
  admin = new pg.Client({ host: socketDirectory, port, user, database: 'postgres' });
  await admin.connect();
});

after(async () => {
  await admin.end();
  await server.stop();
});

/** Connects as the parameters say, over TCP and with the password unless they say otherwise. */
async function connected(
  parameters: Readonly<Record<string, string>>,
  env: NodeJS.ProcessEnv = {},
): Promise<pg.Client> {
  const { host, port, user, password } = address;
  const all = { host, port, user, password, dbname: 'postgres', ...parameters };
  const dsn = Object.entries(all).map(([name, value]) => `${name}='${value}'`);
  return connect(parseConnection(dsn.join(' '), { HOME: '/nowhere', ...env }));
}

/** Whether the connection that the parameters lead to is encrypted. */
async function isEncrypted(
  parameters: Readonly<Record<string, string>>,
  env: NodeJS.ProcessEnv = {},
): Promise<boolean> {
  const client = await connected(parameters, env);
  const { rows } = await client.query<{ ssl: boolean }>(
    'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()',
  );
  await client.end();
  return rows[0].ssl;
}

async function assertRefused(
  parameters: Readonly<Record<string, string>>,
  message: RegExp,
  kind: typeof DatabaseError | typeof UsageError = DatabaseError,
  env: NodeJS.ProcessEnv = {},
): Promise<void> {
  await assert.rejects(connected(parameters, env), (error) => {
    assert.ok(error instanceof kind, inspect(error));
    assert.match(error.message, message);
    assert.doesNotMatch(inspect(error, { depth: 9 }), new RegExp(address.password));
    return true;
  });
}

test('the session has our name, unless another is given', async () => {
  for (const [parameters, expected] of [
    [{}, 'synapse_compress_state'],
    [{ application_name: 'cron' }, 'cron'],
  ] as const) {
    const client = await connected(parameters);
    const { rows } = await client.query('SHOW application_name');
    await client.end();
    assert.deepEqual(rows, [{ application_name: expected }]);
  }
});

test('options of the server are passed on', async () => {
  const client = await connected({ options: '-c search_path=synapse' });
  const { rows } = await client.query('SHOW search_path');
  await client.end();
  assert.deepEqual(rows, [{ search_path: 'synapse' }]);
});

test('who can not come in is told why, in a sentence without the password', async (t) => {
  const { host, port } = address;
  await assertRefused({ password: 'wrong' }, /refuses the password of user "postgres"/);
  await assertRefused({ password: '' }, /wants a password for user "postgres", and none is given/);
  await assertRefused(
    { dbname: 'nosuch' },
    /Postgres at 127\.0\.0\.1:\d+ has no database "nosuch"/,
  );
  await assertRefused({ host: '/nowhere' }, /no socket \/nowhere\/\.s\.PGSQL\.\d+/);
  await assertRefused({ host: 'nosuch.invalid' }, /host name nosuch\.invalid can't be found/);

  const closed = createServer().listen(0, host);
  await once(closed, 'listening');
  const { port: freePort } = closed.address() as AddressInfo;
  closed.close();
  await assertRefused(
    { port: String(freePort) },
    new RegExp(`No Postgres server listens at 127\\.0\\.0\\.1, port ${freePort}\\.`),
  );

  await admin.query('CREATE DATABASE closed');
  await admin.query('REVOKE CONNECT ON DATABASE closed FROM PUBLIC');
  await admin.query('CREATE ROLE stranger LOGIN');
  t.after(() => admin.query('DROP DATABASE closed').then(() => admin.query('DROP ROLE stranger')));
  await assertRefused(
    { host: address.socketDirectory, user: 'stranger', dbname: 'closed' },
    /User "stranger" may not connect to database "closed".*GRANT CONNECT/,
  );

  await admin.query('CREATE ROLE lonely LOGIN CONNECTION LIMIT 0');
  t.after(() => admin.query('DROP ROLE lonely'));
  await assertRefused(
    { host: address.socketDirectory, port: String(port), user: 'lonely' },
    /has no connection left: too many connections for role "lonely"/,
  );
});

test('a server that says nothing is given up, and so is one when the signal comes', async (t) => {
  const silent = createServer((socket) => socket.resume()).listen(0, '127.0.0.1');
  t.after(() => silent.close());
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  const settings = parseConnection(`host=127.0.0.1 port=${port} connect_timeout=1`, {});
  await assert.rejects(connect(settings), {
    name: 'DatabaseError',
    message: /did not answer within 1 s/,
  });

  const reason = new Error('stopped');
  await assert.rejects(connect(settings, AbortSignal.abort(reason)), reason);
  const controller = new AbortController();
  silent.once('connection', () => controller.abort(reason));
  const patient = parseConnection(`host=127.0.0.1 port=${port} connect_timeout=0`, {});
  await assert.rejects(connect(patient, controller.signal), reason);
});

test('a connection that is cut while we are let in is not told as a refusal', async (t) => {
  const cutting = createServer((socket) => socket.once('data', () => socket.destroy()));
  cutting.listen(0, '127.0.0.1');
  await once(cutting, 'listening');
  t.after(() => cutting.close());
  const port = String((cutting.address() as AddressInfo).port);
  await assertRefused(
    { port, sslmode: 'disable' },
    /^The connection to Postgres at 127\.0\.0\.1:\d+ was lost while user "postgres" was let in: /,
  );
});

test('a missing password is looked up in the password file, for TCP and for sockets', async (t) => {
  const { host, port, user, password, socketDirectory } = address;
  const file = join(await temporaryFolder(t), 'pgpass');
  await admin.query(`CREATE ROLE secretive LOGIN PASSWORD 'a:b\\c'`);
  t.after(() => admin.query('DROP ROLE secretive'));
  await accessRule(t, 'local all secretive scram-sha-256');
  writeFileSync(
    file,
    `#${host}:${port}:*:${user}:old\n${host}:${port}:x\\:y:${user}:other\n${host}:${port}:*:${user}:${password}\n${socketDirectory}:${port}:postgres:secretive:a\\:b\\\\c:more\n`,
    { mode: 0o600 },
  );
  for (const parameters of [{}, { host: socketDirectory, user: 'secretive' }]) {
    // To psql an empty variable is none.
    const env = { PGPASSFILE: file, PGPASSWORD: '' };
    const client = await connected({ ...parameters, password: '' }, env);
    await client.end();
  }
  for (const [mode, advice] of [
    [
      0o640,
      `The password file ${file} is not used because others may read it: chmod 0600 ${file}.`,
    ],
    [0o600, 'Put it into the URL, PGPASSWORD or the password file ~/.pgpass.'],
  ] as const) {
    chmodSync(file, mode);
    await assert.rejects(connected({ user: 'nobody', password: '' }, { PGPASSFILE: file }), {
      name: DatabaseError.name,
      message: `Postgres at ${host}:${port} wants a password for user "nobody", and none is given. ${advice}`,
    });
  }
});

test('without TLS on the server, only who insists on it is refused', async () => {
  for (const sslmode of ['disable', 'allow', 'prefer']) {
    assert.equal(await isEncrypted({ sslmode }), false, sslmode);
  }
  assert.equal(await isEncrypted({ host: address.socketDirectory, sslmode: 'require' }), false);
  await assertRefused({ sslmode: 'require' }, /has no TLS, which sslmode=require asks for/);
  await assertRefused({ sslmode: 'verify-full', sslrootcert: CA }, /has no TLS/);
});

describe('with TLS on the server', () => {
  before(async () => {
    const { socketDirectory } = address;
    const owner = statSync(socketDirectory);
    for (const name of ['ca.crt', 'server.crt', 'server.key']) {
      const copy = join(socketDirectory, name);
      copyFileSync(fixture('tls', name), copy);
      chmodSync(copy, 0o600);
      if (process.getuid?.() === 0) chownSync(copy, owner.uid, owner.gid);
    }
    await admin.query(`ALTER SYSTEM SET ssl_ca_file = '${socketDirectory}/ca.crt'`);
    await admin.query(`ALTER SYSTEM SET ssl_cert_file = '${socketDirectory}/server.crt'`);
    await admin.query(`ALTER SYSTEM SET ssl_key_file = '${socketDirectory}/server.key'`);
    await admin.query('ALTER SYSTEM SET ssl = on');
    await reload();
  });

  test('sslmode says whether the connection is encrypted', async () => {
    for (const [sslmode, expected] of [
      ['disable', false],
      ['allow', false],
      ['prefer', true],
      ['require', true],
    ] as const) {
      assert.equal(await isEncrypted({ sslmode }), expected, sslmode);
    }
    assert.equal(await isEncrypted({ host: address.socketDirectory, sslmode: 'require' }), false);
  });

  test('the certificate is checked where it is asked', async () => {
    // The certificate is for localhost, and the server listens on 127.0.0.1.
    const byName = { host: 'localhost' };
    assert.equal(await isEncrypted({ ...byName, sslmode: 'verify-full', sslrootcert: CA }), true);
    assert.equal(await isEncrypted({ sslmode: 'verify-ca', sslrootcert: CA }), true);
    assert.equal(await isEncrypted({ sslmode: 'require', sslrootcert: CA }), true);
    await assertRefused(
      { sslmode: 'verify-full', sslrootcert: CA },
      /certificate of Postgres at 127\.0\.0\.1:\d+ is for another host/,
    );
    for (const sslmode of ['require', 'verify-ca', 'verify-full']) {
      await assertRefused(
        { ...byName, sslmode, sslrootcert: OTHER_CA },
        /certificate of Postgres at localhost:\d+ is not trusted.*other-ca\.crt/,
      );
    }
    await assertRefused({ sslmode: 'verify-ca' }, /verify-ca needs the certificate/, UsageError);
    await assertRefused(
      { sslmode: 'verify-ca', sslrootcert: '/nowhere/ca' },
      /file that sslrootcert names can't be read.*\/nowhere\/ca/,
      UsageError,
    );
  });

  test('sslmode=prefer goes on without TLS where the certificate is not trusted', async () => {
    assert.equal(await isEncrypted({ sslmode: 'prefer', sslrootcert: CA }), true);
    assert.equal(await isEncrypted({ sslmode: 'prefer', sslrootcert: OTHER_CA }), false);
  });

  test('sslrootcert=system trusts what the system trusts', async () => {
    const system = { host: 'localhost', sslrootcert: 'system' };
    await assertRefused(system, /is not trusted/);
    const env = { SSL_CERT_FILE: CA };
    assert.equal(await isEncrypted(system, env), true);
    const other = { ...system, host: '127.0.0.1' };
    await assertRefused(other, /is for another host/, DatabaseError, env);
  });

  test('allow and prefer go the way that the access rules leave open', async (t) => {
    await admin.query(`CREATE ROLE encrypted LOGIN; CREATE ROLE plain LOGIN`);
    t.after(() => admin.query('DROP ROLE encrypted; DROP ROLE plain'));
    await accessRule(
      t,
      'hostssl all encrypted all trust',
      'hostnossl all plain all trust',
      'host all encrypted,plain all reject',
    );
    for (const sslmode of ['allow', 'prefer']) {
      assert.equal(await isEncrypted({ user: 'encrypted', sslmode }), true, sslmode);
      assert.equal(await isEncrypted({ user: 'plain', sslmode }), false, sslmode);
    }
    await assertRefused({ user: 'encrypted', sslmode: 'disable' }, /does not let user "encrypted"/);
    await assertRefused({ user: 'plain', sslmode: 'require' }, /does not let user "plain" in/);
  });

  test('a client certificate opens the door', async (t) => {
    await admin.query('CREATE ROLE certified LOGIN');
    t.after(() => admin.query('DROP ROLE certified'));
    await accessRule(t, 'hostssl all certified all cert');
    const user = { user: 'certified', password: '', sslmode: 'require' };
    assert.equal(await isEncrypted({ ...user, sslcert: CLIENT, sslkey: CLIENT_KEY }), true);
    await assertRefused(user, /does not let user "certified" in/);
  });
});

/** Puts lines before all others in pg_hba.conf, for one test. */
async function accessRule(
  t: { after(done: () => Promise<void>): void },
  ...lines: string[]
): Promise<void> {
  const { rows } = await admin.query<{ file: string }>(
    `SELECT current_setting('hba_file') AS file`,
  );
  const { file } = rows[0];
  const rest = readFileSync(file, 'utf8');
  writeFileSync(file, `${lines.join('\n')}\n${rest}`);
  await reload();
  t.after(async () => {
    writeFileSync(file, rest);
    await reload();
  });
}

/** Lets the server read its files again, and waits until it has. */
async function reload(): Promise<void> {
  const loaded = 'SELECT pg_conf_load_time()::text AS time';
  const earlier = await admin.query<{ time: string }>(loaded);
  await admin.query('SELECT pg_reload_conf()');
  for (;;) {
    // The time is this session's; a new one has the postmaster's, which it was forked from.
    const { socketDirectory, port, user } = address;
    const session = new pg.Client({ host: socketDirectory, port, user, database: 'postgres' });
    await session.connect();
    const now = await session.query<{ time: string }>(loaded);
    await session.end();
    if (now.rows[0].time !== earlier.rows[0].time) return;
  }
}
