/**
 * The guard of a change that is applied beside a running Synapse: a procedure of the session's own that
 * takes a state group over for rewriting, or leaves it alone if it is not what was read.
 *
 * Since 1.124 Synapse deletes unreferenced groups and re-encodes their children. Against that a lock is
 * not enough, because a purge that waited for it goes on with its old snapshot; the transaction has to
 * write a row that the purge writes as well. So: REPEATABLE READ; both groups locked in the order of
 * their ids, of one room, and not marked for deletion; the stored edge and rows compared with what was
 * read; both groups' rows rewritten as they are. Whatever fails, the group is left alone, which is
 * always right: a group's state is the same under its old encoding. A second procedure ends the
 * transaction with an error unless the new rows are there, by number and hash: a line may have been lost.
 *
 * Without that second call nothing of the group can be committed: a constraint, which is checked at COMMIT, sees to
 * it. A script may be cut off there and another one follow, which begins with a COMMIT of its own; and where psql has
 * ON_ERROR_ROLLBACK on and ON_ERROR_STOP off, it goes on to COMMIT though rows or the call failed.
 *
 * Needs PostgreSQL 11, USAGE on the tables' schema, TEMPORARY on the database, SELECT and UPDATE on
 * `state_groups`, SELECT, INSERT and DELETE on `state_group_edges` and `state_groups_state`, and SELECT
 * on `state_groups_pending_deletion` where that exists.
 */
