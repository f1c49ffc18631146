import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { UsageError } from '../../errors.js';

const SSL_MODES = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;

/** libpq's `sslmode`: whether to use TLS, and what of the server's certificate to check. */
type SslMode = (typeof SSL_MODES)[number];

/** Where the server is and how to get in, with all defaults filled in. No file has been read yet. */
export interface ConnectionSettings {
  /** A name, an address, or the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  /** Without one, the password file is asked when the server wants a password. */
  readonly password?: string;
  /** Where libpq's password file would be. */
  readonly passwordFile?: string;
  readonly applicationName: string;
  /** Seconds until an attempt to connect is given up; 0 never gives up. */
  readonly connectTimeout: number;
  /** Command-line options for the server's process, such as `-c search_path=synapse`. */
  readonly options?: string;
  readonly tls: TlsSettings;
}

export interface TlsSettings {
  readonly mode: SslMode;
  /** A PEM file of certificate authorities, or `system` for those that the system trusts. */
  readonly rootCertificate?: string;
  /** A PEM file of those that the system trusts, in the place of the system's own. */
  readonly systemCertificates?: string;
  /** PEM files of the client's certificate and its key, the key's password if it has one. */
  readonly certificate?: string;
  readonly key?: string;
  readonly keyPassword?: string;
}

/** libpq's parameters that have a meaning here, with the environment variables that stand in for them. */
const VARIABLES = {
  host: 'PGHOST',
  port: 'PGPORT',
  dbname: 'PGDATABASE',
  user: 'PGUSER',
  password: 'PGPASSWORD',
  passfile: 'PGPASSFILE',
  sslmode: 'PGSSLMODE',
  sslrootcert: 'PGSSLROOTCERT',
  sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY',
  sslpassword: undefined,
  application_name: 'PGAPPNAME',
  fallback_application_name: undefined,
  connect_timeout: 'PGCONNECT_TIMEOUT',
  options: 'PGOPTIONS',
} as const;

type Keyword = keyof typeof VARIABLES;
type Parameters = Partial<Record<Keyword, string>>;

/**
 * Parameters that change nothing here, as long as they have these values: what is asked is done anyway,
 * or is for the server's good only. Any other value asks for what is not done, also where it comes from the
 * variable.
 */
const WITHOUT_EFFECT: Readonly<
  Record<string, { readonly values: RegExp; readonly variable?: string }>
> = {
  channel_binding: { values: /^(disable|prefer)$/, variable: 'PGCHANNELBINDING' },
  client_encoding: { values: /^(auto|utf-?8|unicode)$/i },
  gssencmode: { values: /^(disable|prefer)$/, variable: 'PGGSSENCMODE' },
  keepalives: { values: /^1$/ },
  keepalives_count: { values: /^\d+$/ },
  keepalives_idle: { values: /^\d+$/ },
  keepalives_interval: { values: /^\d+$/ },
  load_balance_hosts: { values: /^disable$/, variable: 'PGLOADBALANCEHOSTS' },
  require_auth: { values: /^$/, variable: 'PGREQUIREAUTH' },
  requirepeer: { values: /^$/, variable: 'PGREQUIREPEER' },
  ssl_max_protocol_version: { values: /^$/, variable: 'PGSSLMAXPROTOCOLVERSION' },
  ssl_min_protocol_version: {
    values: /^TLSv1(\.[012])?$/i,
    variable: 'PGSSLMINPROTOCOLVERSION',
  },
  sslcertmode: { values: /^allow$/, variable: 'PGSSLCERTMODE' },
  sslcompression: { values: /^[01]$/, variable: 'PGSSLCOMPRESSION' },
  sslcrl: { values: /^$/, variable: 'PGSSLCRL' },
  sslcrldir: { values: /^$/, variable: 'PGSSLCRLDIR' },
  sslnegotiation: { values: /^postgres$/, variable: 'PGSSLNEGOTIATION' },
  sslsni: { values: /^1$/, variable: 'PGSSLSNI' },
  // Whoever writes sees to it that the server is no standby, and reading is as good from either.
  target_session_attrs: {
    values: /^(any|prefer-standby|primary|read-write)$/,
    variable: 'PGTARGETSESSIONATTRS',
  },
  tcp_user_timeout: { values: /^\d+$/ },
};

