/** The tables, and the columns of each in their order. */
export const COLUMNS = {
  state_groups: ['id', 'room_id', 'event_id'],
  state_group_edges: ['state_group', 'prev_state_group'],
  state_groups_state: ['state_group', 'room_id', 'type', 'state_key', 'event_id'],
} as const;

export type StateTable = keyof typeof COLUMNS;

/**
 * What the first bytes of an input tell: its table; that it has no rows; that they are of no such table;
 * or that it takes more bytes to tell.
 */
export type Told = StateTable | 'empty' | 'other' | 'incomplete';

/** Whether it is told which table it is. */
export function isTable(told: Told): told is StateTable {
  return told in COLUMNS;
}

/** Longest first, because the shortest is the beginning of another. */
export const STATE_TABLES = ['state_groups_state', 'state_group_edges', 'state_groups'] as const;

/** Tables of Synapse's whose names hold one of these. */
const OTHER_TABLES = /event_to_state_groups|state_groups_(?:pending_deletion|persisting)/;

/** The table that a file's name speaks of. */
export function tableOfName(name: string): StateTable | undefined {
  const lower = name.toLowerCase();
  return OTHER_TABLES.test(lower) ? undefined : STATE_TABLES.find((table) => lower.includes(table));
}

/** The table that has these columns, in any order, and no others. */
export function tableOfColumns(names: readonly string[]): StateTable | undefined {
  return STATE_TABLES.find((table) => columnOrder(table, names) !== undefined);
}

/** Whether column number `column` of the table is a state group, and no text. */
export function isStateGroup(table: StateTable, column: number): boolean {
  return column === 0 || table === 'state_group_edges';
}

/** Where each of the table's columns stands in `names`; undefined if these are not its columns. */
export function columnOrder(table: StateTable, names: readonly string[]): number[] | undefined {
  const order = COLUMNS[table].map((column) => names.indexOf(column));
  return names.length === order.length && !order.includes(-1) ? order : undefined;
}

/** The table that COPY text is of, told by its first line; undefined also if there is none. */
export function tableOfLine(line: string): StateTable | undefined {
  const columns = line.replace(/\r?$/, '').split('\t');
  const isNumber = (column: string): boolean => /^-?\d+$/.test(column);
  if (!isNumber(columns[0])) return undefined;
  switch (columns.length) {
    case COLUMNS.state_group_edges.length:
      return isNumber(columns[1]) ? 'state_group_edges' : undefined;
    case COLUMNS.state_groups.length:
      // Of three numbers is state_groups_pending_deletion.
      return isNumber(columns[1]) ? undefined : 'state_groups';
    case COLUMNS.state_groups_state.length:
      return 'state_groups_state';
    default:
      return undefined;
  }
}