export const GUARD_DEFINITION = `SET row_security = off;
SET synapse_compress_state.rewritten = '0';
SET synapse_compress_state.skipped = '0';

SET LOCAL client_min_messages = 'warning';
DROP TABLE IF EXISTS pg_temp.synapse_compress_state_turn;
CREATE TEMPORARY TABLE synapse_compress_state_turn (state_group bigint);
INSERT INTO pg_temp.synapse_compress_state_turn VALUES (NULL);
CREATE OR REPLACE FUNCTION pg_temp.refuse_incomplete() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    IF current_setting('synapse_compress_state.taken', true) = 'yes' THEN
        RAISE 'State group % stays as it is: its new rows did not all come, or failed.', new.state_group;
    END IF;
    RETURN NULL;
END
$function$;
CREATE CONSTRAINT TRIGGER refuse_incomplete AFTER UPDATE ON pg_temp.synapse_compress_state_turn
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.refuse_incomplete();

CREATE OR REPLACE PROCEDURE pg_temp.take_state_group(
    group_id bigint, room text, old_predecessor bigint, new_predecessor bigint,
    old_rows bigint, old_hash numeric
) LANGUAGE plpgsql SET lock_timeout = '10s' AS $procedure$
DECLARE
    reason text;
    locked_groups bigint;
    pending boolean := false;
    stored_edges bigint[];
    stored_rows bigint;
    stored_hash numeric;
    written bigint;
    rows_written bigint;
    outcome text := 'synapse_compress_state.rewritten';
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        RAISE 'State group % is rewritten at REPEATABLE READ, not at %.', group_id, current_setting('transaction_isolation');
    END IF;
    IF current_setting('synapse_compress_state.taken', true) = 'yes' THEN
        RAISE 'State group % comes before the one before it is complete.', group_id;
    END IF;
    BEGIN
        -- So said, the room's index is no way to them, which the planner takes where rooms are small as a rule.
        PERFORM FROM state_groups
        WHERE id IN (group_id, new_predecessor) AND (room_id = room) IS TRUE
        ORDER BY id FOR NO KEY UPDATE;
        GET DIAGNOSTICS locked_groups = ROW_COUNT;
        -- Before 1.124 there is no such table, and a statement that is not reached is not looked at.
        IF to_regclass('state_groups_pending_deletion') IS NOT NULL THEN
            pending := EXISTS (SELECT FROM state_groups_pending_deletion
                WHERE state_group IN (group_id, new_predecessor));
        END IF;
        SELECT coalesce(array_agg(DISTINCT prev_state_group), '{}') INTO stored_edges
        FROM state_group_edges WHERE state_group = group_id;
        SELECT count(*), coalesce(sum(hashtextextended(
            event_id, hashtextextended(state_key, hashtextextended(type, 0)))), 0)
        INTO stored_rows, stored_hash
        FROM state_groups_state WHERE state_group = group_id;

        IF locked_groups <> num_nonnulls(group_id, new_predecessor) THEN
            reason := 'it or its new predecessor is not in the room any more';
        ELSIF pending THEN
            reason := 'it or its new predecessor is about to be deleted';
        ELSIF new_predecessor >= group_id THEN
            reason := 'its new predecessor is not older';
        ELSIF stored_edges <> array_remove(ARRAY[old_predecessor], NULL) THEN
            reason := 'its predecessor is not what was read';
        ELSIF stored_rows <> old_rows
            OR stored_hash + hashtextextended(format('%s %s %s',
                group_id, old_predecessor, new_predecessor), 0) <> old_hash THEN
            reason := 'its rows are not what was read, or its change is spoilt';
        ELSE
            UPDATE pg_temp.synapse_compress_state_turn SET state_group = group_id;
            UPDATE state_groups SET room_id = room_id WHERE id IN (group_id, new_predecessor);
            GET DIAGNOSTICS written = ROW_COUNT;
            DELETE FROM state_group_edges WHERE state_group = group_id;
            GET DIAGNOSTICS rows_written = ROW_COUNT;
            written := written + least(rows_written, cardinality(stored_edges));
            INSERT INTO state_group_edges (state_group, prev_state_group)
            SELECT group_id, new_predecessor WHERE new_predecessor IS NOT NULL;
            GET DIAGNOSTICS rows_written = ROW_COUNT;
            written := written + rows_written;
            DELETE FROM state_groups_state WHERE state_group = group_id;
            GET DIAGNOSTICS rows_written = ROW_COUNT;
            IF written + rows_written <> locked_groups + cardinality(stored_edges)
                + num_nonnulls(new_predecessor) + stored_rows THEN
                RAISE 'A trigger or a rule kept rows of state group % as they were.', group_id;
            END IF;
        END IF;
    EXCEPTION WHEN serialization_failure OR deadlock_detected OR lock_not_available OR unique_violation THEN
        reason := SQLERRM;
    END;
    IF reason IS NOT NULL THEN
        RAISE WARNING 'State group % was left as it is: %.', group_id, reason;
        outcome := 'synapse_compress_state.skipped';
    END IF;
    PERFORM set_config('synapse_compress_state.taken', CASE WHEN reason IS NULL THEN 'yes' ELSE 'no' END, true);
    PERFORM set_config(outcome, (current_setting(outcome)::bigint + 1)::text, false);
END
$procedure$;

CREATE OR REPLACE PROCEDURE pg_temp.check_state_group(group_id bigint, new_rows bigint, new_hash numeric)
LANGUAGE plpgsql AS $procedure$
DECLARE
    stored_rows bigint;
    stored_hash numeric;
BEGIN
    IF current_setting('synapse_compress_state.taken') = 'yes' THEN
        SELECT count(*), coalesce(sum(hashtextextended(
            event_id, hashtextextended(state_key, hashtextextended(type, 0)))), 0)
        INTO stored_rows, stored_hash
        FROM state_groups_state WHERE state_group = group_id;
        IF stored_rows <> new_rows OR stored_hash <> new_hash THEN
            RAISE 'The new rows of state group % are not what was planned: its change is spoilt, or a trigger or a rule is in the way.', group_id;
        END IF;
        PERFORM set_config('synapse_compress_state.taken', 'complete', true);
    END IF;
END
$procedure$;
`;

/** True in a transaction whose group `take_state_group` has taken. */
export const PASSED = "current_setting('synapse_compress_state.taken') = 'yes'";

/** The last statement: of so many groups, how many were rewritten, left as they were, and failed with an error. */
export function guardSummary(groups: number): string {
  return `
WITH counts AS (SELECT coalesce(nullif(current_setting('synapse_compress_state.rewritten', true), ''), '0')::bigint AS rewritten,
    coalesce(nullif(current_setting('synapse_compress_state.skipped', true), ''), '0')::bigint AS skipped)
SELECT rewritten AS "state groups rewritten", skipped AS "left as they were",
    ${groups} - rewritten - skipped AS "failed" FROM counts;
`;
}
