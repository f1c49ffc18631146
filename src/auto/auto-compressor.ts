import { BatchSize } from '../apply/apply-changes.js';
import { Rewriter } from '../apply/rewriter.js';
import type { Within } from '../apply/rewriter.js';
import { vacuum } from '../apply/table-space.js';
import { Throttle } from '../apply/throttle.js';
import type { Pace } from '../apply/throttle.js';
import type { Progress } from '../compress.js';
import { BusyError, DatabaseError, OutputError, RoomNotFoundError, UsageError } from '../errors.js';
import { AdaptivePlanner } from '../planner/adaptive.js';
import type { AdaptiveSettings } from '../planner/adaptive.js';
import { LevelsPlanner } from '../planner/levels.js';
import type { Level } from '../planner/levels.js';
import type { ChangedGroup } from '../planner/planned-group.js';
import type { IsEnough } from '../planner/room-plan.js';
import { indexOfId } from '../sources/id-list.js';
import { codeOf, isLost } from '../sources/postgres/database-errors.js';
import { openPostgresSource } from '../sources/postgres/postgres-source.js';
import type { GroupRange, RoomSource } from '../sources/room-source.js';
import {
  adaptiveLevels,
  createTables,
  emptyLevels,
  forgetRoomsThatAreGone,
  lowestUncompressed,
  readProgress,
  saveLowestUncompressed,
  saveProgress,
} from './bookkeeping.js';
import type { Statement } from './bookkeeping.js';
import { planChanges } from './room-changes.js';
import type { RoomChanges } from './room-changes.js';
import { readEstimates } from './room-estimates.js';
import type { RoomEstimate } from './room-estimates.js';

type AutoStrategy =
  | { readonly name: 'levels'; readonly sizes: readonly number[] | undefined }
  | { readonly name: 'adaptive'; readonly settings: AdaptiveSettings };

export interface AutoSettings {
  /** A URL, libpq's keywords, or a database's name; see `parseConnection`. */
  readonly dsn: string;
  /** Where the `PG*` variables are looked up. */
  readonly env: NodeJS.ProcessEnv;
  readonly strategy: AutoStrategy;
  /** Rooms with the largest gain first, or the room of the lowest state group that is not compressed. */
  readonly order: 'gain' | 'id';
  /** State groups that levels compress at a time. */
  readonly chunkSize: number;
  /** So many chunks at most; with adaptive rooms of so many chunks' groups together, the last one as a whole. */
  readonly chunks: number;
  /** Only these rooms; all if there are none. */
  readonly rooms: readonly string[];
  readonly except: readonly string[];
  readonly maxRooms: number;
  /** Milliseconds after which nothing is begun any more. */
  readonly timeBudget: number | undefined;
  /** How fast changes are applied; as fast as it goes if undefined. */
  readonly pace: Pace | undefined;
  /** Whether the tables are vacuumed once rows were deleted. */
  readonly vacuum: boolean;
  /** Only plans, and writes nothing to the database. */
  readonly dryRun: boolean;
  /** Folder for changes that wait to be applied. */
  readonly tmpdir: string;
  /** Ends the run once the transaction under way is committed. */
  readonly signal: AbortSignal;
  readonly log: (level: 'info' | 'warning', message: string, fields?: object) => void;
  readonly onProgress: (progress: Progress) => void;
}

/** What a run did. Rows are rows of `state_groups_state`. */
export interface AutoSummary {
  /** Rooms that were planned, in whole or in part. */
  readonly rooms: number;
  /** Chunks, or with adaptive whole rooms, and how many of them gained nothing. */
  readonly chunks: number;
  readonly withoutGain: number;
  readonly groupsRewritten: number;
  /** Groups that were left as they are because they had changed since they were read. */
  readonly groupsSkipped: number;
  readonly rowsDeleted: number;
  readonly rowsInserted: number;
  /** With a dry run: rows that would be saved. */
  readonly rowsToSave: number;
  readonly failed: readonly { readonly room: string; readonly reason: string }[];
  /** What ended the run before all was done. */
  readonly stoppedBy: 'signal' | 'time' | undefined;
  readonly seconds: number;
}

/** A room that adaptive has compressed is taken up again when this part of its rows can be saved. */
const WORTHWHILE = 0.1;

/**
 * A chunk of levels is one transaction, so that a run that is cut off leaves what an earlier end of it would
 * have. Where its new rows are more bytes than this it is several, and the chunk counts with the last.
 */
const MOST_BYTES = 64_000_000;

