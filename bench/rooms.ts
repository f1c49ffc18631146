import { Random } from './random.js';

/** Synapse writes a full snapshot once the predecessor's chain has this many groups, itself included. */
const LONGEST_CHAIN = 100;

/** Keys that every room has from its creation on: the create event, power levels, the name and so on. */
export const CREATION_KEYS = 12;

/** How the events of a room come: what is common in it and what is rare. */
interface Habits {
  /** Chance that an event has a predecessor that another event already has: a branch begins. */
  readonly forks: number;
  /** Mean number of groups on a branch before it ends. */
  readonly branchLength: number;
  /** Share of branches that state resolution joins to the room; the others are left as they are. */
  readonly resolved: number;
  /** Share of resolved branches that go on by themselves, and are resolved again later. */
  readonly kept: number;
  /** Chance that a state resolution drops a key that one side lacks. */
  readonly dropped: number;
  /** Chance that a state resolution refuses an event that both sides have: its key vanishes. */
  readonly refused: number;
  /** Chance that a stretch of old history arrives, with ids of now. */
  readonly backfills: number;
  /** Share of those that begin with the whole state, as a server that was asked for it gave it. */
  readonly backfilledInFull: number;
  /** Chance that a group was not referenced: it is deleted then, and the next one stored in full. */
  readonly deleted: number;
  /** The share of all keys that a room knows after a share `p` of its groups is `p ** growth`. */
  readonly growth: number;
  /** 1: members are equally busy. More: old members are busier. */
  readonly regulars: number;
  /** Branches that go on at one time, the room itself included; an older one is left when one more begins. */
  readonly mostHeads: number;
}

const BRANCHING: Habits = {
  forks: 0.02,
  branchLength: 5,
  resolved: 0.8,
  kept: 0.1,
  dropped: 0.15,
  refused: 0.02,
  backfills: 0.002,
  backfilledInFull: 0.4,
  deleted: 0,
  growth: 0.5,
  regulars: 3,
  mostHeads: 8,
};

const HABITS = {
  /** Every group on the one before it: no branches. */
  line: { ...BRANCHING, forks: 0, backfills: 0 },
  /** Some of everything, as in a large federated room. */
  branching: BRANCHING,
  /** Much old history arrives late. */
  backfill: { ...BRANCHING, backfills: 0.01 },
  /** Servers that see the room differently for long, and whose states are resolved again and again. */
  resolution: { ...BRANCHING, forks: 0.04, branchLength: 12, resolved: 0.95, kept: 0.6 },
  /** New members come all the time, and go. */
  churn: { ...BRANCHING, growth: 1, regulars: 1 },
  /** A line of which Synapse has deleted what nothing referred to. */
  deleted: { ...BRANCHING, forks: 0, backfills: 0, deleted: 0.03 },
  /** A thousand branches that begin one after another and go on side by side, never resolved. */
  crowd: { ...BRANCHING, forks: 0.1, branchLength: 1e6, backfills: 0, mostHeads: 1000 },
  /** Thirty keys and no more. */
  small: { ...BRANCHING, growth: 0.2, regulars: 1 },
} satisfies Record<string, Habits>;

export type RoomKind = keyof typeof HABITS;

export const ROOM_KINDS = Object.keys(HABITS) as readonly RoomKind[];

export interface RoomSettings {
  readonly kind: RoomKind;
  /** State groups to make. */
  readonly groups: number;
  /** Keys that the room has in the end; nearly all are members. At least `CREATION_KEYS` + 1. */
  readonly keys: number;
  readonly seed: number;
}

/** A state group as Synapse stores it. */
export interface MadeGroup {
  readonly id: number;
  /** Undefined where the group is a full snapshot. */
  readonly predecessor: number | undefined;
  /** Numbers of the keys whose rows are stored, ascending in a snapshot. */
  readonly rowKeys: Int32Array;
  /** The group's whole state: the event's number by key number, 0 where the state lacks the key. */
  readonly state: Int32Array;
}

/** The newest group of a branch. */
interface Head {
  group: number;
  /** Groups of its chain, itself included. */
  chain: number;
  state: Int32Array;
  /** Groups still to come before the branch ends. */
  left: number;
  backfilled: boolean;
}

/** Old states that are kept for backfill to begin at. */
const MOST_OLD_STATES = 8;

