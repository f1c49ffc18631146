import { Writable, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { PlannedGroup } from './planner/planned-group.js';
import { AdaptivePlanner } from './planner/adaptive.js';
import type { Planner } from './planner/planner.js';
import { RoomPlan, type IsEnough } from './planner/room-plan.js';
import { planWarnings } from './report/plan-warnings.js';
import type { Progress } from './report/progress-text.js';
import type { Statistics } from './report/statistics.js';
import { changeSink, type ChangeSinkSettings } from './sinks/change-sink.js';
import { graphSink } from './sinks/graphs.js';
import type { Output } from './sinks/output.js';
import { chunkStream } from './sources/chunk-stream.js';
import { IN_RANGE } from './sources/group-table.js';
import type { RoomSource } from './sources/room-source.js';

export interface CompressSettings extends ChangeSinkSettings {
  /** An open source; it is closed when the run ends, however it ends. */
  readonly source: RoomSource;
  /** A new planner, which is used up by the run; by default an `AdaptivePlanner`. */
  readonly planner?: Planner;
  /** Fewer saved rows than this: nothing is kept. */
  readonly minSavedRows?: number;
  /** Default true. False skips the comparison of every planned state with the stored one. */
  readonly verify?: boolean;
  /** Receives the changes. Without it only statistics are made. */
  readonly output?: Output;
  /** Receive the CSV files that Gephi reads, in the order of `GRAPH_FILES`. */
  readonly graphs?: readonly Output[];
  /** Called after each batch of groups. */
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  /** Asked after each group whether the rest is left for another run. */
  readonly isEnough?: IsEnough;
}

/**
 * Compresses one room: reads it, plans, verifies, writes the changes to `output`, and counts. The output is
 * kept only if everything went well and it is worth it (`outcome` says); otherwise it is discarded.
 *
 * @throws InputError, DatabaseError from the source; VerificationError; OutputError; and the signal's
 *   reason when it is aborted
 */
export async function compressRoom(settings: CompressSettings): Promise<Statistics> {
  const started = performance.now();
  const { source, output, graphs = [] } = settings;
  try {
    const { planner = new AdaptivePlanner() } = settings;
    const { isEnough } = settings;
    const plan = new RoomPlan(source, planner, settings.verify ?? true, isEnough);
    const rows = isEnough === undefined ? source.rows() : rowsUntilCut(source, plan);
    const stages: NodeJS.ReadWriteStream[] = [plan];
    if (graphs.length > 0) stages.push(graphSink(graphs.map(({ stream }) => stream)));
    if (output !== undefined) stages.push(changeSink(source, planner.description, settings));
    if (settings.onProgress) plan.on('planned', progressOf(plan, source, settings.onProgress));
    await pipeline([rows, ...stages, output?.stream ?? discardStream()], {
      ...(settings.signal && { signal: settings.signal }),
    });

    const outcome = outcomeOf(plan, planner, settings);
    if (outcome === 'written') await output!.keep();
    else await output?.discard();
    for (const graph of graphs) await graph.keep();
    return statisticsOf(settings, plan, planner, outcome, (performance.now() - started) / 1000);
  } catch (error) {
    await Promise.allSettled([output, ...graphs].map(async (opened) => opened?.discard()));
    throw error;
  } finally {
    await source.close();
  }
}

/** The rows for as long as the plan takes them; then their stream is destroyed. */
function rowsUntilCut(source: RoomSource, plan: RoomPlan): Readable {
  async function* chunks(): AsyncGenerator<Buffer, void, undefined> {
    for await (const chunk of source.rows() as AsyncIterable<Buffer>) {
      if (plan.isCut) return;
      yield chunk;
    }
  }
  return chunkStream(chunks());
}

function progressOf(
  plan: RoomPlan,
  source: RoomSource,
  onProgress: (progress: Progress) => void,
): () => void {
  return () =>
    onProgress({
      groups: plan.counts.groups,
      totalGroups: source.groups.length,
      rows: plan.counts.rowsBefore,
    });
}

/** The end of a pipeline whose counts are all that is wanted. */
function discardStream(): Writable {
  return new Writable({
    objectMode: true,
    write: (_planned: readonly PlannedGroup[], _encoding, done) => done(),
  });
}

function outcomeOf(
  { counts }: RoomPlan,
  { mayCostRows = false }: Planner,
  settings: CompressSettings,
): Statistics['outcome'] {
  if (counts.groupsWritten === 0) return 'nothing-to-change';
  if (counts.rowsAfter > counts.rowsBefore && !mayCostRows) return 'no-gain';
  const { minSavedRows = -Infinity } = settings;
  if (counts.rowsBefore - counts.rowsAfter < minSavedRows) return 'below-minimum';
  return settings.output === undefined ? 'no-output-asked' : 'written';
}

function statisticsOf(
  settings: CompressSettings,
  plan: RoomPlan,
  planner: Planner,
  outcome: Statistics['outcome'],
  seconds: number,
): Statistics {
  const { counts, groupsVerified } = plan;
  const { groups, rowColumns } = settings.source;
  const { ids, flags } = groups;
  const isInRange = (flag: number): boolean => (flag & IN_RANGE) !== 0;
  return {
    room: settings.source.room,
    strategy: planner.description,
    stateGroups: counts.groups,
    lastStateGroup: ids[flags.subarray(0, counts.groups).findLastIndex(isInRange)],
    rowsBefore: counts.rowsBefore,
    rowsAfter: counts.rowsAfter,
    bytesBefore: counts.bytesBefore,
    bytesAfter: counts.bytesAfter,
    elsewhere: counts.elsewhere,
    forcedResets: planner.forcedResets,
    forcedResetRows: planner.forcedResetRows,
    stateGroupsChanged: counts.stateGroupsChanged,
    groupsWritten: counts.groupsWritten,
    rowsDeleted: counts.rowsDeleted,
    rowsInserted: counts.rowsInserted,
    snapshotsBefore: counts.snapshotsBefore,
    snapshotsAfter: counts.snapshotsAfter,
    hopsBefore: counts.hopsBefore.figures,
    hopsAfter: counts.hopsAfter.figures,
    verified: settings.verify ?? true,
    groupsVerified,
    groupsPassedThrough: counts.groupsPassedThrough,
    outcome,
    outputBytes: outcome === 'written' ? settings.output!.bytes : 0,
    warnings: [
      ...settings.source.warnings,
      ...planner.warnings,
      ...planWarnings(plan, rowColumns === 'with-room'),
    ],
    seconds,
  };
}
