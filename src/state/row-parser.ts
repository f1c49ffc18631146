import { InputError } from '../errors.js';
import { decodeField, encodeField, isNull, LONGEST_ROW } from './copy-text.js';
import { isCreate, whyNoRow } from './create-event.js';
import type { EntryPool } from './entry-pool.js';
import { grown } from './grown.js';

const TAB = 9;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;
const BACKSLASH = 92;
/** A group of at least so many rows is remembered as what the next snapshot will look like. */
const SNAPSHOT_ROWS = 16;

/**
 * `without-room`: state_group, type, state_key, event_id.
 * `with-room`: state_group, room_id, type, state_key, event_id, as the table has them.
 */
export type RowColumns = 'without-room' | 'with-room';

/** What is known of the group whose rows have all been read; valid during the call that hands it over. */
export interface GroupRows {
  /** Rows as stored, repeated ones included. */
  readonly rows: number;
  /** The group's entries, `length` of them, each key once. */
  readonly entries: Int32Array;
  readonly length: number;
  /** Entries of rows that repeat a key with the same event, `repeatedLength` of them. */
  readonly repeated: Int32Array;
  readonly repeatedLength: number;
  /** Whether two rows give one key different events, so that the state is undefined. */
  readonly contradictory: boolean;
  /** Whether a row is of another room than the group. */
  readonly foreign: boolean;
  /** Whether the group has a row of `key`. */
  has(key: number): boolean;
}

interface Lines {
  readonly bytes: Buffer;
  at: number;
  readonly end: number;
}

/**
 * Turns chunks of COPY text, cut anywhere, into the entries of one group after the other, without a
 * string or an object per row.
 *
 * Most rows are rows of snapshots, and a snapshot is nearly the one before it. So a row is first
 * compared, a word at a time, with the row that followed there; only where that fails is it split into
 * fields and looked up.
 */
export class RowParser implements GroupRows {
  rows = 0;
  entries = new Int32Array(64);
  length = 0;
  repeated = new Int32Array(16);
  repeatedLength = 0;
  contradictory = false;
  foreign = false;
  /** Rows read so far, of all groups. */
  totalRows = 0;
  /** The key of m.room.create, or -1 while there was none. */
  createKey = -1;

  /** Number of the line being read, from 1, for messages. */
  #line = 0;

  readonly #ids: Float64Array;
  readonly #isSkipped: (index: number) => boolean;
  readonly #pool: EntryPool;
  readonly #onGroup: (index: number, rows: GroupRows) => boolean | void;
  readonly #withRoom: boolean;
  readonly #isOfRoom: ((index: number, room: Buffer) => boolean) | undefined;
  /** Index of the group whose rows are being read, and of the last one that was handed over. */
  #index = -1;
  #handedOver = -1;
  /** What is still to be read of the last chunk, after a pause. */
  readonly #toRead: Lines[] = [];
  #isPaused = false;
  #skip = false;
  /** The bytes that each line of the current group begins with: the group, and the room if it is there. */
  #prefix = new Int32Array(256);
  #prefixBytes = new Uint8Array(this.#prefix.buffer);
  #prefixView = new DataView(this.#prefix.buffer);
  #prefixLength = 0;
  /** The last snapshot's entries, in the order they came, each held once. */
  #last = new Int32Array(64);
  #lastLength = 0;
  /** Number of the row at which a key was seen last; the numbers of a group's rows are consecutive. */
  #seen = new Int32Array(64).fill(-1);
  #serial = 0;
  #groupSerial = 0;
  #lastSerial = 0;
  /** Where in `#last` the next row is expected. */
  #expected = 0;
  #carry: Buffer | undefined;
  #scratch = Buffer.alloc(4096);
  #scratchView = viewOf(this.#scratch);

