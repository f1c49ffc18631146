import { ChangeSpool } from '../apply/change-spool.js';
import { compressRoom } from '../compress.js';
import type { Progress } from '../report/progress-text.js';
import type { Planner } from '../planner/planner.js';
import type { IsEnough } from '../planner/room-plan.js';
import { IN_RANGE } from '../sources/group-table.js';
import type { RoomSource } from '../sources/room-source.js';

/** The verified plan of a room or a part of it; the figures are those of what is planned. */
export interface RoomChanges {
  /** Whether all groups in range are planned, and not only the first of them. */
  readonly isWhole: boolean;
  /** The last state group in range that is planned, if there is one. */
  readonly lastGroup: number;
  /** Groups in range that are planned. */
  readonly stateGroups: number;
  readonly rowsBefore: number;
  readonly rowsAfter: number;
  readonly groupsToWrite: number;
  /** Groups in range without a predecessor that are to stay, before, and after all is applied. */
  readonly snapshotsBefore: number;
  readonly snapshotsAfter: number;
  /** What an operator should know, in sentences. */
  readonly warnings: readonly string[];
  /** Holds the changes until it is closed, unless they make the room larger; undefined if only figures were asked for. */
  readonly spool: ChangeSpool | undefined;
}

export interface PlanSettings {
  /** Folder for the changes; without one only figures are made. */
  readonly tmpdir: string | undefined;
  readonly signal: AbortSignal;
  readonly isEnough?: IsEnough | undefined;
  readonly onProgress: (progress: Progress) => void;
}

/**
 * Plans a room, to the end or until it is enough, and closes its source: nothing of the database is held
 * when this returns.
 *
 * @throws as `compressRoom`
 */
export async function planChanges(
  source: RoomSource,
  planner: Planner,
  { tmpdir, signal, isEnough, onProgress }: PlanSettings,
): Promise<RoomChanges> {
  const { flags } = source.groups;
  let spool: ChangeSpool | undefined;
  try {
    if (tmpdir !== undefined) spool = await ChangeSpool.create(tmpdir);
    const statistics = await compressRoom({
      source,
      planner,
      format: 'copy',
      signal,
      onProgress,
      ...(spool && { output: spool }),
      ...(isEnough && { isEnough }),
    });
    const planned = flags.subarray(0, statistics.stateGroups);
    return {
      isWhole: planned.length === flags.length,
      lastGroup: statistics.lastStateGroup,
      stateGroups: planned.reduce((sum, flag) => sum + (flag & IN_RANGE), 0),
      rowsBefore: statistics.rowsBefore,
      rowsAfter: statistics.rowsAfter,
      groupsToWrite: statistics.groupsWritten,
      snapshotsBefore: statistics.snapshotsBefore,
      snapshotsAfter: statistics.snapshotsAfter,
      warnings: statistics.warnings,
      spool,
    };
  } catch (error) {
    await spool?.close();
    throw error;
  } finally {
    await source.close();
  }
}
