import pg from 'pg';
import { codeOf, DatabaseError } from '../../errors.js';
import { isSocketFolder } from './connection-settings.js';
import type { ConnectionSettings } from './connection-settings.js';

/** How far an attempt to connect came: to no server, into TLS, or as far as the server's refusal. */
export type ConnectStage = 'reaching' | 'tls' | 'entering';

/** Why one attempt to connect failed. */
export class ConnectFailure extends Error {
  constructor(
    readonly stage: ConnectStage,
    override readonly cause: Error,
  ) {
    super(cause.message);
  }
}

/** The attempt took longer than the settings allow. */
export class ConnectTimeout extends Error {}

/** The server wants a password and there is none; the message says why the password file has none, if it might. */
export class PasswordMissing extends Error {}

/** What an operator should know about a failed attempt; the password is never part of it. */
export function connectionError(
  { stage, cause }: ConnectFailure,
  settings: ConnectionSettings,
): DatabaseError {
  if (cause instanceof ConnectTimeout) {
    return new DatabaseError(
      `${serverAt(settings)} did not answer within ${settings.connectTimeout} s. Check host and port, or allow more with connect_timeout.`,
      { cause },
    );
  }
  const sentence = {
    reaching: unreachable,
    tls: tlsFailed,
    entering: refused,
  }[stage](cause, settings);
  return new DatabaseError(sentence, { cause });
}

function unreachable(cause: Error, settings: ConnectionSettings): string {
  const { host, port } = settings;
  switch (codeOf(cause)) {
    case 'ECONNREFUSED':
      return isSocketFolder(host)
        ? `No Postgres server listens on the socket ${host}/.s.PGSQL.${port}, though it is there. Check that the server is running.`
        : `No Postgres server listens at ${host}, port ${port}. Check host and port, and that the server is running.`;
    case 'ENOENT':
      return `There is no socket ${host}/.s.PGSQL.${port}. Check that the server is running, and give the folder of its socket as host.`;
    case 'EACCES':
      return `The socket ${host}/.s.PGSQL.${port} may not be opened by this user. Connect over TCP, or as a user who may.`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `The host name ${host} can't be found. Check its spelling and the name service.`;
    default:
      return `${serverAt(settings)} can't be reached: ${cause.message}.`;
  }
}

function tlsFailed(cause: Error, settings: ConnectionSettings): string {
  const { mode, rootCertificate } = settings.tls;
  const code = codeOf(cause);
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return `The certificate of ${serverAt(settings)} is for another host: ${cause.message}. Connect by a name that it is for.`;
  }
  if (/CERT|ISSUER|SIGNATURE|^INVALID_CA$|PURPOSE/.test(code)) {
    return `The certificate of ${serverAt(settings)} is not trusted: ${cause.message} (${code}). Check that the authority which signed it is in sslrootcert, ${rootCertificate}.`;
  }
  if (cause.message === 'The server does not support SSL connections') {
    return `${serverAt(settings)} has no TLS, which sslmode=${mode} asks for. Set ssl = on in its postgresql.conf, or choose another sslmode.`;
  }
  return `TLS with ${serverAt(settings)} failed: ${cause.message}.`;
}

function refused(cause: Error, settings: ConnectionSettings): string {
  const { database, user } = settings;
  if (cause instanceof PasswordMissing) {
    return `${serverAt(settings)} wants a password for user "${user}", and none is given. ${cause.message || 'Put it into the URL, PGPASSWORD or the password file ~/.pgpass.'}`;
  }
  switch (codeOf(cause)) {
    case '28P01':
      return `${serverAt(settings)} refuses the password of user "${user}".`;
    case '28000':
      return `${serverAt(settings)} does not let user "${user}" in: ${cause.message}.`;
    case '3D000':
      return `${serverAt(settings)} has no database "${database}".`;
    case '42501':
      return `User "${user}" may not connect to database "${database}": ${cause.message}. It needs GRANT CONNECT ON DATABASE.`;
    case '53300':
      return `${serverAt(settings)} has no connection left: ${cause.message}. Wait for one, or raise the limit: max_connections of the server, or CONNECTION LIMIT of the role or the database.`;
    case '57P03':
      return `${serverAt(settings)} takes no connections now: ${cause.message}. Try again when it is up.`;
    default:
      return isLost(cause)
        ? `The connection to ${serverAt(settings)} was lost while user "${user}" was let in: ${cause.message}. See the server's log, or what is between.`
        : `${serverAt(settings)} refuses the connection: ${cause.message}.`;
  }
}

