import assert from 'node:assert/strict';
import type { TestDatabase } from './postgres.js';

/** Each state group's id, and the digest of its full state. */
export type States = ReadonlyMap<number, string>;

/** How many groups one statement reads, so that the server sorts in memory. */
const GROUPS_AT_ONCE = 500;

/**
 * Reads the full state of every group of the database, or of one room, as Synapse does: along the
 * edges down to the root, and for each `(type, state_key)` the row of the highest group id wins.
 *
 * The digest is the SHA-256 of the state as compact JSON, `[["type","state_key","event_id"],…]`,
 * sorted by type and state key in bytes; fixtures/synapse/states.jsonl.gz holds the same.
 */
export async function readAllStates(
  db: Pick<TestDatabase, 'query'>,
  room?: string,
): Promise<States> {
  const { rows: groups } = await db.query<{ id: string }>(
    `SELECT id FROM state_groups WHERE room_id = coalesce($1, room_id)
      UNION SELECT state_group FROM state_groups_state WHERE room_id = coalesce($1, room_id)
      ORDER BY id`,
    [room],
  );
  await db.query(ENTRIES);
  const states = new Map<number, string>();
  for (let first = 0; first < groups.length; first += GROUPS_AT_ONCE) {
    const ids = groups.slice(first, first + GROUPS_AT_ONCE).map(({ id }) => id);
    const { rows } = await db.query<{ id: string; digest: string }>(STATES_OF_GROUPS, [ids]);
    for (const { id, digest } of rows) states.set(Number(id), digest);
  }
  await db.query('DROP TABLE pg_temp.entries');
  return states;
}

// Text is sorted once: keys are numbered in their order, and rows so that of two rows of a key the one
// of the higher group has the higher number.
const ENTRIES = `
  SET work_mem = '64MB';
  SET jit = off;
  CREATE TEMPORARY TABLE entries AS
    SELECT row_number() OVER (ORDER BY state_group, event_id) AS number, state_group,
        dense_rank() OVER (ORDER BY type, state_key) AS key,
        '[' || to_json(type) || ',' || to_json(state_key) || ',' || to_json(event_id) || ']' AS entry
      FROM state_groups_state;
  CREATE INDEX ON entries (state_group);
  ANALYZE entries`;

// UNION, not UNION ALL: a group that is its own ancestor must not keep us here for ever.
const STATES_OF_GROUPS = `
  WITH RECURSIVE chain (id, member) AS (
    SELECT id, id FROM unnest($1::bigint[]) AS id
    UNION
    SELECT chain.id, edge.prev_state_group
      FROM chain JOIN state_group_edges AS edge ON edge.state_group = chain.member
  ),
  state AS (
    SELECT chain.id, key, max(number) AS number
      FROM chain LEFT JOIN entries ON entries.state_group = chain.member
      GROUP BY chain.id, key
  )
  SELECT state.id, encode(sha256(convert_to(
      '[' || coalesce(string_agg(entry, ',' ORDER BY state.key), '') || ']', 'UTF8')), 'hex') AS digest
    FROM state LEFT JOIN entries USING (number)
    GROUP BY state.id`;

/** Fails, naming the first few groups, unless the same groups have the same states. */
export function expectSameStates(actual: States, expected: States): void {
  const ids = [...new Set([...expected.keys(), ...actual.keys()])];
  const differing = ids.filter((id) => actual.get(id) !== expected.get(id));
  assert.deepEqual(
    differing.slice(0, 10),
    [],
    `${differing.length} of ${ids.length} state groups have another state`,
  );
}
