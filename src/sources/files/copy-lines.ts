import { InputError } from '../../errors.js';
import { grown } from '../../state/grown.js';
import { countTabs } from './count-tabs.js';
import type { Input } from './input.js';
import { COLUMNS, type StateTable } from './state-table.js';
import { LONGEST_ROW } from '../../state/copy-text.js';

const TAB = 9;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const DOT = 46;
const ZERO = 48;
const BACKSLASH = 92;
/** Bytes that are leapt over at least: less takes as long line by line. */
const SMALLEST_LEAP = 1024;

/** Whole lines of a table's COPY text. All of it is used again for the next lines. */
export interface CopyLines {
  readonly bytes: Buffer;
  /** Where `bytes` stand in the whole text. */
  readonly position: number;
  readonly count: number;
  /** Where each line begins in `bytes`, and after the last one where it ends. */
  readonly starts: Int32Array;
  /** The first column of each line: a state group. */
  readonly groups: Float64Array;
  /** What is wrong with line number `index` of these, as a sentence that says where it stands. */
  error(index: number, what: string): InputError;
}

/**
 * Reads a table's COPY text (https://www.postgresql.org/docs/current/sql-copy.html), and sees that each
 * line has the table's columns and begins with a number. COPY's end marker, `\.`, ends it: nothing may
 * stand behind it, for rows there would be missed.
 *
 * @throws InputError that names the input and the line, if it is not COPY text of the table or is cut off
 */
export function copyLines(
  input: Input,
  table: StateTable,
): AsyncGenerator<CopyLines, void, undefined> {
  return splitBy(new LineSplitter(input, table), input);
}

/** Neighbouring lines of one group, one after the other: an entry of `starts` and `groups` is of several lines. */
export type CopyStretches = Omit<CopyLines, 'error'>;

/**
 * Reads COPY text of `state_groups_state` as `copyLines` does, but takes lines of one group that stand
 * behind one another as one. Lines of too few and of too many columns may pass where they make up for
 * each other: who takes fields out of them must look.
 *
 * The lines of a group that `isTrusted` are not looked at, but leapt over as if lines were in order: who
 * takes them must look at each, at its group too, and errors may name a line too early.
 *
 * @throws InputError as `copyLines` does
 */
export function copyStretches(
  input: Input,
  isTrusted: (group: number) => boolean = () => false,
): AsyncGenerator<CopyStretches, void, undefined> {
  return splitBy(new StretchSplitter(input, isTrusted), input);
}

async function* splitBy(
  lines: LineSplitter,
  input: Input,
): AsyncGenerator<CopyLines, void, undefined> {
  let carry: Buffer | undefined;
  let position = 0;
  for await (const chunk of input.read()) {
    let start = 0;
    if (carry !== undefined) {
      start = chunk.indexOf(LINE_FEED) + 1;
      carry = Buffer.concat([carry, start === 0 ? chunk : chunk.subarray(0, start)]);
      if (start === 0) {
        if (carry.length > LONGEST_ROW) throw lines.tooLong();
        position += chunk.length;
        continue;
      }
      lines.split(carry, position + start - carry.length);
      if (lines.count > 0) yield lines;
      carry = undefined;
    }
    const end = chunk.lastIndexOf(LINE_FEED) + 1;
    if (end > start) {
      lines.split(chunk.subarray(start, end), position + start);
      if (lines.count > 0) yield lines;
    }
    if (end < chunk.length) carry = Buffer.from(chunk.subarray(end));
    position += chunk.length;
  }
  if (carry !== undefined) lines.last(carry);
}

/** The number in bytes `start` to `end`, or NaN if they are none or more than 2^53 - 1. */
export function numberAt(bytes: Uint8Array, start: number, end: number): number {
  let number = 0;
  for (let i = start; i < end; i++) {
    const digit = bytes[i] - ZERO;
    if (digit < 0 || digit > 9) return NaN;
    number = number * 10 + digit;
  }
  return start < end && number <= Number.MAX_SAFE_INTEGER ? number : NaN;
}

/** Says that a column is not a state group, for `CopyLines.error()`. */
export function noStateGroup(column: Buffer): string {
  const text = column.toString('utf8', 0, 40);
  return `has '${text}' for a state group, which is no number from 0 to 2^53 - 1`;
}

