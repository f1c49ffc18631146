import type pg from 'pg';
import { BatchSize } from '../apply/batch-size.js';
import type { Rewriter, Within } from '../apply/rewriter.js';
import { Throttle } from '../apply/throttle.js';
import { DatabaseError, RoomNotFoundError } from '../errors.js';
import { AdaptivePlanner } from '../planner/adaptive.js';
import type { AdaptiveSettings } from '../planner/adaptive.js';
import { LevelsPlanner } from '../planner/levels.js';
import type { Level } from '../planner/levels.js';
import type { ChangedGroup } from '../planner/planned-group.js';
import type { IsEnough } from '../planner/room-plan.js';
import { counted } from '../report/counted.js';
import { indexOfId } from '../sources/id-list.js';
import { openPostgresSource } from '../sources/postgres/postgres-source.js';
import type { GroupRange } from '../sources/group-range.js';
import type { RoomSource } from '../sources/room-source.js';
import { noCounts } from './auto-settings.js';
import type { AutoSettings } from './auto-settings.js';
import { adaptiveLevels, emptyLevels, readProgress, saveProgress } from './bookkeeping.js';
import type { Statement } from './bookkeeping.js';
import { planChanges } from './room-changes.js';
import type { RoomChanges } from './room-changes.js';
import type { RoomEstimate } from './room-estimates.js';

/**
 * A chunk of levels is one transaction, so that a run that is cut off leaves what an earlier end of it would
 * have. Where its new rows are more bytes than this it is several, and the chunk counts with the last.
 */
const MOST_BYTES = 64_000_000;

/** A room or chunk is not done where another transaction was in the way of more than this part of its changes. */
const MOST_BLOCKED = 0.1;

/** Plans one room or chunk after the other, applies what gains, and saves how far each room is. */
export class RoomCompressor {
  readonly #settings: AutoSettings;
  readonly #rewriter: Rewriter | undefined;
  readonly #throttle: Throttle | undefined;
  readonly #size: BatchSize;
  /** Ends what is under way, by a signal or at the end of the time budget. */
  readonly #stop: AbortSignal;
  /** When the time budget ends, as `performance.now()`. */
  readonly #lastMoment: number;
  groupsPlanned = 0;
  readonly counts = noCounts();

  /** @param rewriter undefined where nothing is to be written */
  constructor(
    settings: AutoSettings,
    rewriter: Rewriter | undefined,
    stop: AbortSignal,
    lastMoment: number,
  ) {
    const { pace, log } = settings;
    this.#settings = settings;
    this.#rewriter = rewriter;
    this.#stop = stop;
    this.#lastMoment = lastMoment;
    if (rewriter !== undefined) {
      const onTrouble = (sentence: string): void => log('warning', sentence);
      this.#throttle = new Throttle(rewriter, { pace, signal: stop, onTrouble });
    }
    this.#size = new BatchSize(this.#throttle?.mostRows ?? Infinity);
  }

