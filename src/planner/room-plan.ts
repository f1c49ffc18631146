import { Transform, type TransformCallback } from 'node:stream';
import { VerificationError } from '../errors.js';
import {
  ELSEWHERE,
  FROZEN,
  IN_RANGE,
  NO_PREDECESSOR,
  PENDING,
  UNREADABLE,
} from '../sources/group-table.js';
import type { RoomSource } from '../sources/room-source.js';
import { fieldOf } from '../state/copy-text.js';
import { EntryPool } from '../state/entry-pool.js';
import { KeyTable } from '../state/key-table.js';
import { LiveStates, NO_STATE } from '../state/live-states.js';
import { RowParser, type GroupRows } from '../state/row-parser.js';
import { Fingerprints } from './fingerprints.js';
import { idsHash } from './ids-hash.js';
import type { Change, PlannedGroup } from './planned-group.js';
import { Plan, type Planner } from './planner.js';
import { RoomCounts } from './room-counts.js';

/** Asked now and then; true ends a plan with the groups that are planned by then: any part of one is right. */
export type IsEnough = (counts: Readonly<RoomCounts>) => boolean;

/** So many groups are passed on at once, or as many as have so many bytes of new rows. */
const MOST_GROUPS = 4096;
const MOST_BYTES = 1024 * 1024;

/** In `#stateOf`: the group's state can't be known, because it or an ancestor is irregular. */
const UNKNOWN = -2;

/**
 * The stage between a source's rows and the sinks: chunks of COPY text in, arrays of planned groups
 * out. Builds each group's state, asks the planner, verifies its answer, and forgets every state as
 * soon as nothing can need it. Memory grows with the room's state and with 4 bytes a group. Chunks go
 * back to the source: nobody else may read them.
 *
 * Once `isEnough` says so, no further group is planned, and rows may end anywhere.
 *
 * Emits `planned` after each array, for those who show `counts`, and fails with `VerificationError` if
 * a planned state differs from the stored one.
 */
export class RoomPlan extends Transform {
  readonly counts: RoomCounts;
  readonly #source: Pick<RoomSource, 'groups' | 'rowColumns' | 'room' | 'giveBack'>;
  readonly #planner: Planner;
  readonly #entries: EntryPool;
  readonly #states: LiveStates;
  readonly #parser: RowParser;
  readonly #fingerprints: Fingerprints | undefined;
  readonly #isEnough: IsEnough;
  #isCut = false;
  readonly #plan = new Plan();
  /** For each group the number of its state, `NO_STATE` before its turn, or `UNKNOWN`. */
  readonly #stateOf: Int32Array;
  /** Groups in range that have not come yet. */
  #toCome: number;
  #planned: PlannedGroup[] = [];
  /** Bytes of their new rows. */
  #plannedBytes = 0;
  /** Goes on with a chunk once there is room for more. */
  #goOn: (() => void) | undefined;

  constructor(
    source: Pick<RoomSource, 'groups' | 'rowColumns' | 'room' | 'giveBack'>,
    planner: Planner,
    verify = true,
    isEnough: IsEnough = () => false,
  ) {
    super({ readableObjectMode: true, readableHighWaterMark: 4 });
    this.#source = source;
    this.#planner = planner;
    planner.begin?.(source.groups);
    this.#entries = new EntryPool(KeyTable.seeded());
    this.#states = new LiveStates(this.#entries);
    this.#fingerprints = verify ? new Fingerprints(this.#states) : undefined;
    this.#isEnough = isEnough;
    this.#stateOf = new Int32Array(source.groups.length).fill(NO_STATE);
    this.#toCome = source.groups.flags.reduce((sum, flags) => sum + (flags & IN_RANGE), 0);
    this.counts = new RoomCounts(this.#entries, Buffer.byteLength(source.room));
    const { ids, flags } = source.groups;
    const room = fieldOf(source.room);
    this.#parser = new RowParser(
      ids,
      (index) => (flags[index] & UNREADABLE) !== 0,
      source.rowColumns,
      this.#entries,
      (index, rows) => this.#group(index, rows),
      (index, name) => (flags[index] & ELSEWHERE) !== 0 || name.equals(room),
    );
  }