/** They would lead libpq to another server than the rest of the settings names. */
const UNSUPPORTED_VARIABLES = ['PGSERVICE', 'PGHOSTADDR'];

/** Where servers put their sockets: Debian's and Red Hat's packages, and Postgres itself. */
const SOCKET_FOLDERS = ['/var/run/postgresql', '/run/postgresql', '/tmp'];

const DEFAULT_PORT = 5432;
const DEFAULT_CONNECT_TIMEOUT = 30;

/**
 * Reads a connection string as libpq does: a URL (`postgresql://` or `postgres://`), a list of keywords
 * (`host=/run/postgresql dbname=synapse`), or the name of a database. What it leaves open is taken from
 * the `PG*` variables in `env`, then from libpq's defaults. An empty value counts as left open.
 * (https://www.postgresql.org/docs/current/libpq-connect.html)
 *
 * It differs from libpq in giving up a connection attempt after 30 seconds by default, in having one host only,
 * and in reading URLs of the old tool that libpq refuses: with a `/` or a `%` as it is in the password.
 *
 * @throws UsageError that names the parameter which is unknown or has an impossible value; it never
 *   repeats a password
 */
export function parseConnection(
  dsn: string | undefined,
  env: NodeJS.ProcessEnv,
): ConnectionSettings {
  const given = parametersOf(dsn ?? '');
  const value = (keyword: Keyword): string | undefined => {
    const variable = VARIABLES[keyword];
    const values = [given[keyword], variable && env[variable]];
    return values.find((candidate) => candidate !== undefined && candidate !== '');
  };
  for (const variable of UNSUPPORTED_VARIABLES) {
    if (env[variable]) {
      throw new UsageError(
        `The variable ${variable} is set, which is not supported here. Unset it, and name the server by its host.`,
      );
    }
  }
  for (const [keyword, { values, variable = '' }] of Object.entries(WITHOUT_EFFECT)) {
    const asked = env[variable];
    if (asked && !values.test(asked)) {
      throw new UsageError(
        `The variable ${variable} is '${asked}', but '${keyword}' can't be that here. Unset it.`,
      );
    }
  }

  if ([value('host'), value('port')].some((list) => list?.includes(','))) {
    throw new UsageError('The connection names several hosts; give the one server to read from.');
  }
  const port = numberOf('port', value('port')) ?? DEFAULT_PORT;
  if (port < 1 || port > 65535) {
    throw new UsageError(`The port of the connection is ${port}; it must be between 1 and 65535.`);
  }
  const user = value('user') ?? systemUser();
  const password = value('password');
  const passwordFile = value('passfile') ?? homeFile('.pgpass', env);
  const options = value('options');
  return {
    host: value('host') ?? defaultHost(port),
    port,
    user,
    database: value('dbname') ?? user,
    applicationName:
      value('application_name') ?? value('fallback_application_name') ?? 'synapse_compress_state',
    connectTimeout: Math.max(
      0,
      numberOf('connect_timeout', value('connect_timeout')) ?? DEFAULT_CONNECT_TIMEOUT,
    ),
    tls: tlsSettings(value, env),
    ...(password !== undefined && { password }),
    ...(passwordFile !== undefined && { passwordFile }),
    ...(options !== undefined && { options }),
  };
}

