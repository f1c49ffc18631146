import { mix, Random } from './random.js';
import { CREATION_KEYS, Room } from './rooms.js';
import type { MadeGroup, RoomSettings } from './rooms.js';

/** Takes bytes; they may be overwritten as soon as the call returns. */
export type Sink = (bytes: Uint8Array) => void;

/** The three tables' COPY text, in ascending id. */
export interface TableSinks {
  readonly stateGroups: Sink;
  readonly stateGroupEdges: Sink;
  readonly stateGroupsState: Sink;
}

export interface TableCounts {
  groups: number;
  edges: number;
  rows: number;
}

/** The name of the room that is `index`-th in its database. */
export function roomName(seed: number, index: number): string {
  const random = new Random(seed ^ mix(index + 1));
  let name = '!';
  for (let i = 0; i < 18; i++) name += LETTERS[random.below(LETTERS.length)];
  return `${name}:example.org`;
}

/**
 * Writes the state tables of a database in which these rooms grew at the same time: their ids are
 * interleaved, and there are gaps, as events that change no state take none but failed ones do.
 *
 * @param rooms At least one; the n-th is called `roomName(its seed, n)`.
 */
export function writeTables(rooms: readonly RoomSettings[], sinks: TableSinks): TableCounts {
  const growing = rooms.map((settings, index) => ({
    room: new Room(settings),
    text: new RoomText(roomName(settings.seed, index), settings),
  }));
  const groups = new CopyText(sinks.stateGroups);
  const edges = new CopyText(sinks.stateGroupEdges);
  const rows = new CopyText(sinks.stateGroupsState);
  const counts: TableCounts = { groups: 0, edges: 0, rows: 0 };
  const random = new Random(rooms[0].seed ^ 0x6964);
  let id = 0;
  while (growing.length > 0) {
    id += random.chance(0.5) ? 1 : random.around(3);
    const index = random.below(growing.length);
    const { room, text } = growing[index];
    const group = room.next(id);
    text.writeGroup(groups, group);
    text.writeEdge(edges, group);
    text.writeRows(rows, group);
    counts.groups++;
    counts.edges += group.predecessor === undefined ? 0 : 1;
    counts.rows += group.rowKeys.length;
    if (room.left === 0) growing.splice(index, 1);
  }
  for (const table of [groups, edges, rows]) table.flush();
  return counts;
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';
const BASE64URL = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_');

/** `$` and the 43 characters of a SHA-256 in base64. */
const EVENT_ID_BYTES = 44;

/** Collects COPY text in one buffer, and passes it on when that is full. */
class CopyText {
  readonly bytes = Buffer.allocUnsafe(256 * 1024);
  length = 0;
  readonly #sink: Sink;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  flush(): void {
    this.#sink(this.bytes.subarray(0, this.length));
    this.length = 0;
  }

  /** Makes room for a line of at most this many bytes. */
  reserve(bytes: number): void {
    if (this.length + bytes > this.bytes.length) this.flush();
  }

  append(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  appendByte(byte: number): void {
    this.bytes[this.length++] = byte;
  }

  /** An event's id, drawn from its number: nothing has to be remembered for it. */
  appendEventId(seed: number, event: number): void {
    this.bytes[this.length] = 0x24;
    let bits = 0;
    for (let i = 1; i < EVENT_ID_BYTES; i++) {
      // Five characters of six bits from every mixed word.
      if (i % 5 === 1) bits = mix(seed ^ mix(event + Math.imul(i, 0x9e3779b9)));
      this.bytes[this.length + i] = BASE64URL[bits & 63];
      bits >>>= 6;
    }
    this.length += EVENT_ID_BYTES;
  }
}

const NEWLINE = 0x0a;

/** A room's names and keys as COPY text, escaped and between tabs. */
class RoomText {
  readonly #seed: number;
  readonly #name: Buffer;
  /** `type`, a tab, `state_key` and a tab, by key number. */
  readonly #keys: Buffer[];

  constructor(name: string, settings: RoomSettings) {
    this.#seed = mix(settings.seed);
    this.#name = Buffer.from(`\t${name}\t`);
    const random = new Random(settings.seed ^ 0x6b6579);
    this.#keys = Array.from({ length: settings.keys }, (_, key) =>
      Buffer.from(keyText(key, random)),
    );
  }

  writeGroup(table: CopyText, group: MadeGroup): void {
    table.reserve(32 + this.#name.length + EVENT_ID_BYTES);
    table.append(Buffer.from(String(group.id)));
    table.append(this.#name);
    table.appendEventId(~this.#seed, group.id);
    table.appendByte(NEWLINE);
  }

  writeEdge(table: CopyText, group: MadeGroup): void {
    if (group.predecessor === undefined) return;
    table.reserve(64);
    table.append(Buffer.from(`${group.id}\t${group.predecessor}\n`));
  }

  writeRows(table: CopyText, group: MadeGroup): void {
    const start = Buffer.concat([Buffer.from(String(group.id)), this.#name]);
    for (const key of group.rowKeys) {
      const text = this.#keys[key];
      table.reserve(start.length + text.length + EVENT_ID_BYTES + 1);
      table.append(start);
      table.append(text);
      table.appendEventId(this.#seed, group.state[key]);
      table.appendByte(NEWLINE);
    }
  }
}

const CREATION_TYPES = [
  'm.room.create',
  'm.room.power_levels',
  'm.room.join_rules',
  'm.room.history_visibility',
  'm.room.name',
  'm.room.topic',
  'm.room.avatar',
  'm.room.guest_access',
  'm.room.canonical_alias',
  'm.room.encryption',
  'm.room.server_acl',
  'm.room.pinned_events',
];

/** State keys that a careless reader or writer trips over, as COPY text. */
const ODD_STATE_KEYS = [
  'tab\\tnewline\\nbackslash\\\\',
  'quote\'double"',
  'dollar$',
  '$$two$$',
  '🏠 house',
  '',
];

const SERVERS = [
  'matrix.org',
  'matrix.example.org',
  'chat.example.com',
  'tchncs.example',
  'im.university.example.edu',
  'home.example',
  'synapse.example.net',
  'm.example.social',
];

const SYLLABLES =
  'an ber chi da el fox gra hu in jo ka li mo nor os pet qui ra sun ti u vex wo yo zed'.split(' ');

/** `type`, tab, `state_key`, tab. Members' ids are of 15 to 40 bytes. */
function keyText(key: number, random: Random): string {
  if (key < CREATION_KEYS) return `${CREATION_TYPES[key]}\t\t`;
  const odd = key - CREATION_KEYS - 10;
  if (odd >= 0 && odd < ODD_STATE_KEYS.length) return `org.example.note\t${ODD_STATE_KEYS[odd]}\t`;
  const server = SERVERS[Math.floor(SERVERS.length * random.next() ** 2)];
  const number = key.toString(36);
  if (key % 40 === 37) return `m.space.child\t!${randomName(random, 5)}${number}:${server}\t`;
  if (key % 40 === 38) return `m.room.third_party_invite\t${randomName(random, 8)}${number}\t`;
  if (key % 40 === 39) return `im.vector.modular.widgets\t${randomName(random, 4)}_${number}\t`;
  return `m.room.member\t@${randomName(random, 2 + random.below(4))}${number}:${server}\t`;
}

function randomName(random: Random, syllables: number): string {
  let name = '';
  for (let i = 0; i < syllables; i++) name += SYLLABLES[random.below(SYLLABLES.length)];
  return name;
}