  /** Whether some state of the room has its m.room.create event. */
  get hasCreate(): boolean {
    return this.#parser.createKey >= 0;
  }

  get groupsVerified(): number {
    return this.#fingerprints?.verified ?? 0;
  }

  /** Whether it was enough before all rows had come. */
  get isCut(): boolean {
    return this.#isCut;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#isCut ||= this.#isEnough(this.counts);
    if (this.#isCut) {
      done();
      return;
    }
    const read = (error?: Error | null, last?: PlannedGroup[]): void => {
      if (!error) this.#source.giveBack?.(chunk);
      done(error, last);
    };
    this.#planAll(() => this.#parser.write(chunk), read);
  }

  override _flush(done: TransformCallback): void {
    // What has not come of a room that is cut off is not to be taken for groups without rows.
    if (this.#isCut) done();
    else this.#planAll(() => this.#parser.end(), done);
  }

  override _read(size: number): void {
    const goOn = this.#goOn;
    this.#goOn = undefined;
    if (goOn === undefined) super._read(size);
    else goOn();
  }

  /** Passes on what `step` plans, and then the rest, as it pauses: a small chunk may be many large changes. */
  #planAll(step: () => boolean, done: TransformCallback, wasPaused = false): void {
    for (let isWhole = false; !isWhole;) {
      try {
        isWhole = step();
      } catch (error) {
        done(error as Error);
        return;
      }
      const planned = this.#planned;
      this.#planned = [];
      this.#plannedBytes = 0;
      if (planned.length > 0) this.emit('planned');
      step = () => this.#parser.goOn();
      if (isWhole) {
        // A reader that was promised more waits for ever unless something comes, be it empty.
        done(null, planned.length > 0 || wasPaused ? planned : undefined);
      } else if (!this.push(planned)) {
        this.#goOn = () => this.#planAll(step, done, true);
        return;
      }
    }
  }