  /**
   * @param ids of the groups that are expected, ascending; an index among them stands for a group
   * @param isSkipped whether a group's rows are only counted
   * @param onGroup takes the groups in order; true asks for a pause before the next
   * @param isOfRoom whether a group may have rows of a room, which is spelt as COPY does; any if it is not given
   */
  constructor(
    ids: Float64Array,
    isSkipped: (index: number) => boolean,
    columns: RowColumns,
    pool: EntryPool,
    onGroup: (index: number, rows: GroupRows) => boolean | void,
    isOfRoom?: (index: number, room: Buffer) => boolean,
  ) {
    this.#ids = ids;
    this.#isSkipped = isSkipped;
    this.#withRoom = columns === 'with-room';
    this.#pool = pool;
    this.#onGroup = onGroup;
    this.#isOfRoom = isOfRoom;
  }

  /** Returns whether all of the chunk was read; if not, `goOn` reads the rest, of the chunk itself. */
  write(chunk: Buffer): boolean {
    let start = 0;
    if (this.#carry !== undefined) {
      start = chunk.indexOf(LINE_FEED) + 1;
      const line = Buffer.alloc(this.#carry.length + (start || chunk.length) + 4);
      this.#carry.copy(line);
      chunk.copy(line, this.#carry.length, 0, start || chunk.length);
      if (start === 0) {
        this.#carry = line.subarray(0, -4);
        if (line.length > LONGEST_ROW) {
          this.#line++;
          throw new InputError(
            `${this.#where()} is longer than ${LONGEST_ROW} bytes. This is not COPY text of state_groups_state.`,
          );
        }
        return true;
      }
      this.#carry = undefined;
      this.#toRead.push({ bytes: line, at: 0, end: line.length - 4 });
    }
    const end = chunk.lastIndexOf(LINE_FEED) + 1;
    if (end > start) this.#toRead.push({ bytes: chunk, at: start, end });
    if (end < chunk.length) this.#carry = Buffer.from(chunk.subarray(end));
    return this.goOn();
  }

  /** Goes on after a pause; returns whether it came to the end of what was written. */
  goOn(): boolean {
    this.#isPaused = false;
    this.#skipTo(this.#index);
    while (this.#toRead.length > 0 && !this.#isPaused) {
      const [lines] = this.#toRead;
      lines.at = this.#parse(lines.bytes, viewOf(lines.bytes), lines.at, lines.end);
      if (lines.at === lines.end) this.#toRead.shift();
    }
    return !this.#isPaused;
  }

  /** Hands over the last group and those behind it that have no rows. Returns as `write` does. */
  end(): boolean {
    if (this.#carry !== undefined) {
      this.#line++;
      throw new InputError(
        `${this.#where()} ends without a line feed: the input is cut off. Export it again.`,
      );
    }
    this.#finishGroup();
    this.#index = this.#ids.length;
    for (let i = 0; i < this.#lastLength; i++) this.#pool.release(this.#last[i]);
    this.#lastLength = 0;
    return !this.#isPaused && this.goOn();
  }

  has(key: number): boolean {
    return this.#seen[key] >= this.#groupSerial;
  }

  /** Returns where it came to. */
  #parse(bytes: Buffer, view: DataView, start: number, end: number): number {
    const { keys } = this.#pool;
    let at = start;
    while (at < end) {
      this.#line++;
      let row = at + this.#prefixLength;
      if (!this.#samePrefix(view, at)) {
        row = this.#beginGroup(bytes, view, at, end);
        if (this.#isPaused) {
          this.#line--;
          return at;
        }
      }
      this.rows++;
      if (this.#skip) {
        at = bytes.indexOf(LINE_FEED, row) + 1;
        continue;
      }
      if (this.#expected < this.#lastLength) {
        const entry = this.#last[this.#expected];
        const key = this.#pool.key[entry];
        const event = row + keys.byteLength[key];
        if (matches(view, row, event, keys.arena.view, keys.place[key])) {
          this.#expected++;
          at = this.#sameEvent(entry, view, event) || this.#eventOf(key, bytes, view, event);
          continue;
        }
      }
      at = this.#split(bytes, view, row);
    }
    return at;
  }

  /** Adds `entry` if the event whose field begins at `at` is its event; returns where the next line begins, or 0. */
  #sameEvent(entry: number, view: DataView, at: number): number {
    const next = at + this.#pool.byteLength[entry];
    if (!matches(view, at, next, this.#pool.arena.view, this.#pool.place[entry])) return 0;
    this.#pool.holders[entry]++;
    this.#add(this.#pool.key[entry], entry);
    return next;
  }

  #samePrefix(view: DataView, at: number): boolean {
    return (
      this.#prefixLength > 0 && matches(view, at, at + this.#prefixLength, this.#prefixView, 0)
    );
  }

  /** Reads the columns before the type, and goes on to the group they name. Returns where the type begins. */
  #beginGroup(bytes: Buffer, view: DataView, at: number, end: number): number {
    let group = 0;
    let i = at;
    for (; i < end; i++) {
      const digit = bytes[i] - 48;
      if (digit < 0 || digit > 9) break;
      group = group * 10 + digit;
    }
    if (i === at || bytes[i] !== TAB || !Number.isSafeInteger(group)) {
      throw new InputError(
        `${this.#where()} does not begin with a state group between 0 and 2^53 - 1, but with '${quoted(bytes, at, end)}'.`,
      );
    }
    const room = ++i;
    if (this.#withRoom) i = this.#fieldEnd(bytes, view, i, TAB) + 1;
    if (this.#index < 0 || this.#ids[this.#index] !== group) {
      this.#finishGroup();
      this.#findGroup(group);
      this.#skip = this.#isSkipped(this.#index);
      this.#expected = 0;
    }
    // The groups before it are handed over first, and this line is read again.
    if (this.#isPaused) return i;
    if (this.#withRoom && this.#isOfRoom?.(this.#index, bytes.subarray(room, i - 1)) === false)
      this.foreign = true;
    if (i - at > this.#prefixBytes.length) {
      this.#prefix = new Int32Array((i - at) >> 1);
      this.#prefixBytes = new Uint8Array(this.#prefix.buffer);
      this.#prefixView = new DataView(this.#prefix.buffer);
    }
    this.#prefixLength = i - at;
    for (let from = at, to = 0; from < i; from++, to++) this.#prefixBytes[to] = bytes[from]!;
    return i;
  }

  #findGroup(group: number): void {
    const ids = this.#ids;
    let index = this.#index + 1;
    while (index < ids.length && ids[index] < group) index++;
    if (ids[index] !== group) {
      throw new InputError(
        `${this.#where()} is of state group ${group}, which is not expected after ${ids[index - 1] ?? 'the beginning'}: the rows are not in order of state group.`,
      );
    }
    this.#index = index;
    this.#skipTo(index);
  }

  /** Hands over the groups before `index` that no row came for. */
  #skipTo(index: number): void {
    while (this.#handedOver < index - 1 && !this.#isPaused) this.#handOver(this.#handedOver + 1);
  }

  #handOver(index: number): void {
    this.#handedOver = index;
    this.#isPaused = this.#onGroup(index, this) === true;
  }

  #finishGroup(): void {
    if (this.#index < 0) return;
    this.#handOver(this.#index);
    const { entries, length } = this;
    if (length >= SNAPSHOT_ROWS) {
      const last = this.#last;
      for (let i = 0; i < this.#lastLength; i++) this.#pool.release(last[i]);
      this.#last = entries;
      this.#lastLength = length;
      this.#lastSerial = this.#groupSerial;
      this.entries = last;
    } else {
      for (let i = 0; i < length; i++) this.#pool.release(entries[i]);
    }
    for (let i = 0; i < this.repeatedLength; i++) this.#pool.release(this.repeated[i]);
    this.repeatedLength = 0;
    this.totalRows += this.rows;
    this.rows = 0;
    this.length = 0;
    this.contradictory = false;
    this.foreign = false;
    if (this.#serial > 2 ** 30) {
      this.#seen.fill(-1);
      this.#serial = 0;
      this.#lastSerial = -(2 ** 30);
    }
    this.#groupSerial = this.#serial;
  }

  /** Adds an entry that the caller holds for it. */
  #add(key: number, entry: number): void {
    const seenAt = this.#seen[key] - this.#groupSerial;
    if (seenAt >= 0) {
      if (this.entries[seenAt] !== entry) this.contradictory = true;
      this.repeated = grown(this.repeated, this.repeatedLength + 1);
      this.repeated[this.repeatedLength++] = entry;
      return;
    }
    this.#seen[key] = this.#serial++;
    if (this.length === this.entries.length) this.entries = grown(this.entries, this.length + 1);
    this.entries[this.length++] = entry;
  }

  /** Adds the entry of `key` and the event whose field begins at `at`; returns where the next line begins. */
  #eventOf(key: number, bytes: Buffer, view: DataView, at: number): number {
    let end = specialByte(view, at);
    if (bytes[end] === LINE_FEED) {
      this.#add(key, this.#pool.intern(key, bytes, view, at, end + 1));
      return end + 1;
    }
    end = this.#fieldEnd(bytes, view, at, LINE_FEED);
    const length = this.#canonical(bytes, at, end, 0);
    this.#scratch[length] = LINE_FEED;
    this.#add(key, this.#pool.intern(key, this.#scratch, this.#scratchView, 0, length + 1));
    return end + 1;
  }

  /** Reads the row whose type begins at `at`, and returns where the next line begins. */
  #split(bytes: Buffer, view: DataView, at: number): number {
    const tab = this.#fieldEnd(bytes, view, at, TAB);
    const tab2 = this.#fieldEnd(bytes, view, tab + 1, TAB);
    const known = this.#pool.keys.length;
    let key: number;
    if (isPlain(view, at, tab) && isPlain(view, tab + 1, tab2)) {
      key = this.#pool.keys.intern(bytes, view, at, tab2 + 1, tab - at);
    } else {
      const type = this.#canonical(bytes, at, tab, 0);
      this.#scratch[type] = TAB;
      const stateKey = this.#canonical(bytes, tab + 1, tab2, type + 1);
      this.#scratch[stateKey] = TAB;
      key = this.#pool.keys.intern(this.#scratch, this.#scratchView, 0, stateKey + 1, type);
    }
    if (key === known) this.#newKey(key, bytes, at, tab, tab2);
    this.#seen = grownSeen(this.#seen, key + 1);
    const position = this.#seen[key] - this.#lastSerial;
    if (position >= 0 && position < this.#lastLength) {
      this.#expected = position + 1;
      const next = this.#sameEvent(this.#last[position], view, tab2 + 1);
      if (next > 0) return next;
    }
    return this.#eventOf(key, bytes, view, tab2 + 1);
  }

