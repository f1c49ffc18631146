import {
  EDGES_IN_ORDER,
  ALL_GROUPS,
  ALL_ROWS,
  edgesOfRoom,
  groupsOfRoom,
  ROW_COLUMNS,
} from '../sources/postgres/check-statements.js';
import { openSnapshot, type SnapshotSettings } from '../sources/postgres/snapshot.js';
import { rowsStatement, statementParts } from '../sources/postgres/statements.js';
import { TableInput } from '../sources/postgres/table-input.js';
import type { StateTables } from './check-tables.js';

export interface PostgresTablesSettings extends SnapshotSettings {
  readonly room: string | undefined;
}

/**
 * Opens the tables of a Synapse state database, in one snapshot. For one room its groups are read, what
 * edges join to them, and their rows, each by an index; so rows of groups that neither `state_groups` nor
 * an edge names are not found. For all rooms the tables are read from the first id to the last.
 *
 * @throws UsageError for connection settings that make no sense, DatabaseError if the database can't be read
 */
export function openPostgresTables(settings: PostgresTablesSettings): Promise<StateTables> {
  const { room } = settings;
  const [groups, edges] =
    room === undefined ? [ALL_GROUPS, EDGES_IN_ORDER] : [groupsOfRoom(room), edgesOfRoom(room)];
  return openSnapshot(
    settings,
    'while the state tables were looked for',
    async ({ client, close }) => ({
      groups: new TableInput(client, 'state_groups', [groups]),
      edges: new TableInput(client, 'state_group_edges', [edges]),
      rows: (wanted) =>
        new TableInput(
          client,
          'state_groups_state',
          wanted === undefined ? [ALL_ROWS] : rowsStatements(wanted),
        ),
      close,
    }),
  );
}

function* rowsStatements(ids: Float64Array): Generator<string> {
  for (const part of statementParts(ids)) yield rowsStatement(part, ROW_COLUMNS);
}
