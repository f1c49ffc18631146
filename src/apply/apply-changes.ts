import type { RoomChange } from '../changes/room-change.js';
import type { ChangedGroup } from '../planner/planned-group.js';
import { InputError } from '../errors.js';
import { GroupCount } from '../sources/some-groups.js';
import { BatchSize } from './batch-size.js';
import { readAhead } from './read-ahead.js';
import type { Batch, Outcome, Rewriter } from './rewriter.js';
import { Throttle } from './throttle.js';
import type { Pace } from './throttle.js';

/** What was done so far; rows are those of `state_groups_state`. */
export interface Applied {
  rewritten: number;
  /** Groups that were as their change wants them already. */
  alreadyDone: number;
  skipped: number;
  /** Why groups were left as they are, and which. */
  readonly reasons: Map<string, GroupCount>;
  rowsDeleted: number;
  rowsInserted: number;
  batches: number;
  /** The longest transaction. */
  longestSeconds: number;
  /** Of all, pauses among them. */
  seconds: number;
}

export interface ApplySettings {
  readonly changes: AsyncIterable<RoomChange>;
  readonly rewriter: Rewriter;
  /** Says what would be done, and writes nothing. */
  readonly dryRun?: boolean;
  readonly pace?: Pace | undefined;
  /** Aborted, the batch under way is finished, and no other begun. */
  readonly signal?: AbortSignal | undefined;
  /** Called after each batch. */
  readonly onProgress?: (applied: Applied) => void;
  /** Told in a sentence what is waited for. */
  readonly onTrouble?: (sentence: string) => void;
}

/**
 * Applies changes in batches that take about 0.3 s each. What was done is in `applied` also when this
 * fails, or when the signal ends it.
 *
 * @throws InputError from the changes, DatabaseError from the rewriter
 */
export async function applyChanges(settings: ApplySettings, applied: Applied): Promise<void> {
  const { changes, rewriter, signal, onProgress } = settings;
  const started = performance.now();
  const throttle = new Throttle(rewriter, settings);
  const size = new BatchSize(throttle.mostRows);
  let room = '';
  let groups: ChangedGroup[] = [];

  const rewrite = async (): Promise<void> => {
    if (groups.length === 0) return;
    if (!settings.dryRun) await throttle.pause();
    if (signal?.aborted) return;
    const batch: Batch = { room, changes: groups };
    groups = [];
    const begun = performance.now();
    const outcome = await (settings.dryRun ? rewriter.inspect(batch) : rewriter.rewrite(batch));
    add(applied, outcome);
    size.took(outcome.seconds);
    throttle.took(outcome, (performance.now() - begun) / 1000);
    applied.seconds = (performance.now() - started) / 1000;
    onProgress?.(applied);
  };

  try {
    for await (const change of readAhead(changes)) {
      const last = groups.at(-1);
      // Groups come in ascending order, and those of another file begin anew.
      if (change.room !== room || (last && change.group.stateGroup <= last.stateGroup)) {
        await rewrite();
        room = change.room;
      }
      if (signal?.aborted) return;
      groups.push(change.group);
      size.add(change.group);
      if (size.isFull) await rewrite();
      if (signal?.aborted) return;
    }
    await rewrite();
  } catch (error) {
    // What is complete of a file that is cut off is applied; after an error of the database nothing is.
    if (error instanceof InputError && !signal?.aborted) await rewrite();
    throw error;
  } finally {
    applied.seconds = (performance.now() - started) / 1000;
  }
}

/** Nothing done yet. */
export function nothingApplied(): Applied {
  return {
    rewritten: 0,
    alreadyDone: 0,
    skipped: 0,
    reasons: new Map(),
    rowsDeleted: 0,
    rowsInserted: 0,
    batches: 0,
    longestSeconds: 0,
    seconds: 0,
  };
}

function add(applied: Applied, outcome: Outcome): void {
  applied.rewritten += outcome.rewritten;
  applied.alreadyDone += outcome.alreadyDone;
  applied.skipped += outcome.skipped.length;
  for (const { stateGroup, reason } of outcome.skipped) {
    const groups = applied.reasons.get(reason) ?? new GroupCount();
    applied.reasons.set(reason, groups);
    groups.add(stateGroup);
  }
  applied.rowsDeleted += outcome.rowsDeleted;
  applied.rowsInserted += outcome.rowsInserted;
  applied.batches++;
  applied.longestSeconds = Math.max(applied.longestSeconds, outcome.seconds);
}
