/** The tables, and how many columns each has. */
export const COLUMNS = {
  state_groups: 3,
  state_group_edges: 2,
  state_groups_state: 5,
} as const;

export type StateTable = keyof typeof COLUMNS;

/** Longest first, because the shortest is the beginning of another. */
const NAMES = ['state_groups_state', 'state_group_edges', 'state_groups'] as const;

/** The table that a file's name speaks of. */
export function tableOfName(name: string): StateTable | undefined {
  return NAMES.find((table) => name.includes(table));
}

/** The table that COPY text is of, told by its first line; undefined also if there is none. */
export function tableOfLine(line: string): StateTable | undefined {
  const columns = line.replace(/\r?$/, '').split('\t');
  const isNumber = (column: string): boolean => /^-?\d+$/.test(column);
  if (!isNumber(columns[0]!)) return undefined;
  switch (columns.length) {
    case COLUMNS.state_group_edges:
      return isNumber(columns[1]!) ? 'state_group_edges' : undefined;
    case COLUMNS.state_groups:
      // Of three numbers is state_groups_pending_deletion.
      return isNumber(columns[1]!) ? undefined : 'state_groups';
    case COLUMNS.state_groups_state:
      return 'state_groups_state';
    default:
      return undefined;
  }
}
