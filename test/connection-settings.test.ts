import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { UsageError } from '../src/errors.js';
import { parseConnection } from '../src/sources/postgres/connection-settings.js';
import type { ConnectionSettings } from '../src/sources/postgres/connection-settings.js';
import { temporaryFolder } from './support/fixtures.js';

const HOME = '/nowhere';

type Expected = { [Name in keyof ConnectionSettings]?: ConnectionSettings[Name] | undefined };

function assertParsed(dsn: string | undefined, env: NodeJS.ProcessEnv, expected: Expected): void {
  const settings = parseConnection(dsn, { HOME, ...env });
  const names = Object.keys(expected) as (keyof ConnectionSettings)[];
  const parsed = Object.fromEntries(names.map((name) => [name, settings[name]]));
  assert.deepEqual(parsed, expected, `of ${dsn} ${inspect(env)}`);
}

const DSNS: readonly (readonly [string, Expected])[] = [
  [
    'postgresql://ann:secret@db.example.com:6432/synapse',
    { user: 'ann', password: 'secret', host: 'db.example.com', port: 6432, database: 'synapse' },
  ],
  ['postgres://db/synapse', { host: 'db', port: 5432, database: 'synapse', password: undefined }],
  ['postgresql://', { port: 5432, user: userInfo().username, database: userInfo().username }],
  ['postgresql://ann@db', { user: 'ann', database: 'ann' }],
  ['postgresql://:6432/synapse', { port: 6432, database: 'synapse' }],
  ['postgresql://ann@/synapse?host=/run/pg', { user: 'ann', host: '/run/pg' }],
  ['postgresql://%2Frun%2Fpg:6432/synapse', { host: '/run/pg', port: 6432 }],
  ['postgresql://[2001:db8::1]:6432/synapse', { host: '2001:db8::1', port: 6432 }],
  ['postgresql://a%40b:p%3A%2F%40%25%20@db/s%2Fy', { user: 'a@b', password: 'p:/@% ' }],
  ['postgresql://db/s%2Fy', { database: 's/y' }],
  ['postgresql://ann:a#b?c[]@db/synapse', { password: 'a#b?c[]', host: 'db' }],
  ['postgresql://ann:a:b@db/synapse', { user: 'ann', password: 'a:b' }],
  ['postgresql://ann:a/b+c==@db:6432/s', { password: 'a/b+c==', host: 'db', port: 6432 }],
  ['postgresql://ann:a/b?c=%2F@db/s?host=/x', { password: 'a/b?c=/', host: '/x', database: 's' }],
  ['postgresql://ann:100%sure%@db/synapse', { password: '100%sure%' }],
  ['postgresql://one@db:1/a?user=two&port=2&dbname=b', { user: 'two', port: 2, database: 'b' }],
  ['postgresql://db/?password=a+b%26c', { password: 'a+b&c' }],
  ['postgresql://db/?application_name=my%20app&', { applicationName: 'my app' }],
  ['postgresql://db/?options=-c%20search_path%3Dsynapse', { options: '-c search_path=synapse' }],
  ['postgresql://db/?connect_timeout=7', { connectTimeout: 7 }],
  ['postgresql://db/?connect_timeout=-1', { connectTimeout: 0 }],
  ['postgresql://db/?sslmode=verify-ca&sslrootcert=/ca', rootCertificate('verify-ca', '/ca')],
  ['postgresql://db/?ssl=true', { tls: { mode: 'require' } }],
  ['sslrootcert=system', rootCertificate('verify-full', 'system')],
  ['postgresql://db/?gssencmode=disable&channel_binding=prefer&keepalives_idle=30', { host: 'db' }],
  [
    'host=/var/run/postgresql dbname=synapse',
    { host: '/var/run/postgresql', port: 5432, database: 'synapse' },
  ],
  [
    String.raw`  host = 'db'  user='a b' password='it\'s \\ 1'dbname=syn\ apse port=6432 `,
    { host: 'db', user: 'a b', password: String.raw`it's \ 1`, database: 'syn apse', port: 6432 },
  ],
  ["password='' user=a'b", { password: undefined, user: "a'b" }],
  ['password= user=ann', { password: 'user=ann' }],
  [
    'sslmode=require sslcert=/c sslkey=/k sslpassword=p',
    { tls: { mode: 'require', certificate: '/c', key: '/k', keyPassword: 'p' } },
  ],
  ['synapse', { database: 'synapse' }],
  ['fallback_application_name=mine', { applicationName: 'mine' }],
  [
    '',
    {
      applicationName: 'synapse_compress_state',
      connectTimeout: 30,
      options: undefined,
      tls: { mode: 'prefer' },
    },
  ],
];