  /** Looks at the row that has a key for the first time; its fields end at `tab` and `tab2`. */
  #newKey(key: number, bytes: Buffer, at: number, tab: number, tab2: number): void {
    const [type, stateKey] = [
      bytes.toString('utf8', at, tab),
      bytes.toString('utf8', tab + 1, tab2),
    ];
    if (isCreate(type, stateKey)) this.createKey = key;
    if (!this.#withRoom) return;
    const event = bytes.toString('utf8', tab2 + 1, bytes.indexOf(LINE_FEED, tab2));
    const why = whyNoRow(type, stateKey, event);
    if (why !== undefined) throw new InputError(`${this.#where()} ${why}`);
  }

  /** Where the field that begins at `at` ends; it must end with `terminator`. */
  #fieldEnd(bytes: Buffer, view: DataView, at: number, terminator: number): number {
    for (let end = specialByte(view, at); ; end = specialByte(view, end + 1)) {
      const byte = bytes[end];
      if (byte === terminator) return end;
      if (byte === TAB || byte === LINE_FEED) throw this.#wrongColumns(bytes, at);
      if (byte === 0) throw this.#nul();
      if (byte === CARRIAGE_RETURN) {
        throw new InputError(
          `${this.#where()} holds a carriage return, which COPY text writes as \\r.`,
        );
      }
      // What follows a backslash is of the field, be it a tab.
      if (byte === BACKSLASH && bytes[++end] === LINE_FEED) {
        throw new InputError(
          `${this.#where()} has a backslash at its end. A line feed within a field must be written as \\n.`,
        );
      }
    }
  }

  /** Writes the canonical spelling of a field into the scratch buffer at `to`; returns its end there. */
  #canonical(bytes: Buffer, start: number, end: number, to: number): number {
    if (isNull(bytes, start, end)) {
      throw new InputError(
        `${this.#where()} has a NULL (\\N), which no column of state_groups_state can hold.`,
      );
    }
    const decoded = Buffer.allocUnsafe(end - start);
    const length = decodeField(bytes, start, end, decoded, 0);
    if (decoded.subarray(0, length).includes(0)) {
      throw this.#nul();
    }
    const needed = to + 2 * length + 2;
    if (needed > this.#scratch.length) {
      const larger = Buffer.alloc(needed * 2);
      this.#scratch.copy(larger);
      this.#scratch = larger;
      this.#scratchView = viewOf(larger);
    }
    return encodeField(decoded, 0, length, this.#scratch, to);
  }

  #nul(): InputError {
    return new InputError(`${this.#where()} holds a NUL byte, which no text in Postgres can hold.`);
  }

  #wrongColumns(bytes: Buffer, at: number): InputError {
    const expected = this.#withRoom ? 5 : 4;
    return new InputError(
      `${this.#where()} does not have ${expected} columns; near '${quoted(bytes, at, bytes.length)}'.`,
    );
  }

  #where(): string {
    const group = this.#ids[this.#index];
    const near = group === undefined ? '' : `, near state group ${group}`;
    return `Row ${this.#line} of the sorted state_groups_state${near},`;
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/**
 * Whether bytes `start` to `end` of `view` are the string at `place` of an arena; false near the end of
 * the buffer. Eight bytes at a time are compared as a float, which is their equality but for NaN, and
 * that only sends the row the long way round: no text holds the NUL of a signed zero.
 */
