import type { TestDatabase } from '../support/postgres.js';
import type { States } from '../support/states.js';

// The digest is that of `readAllStates`. A group's state is read when the transaction that writes it
// commits, which is before anyone else can see the group.
const RECORD = `
  CREATE TABLE written_states (state_group bigint PRIMARY KEY, digest text NOT NULL);
  CREATE FUNCTION record_state() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    WITH RECURSIVE chain (member) AS (
      VALUES (NEW.id)
      UNION SELECT prev_state_group FROM chain JOIN state_group_edges ON state_group = member
    ),
    state AS (
      SELECT DISTINCT ON (type, state_key) type, state_key, event_id
        FROM chain JOIN state_groups_state ON state_group = member
        ORDER BY type, state_key, member DESC
    )
    INSERT INTO written_states
      SELECT NEW.id, encode(sha256(convert_to('[' || coalesce(string_agg(
          '[' || to_json(type) || ',' || to_json(state_key) || ',' || to_json(event_id) || ']',
          ',' ORDER BY type, state_key), '') || ']', 'UTF8')), 'hex')
        FROM state;
    RETURN NULL;
  END $$;
  CREATE CONSTRAINT TRIGGER record_state AFTER INSERT ON state_groups INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION record_state();`;

/** Has the database record the state of each group in the transaction that writes it. */
export async function recordStates(db: TestDatabase): Promise<void> {
  await db.query(RECORD);
}

/** The states as they were written, of all groups that there have been since. */
export async function writtenStates(db: TestDatabase): Promise<States> {
  const { rows } = await db.query<{ state_group: string; digest: string }>(
    'SELECT * FROM written_states',
  );
  return new Map(rows.map(({ state_group: group, digest }) => [Number(group), digest]));
}
