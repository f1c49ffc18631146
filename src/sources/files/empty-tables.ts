import { InputError } from '../../errors.js';
import { CREATE } from '../../state/create-event.js';
import type { Input } from './input.js';

/** In COPY text, the key that every full state has. */
const CREATE_KEY = Buffer.from(`\t${CREATE}\t\t`);

/** What is known of a group, and of a room. */
const HAS_CREATE = 1;
const LACKS_CREATE = 2;

export interface HeadersRead {
  readonly edges: Pick<Input, 'name'>;
  readonly rows: Pick<Input, 'name'>;
  /** Whether the table of edges has one, of any room. */
  readonly hasEdges: boolean;
  readonly groups: number;
  readonly rooms: number;
}

/**
 * Sees that no table is empty which can't be. An export that failed leaves an empty file, and taken for a table
 * without rows it would make changes that lose state. Takes a byte a group where there are no edges.
 */
export class EmptyTables {
  readonly #headers: HeadersRead;
  readonly #groups: Uint8Array;
  #hasRows = false;

  constructor(headers: HeadersRead) {
    this.#headers = headers;
    this.#groups = new Uint8Array(headers.hasEdges ? 0 : headers.groups);
  }

  /** Takes neighbouring rows of one group, which has this index; less than 0 if it has none. */
  addRows(group: number, bytes: Buffer, start: number, end: number): void {
    this.#hasRows = true;
    if (group < 0 || group >= this.#groups.length) return;
    const isFull = bytes.subarray(start, end).includes(CREATE_KEY);
    this.#groups[group] |= isFull ? HAS_CREATE : LACKS_CREATE;
  }

  /**
   * To be called once all rows have come.
   *
   * @param roomOf the number of a group's room, less than 0 if it is of none
   * @throws InputError if a table is empty though the others show that it can't be
   */
  check(roomOf: (group: number) => number): void {
    const { edges, rows, hasEdges, groups, rooms } = this.#headers;
    // Of each room Synapse makes one group without rows, before the first event.
    if (!this.#hasRows && (hasEdges || groups > rooms)) throw emptyRows(rows);
    const known = new Uint8Array(rooms);
    this.#groups.forEach((flags, group) => {
      const room = roomOf(group);
      if (room >= 0 && flags !== 0) known[room] |= flags & HAS_CREATE || LACKS_CREATE;
    });
    // In a room of invitations alone no group has the event.
    if (known.includes(HAS_CREATE | LACKS_CREATE)) {
      throw new InputError(
        `The table state_group_edges has no rows (${edges.name}), though state_groups_state has groups without an m.room.create event beside full states, which need an edge: its export failed. Export it again, and check that this succeeds.`,
      );
    }
  }
}

/** For rows that are not there, though groups are known. */
export function emptyRows({ name }: Pick<Input, 'name'>): InputError {
  return new InputError(
    `The table state_groups_state has no rows (${name}), though the other tables have several state groups: its export failed. Export it again, and check that this succeeds.`,
  );
}
