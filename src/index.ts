export { compressRooms } from './compress-rooms.js';
export type { CompressRoomsSettings } from './compress-rooms.js';
export { compressRoom } from './compress.js';
export type { CompressSettings } from './compress.js';
export {
  BusyError,
  ChangedInputError,
  CompressStateError,
  DatabaseError,
  InputError,
  OutputError,
  RoomNotFoundError,
  UsageError,
  VerificationError,
} from './errors.js';
export { AdaptivePlanner } from './planner/adaptive.js';
export type { AdaptiveSettings } from './planner/adaptive.js';
export { LevelsPlanner } from './planner/levels.js';
export type { Change, ChangedGroup, PlannedGroup } from './planner/planned-group.js';
export type { Plan, Planner } from './planner/planner.js';
export type { Hops } from './planner/room-counts.js';
export { RoomPlan } from './planner/room-plan.js';
export type { IsEnough } from './planner/room-plan.js';
export type { Progress } from './report/progress-text.js';
export type { RoomFailure, Totals } from './report/room-totals.js';
export type { Statistics } from './report/statistics.js';
export type { ChangeSinkSettings, Format } from './sinks/change-sink.js';
export { copySink } from './sinks/copy.js';
export type { CopySettings } from './sinks/copy.js';
export { GRAPH_FILES, graphSink } from './sinks/graphs.js';
export { jsonlSink } from './sinks/jsonl.js';
export { openFileOutput } from './sinks/file-output.js';
export type { OpenOutput, Output, SpoolSettings } from './sinks/output.js';
export { openSpooledOutput } from './sinks/spooled-output.js';
export { openStreamedOutput } from './sinks/streamed-output.js';
export { sqlSink } from './sinks/sql.js';
export type { SqlSettings } from './sinks/sql.js';
export { openTablesOutput } from './sinks/tables-output.js';
export type { TablesSettings } from './sinks/tables-output.js';
export { tablesSink } from './sinks/tables.js';
export type { AllRooms, RoomToOpen } from './sources/all-rooms.js';
export { openFilesRooms } from './sources/files/files-rooms.js';
export { openFilesSource } from './sources/files/files-source.js';
export type { FilesSourceSettings } from './sources/files/files-source.js';
export type { GroupRange } from './sources/group-range.js';
export type { GroupTable, Irregularity } from './sources/group-table.js';
export { openPostgresRooms } from './sources/postgres/postgres-rooms.js';
export type { PostgresRoomsSettings } from './sources/postgres/postgres-rooms.js';
export { openPostgresSource } from './sources/postgres/postgres-source.js';
export type { PostgresSourceSettings } from './sources/postgres/postgres-source.js';
export type { SnapshotSettings } from './sources/postgres/snapshot.js';
export type { RoomSource } from './sources/room-source.js';
export type { StoredTables } from './sources/stored-tables.js';
export { NO_STATE } from './state/live-states.js';
export type { LiveStates } from './state/live-states.js';
export { compareRooms } from './verify/compare-rooms.js';
export type { CompareSettings, Comparison } from './verify/compare-rooms.js';
export type { StateDifference } from './verify/state-difference.js';
export { VERSION } from './version.js';