  /**
   * Compresses a room by adaptive. Where its plan would take all the time that is left, the part of it is
   * applied that is ready after half of that and gains something; otherwise a large room would never come to
   * its end, and be the first of each run. What is compressed already is planned quickly.
   *
   * @returns whether there is more of the room than was planned
   */
  async compress(room: string, settings: AdaptiveSettings): Promise<boolean> {
    const { log } = this.#settings;
    const source = await this.#openIfThere(room, {});
    if (source === undefined) {
      log('info', `Room '${room}' has gone meanwhile.`, { room });
      return false;
    }
    const halfTime = (performance.now() + this.#lastMoment) / 2;
    const isEnough: IsEnough = ({ rowsBefore, rowsAfter }) =>
      rowsAfter < rowsBefore && performance.now() > halfTime;
    const planner = new AdaptivePlanner(settings);
    const changes = await this.#plan(source, planner, isEnough);
    try {
      const { isWhole, lastGroup, rowsBefore, rowsAfter, snapshotsBefore, snapshotsAfter } =
        changes;
      const gains = rowsAfter < rowsBefore || planner.mayCostRows;
      if (!isWhole) {
        log(
          'info',
          `Room '${room}' takes longer to plan than half of the time that is left: it is planned up to state group ${lastGroup}, which is applied.`,
          { room },
        );
      }
      const levels = adaptiveLevels(gains ? snapshotsAfter : snapshotsBefore);
      const save = isWhole ? [saveProgress(room, lastGroup, levels)] : [];
      await this.#apply(room, changes, gains, save);
      return !isWhole;
    } finally {
      await changes.spool?.close();
    }
  }

  /**
   * Compresses the next chunk of a room by levels, if there is one.
   *
   * @param save more statements of the transaction that ends the chunk
   * @returns whether there was one
   */
  async compressChunk(room: string, save: readonly Statement[]): Promise<boolean> {
    const { strategy, chunkSize, log } = this.#settings;
    const wanted = strategy.name === 'levels' ? strategy.sizes : undefined;
    const saved = await this.#rewriter!.transaction((client) => readProgress(client, room, wanted));
    const { lastCompressed, levels, stale } = saved;
    const range = {
      groupsToCompress: chunkSize,
      ...(lastCompressed !== undefined && { minStateGroup: lastCompressed }),
    };
    const heads = levels.flatMap(({ head }) => (head === undefined ? [] : [head]));
    const source = await this.#openIfThere(room, range, [...new Set(heads)]);
    if (source === undefined) return false;
    if (stale !== undefined) {
      log('warning', `Room '${room}' ${stale}.`, { room });
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
  async plan({ room, firstNewGroup }: RoomEstimate): Promise<void> {
    const { strategy, log } = this.#settings;
    const isAdaptive = strategy.name === 'adaptive';
    const range =
      isAdaptive || firstNewGroup === undefined ? {} : { minStateGroup: firstNewGroup - 1 };
    const planner = isAdaptive
      ? new AdaptivePlanner(strategy.settings)
      : new LevelsPlanner(strategy.sizes);
    const changes = await this.#plan(await this.#open(room, range), planner);
    const { rowsBefore, rowsAfter, groupsToWrite } = changes;
    this.counts.chunks++;
    if (rowsAfter < rowsBefore) this.counts.rowsToSave += rowsBefore - rowsAfter;
    else this.counts.withoutGain++;
    log(
      'info',
      `Room '${room}': ${counted(rowsBefore, 'row')} could be ${rowsAfter}, by rewriting ${counted(groupsToWrite, 'state group')}.`,
      { room, rowsBefore, rowsAfter, groupsToWrite },
    );
  }

  /** Undefined if the room has no state groups in range. */
  async #openIfThere(
    room: string,
    range: GroupRange,
    bases: readonly number[] = [],
  ): Promise<RoomSource | undefined> {
    try {
      return await this.#open(room, range, bases);
    } catch (error) {
      if (error instanceof RoomNotFoundError) return undefined;
      throw error;
    }
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
    this.groupsPlanned += changes.stateGroups;
    for (const warning of changes.warnings) {
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
    const counts = this.counts;
    const before = { ...counts };
    const started = performance.now();
    const within = async (client: pg.ClientBase): Promise<void> => {
      for (const { text, values } of save) await client.query(text, [...values]);
    };
    if (gains && planned.groupsToWrite > 0) await this.#rewrite(room, planned, within);
    else await this.#rewriter!.transaction(within);
    counts.chunks++;
    if (!gains) counts.withoutGain++;

    const groupsRewritten = counts.groupsRewritten - before.groupsRewritten;
    const groupsSkipped = counts.groupsSkipped - before.groupsSkipped;
    const rowsDeleted = counts.rowsDeleted - before.rowsDeleted;
    const rowsInserted = counts.rowsInserted - before.rowsInserted;
    const upTo = `Room '${room}' up to state group ${lastGroup}`;
    const skipped =
      groupsSkipped === 0 ? '' : `, ${counted(groupsSkipped, 'left as it is', 'left as they are')}`;
    log(
      'info',
      gains
        ? `${upTo}: ${counted(rowsBefore, 'row')} became ${rowsBefore - rowsDeleted + rowsInserted}; ${counted(groupsRewritten, 'state group was', 'state groups were')} rewritten${skipped}.`
        : `${upTo}: ${counted(rowsBefore, 'row')} would become ${rowsAfter}; it stays as it is.`,
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

  /**
   * Rewrites groups in batches, or those of a chunk of levels at once; `within` goes with the last.
   *
   * @throws DatabaseError in its place where too many groups had another transaction in their way
   */
  async #rewrite(
    room: string,
    { spool, groupsToWrite }: RoomChanges,
    within: Within,
  ): Promise<void> {
    const { strategy, log } = this.#settings;
    const counts = this.counts;
    let batch: ChangedGroup[] = [];
    let bytes = 0;
    let left = groupsToWrite;
    let blocked = 0;
    const isTooMany = (count: number): boolean => count > MOST_BLOCKED * groupsToWrite;
    const unlessBlocked: Within = async (client, outcome) => {
      if (!isTooMany(blocked + outcome.blocked)) await within(client, outcome);
    };
    for await (const { group } of spool!.read()) {
      batch.push(group);
      bytes += group.change.rows.length;
      this.#size.add(group);
      left--;
      const isFull = strategy.name === 'levels' ? bytes >= MOST_BYTES : this.#size.isFull;
      if (!isFull && left > 0) continue;
      await this.#throttle!.pause();
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
        left === 0 ? unlessBlocked : undefined,
      );
      batch = [];
      bytes = 0;
      this.#size.took(outcome.seconds);
      this.#throttle!.took(outcome, (performance.now() - begun) / 1000);
      blocked += outcome.blocked;
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
    }
    if (isTooMany(blocked)) {
      throw new DatabaseError(
        `another transaction was in the way of ${blocked} of ${counted(groupsToWrite, 'change')}. The next run takes the room up again.`,
      );
    }
  }
}

/** Levels whose heads are told by id instead of by index, or the other way round. */
function withHeads(levels: readonly Level[], headOf: (head: number) => number): Level[] {
  return levels.map(({ size, length, head }) => ({
    size,
    length,
    head: head === undefined ? undefined : headOf(head),
  }));
}
