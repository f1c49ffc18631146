import type { EntryPool } from '../state/entry-pool.js';
import type { GroupRows } from '../state/row-parser.js';

/** It stands in no event id of COPY text. */
const TAB = '\t';
const LINE_FEED = '\n';

/** What a group's rows say, each key once. */
export interface GroupEntries {
  readonly entries: Int32Array;
  readonly length: number;
  /** Those of `entries` that were made for it, to be released in the end. */
  readonly joined: readonly number[];
}

/**
 * The entries of a group's rows. For a key with several events, whose state is undefined, there is one
 * entry that stands for all of them, so that it equals only an entry of the same events.
 */
export function groupEntries(rows: GroupRows, pool: EntryPool): GroupEntries {
  const { length } = rows;
  if (!rows.contradictory) return { entries: rows.entries, length, joined: [] };
  const several = new Map<number, Set<number>>();
  for (const entry of rows.repeated.subarray(0, rows.repeatedLength)) {
    const key = pool.key[entry];
    const events = several.get(key);
    if (events === undefined) several.set(key, new Set([entry]));
    else events.add(entry);
  }
  const joined: number[] = [];
  const entries = rows.entries.subarray(0, length).map((entry) => {
    const events = several.get(pool.key[entry])?.add(entry);
    if (events === undefined || events.size === 1) return entry;
    const name = [...events].map((event) => eventText(event, pool)).sort();
    const bytes = Buffer.from(name.join(TAB) + LINE_FEED, 'latin1');
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    joined.push(pool.intern(pool.key[entry], bytes, view, 0, bytes.length));
    return joined.at(-1)!;
  });
  return { entries, length, joined };
}

/** The events of an entry, in COPY text, a character for each byte: one, or several of `groupEntries`. */
export function eventsOf(entry: number, pool: EntryPool): string[] {
  return eventText(entry, pool).split(TAB);
}

function eventText(entry: number, { arena, place, byteLength }: EntryPool): string {
  const start = place[entry] << 2;
  const { buffer } = arena.bytes;
  return Buffer.from(buffer, start, byteLength[entry] - 1).toString('latin1');
}