function rootCertificate(mode: 'verify-ca' | 'verify-full', path: string): Expected {
  return { tls: { mode, rootCertificate: path } };
}

test('URLs, keywords and names of databases are read as libpq reads them', () => {
  for (const [dsn, expected] of DSNS) assertParsed(dsn, {}, expected);
});

test('what a connection string leaves open is taken from the environment', () => {
  const env = {
    PGHOST: 'envhost',
    PGPORT: '7000',
    PGDATABASE: 'envdb',
    PGUSER: 'envuser',
    PGPASSWORD: 'envpassword',
    PGPASSFILE: '/env/pass',
    PGSSLMODE: 'require',
    PGSSLROOTCERT: '/env/ca',
    PGSSLCERT: '/env/cert',
    PGSSLKEY: '/env/key',
    PGAPPNAME: 'envapp',
    PGCONNECT_TIMEOUT: '9',
    PGOPTIONS: '-c work_mem=64MB',
  };
  const all: ConnectionSettings = {
    host: 'envhost',
    port: 7000,
    database: 'envdb',
    user: 'envuser',
    password: 'envpassword',
    passwordFile: '/env/pass',
    applicationName: 'envapp',
    connectTimeout: 9,
    options: '-c work_mem=64MB',
    tls: {
      mode: 'require',
      rootCertificate: '/env/ca',
      certificate: '/env/cert',
      key: '/env/key',
    },
  };
  assert.deepEqual(parseConnection(undefined, env), all);
  assert.deepEqual(parseConnection('postgresql://', env), all);
  assert.deepEqual(parseConnection("host=''", env), all, 'an empty value counts as left open');
  assert.deepEqual(parseConnection('postgresql://me@mine/?sslmode=disable', env), {
    ...all,
    host: 'mine',
    user: 'me',
    tls: { ...all.tls, mode: 'disable' },
  });
  assertParsed(undefined, { PGUSER: 'ann' }, { user: 'ann', database: 'ann' });
  assertParsed('db', { PGREQUIRESSL: '1' }, { tls: { mode: 'require' } });
  assertParsed('sslmode=prefer', { PGREQUIRESSL: '1' }, { tls: { mode: 'prefer' } });
});

test('the password file is in the home folder, of the user where no variable says it', () => {
  assertParsed('host=db', { HOME: '/home/ann' }, { passwordFile: '/home/ann/.pgpass' });
  assertParsed('host=db', { PGPASSFILE: '/y' }, { passwordFile: '/y' });
  assertParsed('host=db passfile=/z', { PGPASSFILE: '/y' }, { passwordFile: '/z' });
  const { homedir } = userInfo();
  assertParsed('host=db', { HOME: '' }, { passwordFile: join(homedir, '.pgpass') });
});

test("certificates in libpq's own folder are found", async (t) => {
  const home = await temporaryFolder(t);
  mkdirSync(join(home, '.postgresql'));
  const [root, certificate, key] = ['root.crt', 'postgresql.crt', 'postgresql.key'].map((name) => {
    const path = join(home, '.postgresql', name);
    writeFileSync(path, '');
    return path;
  });
  assert.deepEqual(parseConnection('host=db', { HOME: home }).tls, {
    mode: 'prefer',
    rootCertificate: root,
    certificate,
    key,
  });
});