function serverAt({ host, port }: ConnectionSettings): string {
  return `Postgres at ${host}${isSocketFolder(host) ? '/.s.PGSQL.' : ':'}${port}`;
}

/**
 * What an operator should know about a statement that failed; an error that is neither the server's
 * nor the connection's is given back as it is.
 *
 * @param doing when it was, as in `while state group 5 was read`
 */
export function statementError(error: unknown, doing: string): Error {
  const cause = error as Error;
  if (isLost(cause)) {
    return new DatabaseError(
      `The connection to the database was lost ${doing}: ${cause.message}. Run it again when the server is up; nothing was changed in it.`,
      { cause },
    );
  }
  if (!(cause instanceof pg.DatabaseError)) return cause;
  return new DatabaseError(statementFailed(cause, doing), { cause });
}

/** Who is connected to which database, and the schemas that are searched for tables. */
interface Whereabouts {
  readonly user: string;
  readonly database: string;
  readonly schemas: string;
}

/** That tables of Synapse's are not where they are looked for; `missing` names them. */
export function tablesMissing(
  missing: string,
  { user, database, schemas }: Whereabouts,
): DatabaseError {
  return new DatabaseError(
    `Database "${database}" has no ${missing} in the schemas that user ${user} searches (${schemas || 'none'}). It must be Synapse's state database, which may be another one than its main database. Tables in another schema are found with options='-c search_path=SCHEMA'.`,
  );
}

/** SQLSTATEs of a server that ends a session. */
const ENDED = /^(57P0[123]|25P0[34]|08...)$/;
/** What the system says of a connection that is cut, of a way that is gone (as ICMP tells it too), and TLS of spoilt bytes. */
const CUT_OFF =
  /^(ECONN(ABORTED|REFUSED|RESET)|E(HOST|NET)(DOWN|UNREACH)|ENETRESET|ENOTCONN|EPIPE|EPROTO|ETIMEDOUT|ERR_SSL_\w+)$/;

/** Whether the session is over: ended by the server, cut off, or, in pg's words, terminated. */
export function isLost(error: Error): boolean {
  const code = codeOf(error);
  return (
    ENDED.test(code) ||
    CUT_OFF.test(code) ||
    /^(Connection terminated|Client (has|was) )/.test(error.message)
  );
}

/** The loss of a connection that the error tells of, or that there was no way to make one, if it tells of that. */
export function lossBehind(error: unknown): Error | undefined {
  if (!(error instanceof DatabaseError)) return undefined;
  const { cause } = error;
  if (!(cause instanceof Error)) return undefined;
  // A server that is restarted has no socket for a moment: ENOENT.
  const isUnreached = 'syscall' in cause && cause.syscall === 'connect';
  return isLost(cause) || isUnreached ? cause : undefined;
}

function statementFailed(cause: Error, doing: string): string {
  const code = codeOf(cause);
  const { message } = cause;
  switch (code) {
    case '57014':
      return `Someone stopped the statement on the server ${doing}: ${message}. Run it again.`;
    case '40001':
      return `The server, a standby, had to give up the snapshot ${doing}: ${message}. Run it against the primary, or set hot_standby_feedback = on on the standby.`;
    case '42501':
      return `The user may not read what is needed ${doing}: ${message}. It needs GRANT SELECT ON state_groups, state_group_edges, state_groups_state, and to see every row of them.`;
    default:
      return `Postgres reports an error ${doing}: ${message} (${code}).`;
  }
}

/** Whether the server has no TLS, or TLS did not come about. */
export function isTlsFailure({ stage, cause }: ConnectFailure): boolean {
  return stage === 'tls' && !(cause instanceof ConnectTimeout);
}

/** Whether the server's access rules, its pg_hba.conf, turned us away. */
export function isRefusedByAccessRules({ stage, cause }: ConnectFailure): boolean {
  return stage === 'entering' && codeOf(cause) === '28000';
}