/**
 * Compresses the rooms of a database by themselves, beside a running Synapse. Progress is kept in the
 * tables of rust-synapse-compress-state's auto compressor, in the transaction that ends a room or chunk;
 * so whatever cuts a run off, the next one or the old tool goes on where it was.
 *
 * A room that fails is set aside, and the run goes on, unless the disk of the server is full.
 *
 * @throws BusyError if another compressor writes to the database; DatabaseError if it can't be reached or
 *   lacks something; OutputError if changes can't be kept in `tmpdir`; UsageError
 */
export async function autoCompress(settings: AutoSettings): Promise<AutoSummary> {
  const { dsn, env, signal, log, dryRun } = settings;
  const onTrouble = (sentence: string): void => log('warning', sentence);
  const rewriter = dryRun ? undefined : await Rewriter.open({ dsn, env, signal, onTrouble });
  try {
    return await new AutoCompressor(settings, rewriter).run();
  } finally {
    await rewriter?.close();
  }
}

class AutoCompressor {
  readonly #settings: AutoSettings;
  readonly #rewriter: Rewriter | undefined;
  readonly #throttle: Throttle | undefined;
  readonly #size: BatchSize;
  readonly #started = performance.now();
  /** Aborted by a signal or at the end of the time budget. */
  readonly #stop: AbortSignal;
  readonly #rooms = new Set<string>();
  readonly #failed: { room: string; reason: string }[] = [];
  #groupsPlanned = 0;
  readonly #counts = {
    chunks: 0,
    withoutGain: 0,
    groupsRewritten: 0,
    groupsSkipped: 0,
    rowsDeleted: 0,
    rowsInserted: 0,
    rowsToSave: 0,
  };

  constructor(settings: AutoSettings, rewriter: Rewriter | undefined) {
    const { signal, timeBudget, pace, log } = settings;
    this.#settings = settings;
    this.#stop =
      timeBudget === undefined
        ? signal
        : AbortSignal.any([signal, AbortSignal.timeout(timeBudget)]);
    this.#rewriter = rewriter;
    if (rewriter !== undefined) {
      const onTrouble = (sentence: string): void => log('warning', sentence);
      this.#throttle = new Throttle(rewriter, { pace, signal: this.#stop, onTrouble });
    }
    this.#size = new BatchSize(this.#throttle?.mostRows ?? Infinity);
  }

  async run(): Promise<AutoSummary> {
    const { strategy, order, signal, log, dryRun } = this.#settings;
    if (!dryRun) {
      await this.#transaction(createTables);
      const gone = await this.#transaction(forgetRoomsThatAreGone);
      if (gone > 0) log('info', `Forgot the progress of ${gone} rooms that have no state groups.`);
    }
    try {
      if (strategy.name === 'levels' && order === 'id' && !dryRun) await this.#byLowestGroup();
      else await this.#byEstimate();
    } catch (error) {
      if (!this.#stop.aborted) throw error;
    }
    if (this.#settings.vacuum && this.#counts.rowsDeleted > 0 && !this.#stop.aborted) {
      const isDone = await vacuum(this.#rewriter!);
      if (isDone) log('info', 'Vacuumed the tables.');
      else log('warning', 'This user may not VACUUM state_groups_state; its owner may.');
    }
    return {
      rooms: this.#rooms.size,
      ...this.#counts,
      failed: this.#failed,
      stoppedBy: signal.aborted ? 'signal' : this.#stop.aborted ? 'time' : undefined,
      seconds: (performance.now() - this.#started) / 1000,
    };
  }

  /** As the old tool: a chunk of the room whose turn it is, then of the next. */
  async #byLowestGroup(): Promise<void> {
    const { rooms, except, maxRooms } = this.#settings;
    const ended: string[] = [];
    let from = 0;
    while (!this.#isDone()) {
      const all = rooms.length === 0 && this.#rooms.size < maxRooms;
      const among = this.#rooms.size < maxRooms ? rooms : [...this.#rooms];
      const without = [...except, ...ended, ...this.#failed.map(({ room }) => room)];
      const next = await this.#transaction((client) =>
        lowestUncompressed(client, all ? undefined : among, without, from),
      );
      if (next === undefined) return;
      from = next.group;
      // Below it all is compressed only if no room was left out.
      const isLowest = all && without.length === 0;
      const save = isLowest ? [saveLowestUncompressed(next.group)] : [];
      await this.#try(next.room, async () => {
        if (!(await this.#chunk(next.room, save))) ended.push(next.room);
      });
    }
  }

  async #byEstimate(): Promise<void> {
    const { dsn, env, strategy, order, rooms, except, maxRooms, log } = this.#settings;
    const { rooms: all } = await readEstimates({ dsn, env, rooms, signal: this.#stop });
    for (const room of rooms) {
      if (!all.some((estimate) => estimate.room === room)) {
        log('warning', `Room '${room}' has no state groups in this database.`, { room });
      }
    }
    const wanted = all.filter(({ room }) => !except.includes(room));
    const due = wanted.filter((estimate) => this.#isDue(estimate)).sort(IN_ORDER[order]);
    log(
      'info',
      `${due.length} of ${wanted.length} rooms are to be compressed, for about ${sum(due, 'gain')} of ${sum(wanted, 'rows')} rows (an estimate).`,
      { rooms: wanted.length, due: due.length, rows: sum(wanted, 'rows'), gain: sum(due, 'gain') },
    );
    for (const estimate of due) {
      const { room } = estimate;
      if (this.#isDone() || this.#rooms.size === maxRooms) return;
      await this.#try(room, async () => {
        if (this.#settings.dryRun) await this.#planOnly(estimate);
        else if (strategy.name === 'adaptive') await this.#room(room, strategy.settings);
        else while (!this.#isDone() && (await this.#chunk(room, [])));
      });
    }
  }

  #isDue({ gain, rows, newGroups, compressedBy }: RoomEstimate): boolean {
    const { strategy, rooms } = this.#settings;
    if (strategy.name === 'levels') return newGroups > 0;
    if (rooms.length > 0) return true;
    return gain > (compressedBy === 'adaptive' ? rows * WORTHWHILE : 0);
  }

  #isDone(): boolean {
    const { strategy, chunkSize, chunks } = this.#settings;
    if (this.#stop.aborted) return true;
    return strategy.name === 'levels'
      ? this.#counts.chunks >= chunks
      : this.#groupsPlanned >= chunks * chunkSize;
  }

  /** Works on a room; if that fails, it is set aside. */
  async #try(room: string, work: () => Promise<unknown>): Promise<void> {
    const { log } = this.#settings;
    this.#rooms.add(room);
    for (let attempt = 1; ; attempt++) {
      try {
        await work();
        return;
      } catch (error) {
        if (this.#stop.aborted) {
          const why = this.#settings.signal.aborted ? 'is stopped' : 'has no time left';
          log('warning', `Room '${room}' is not finished, because the run ${why}.`, { room });
          return;
        }
        if (
          error instanceof OutputError ||
          error instanceof BusyError ||
          error instanceof UsageError
        ) {
          throw error;
        }
        // Other rooms would fail as well, and Synapse needs what is left of the disk.
        if (isDiskFull(error)) throw error;
        if (error instanceof DatabaseError) {
          // Waits for a server that is restarted; one that is gone ends the run.
          await this.#transaction(async () => {});
          if (attempt === 1 && error.cause instanceof Error && isLost(error.cause)) continue;
        }
        const reason = error instanceof Error ? error.message : String(error);
        this.#failed.push({ room, reason });
        log('warning', `Room '${room}' failed and is set aside: ${reason}`, { room, reason });
        return;
      }
    }
  }

  /**
   * Compresses a room by adaptive. Where its plan would take all the time that is left, the part of it that is
   * ready after half of that, and gains something, is applied, and so on; otherwise a large room would never
   * come to its end, and be the first of each run. What is compressed already is planned quickly.
   */
  async #room(room: string, settings: AdaptiveSettings): Promise<void> {
    let goesOn: boolean;
    do {
      goesOn = await this.#planAndApply(room, settings);
    } while (goesOn && !this.#isDone());
  }

  /** Whether there is more of the room than was planned. */
  async #planAndApply(room: string, settings: AdaptiveSettings): Promise<boolean> {
    const { timeBudget, log } = this.#settings;
    const source = await this.#open(room, {}).catch((error: unknown) => {
      if (error instanceof RoomNotFoundError) return undefined;
      throw error;
    });
    if (source === undefined) {
      log('info', `Room '${room}' has gone meanwhile.`, { room });
      return false;
    }
    const halfTime = (performance.now() + this.#started + (timeBudget ?? Infinity)) / 2;
    const isEnough: IsEnough = ({ rowsBefore, rowsAfter }) =>
      rowsAfter < rowsBefore && performance.now() > halfTime;
    const planner = new AdaptivePlanner(settings);
    const changes = await this.#plan(source, planner, isEnough);
    try {
      const { isWhole, lastGroup, rowsBefore, rowsAfter } = changes;
      const gains = rowsAfter < rowsBefore || planner.mayCostRows;
      if (!isWhole) {
        log(
          'info',
          `Room '${room}' takes longer to plan than half of the time that is left: it is planned up to state group ${lastGroup}, which is applied.`,
          { room },
        );
      }
      const save = isWhole ? [saveProgress(room, lastGroup, adaptiveLevels())] : [];
      await this.#apply(room, changes, gains, save);
      return !isWhole;
    } finally {
      await changes.spool?.close();
    }
  }

  /** Compresses the next chunk of a room by levels, if there is one. */
  async #chunk(room: string, save: readonly Statement[]): Promise<boolean> {
    const { strategy, chunkSize, log } = this.#settings;
    const wanted = strategy.name === 'levels' ? strategy.sizes : undefined;
    const saved = await this.#transaction((client) => readProgress(client, room, wanted));
    const { lastCompressed, levels, stale } = saved;
    const range = {
      groupsToCompress: chunkSize,
      ...(lastCompressed !== undefined && { minStateGroup: lastCompressed }),
    };
    const heads = levels.flatMap(({ head }) => (head === undefined ? [] : [head]));
    const source = await this.#open(room, range, [...new Set(heads)]).catch((error: unknown) => {
      if (error instanceof RoomNotFoundError) return undefined;
      throw error;
    });
    if (source === undefined) return false;
    if (stale !== undefined) {
      log(
        'warning',
        `Room '${room}' goes on with empty levels, as the saved ones are stale: ${stale}.`,
        {
          room,
        },
      );
    }
    const { ids } = source.groups;
    const sizes = levels.map(({ size }) => size);
    const planner = new LevelsPlanner(
      sizes,
      withHeads(levels, (head) => indexOfId(ids, head)),
    );
    const changes = await this.#plan(source, planner);
    try {
      const gains = changes.rowsAfter <= changes.rowsBefore;
      const next = gains ? withHeads(planner.levels, (head) => ids[head]) : emptyLevels(sizes);
      const statements = [...save, saveProgress(room, changes.lastGroup, next)];
      await this.#apply(room, changes, gains, statements);
    } finally {
      await changes.spool?.close();
    }
    return true;
  }

  /** Plans what would be done to a room, in one piece. */
  async #planOnly({ room, firstNewGroup }: RoomEstimate): Promise<void> {
    const { strategy, log } = this.#settings;
    const isAdaptive = strategy.name === 'adaptive';
    const range =
      isAdaptive || firstNewGroup === undefined ? {} : { minStateGroup: firstNewGroup - 1 };
    const planner = isAdaptive
      ? new AdaptivePlanner(strategy.settings)
      : new LevelsPlanner(strategy.sizes);
    const changes = await this.#plan(await this.#open(room, range), planner);
    const { rowsBefore, rowsAfter, groupsToWrite } = changes;
    this.#counts.chunks++;
    if (rowsAfter < rowsBefore) this.#counts.rowsToSave += rowsBefore - rowsAfter;
    else this.#counts.withoutGain++;
    log(
      'info',
      `Room '${room}': ${rowsBefore} rows could be ${rowsAfter}, by rewriting ${groupsToWrite} state groups.`,
      { room, rowsBefore, rowsAfter, groupsToWrite },
    );
  }

  #open(room: string, range: GroupRange, bases: readonly number[] = []): Promise<RoomSource> {
    const { dsn, env } = this.#settings;
    return openPostgresSource({ dsn, env, room, range, bases, signal: this.#stop });
  }

  async #plan(
    source: RoomSource,
    planner: AdaptivePlanner | LevelsPlanner,
    isEnough?: IsEnough,
  ): Promise<RoomChanges> {
    const { tmpdir, dryRun, onProgress, log } = this.#settings;
    const changes = await planChanges(source, planner, {
      tmpdir: dryRun ? undefined : tmpdir,
      signal: this.#stop,
      isEnough,
      onProgress,
    });
    this.#groupsPlanned += changes.stateGroups;
    for (const warning of [...source.warnings, ...planner.warnings]) {
      log('warning', `Room '${source.room}': ${warning}`, { room: source.room });
    }
    return changes;
  }

  /** Applies what was planned, if it gains, and saves how far the room is with the last of it. */
  async #apply(
    room: string,
    planned: RoomChanges,
    gains: boolean,
    save: readonly Statement[],
  ): Promise<void> {
    const { log } = this.#settings;
    const { lastGroup, rowsBefore, rowsAfter } = planned;
    const counts = this.#counts;
    const before = { ...counts };
    const started = performance.now();
    const within: Within = async (client) => {
      for (const { text, values } of save) await client.query(text, [...values]);
    };
    if (gains && planned.groupsToWrite > 0) await this.#rewrite(room, planned, within);
    else await this.#transaction(within);
    counts.chunks++;
    if (!gains) counts.withoutGain++;

    const groupsRewritten = counts.groupsRewritten - before.groupsRewritten;
    const groupsSkipped = counts.groupsSkipped - before.groupsSkipped;
    const rowsDeleted = counts.rowsDeleted - before.rowsDeleted;
    const rowsInserted = counts.rowsInserted - before.rowsInserted;
    const upTo = `Room '${room}' up to state group ${lastGroup}`;
    const skipped = groupsSkipped === 0 ? '' : `, ${groupsSkipped} left as they are`;
    log(
      'info',
      gains
        ? `${upTo}: ${rowsBefore} rows became ${rowsBefore - rowsDeleted + rowsInserted}; ${groupsRewritten} state groups were rewritten${skipped}.`
        : `${upTo}: ${rowsBefore} rows would become ${rowsAfter}; it stays as it is.`,
      {
        room,
        lastGroup,
        rowsBefore,
        rowsAfter,
        gains,
        groupsRewritten,
        groupsSkipped,
        rowsDeleted,
        rowsInserted,
        seconds: (performance.now() - started) / 1000,
      },
    );
  }

  /** Rewrites groups in batches, or those of a chunk of levels at once; `within` goes with the last. */
  async #rewrite(
    room: string,
    { spool, groupsToWrite }: RoomChanges,
    within: Within,
  ): Promise<void> {
    const { strategy, log } = this.#settings;
    const counts = this.#counts;
    let batch: ChangedGroup[] = [];
    let bytes = 0;
    let left = groupsToWrite;
    for await (const { group } of spool!.read()) {
      batch.push(group);
      bytes += group.change.rows.length;
      this.#size.add(group);
      left--;
      const isFull = strategy.name === 'levels' ? bytes >= MOST_BYTES : this.#size.isFull;
      if (!isFull && left > 0) continue;
      if (this.#stop.aborted) {
        const applied = groupsToWrite - left - batch.length;
        log('info', `${applied} of ${groupsToWrite} changes of room '${room}' are applied.`, {
          room,
        });
      }
      this.#stop.throwIfAborted();
      const begun = performance.now();
      const outcome = await this.#rewriter!.rewrite(
        { room, changes: batch },
        left === 0 ? within : undefined,
      );
      batch = [];
      bytes = 0;
      this.#size.took(outcome.seconds);
      counts.groupsRewritten += outcome.rewritten;
      counts.groupsSkipped += outcome.skipped.length;
      counts.rowsDeleted += outcome.rowsDeleted;
      counts.rowsInserted += outcome.rowsInserted;
      for (const { stateGroup, reason } of outcome.skipped.slice(0, 3)) {
        log('info', `State group ${stateGroup} was left as it is: ${reason}.`, {
          room,
          stateGroup,
        });
      }
      await this.#throttle!.pause(outcome, (performance.now() - begun) / 1000);
    }
  }

  /** Does something in a transaction that rewrites nothing. */
  async #transaction<T>(work: (...args: Parameters<Within>) => Promise<T>): Promise<T> {
    if (this.#rewriter === undefined) return undefined as T;
    let result: T;
    await this.#rewriter.rewrite({ room: '', changes: [] }, async (...args) => {
      result = await work(...args);
    });
    return result!;
  }
}

function isDiskFull(error: unknown): boolean {
  return (
    error instanceof DatabaseError &&
    error.cause instanceof Error &&
    codeOf(error.cause) === '53100'
  );
}

/** Levels whose heads are told by id instead of by index, or the other way round. */
function withHeads(levels: readonly Level[], headOf: (head: number) => number): Level[] {
  return levels.map(({ size, length, head }) => ({
    size,
    length,
    head: head === undefined ? undefined : headOf(head),
  }));
}

const IN_ORDER = {
  gain: (a: RoomEstimate, b: RoomEstimate) => b.gain - a.gain || a.room.localeCompare(b.room),
  id: (a: RoomEstimate, b: RoomEstimate) => (a.firstNewGroup ?? 0) - (b.firstNewGroup ?? 0),
};

function sum(estimates: readonly RoomEstimate[], figure: 'rows' | 'gain'): number {
  return estimates.reduce((total, estimate) => total + estimate[figure], 0);
}
