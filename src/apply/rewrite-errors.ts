import pg from 'pg';
import { codeOf, DatabaseError } from '../errors.js';
import { isLost } from '../sources/postgres/database-errors.js';

/** Serialization failure, deadlock, lock timeout, and an edge that another has just inserted. */
const CONFLICTS = /^(40001|40P01|55P03|23505)$/;

/** Whether another transaction was in the way. */
export function isConflict(error: unknown): boolean {
  return error instanceof pg.DatabaseError && CONFLICTS.test(codeOf(error));
}

const INSUFFICIENT_PRIVILEGE = '42501';

/** Whether the user may not do what a statement does. */
export function lacksPrivilege(error: unknown): boolean {
  return error instanceof pg.DatabaseError && codeOf(error) === INSUFFICIENT_PRIVILEGE;
}

/** What an operator should know about an error of a statement that writes; others are given back as they are. */
export function rewriteError(error: unknown, doing: string): unknown {
  if (!(error instanceof Error)) return error;
  if (isLost(error)) {
    return new DatabaseError(
      `The connection to the database is lost again and again ${doing}: ${error.message}. See the server's log. What was done stands; run it again to do the rest.`,
      { cause: error },
    );
  }
  if (!(error instanceof pg.DatabaseError)) return error;
  return new DatabaseError(sentence(error, doing), { cause: error });
}

function sentence(error: pg.DatabaseError, doing: string): string {
  const message = error.hint === undefined ? error.message : `${error.message} (${error.hint})`;
  switch (codeOf(error)) {
    case INSUFFICIENT_PRIVILEGE:
      return `The user may not do what is needed ${doing}: ${message}. ${PRIVILEGES}`;
    case '25006':
      return `The database turned out to be read-only ${doing}: ${message}. Write to the primary server.`;
    case '57014':
      return `The server stopped a statement ${doing}: ${message}. What was done stands; run it again to do the rest.`;
    case '53100':
      return `The server's disk is full ${doing}: ${message}. Groups are written anew before the old rows' space can be used again: free some, then run it again.`;
    case '26000':
    case '3F000':
    case '42P01':
    case '42883':
      return `The session lost what was made in it ${doing}: ${message}. A connection pooler between here and Postgres does that; connect to Postgres itself.`;
    default:
      return `Postgres reports an error ${doing}: ${message} (${codeOf(error)}). What was done before stands.`;
  }
}

/** For messages about a missing privilege. */
export const PRIVILEGES =
  'It needs TEMPORARY on the database, SELECT and UPDATE on state_groups, SELECT, INSERT and DELETE on state_group_edges and state_groups_state, and SELECT on state_groups_pending_deletion where that exists; automatic runs need SELECT, INSERT, UPDATE and DELETE on state_compressor_state, state_compressor_progress and state_compressor_total_progress as well.';