  /** Returns whether so much is planned that it is to be passed on. */
  #group(index: number, rows: GroupRows): boolean {
    const { ids, prev, successors, flags } = this.#source.groups;
    const before = prev[index];
    const stored = before === NO_PREDECESSOR ? NO_STATE : this.#stateOf[before];
    if (stored >= 0) this.#states.successorsLeft[stored]--;
    this.#toCome -= flags[index] & IN_RANGE;
    const readable = (flags[index] & UNREADABLE) === 0 && stored !== UNKNOWN;
    if (readable && !rows.contradictory && !rows.foreign) {
      this.#readable(index, stored, rows);
    } else {
      this.#stateOf[index] = UNKNOWN;
      if (readable)
        (rows.foreign ? this.counts.foreign : this.counts.contradictory).add(ids[index]);
      this.counts.passThrough(flags[index]);
      this.#keep(index, rows);
    }
    if (stored >= 0) {
      if (this.#states.successorsLeft[stored] === 0) {
        this.#planner.endOfSuccessors?.(this.#states, stored);
      }
      this.#states.release(stored);
    }
    const state = this.#stateOf[index];
    if (state >= 0) {
      this.#states.hold(state, successors[index]);
      this.#states.release(state);
    }
    return this.#plannedBytes >= MOST_BYTES || this.#planned.length >= MOST_GROUPS;
  }

  #readable(index: number, stored: number, rows: GroupRows): void {
    const states = this.#states;
    const state = this.#build(index, stored, rows);
    this.#stateOf[index] = state;
    this.#fingerprints?.stored(state, stored, rows.entries, rows.length);
    states.hopsBefore[state] = stored === NO_STATE ? 1 : states.hopsBefore[stored] + 1;

    const { groups } = this.#source;
    const flags = groups.flags[index];
    if ((flags & IN_RANGE) !== 0 && stored === NO_STATE) {
      if (rows.rows === 0) this.counts.empty.add(groups.ids[index]);
      else if (!rows.has(this.#parser.createKey)) this.counts.withoutCreate.add(groups.ids[index]);
    }
    if ((flags & IN_RANGE) === 0 || (flags & FROZEN) !== 0) {
      states.hopsAfter[state] = stored === NO_STATE ? 1 : states.hopsAfter[stored] + 1;
      if ((flags & IN_RANGE) === 0) this.#planner.read?.(states, state, stored);
      else this.#planner.stays?.(states, state, stored);
      this.counts.passThrough(flags);
      this.#keep(index, rows);
    } else {
      const plan = this.#plan;
      const changed = this.#planner.plan(states, state, stored, plan, this.#toCome);
      const base = changed ? plan.base : stored;
      states.hopsAfter[state] = base === NO_STATE ? 1 : states.hopsAfter[base] + 1;
      if (changed) this.counts.stateGroupsChanged++;
      // A delta that differs from the stored rows has fewer of them: both give one state on one base.
      if (changed && (base !== stored || plan.length !== rows.length)) {
        this.#change(index, state, rows);
      } else {
        this.#keep(index, rows);
      }
    }
    this.counts.hopsBefore.add(states.hopsBefore[state]);
    this.counts.hopsAfter.add(states.hopsAfter[state]);
  }

  #build(index: number, stored: number, rows: GroupRows): number {
    const states = this.#states;
    const { successors, flags } = this.#source.groups;
    const state = states.build(index, stored, rows, rows);
    states.successorsLeft[state] = successors[index]!;
    states.barred[state] = flags[index] & (ELSEWHERE | PENDING);
    return state;
  }

  #change(index: number, state: number, rows: GroupRows): void {
    const { groups } = this.#source;
    const plan = this.#plan;
    const stateGroup = groups.ids[index];
    // Before they are compared, so that nothing comes between that and the writing.
    this.#entries.keys.order.arrange(plan.delta, plan.length, this.#entries.key);
    if (
      this.#fingerprints !== undefined &&
      !this.#fingerprints.agrees(state, plan.base, plan.delta, plan.length)
    ) {
      throw new VerificationError(
        `The planned state of state group ${stateGroup} is not its stored state. Nothing was written. This is a defect of this program; please report it with an export of the room's tables.`,
        stateGroup,
      );
    }
    const newPredecessor =
      plan.base === NO_STATE ? undefined : groups.ids[this.#states.group[plan.base]];
    const oldPredecessor = this.#idOf(groups.prev[index]);
    const change = this.#changeOf(rows, idsHash(stateGroup, oldPredecessor, newPredecessor));
    this.#plannedBytes += change.rows.length;
    this.#planned.push({
      stateGroup,
      oldPredecessor,
      newPredecessor,
      oldRows: rows.rows,
      newRows: plan.length,
      change,
    });
    this.counts.rewritten(rows, plan, oldPredecessor === undefined, newPredecessor === undefined);
  }

  #changeOf(rows: GroupRows, ofIds: bigint): Change {
    const plan = this.#plan;
    return {
      oldHash: this.#entries.guardSum(rows) + ofIds,
      newRowsHash: this.#entries.guardSum({
        entries: plan.delta,
        length: plan.length,
        repeated: plan.delta,
        repeatedLength: 0,
      }),
      rows: this.#entries.copyText(plan.delta, plan.length),
    };
  }

  #keep(index: number, rows: GroupRows): void {
    const { ids, prev, flags } = this.#source.groups;
    const predecessor = this.#idOf(prev[index]);
    this.#planned.push({
      stateGroup: ids[index],
      oldPredecessor: predecessor,
      newPredecessor: predecessor,
      oldRows: rows.rows,
      newRows: rows.rows,
      change: undefined,
    });
    this.counts.kept(rows, flags[index], predecessor === undefined);
  }

  #idOf(index: number): number | undefined {
    return index === NO_PREDECESSOR ? undefined : this.#source.groups.ids[index];
  }
}