function tlsSettings(
  value: (keyword: Keyword) => string | undefined,
  env: NodeJS.ProcessEnv,
): TlsSettings {
  const rootCertificate = value('sslrootcert') ?? defaultFile('root.crt', env);
  const system = rootCertificate === 'system';
  // The variable is older than sslmode, and libpq heeds it still.
  const isRequired = env['PGREQUIRESSL']?.startsWith('1');
  const mode = value('sslmode') ?? (system ? 'verify-full' : isRequired ? 'require' : 'prefer');
  if (!SSL_MODES.some((known) => known === mode)) {
    throw new UsageError(
      `The sslmode of the connection is '${mode}'; it must be one of ${SSL_MODES.join(', ')}.`,
    );
  }
  if (system && mode !== 'verify-full') {
    throw new UsageError(
      `The connection has sslrootcert=system with sslmode=${mode}. Anyone can have a certificate that the system trusts, so it needs sslmode=verify-full.`,
    );
  }
  const certificate = value('sslcert') ?? defaultFile('postgresql.crt', env);
  const key = value('sslkey') ?? defaultFile('postgresql.key', env);
  const keyPassword = value('sslpassword');
  // As OpenSSL has it, which libpq asks.
  const systemCertificates = system ? env['SSL_CERT_FILE'] : undefined;
  return {
    mode: mode as SslMode,
    ...(rootCertificate !== undefined && { rootCertificate }),
    ...(systemCertificates !== undefined && { systemCertificates }),
    ...(certificate !== undefined && { certificate }),
    ...(key !== undefined && { key }),
    ...(keyPassword !== undefined && { keyPassword }),
  };
}

function parametersOf(text: string): Parameters {
  if (/^postgres(ql)?:\/\//.test(text)) {
    return urlParameters(text);
  }
  const [, scheme] = /^([\w+.-]+):\/\//.exec(text) ?? [];
  if (scheme !== undefined) {
    throw new UsageError(
      `The connection URL begins with ${scheme}://; Postgres's begin with postgresql:// or postgres://.`,
    );
  }
  if (text.includes('=')) {
    return keywordParameters(text);
  }
  // Rather a URL that went wrong, with a password, than a name.
  if (/["':/@?;]/.test(text)) throw unreadable();
  return { dbname: text };
}

/** Of what can't be read nothing is repeated: any part of it may be of a password. */
function unreadable(): UsageError {
  return new UsageError(
    "The connection string cannot be read. It must be a URL such as postgresql://user:password@host:5432/synapse, pairs such as host=/run/postgresql dbname='my synapse', where a value with spaces stands in single quotes, or the name of a database. Quotes around the whole, which a file of variables may leave there, must go.",
  );
}

/**
 * Splits a URL where libpq splits it. That is not where `new URL()` and pg-connection-string do: they
 * stumble over a `#` in a password, or a port without a host.
 */
const URL_PARTS =
  /^\w+:\/\/(?:([^:@/]*)(?::([^@/]*))?@)?(\[[^\]]*\]|[^:/?]*)(?::([^/?]*))?(?:\/([^?]*))?(?:\?(.*))?$/s;

/** As it is written by programs that leave a `/` in a password as it is: libpq takes that for a host and no port. */
const URL_WITH_SLASH_IN_PASSWORD =
  /^\w+:\/\/([^:@/]*):([^@]*)@(\[[^\]]*\]|[^:/?@]*)(?::([^/?@]*))?(?:\/([^?@]*))?(?:\?(.*))?$/s;

function urlParameters(url: string): Parameters {
  let parts = URL_PARTS.exec(url);
  if (parts === null || !/^\d*$/.test(parts[4] ?? '')) {
    parts = URL_WITH_SLASH_IN_PASSWORD.exec(url) ?? parts;
  }
  const [, user, password, host, port, dbname, query] = parts ?? [];
  // A second @ before the query: what is taken for host and database is the rest of a password.
  if (parts === null || [host, port, dbname].some((part) => part?.includes('@'))) {
    throw new UsageError(
      'The connection URL cannot be read. It looks like postgresql://user:password@host:5432/database; in user names and passwords the characters : / @ % are written as %3A %2F %40 %25.',
    );
  }
  const parameters: Parameters = {
    user: decoded(user),
    password: decoded(password),
    host: decoded(host).replace(/^\[(.*)\]$/, '$1'),
    port: decoded(port),
    dbname: decoded(dbname),
  };
  for (const pair of query?.split('&') ?? []) {
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const keyword = decoded(equals < 0 ? pair : pair.slice(0, equals));
    if (equals < 0) {
      throw new UsageError(`The parameter '${keyword}' of the connection URL has no value.`);
    }
    const value = decoded(pair.slice(equals + 1));
    // As JDBC writes it; libpq takes it for this.
    if (keyword === 'ssl' && value === 'true') {
      parameters.sslmode = 'require';
    } else {
      setParameter(parameters, keyword, value);
    }
  }
  return parameters;
}

