import { escapeLiteral } from 'pg';

// What a check of the tables reads, with the columns of the tables; those that it does not need are empty.

/** All state groups, by the index. */
export const ALL_GROUPS = "SELECT id, room_id, '' FROM state_groups ORDER BY id";

/** All edges, by the index. */
export const EDGES_IN_ORDER =
  'SELECT state_group, prev_state_group FROM state_group_edges ORDER BY state_group';

/** Columns of rows, for `rowsStatement` as well. */
export const ROW_COLUMNS = "state_group, '', type, state_key, event_id";

/** All rows, by the index. */
export const ALL_ROWS = `SELECT ${ROW_COLUMNS} FROM state_groups_state ORDER BY state_group`;

/**
 * Of a room: its groups, and those of other rooms that edges join to them and that they descend from. The
 * latter may come twice.
 */
export function groupsOfRoom(room: string): string {
  const name = escapeLiteral(room);
  return `${withOutside(name)}
    SELECT id, room_id, '' FROM state_groups WHERE room_id = ${name}
    UNION ALL
    SELECT g.id, g.room_id, ''
    FROM outside JOIN state_groups AS g ON g.id = outside.id
    UNION ALL
    SELECT g.id, g.room_id, ''
    FROM state_groups AS m JOIN state_group_edges AS e ON e.prev_state_group = m.id
      JOIN state_groups AS g ON g.id = e.state_group
    WHERE m.room_id = ${name} AND g.room_id <> ${name}`;
}

/** Of a room: the edges of its groups, those that lead to them, and those of their ancestors outside it. */
export function edgesOfRoom(room: string): string {
  const name = escapeLiteral(room);
  return `${withOutside(name)}
    SELECT e.state_group, e.prev_state_group
    FROM state_groups AS m JOIN state_group_edges AS e ON e.state_group = m.id
    WHERE m.room_id = ${name}
    UNION ALL
    SELECT e.state_group, e.prev_state_group
    FROM state_groups AS m JOIN state_group_edges AS e ON e.prev_state_group = m.id
    WHERE m.room_id = ${name} AND ${isOutside('e.state_group', name)}
    UNION ALL
    SELECT e.state_group, e.prev_state_group
    FROM outside JOIN state_group_edges AS e ON e.state_group = outside.id
    WHERE ${isOutside('e.prev_state_group', name)}`;
}

/** The ancestors of a room's groups that are not of the room, each once, up to where they lead back to it. */
function withOutside(room: string): string {
  return `WITH RECURSIVE outside (id) AS (
      SELECT e.prev_state_group
      FROM state_groups AS m JOIN state_group_edges AS e ON e.state_group = m.id
      WHERE m.room_id = ${room} AND ${isOutside('e.prev_state_group', room)}
      UNION
      SELECT e.prev_state_group
      FROM outside JOIN state_group_edges AS e ON e.state_group = outside.id
      WHERE ${isOutside('e.prev_state_group', room)}
    )`;
}

function isOutside(id: string, room: string): string {
  return `NOT EXISTS (SELECT FROM state_groups AS s WHERE s.id = ${id} AND (s.room_id = ${room}) IS TRUE)`;
}