/** How many lines these whole lines are. */
export function countLines(lines: Buffer): number {
  let count = 0;
  for (let at = 0; (at = lines.indexOf(LINE_FEED, at) + 1) > 0;) count++;
  return count;
}

class LineSplitter implements CopyLines {
  bytes: Buffer = Buffer.alloc(0);
  position = 0;
  count = 0;
  starts = new Int32Array(1024);
  groups = new Float64Array(1024);
  /** Whether the end marker was there. */
  protected hasEnded = false;
  /** Lines that these are. */
  protected lines = 0;
  /** Tabs in each line. */
  protected readonly tabs: number;
  readonly #input: Input;
  readonly #table: StateTable;
  /** Number of the lines before these. */
  #linesBefore = 0;

  constructor(input: Input, table: StateTable) {
    this.#input = input;
    this.#table = table;
    this.tabs = COLUMNS[table].length - 1;
  }

  /** Splits `bytes`, which must end with a line feed. */
  split(bytes: Buffer, position: number): void {
    if (this.hasEnded) {
      this.count = 0;
      this.#expectNothing(bytes);
      return;
    }
    this.begin(bytes, position);
    const isClean = !holdsStray(bytes);
    const { tabs } = this;
    let group = NaN;
    let groupStart = 0;
    let groupLength = -1;
    let nextTab = bytes.indexOf(TAB);
    let start = 0;
    while (start < bytes.length) {
      const end = bytes.indexOf(LINE_FEED, start);
      const groupEnd = nextTab;
      let count = 0;
      while (nextTab >= 0 && nextTab < end) {
        count++;
        nextTab = bytes.indexOf(TAB, nextTab + 1);
      }
      if (count !== tabs || !isClean) {
        if (isEndMarker(bytes, start, end)) {
          this.hasEnded = true;
          this.#expectNothing(bytes.subarray(end));
          break;
        }
        this.#check(start, end, count);
      }
      const length = groupEnd - start;
      if (length !== groupLength || !isSame(bytes, groupStart, start, length)) {
        group = numberAt(bytes, start, groupEnd);
        if (Number.isNaN(group)) throw this.#noGroup(start, groupEnd);
      }
      groupStart = start;
      groupLength = length;
      this.add(start, group);
      this.lines++;
      start = end + 1;
    }
    this.starts[this.count] = start;
  }

  protected begin(bytes: Buffer, position: number): void {
    this.#linesBefore += this.lines;
    this.lines = 0;
    this.count = 0;
    this.bytes = bytes;
    this.position = position;
  }

  protected add(start: number, group: number): void {
    if (this.count + 1 >= this.starts.length) {
      this.starts = grown(this.starts, this.count + 2);
      this.groups = grown(this.groups, this.count + 2);
    }
    this.starts[this.count] = start;
    this.groups[this.count++] = group;
  }

  /** @throws InputError if the line is not as it should be */
  #check(start: number, end: number, tabs: number): void {
    const line = this.bytes.subarray(start, end);
    const columns = COLUMNS[this.#table].length;
    if (line.at(-1) === CARRIAGE_RETURN) {
      throw this.error(
        this.lines,
        'ends with a carriage return, as on Windows. Export the table again, or convert its line ends',
      );
    }
    if (line.includes(CARRIAGE_RETURN)) {
      throw this.error(this.lines, 'holds a carriage return, which COPY text writes as \\r');
    }
    if (line.includes(0)) {
      throw this.error(this.lines, 'holds a NUL byte, which no text in Postgres can hold');
    }
    if (tabs + 1 !== columns) {
      const has = line.length === 0 ? 'is empty' : `has ${tabs + 1} column${tabs === 0 ? '' : 's'}`;
      throw this.error(this.lines, `${has}, where ${this.#table} has ${columns}`);
    }
  }

