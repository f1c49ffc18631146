import { readFile } from 'node:fs/promises';
import * as tls from 'node:tls';
import pg from 'pg';
import { UsageError } from '../../errors.js';
import { isDefaultSocketFolder, isSocketFolder } from './connection-settings.js';
import type { ConnectionSettings, TlsSettings } from './connection-settings.js';
import {
  ConnectFailure,
  connectionError,
  ConnectTimeout,
  isRefusedByAccessRules,
  isTlsFailure,
  PasswordMissing,
} from './database-errors.js';
import type { ConnectStage } from './database-errors.js';
import { passwordFrom } from './password-file.js';

/** What the system's TLS library trusts, as Debian, Red Hat, SUSE and Alpine have it. */
const SYSTEM_CERTIFICATES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

const KEEPALIVE_AFTER_MS = 30_000;
/** How long a connection may take to close. */
const FAREWELL_MS = 2000;

/**
 * Connects to Postgres with what libpq's `sslmode` asks for. `allow` and `prefer` try the other way,
 * without or with TLS, where TLS fails or the server's access rules (pg_hba.conf) turn the first away;
 * other than in libpq, not after a wrong password, which would be sent twice. A Unix socket has no TLS.
 *
 * @throws DatabaseError if the server can't be reached or refuses us, UsageError if a certificate or
 *   key can't be read, and the signal's reason when it is aborted
 */
export async function connect(
  settings: ConnectionSettings,
  signal?: AbortSignal,
): Promise<pg.Client> {
  const attempts = await attemptsOf(settings);
  for (let attempt = 0; ; attempt++) {
    try {
      return await connectOnce(settings, attempts[attempt], signal);
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof ConnectFailure)) throw error;
      const another = isTlsFailure(error) || isRefusedByAccessRules(error);
      if (!another || attempt === attempts.length - 1) throw connectionError(error, settings);
    }
  }
}

/** What to try one after the other: TLS with these options, or none. */
async function attemptsOf(
  settings: ConnectionSettings,
): Promise<(tls.ConnectionOptions | false)[]> {
  const { host } = settings;
  const { mode } = settings.tls;
  if (isSocketFolder(host) || mode === 'disable') return [false];
  const options = await tlsOptions(settings.tls);
  if (mode === 'allow') return [false, options];
  if (mode === 'prefer') return [options, false];
  return [options];
}

/** As libpq: with certificate authorities at hand the chain is checked in every mode, the host's name in one. */
async function tlsOptions(settings: TlsSettings): Promise<tls.ConnectionOptions> {
  const { mode, rootCertificate, systemCertificates } = settings;
  if (rootCertificate === undefined && mode.startsWith('verify')) {
    throw new UsageError(
      `sslmode=${mode} needs the certificate authorities to trust: give sslrootcert=FILE, or sslrootcert=system for those that the system trusts.`,
    );
  }
  const ca =
    rootCertificate === 'system'
      ? await systemAuthorities(systemCertificates)
      : await contents('sslrootcert', rootCertificate);
  const certificate = await contents('sslcert', settings.certificate);
  const key = await contents('sslkey', settings.key);
  return {
    rejectUnauthorized: ca !== undefined,
    ...(ca !== undefined && { ca }),
    ...(mode !== 'verify-full' && { checkServerIdentity: () => undefined }),
    ...(certificate !== undefined && { cert: certificate }),
    ...(key !== undefined && { key }),
    ...(settings.keyPassword !== undefined && { passphrase: settings.keyPassword }),
  };
}

async function systemAuthorities(given: string | undefined): Promise<string | string[]> {
  for (const file of [given, ...SYSTEM_CERTIFICATES]) {
    if (file === undefined) continue;
    try {
      return await readFile(file, 'latin1');
    } catch {
      // Another system has it elsewhere.
    }
  }
  return [...tls.rootCertificates];
}

async function contents(keyword: string, file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined;
  try {
    return await readFile(file, 'latin1');
  } catch (cause) {
    const { message } = cause as Error;
    throw new UsageError(`The file that ${keyword} names can't be read: ${message}.`, { cause });
  }
}

async function connectOnce(
  settings: ConnectionSettings,
  ssl: tls.ConnectionOptions | false,
  signal: AbortSignal | undefined,
): Promise<pg.Client> {
  const { host, port, database, user, options, connectTimeout } = settings;
  const client = new pg.Client({
    host,
    port,
    database,
    user,
    // A function keeps pg from looking at the environment by itself.
    password: () => passwordOf(settings),
    ssl,
    sslnegotiation: 'postgres',
    application_name: settings.applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_AFTER_MS,
    ...(options !== undefined && { options }),
  });
  // A connection that is lost fails the statement under way or the next one; that is where it is told.
  client.on('error', () => {});

  let stage: ConnectStage = 'reaching';
  const { connection } = client;
  connection.once('connect', () => (stage = ssl === false ? 'entering' : 'tls'));
  connection.once('sslconnect', () =>
    connection.stream.once('secureConnect', () => (stage = 'entering')),
  );
  let timedOut = false;
  const drop = (): void => dropConnection(client);
  const timer =
    connectTimeout === 0
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          drop();
        }, connectTimeout * 1000);
  signal?.addEventListener('abort', drop);
  try {
    signal?.throwIfAborted();
    await client.connect();
    return client;
  } catch (error) {
    drop();
    throw new ConnectFailure(stage, timedOut ? new ConnectTimeout() : (error as Error));
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', drop);
  }
}

/** A function that ends the connection once, however often it is called. From now on the signal cuts it. */
export function closing(client: pg.Client, signal: AbortSignal | undefined): () => Promise<void> {
  const abort = (): void => dropConnection(client);
  signal?.addEventListener('abort', abort);
  let closed: Promise<void> | undefined;
  return () => {
    signal?.removeEventListener('abort', abort);
    return (closed ??= end(client));
  };
}

async function end(client: pg.Client): Promise<void> {
  // A server that is gone without a word would never say goodbye.
  const impatience = setTimeout(() => dropConnection(client), FAREWELL_MS);
  await client.end();
  clearTimeout(impatience);
}

/** Cuts the connection at once, whatever is under way; the server ends its side when it notices. */
export function dropConnection(client: pg.Client): void {
  client.connection.stream.destroy();
}

/** The password that was given, or that libpq's password file has for this connection. */
async function passwordOf(settings: ConnectionSettings): Promise<string> {
  const { host, port, database, user, password, passwordFile } = settings;
  if (password !== undefined) return password;
  if (passwordFile === undefined) throw new PasswordMissing();
  const hosts = isDefaultSocketFolder(host) ? ['localhost', host] : [host];
  const logins = hosts.map((name) => ({ host: name, port, database, user }));
  const found = await passwordFrom(passwordFile, logins);
  if (found === undefined) throw new PasswordMissing();
  return found;
}