/**
 * A room that grows as Synapse's rooms do: every event that changes the state makes a group with a
 * delta of its predecessor; a full snapshot where the chain is at its longest, where a key vanished
 * (there is no tombstone), where the predecessor was deleted, or where the state came from another server.
 *
 * Memory: `keys` × 4 bytes for each branch that goes on and for 9 states more, whatever the number of groups.
 */
export class Room {
  readonly groups: number;
  readonly #habits: Habits;
  readonly #random: Random;
  readonly #keys: number;
  /** The room's own line is the first; branches follow, oldest first. */
  readonly #heads: Head[] = [];
  readonly #oldStates: Head[] = [];
  readonly #rowKeys: Int32Array;
  #resolvedState: Int32Array;
  #made = 0;
  #events = 0;
  /** Keys numbered below this have been in a state. */
  #known = 0;

  constructor(settings: RoomSettings) {
    this.groups = settings.groups;
    this.#habits = HABITS[settings.kind];
    this.#random = new Random(settings.seed);
    this.#keys = settings.keys;
    this.#rowKeys = new Int32Array(settings.keys);
    this.#resolvedState = new Int32Array(settings.keys);
  }

  /** Groups that are still to be made. */
  get left(): number {
    return this.groups - this.#made;
  }

  /**
   * Makes the next group, under an id larger than all before it. The arrays of the result are valid
   * until the next call.
   */
  next(id: number): MadeGroup {
    const group = this.#made === 0 ? this.#create(id) : this.#grow(id);
    this.#made++;
    return group;
  }