  #noGroup(start: number, end: number): InputError {
    return this.error(this.lines, noStateGroup(this.bytes.subarray(start, end)));
  }

  /** The line after these has no end that would be in sight. */
  tooLong(): InputError {
    return this.error(this.lines, `is longer than ${LONGEST_ROW} bytes, as no row is`);
  }

  /** Takes the line after these, which has no end. */
  last(line: Buffer): void {
    if (this.hasEnded) {
      this.#expectNothing(line);
    } else if (!isEndMarker(line, 0, line.length)) {
      throw this.error(
        this.lines,
        `has no line feed at its end: the export is cut off. Export the table again`,
      );
    }
  }

  /** Sees that there is nothing behind the end marker but blank lines. */
  #expectNothing(bytes: Buffer): void {
    if (!bytes.every((byte) => byte === LINE_FEED || byte === CARRIAGE_RETURN)) {
      throw this.error(
        this.lines,
        'ends the rows with \\., but more follows. Give one export of the table; where several were joined, leave this line out',
      );
    }
  }

  error(index: number, what: string): InputError {
    return new InputError(`${this.#input.place(this.#linesBefore + index)} ${what}.`);
  }
}

/** Takes lines together; where something is wrong, line by line is told what. */
class StretchSplitter extends LineSplitter {
  readonly #isTrusted: (group: number) => boolean;

  constructor(input: Input, isTrusted: (group: number) => boolean) {
    super(input, 'state_groups_state');
    this.#isTrusted = isTrusted;
  }

  override split(bytes: Buffer, position: number): void {
    if (this.hasEnded || !this.#takeTogether(bytes, position)) super.split(bytes, position);
  }

  /** Returns false if not all lines are as they should be. */
  #takeTogether(bytes: Buffer, position: number): boolean {
    this.begin(bytes, position);
    let lines = 0;
    let tabs = 0;
    /** Where lines begin that were looked at, but not at their tabs. */
    let from = 0;
    let first = 0;
    /** Length of the group and its tab. */
    let length = 0;
    for (let start = 0; start < bytes.length;) {
      if (length === 0 || !isSame(bytes, first, start, length)) {
        const tab = bytes.indexOf(TAB, start);
        const group = numberAt(bytes, start, tab);
        if (Number.isNaN(group)) return false;
        first = start;
        length = tab + 1 - start;
        this.add(start, group);
        if (this.#isTrusted(group)) {
          tabs += countTabsUnlessStray(bytes, from, start);
          start = from = leap(bytes, start, length);
          continue;
        }
      }
      lines++;
      start = bytes.indexOf(LINE_FEED, start) + 1;
    }
    this.starts[this.count] = bytes.length;
    tabs += countTabsUnlessStray(bytes, from, bytes.length);
    if (tabs !== lines * this.tabs) return false;
    this.lines = lines;
    return true;
  }
}

/** The tabs of some lines, or NaN if there is something among these that COPY text never holds. */
function countTabsUnlessStray(bytes: Buffer, start: number, end: number): number {
  if (start === end) return 0;
  const lines = bytes.subarray(start, end);
  return holdsStray(lines) ? NaN : countTabs(lines);
}

/**
 * Where the lines end that begin as the one at `start` does, `length` bytes of it, if no other is between
 * them: leaps further each time, and then back less and less.
 */
function leap(bytes: Buffer, start: number, length: number): number {
  let at = start;
  let distance = SMALLEST_LEAP;
  const leaps = (): boolean => {
    const next = bytes.indexOf(LINE_FEED, at + distance) + 1;
    if (next === 0 || !isSame(bytes, start, next, length)) return false;
    at = next;
    return true;
  };
  while (leaps()) distance *= 2;
  while ((distance /= 2) >= SMALLEST_LEAP) leaps();
  do at = bytes.indexOf(LINE_FEED, at) + 1;
  while (isSame(bytes, start, at, length));
  return at;
}

/** Whether there is one of two bytes that COPY text never holds; to search for them at once costs next to nothing. */
function holdsStray(bytes: Buffer): boolean {
  return bytes.includes(0) || bytes.includes(CARRIAGE_RETURN);
}

function isEndMarker(bytes: Uint8Array, start: number, end: number): boolean {
  return end - start === 2 && bytes[start] === BACKSLASH && bytes[start + 1] === DOT;
}

function isSame(bytes: Uint8Array, a: number, b: number, length: number): boolean {
  // From the end, where numbers differ first.
  for (let i = length - 1; i >= 0; i--) {
    if (bytes[a + i] !== bytes[b + i]) return false;
  }
  return true;
}
