/**
 * The errors an operator can meet. Each says in full sentences what is wrong, where, and what to do,
 * and carries the exit code that the README lists.
 */
export abstract class CompressStateError extends Error {
  /** What the process ends with when this error ends the run. */
  abstract readonly exitCode: number;

  override get name(): string {
    return this.constructor.name;
  }
}

/** Options that are unknown, missing, or don't go together. */
export class UsageError extends CompressStateError {
  readonly exitCode = 2;
}

/** An input file that can't be read, or does not hold what it should. */
export class InputError extends CompressStateError {
  readonly exitCode = 3;
}

/** An input file is not the same any more: what was read of it may be parts of two exports. */
export class ChangedInputError extends CompressStateError {
  readonly exitCode = 3;
}

/** The room has no state groups in the source, or none in the chosen range. */
export class RoomNotFoundError extends CompressStateError {
  readonly exitCode = 4;
}

/** The database can't be reached, refuses us, lacks a table, or went away midway. */
export class DatabaseError extends CompressStateError {
  readonly exitCode = 5;
}

/** A group's planned state differs from its stored state: a defect of this program, and nothing was written. */
export class VerificationError extends CompressStateError {
  readonly exitCode = 6;

  constructor(
    message: string,
    /** The state group whose states differ. */
    readonly stateGroup: number,
  ) {
    super(message);
  }
}

/** The output or a temporary file can't be written: disk full, no permission. */
export class OutputError extends CompressStateError {
  readonly exitCode = 7;
}

/** `verify` found a group whose states before and after are not, or can't be shown to be, the same. */
export class StatesDifferError extends CompressStateError {
  readonly exitCode = 8;
}

/** `check` found something wrong in the tables. */
export class IrregularTablesError extends CompressStateError {
  readonly exitCode = 9;
}

/** Rooms that an automatic run could not compress; the others are done. */
export class RoomsFailedError extends CompressStateError {
  readonly exitCode = 11;
}

/** Another compressor is writing to the same database. */
export class BusyError extends CompressStateError {
  readonly exitCode = 10;
}

/** SQLSTATE, or the code of a system, TLS or zlib error; empty if there is none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : '';
}