/** Percent-encoded text; a `%` that begins no escape, which libpq refuses, stands for itself. */
function decoded(text = ''): string {
  try {
    return decodeURIComponent(text.replaceAll(/%(?![\da-f]{2})/gi, '%25'));
  } catch {
    // The error that is caught holds the text, which may be a password.
    throw new UsageError(
      'The connection URL has escapes, such as %C3%B6, that are not UTF-8; a % itself is written as %25.',
    );
  }
}

/** `keyword = value` pairs; a value with spaces stands in single quotes, and `\` goes before `'` and `\`. */
function keywordParameters(text: string): Parameters {
  const parameters: Parameters = {};
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const [found] = pattern.exec(text) ?? [];
    at += found?.length ?? 0;
    return found;
  };
  // To libpq a space is a byte of ASCII; \s would end a value at others as well.
  const skipSpaces = (): void => void take(/[ \t-\r]+/y);
  skipSpaces();
  while (at < text.length) {
    const keyword = take(/\w+/y);
    skipSpaces();
    if (keyword === undefined || take(/=/y) === undefined) throw unreadable();
    skipSpaces();
    const quoted = text[at] === "'";
    const value = take(quoted ? /'(?:[^'\\]|\\.)*'/sy : /(?:[^ \t-\r\\]|\\.)*/sy);
    if (value === undefined) {
      throw new UsageError(
        `The value of '${keyword}' in the connection string has no closing quote.`,
      );
    }
    const escaped = quoted ? value.slice(1, -1) : value;
    setParameter(parameters, keyword, escaped.replaceAll(/\\(.)/gs, '$1'));
    skipSpaces();
  }
  return parameters;
}

function setParameter(parameters: Parameters, keyword: string, value: string): void {
  if (Object.hasOwn(VARIABLES, keyword)) {
    parameters[keyword as Keyword] = value;
    return;
  }
  const harmless = Object.hasOwn(WITHOUT_EFFECT, keyword)
    ? WITHOUT_EFFECT[keyword].values
    : undefined;
  if (harmless === undefined) {
    throw new UsageError(
      `The connection parameter '${keyword}' is not known here. Known are ${Object.keys(VARIABLES).join(', ')}.`,
    );
  }
  if (value !== '' && !harmless.test(value)) {
    throw new UsageError(`The connection parameter '${keyword}' can't be '${value}' here.`);
  }
}

function numberOf(keyword: Keyword, value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (!/^\s*-?\d+\s*$/.test(value)) {
    throw new UsageError(`The ${keyword} of the connection is '${value}'; it must be a number.`);
  }
  return Number(value);
}

/** Whether a host is the folder of a Unix socket. */
export function isSocketFolder(host: string): boolean {
  return host.startsWith('/');
}

/** Whether sockets are there by default, so that a password file's `localhost` stands for them. */
export function isDefaultSocketFolder(host: string): boolean {
  return SOCKET_FOLDERS.includes(host);
}

function defaultHost(port: number): string {
  const socket = `.s.PGSQL.${port}`;
  return SOCKET_FOLDERS.find((folder) => existsSync(join(folder, socket))) ?? 'localhost';
}

function systemUser(): string {
  try {
    return userInfo().username;
  } catch (cause) {
    throw new UsageError(
      'The connection names no user, and the user who runs this has no name. Give user=NAME.',
      { cause },
    );
  }
}

/** A file in libpq's folder, if it is there. */
function defaultFile(name: string, env: NodeJS.ProcessEnv): string | undefined {
  const path = homeFile(join('.postgresql', name), env);
  return path !== undefined && existsSync(path) ? path : undefined;
}

/** Where a file of the user's would be; a user whom the system does not know may have none. */
function homeFile(name: string, env: NodeJS.ProcessEnv): string | undefined {
  const { HOME = '' } = env;
  try {
    return join(HOME === '' ? userInfo().homedir : HOME, name);
  } catch {
    return undefined;
  }
}
