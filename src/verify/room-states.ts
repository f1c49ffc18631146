import { NO_PREDECESSOR, type GroupTable } from '../sources/group-table.js';
import type { RoomSource } from '../sources/room-source.js';
import { EntryPool } from '../state/entry-pool.js';
import { KeyTable } from '../state/key-table.js';
import { LiveStates, NO_STATE } from '../state/live-states.js';
import { RowParser, type GroupRows } from '../state/row-parser.js';
import { Ancestries } from './ancestries.js';
import { groupEntries, type GroupEntries } from './joined-events.js';

/** In `stateOf`: the group's state can't be known, because too many irregular groups lead to it. */
export const UNKNOWN = -2;

/** States of several rooms that share what is equal: an entry is one number, equal states mostly one root. */
export class SharedStates {
  readonly entries = new EntryPool(KeyTable.seeded());
  readonly states = new LiveStates(this.entries);

  /** Lets two states that are equal be one, so that what is built on either shares its nodes. */
  unite(state: number, equal: number): void {
    const { trie, root } = this.states;
    if (root[state] === root[equal]) return;
    trie.release(root[equal]);
    root[equal] = trie.hold(root[state]);
  }
}

/**
 * The states of a room's groups as Synapse reads them: for each key the row of the highest id among the
 * group and its ancestors. Chunks of COPY text in, states out, each as soon as it is complete. Memory
 * grows with the room's state and with 8 bytes a group.
 */
export class RoomStates {
  readonly groups: GroupTable;
  /** For each group the number of its state, `NO_STATE` until it is complete, or `UNKNOWN`. */
  readonly stateOf: Int32Array;
  /** The group whose rows came last. */
  latest = -1;
  readonly #shared: SharedStates;
  readonly #onState: (group: number, state: number) => void;
  readonly #parser: RowParser;
  readonly #ancestries: Ancestries;
  /** For each group how many others are built on its state. */
  readonly #successors: Int32Array;
  /** The states of gathered groups that are not complete, and the groups they still wait for. */
  readonly #gathering = new Map<number, { readonly state: number; left: number }>();

  /** `onState` gets each group, by its index, and its state (or `UNKNOWN`), which it must release. */
  constructor(
    { groups, rowColumns }: Pick<RoomSource, 'groups' | 'rowColumns'>,
    shared: SharedStates,
    onState: (group: number, state: number) => void,
  ) {
    this.groups = groups;
    this.stateOf = new Int32Array(groups.length).fill(NO_STATE);
    this.#shared = shared;
    this.#onState = onState;
    this.#ancestries = new Ancestries(groups);
    this.#successors = groups.successors.slice();
    for (const group of this.#ancestries.members.keys()) {
      const before = groups.prev[group];
      if (before !== NO_PREDECESSOR) this.#successors[before]--;
    }
    this.#parser = new RowParser(
      groups.ids,
      () => false,
      rowColumns,
      shared.entries,
      (group, rows) => this.#group(group, rows),
    );
  }

  /** Rows read so far. */
  get rows(): number {
    return this.#parser.totalRows;
  }

  write(chunk: Buffer): void {
    this.#parser.write(chunk);
  }

  /** Completes the last groups. */
  end(): void {
    this.#parser.end();
  }

  #group(group: number, rows: GroupRows): void {
    const { entries: pool, states } = this.#shared;
    const entries = groupEntries(rows, pool);
    this.latest = group;
    this.#gather(group, entries);
    if (!this.#ancestries.members.has(group)) {
      const before = this.groups.prev[group];
      const base = before === NO_PREDECESSOR ? NO_STATE : this.stateOf[before];
      const isKnown = base !== UNKNOWN && !this.#ancestries.tooLarge.has(group);
      const state = isKnown ? this.#shared.states.build(group, base, entries, rows) : UNKNOWN;
      this.#complete(group, state);
      if (base >= 0) states.release(base);
    }
    for (const entry of entries.joined) pool.release(entry);
  }

  /** Puts a group's rows into the states of those that are gathered and read through it. */
  #gather(group: number, { entries, length }: GroupEntries): void {
    const { states } = this.#shared;
    // States that are one until now stay one: what many groups read through is there once.
    const firstOf = new Map<number, number>();
    for (const reader of this.#ancestries.of(group)) {
      let gathering = this.#gathering.get(reader);
      if (gathering === undefined) {
        const left = this.#ancestries.members.get(reader)!;
        gathering = { state: states.create(reader, NO_STATE), left };
        this.#gathering.set(reader, gathering);
      }
      const { state } = gathering;
      const root = states.root[state];
      const first = firstOf.get(root);
      if (first === undefined) {
        states.apply(state, entries, length);
        states.hold(state);
        firstOf.set(root, state);
      } else {
        this.#shared.unite(first, state);
        states.size[state] = states.size[first];
      }
      if (--gathering.left > 0) continue;
      this.#gathering.delete(reader);
      this.#complete(reader, state);
    }
    for (const first of firstOf.values()) states.release(first);
  }

  #complete(group: number, state: number): void {
    this.stateOf[group] = state;
    if (state >= 0) this.#shared.states.hold(state, this.#successors[group]);
    this.#onState(group, state);
  }
}