function matches(
  view: DataView,
  start: number,
  end: number,
  arena: DataView,
  place: number,
): boolean {
  if (end + 4 > view.byteLength) return false;
  let at = start;
  let from = place << 2;
  for (; at + 8 <= end; at += 8, from += 8) {
    if (view.getFloat64(at, true) !== arena.getFloat64(from, true)) return false;
  }
  if (at + 4 <= end) {
    if (view.getInt32(at, true) !== arena.getInt32(from, true)) return false;
    at += 4;
    from += 4;
  }
  const rest = end - at;
  if (rest === 0) return true;
  return (view.getInt32(at, true) ^ arena.getInt32(from, true)) << (32 - 8 * rest) === 0;
}

/** The first byte from `at` on that is a backslash or below 14; there is one, since every line ends with a line feed. */
function specialByte(view: DataView, at: number): number {
  const last = view.byteLength - 4;
  for (; at <= last; at += 4) {
    const word = view.getInt32(at);
    const backslash = word ^ 0x5c5c5c5c;
    const special = ((word - 0x0e0e0e0e) & ~word) | ((backslash - 0x01010101) & ~backslash);
    // A borrow marks a byte before a special one as well, so each is looked at.
    if ((special & 0x80808080) !== 0) break;
  }
  for (; ; at++) {
    const byte = view.getUint8(at);
    if (byte < 14 || byte === BACKSLASH) return at;
  }
}

function isPlain(view: DataView, start: number, end: number): boolean {
  return specialByte(view, start) === end;
}

function grownSeen(seen: Seen, length: number): Seen {
  if (length <= seen.length) return seen;
  const larger = new Int32Array(Math.max(length, seen.length * 2)).fill(-1, seen.length);
  larger.set(seen);
  return larger;
}

type Seen = Int32Array<ArrayBuffer>;

/** The beginning of a line, fit for a message. */
function quoted(bytes: Buffer, start: number, end: number): string {
  const feed = bytes.indexOf(LINE_FEED, start);
  const stop = Math.min(feed < 0 ? end : feed, start + 60);
  return bytes.toString('utf8', start, stop);
}