  /** The first group is the state before the create event: no rows and no edge. */
  #create(id: number): MadeGroup {
    const state = new Int32Array(this.#keys);
    this.#heads.push({ group: id, chain: 1, state, left: Infinity, backfilled: false });
    return { id, predecessor: undefined, rowKeys: this.#rowKeys.subarray(0, 0), state };
  }

  #grow(id: number): MadeGroup {
    this.#rememberOldState();
    const ended = this.#heads.findIndex((head) => head.left === 0);
    if (ended > 0) {
      const resolved = this.#endBranch(ended, id);
      if (resolved) return resolved;
    }
    // A room is created alone: nothing branches before its first dozen groups.
    if (this.#made > CREATION_KEYS) {
      if (this.#random.chance(this.#habits.forks)) this.#beginBranch();
      else if (this.#oldStates.length > 0 && this.#random.chance(this.#habits.backfills)) {
        return this.#backfill(id);
      }
    }
    return this.#changeKey(this.#chooseHead(), id);
  }

  #rememberOldState(): void {
    const interval = Math.max(20, Math.floor(this.groups / 64));
    if (this.#habits.backfills === 0 || this.#made % interval !== 0) return;
    const old = copyOf(this.#heads[0]);
    if (this.#oldStates.length < MOST_OLD_STATES) this.#oldStates.push(old);
    else this.#oldStates[this.#random.below(MOST_OLD_STATES)] = old;
  }

  #addBranch(head: Head): void {
    if (this.#heads.length === this.#habits.mostHeads) this.#heads.splice(1, 1);
    this.#heads.push(head);
  }

  #beginBranch(): void {
    const branch = copyOf(this.#heads[this.#random.below(this.#heads.length)]);
    branch.left = this.#random.around(this.#habits.branchLength);
    this.#addBranch(branch);
  }

  #chooseHead(): Head {
    const newest = this.#heads[this.#heads.length - 1];
    // Backfill arrives in one go, while the events of servers apart arrive in turn.
    if (newest.backfilled || this.#random.chance(0.5)) return newest;
    return this.#heads[this.#random.below(this.#heads.length)];
  }

  /** The group that resolves the branch with the room; undefined where there is nothing to write. */
  #endBranch(index: number, id: number): MadeGroup | undefined {
    const branch = this.#heads[index];
    const goesOn = !branch.backfilled && this.#random.chance(this.#habits.kept);
    if (goesOn) branch.left = this.#random.around(this.#habits.branchLength);
    else this.#heads.splice(index, 1);
    if (branch.backfilled || !this.#random.chance(this.#habits.resolved)) return undefined;
    return this.#resolve(this.#heads[0], branch, id);
  }

  #changeKey(head: Head, id: number): MadeGroup {
    const { deleted } = this.#habits;
    const isNextOfDeleted = deleted > 0 && this.#random.chance(deleted);
    for (let changes = isNextOfDeleted ? 2 : 1; changes > 0; changes--) {
      this.#rowKeys[0] = this.#chooseKey();
      head.state[this.#rowKeys[0]] = ++this.#events;
    }
    head.left--;
    return this.#store(head, isNextOfDeleted ? undefined : head, 1, id);
  }

  #chooseKey(): number {
    const progress = this.#made / this.groups;
    const goal = CREATION_KEYS + (this.#keys - CREATION_KEYS) * progress ** this.#habits.growth;
    if (this.#known < Math.min(goal, this.#keys)) return this.#known++;
    // Key 0 is the create event, which nothing changes.
    if (this.#random.chance(0.05)) return 1 + this.#random.below(CREATION_KEYS - 1);
    return 1 + Math.floor((this.#known - 1) * this.#random.next() ** this.#habits.regulars);
  }

  /** Old history, of which this is the first group: like an old state, with other events in places. */
  #backfill(id: number): MadeGroup {
    const branch = copyOf(this.#oldStates[this.#random.below(this.#oldStates.length)]);
    branch.left = this.#random.around(4 * this.#habits.branchLength);
    branch.backfilled = true;
    this.#addBranch(branch);
    if (!this.#random.chance(this.#habits.backfilledInFull)) return this.#changeKey(branch, id);
    for (let others = this.#random.below(4); others > 0; others--) {
      const key = this.#anyMember();
      branch.state[key] = this.#random.chance(0.5) ? ++this.#events : 0;
    }
    return this.#store(branch, undefined, 0, id);
  }

  /**
   * State resolution of two heads. As in Synapse, the result is a delta of the side that it differs
   * from the least, of those that have no key which it lacks, and no group where it is one of them.
   */
  #resolve(main: Head, side: Head, id: number): MadeGroup | undefined {
    const result = this.#resolvedState;
    const refused = this.#random.chance(this.#habits.refused) ? this.#anyMember() : -1;
    let mainDiffers = 0;
    let sideDiffers = 0;
    let mainLacks = false;
    let sideLacks = false;
    for (let key = 0; key < this.#known; key++) {
      const ours = main.state[key];
      const theirs = side.state[key];
      let chosen = ours === theirs ? ours : this.#chooseEvent(ours, theirs);
      if (key === refused) chosen = 0;
      result[key] = chosen;
      if (chosen !== ours) mainDiffers++;
      if (chosen !== theirs) sideDiffers++;
      if (chosen === 0 && ours !== 0) mainLacks = true;
      if (chosen === 0 && theirs !== 0) sideLacks = true;
    }
    if (mainDiffers === 0) return undefined;
    let base: Head | undefined;
    if (!mainLacks) base = main;
    if (!sideLacks && (mainLacks || sideDiffers < mainDiffers)) base = side;
    let rows = 0;
    if (base) {
      for (let key = 0; key < this.#known; key++) {
        if (result[key] !== base.state[key]) this.#rowKeys[rows++] = key;
      }
    }
    if (rows === 0 && base) {
      // The result is the side's state: the room goes on from its group.
      main.state.set(result);
      main.group = base.group;
      main.chain = base.chain;
      return undefined;
    }
    this.#resolvedState = main.state;
    main.state = result;
    return this.#store(main, base, rows, id);
  }

  /** The number of a known key that is not there from the room's creation on. */
  #anyMember(): number {
    return CREATION_KEYS + this.#random.below(this.#known - CREATION_KEYS);
  }

  #chooseEvent(ours: number, theirs: number): number {
    if (ours === 0 || theirs === 0) {
      return this.#random.chance(this.#habits.dropped) ? 0 : ours + theirs;
    }
    return this.#random.chance(0.8) ? Math.max(ours, theirs) : Math.min(ours, theirs);
  }

  /** Stores the head's state, as the first `rows` of `#rowKeys` on `base` or in full. */
  #store(head: Head, base: Head | undefined, rows: number, id: number): MadeGroup {
    const delta = base !== undefined && base.chain < LONGEST_CHAIN;
    const predecessor = delta ? base.group : undefined;
    head.chain = delta ? base.chain + 1 : 1;
    head.group = id;
    let count = rows;
    if (!delta) {
      count = 0;
      for (let key = 0; key < this.#known; key++) {
        if (head.state[key] !== 0) this.#rowKeys[count++] = key;
      }
    }
    return { id, predecessor, rowKeys: this.#rowKeys.subarray(0, count), state: head.state };
  }
}

function copyOf(head: Head): Head {
  return { ...head, state: head.state.slice() };
}