const WRONG: readonly (readonly [string, RegExp, NodeJS.ProcessEnv?])[] = [
  ['host=db nosuch=1', /parameter 'nosuch' is not known/],
  ['postgresql://db/?nosuch=1', /parameter 'nosuch' is not known/],
  ['postgresql://db/?constructor=1', /parameter 'constructor' is not known/],
  ['postgresql://db/?sslmode', /parameter 'sslmode' of the connection URL has no value/],
  ['host=db sslmode=no-verify', /sslmode of the connection is 'no-verify'.*verify-full/],
  ['', /sslmode of the connection is 'x'/, { PGSSLMODE: 'x' }],
  ['port=x', /port of the connection is 'x'/],
  ['port=0', /port of the connection is 0/],
  ['port=65536', /port of the connection is 65536/],
  ['connect_timeout=soon', /connect_timeout of the connection is 'soon'/],
  ['channel_binding=require', /'channel_binding' can't be 'require'/],
  ['gssencmode=require', /'gssencmode' can't be 'require'/],
  ['target_session_attrs=standby', /'target_session_attrs' can't be 'standby'/],
  ['sslrootcert=system sslmode=require', /sslrootcert=system with sslmode=require/],
  ['host=a,b', /several hosts/],
  ['postgresql://a:1,b:2/synapse', /several hosts/],
  ['require_auth=none', /'require_auth' can't be 'none'/],
  ['host=db', /PGCHANNELBINDING is 'require'/, { PGCHANNELBINDING: 'require' }],
  ['host=db', /PGTARGETSESSIONATTRS is 'standby'/, { PGTARGETSESSIONATTRS: 'standby' }],
  ['host=db', /PGSSLMINPROTOCOLVERSION is 'TLSv1\.3'/, { PGSSLMINPROTOCOLVERSION: 'TLSv1.3' }],
  ['', /PGSERVICE is set/, { PGSERVICE: 'synapse' }],
  ['mysql://ann:s3cret@db/synapse', /begins with mysql:\/\//],
  ["host=db password='s3cret", /value of 'password'.*no closing quote/],
  ['host=db password=very s3cret', /cannot be read/],
  ['host=db s3cret user=ann', /cannot be read/],
  ['postgresql://ann:s3cret%ff@db/synapse', /escapes.*not UTF-8/],
  ['postgresql://ann:p@s3cret@db/synapse', /cannot be read/],
  ['postgresql://ann:p@s3cret/x@db/synapse', /cannot be read/],
  ['postgresql://ann:p@/s3cret@db/synapse', /cannot be read/],
  ['"postgresql://ann:s3cret@db/synapse"', /Quotes around the whole/],
  ["'postgresql://ann:s3cret@db/synapse?sslmode=require'", /Quotes around the whole/],
  [' postgresql://ann:s3cret@db/synapse', /cannot be read/],
  ['jdbc:postgresql://db/synapse?password=s3cret', /cannot be read/],
  ['postgresql:/ann:s3cret@db/synapse', /cannot be read/],
  ['ann:s3cret@db/synapse', /cannot be read/],
];

test('what can not be meant is a sentence that names it, and shows no password', () => {
  for (const [dsn, message, env] of WRONG) {
    const parse = (): unknown => parseConnection(dsn, { HOME, ...env });
    assert.throws(parse, (error) => {
      assert.ok(error instanceof UsageError, inspect(error));
      assert.match(error.message, message);
      assert.doesNotMatch(inspect(error, { depth: 9 }), /s3cret/);
      return true;
    });
  }
});

/** Anything Postgres can hold: no NUL. Not empty, which means left open. */
const text = fc
  .string({ unit: 'binary', minLength: 1, maxLength: 12 })
  .filter((value) => !value.includes('\0'));

test('every user, password and database comes through a URL and through keywords', () => {
  fc.assert(
    fc.property(text, text, text, (user, password, database) => {
      const expected = { user, password, database };
      const [u, p, d] = [user, password, database].map(encodeURIComponent);
      assertParsed(`postgresql://${u}:${p}@db/${d}`, {}, expected);
      assertParsed(`postgresql:///?user=${u}&password=${p}&dbname=${d}`, {}, expected);
      const quote = (value: string): string => `'${value.replaceAll(/['\\]/g, String.raw`\$&`)}'`;
      assertParsed(
        `user=${quote(user)} password=${quote(password)} dbname = ${quote(database)}`,
        {},
        expected,
      );
      const bare = (value: string): string => value.replaceAll(/[ \t-\r'\\]/g, String.raw`\$&`);
      assertParsed(
        `user=${bare(user)} password=${bare(password)} dbname=${bare(database)} host=db`,
        {},
        expected,
      );
    }),
  );
});

test('no text is met with anything but settings or a UsageError', () => {
  const pieces = fc.constantFrom(
    'postgresql://',
    "'",
    '\\',
    '=',
    ' ',
    '@',
    ':',
    '/',
    '?',
    '&',
    '%',
    '[',
    ']',
    'host',
    'port',
    '1',
    'ü',
  );
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 14 }), (parts) => {
      try {
        parseConnection(parts.join(''), { HOME });
      } catch (error) {
        assert.ok(error instanceof UsageError, inspect(error));
      }
    }),
  );
});
