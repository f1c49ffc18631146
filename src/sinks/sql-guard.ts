/**
 * The guard of a change that is applied beside a running Synapse: a procedure of the session's own that
 * takes a state group over for rewriting, or leaves it alone if it is not what was read.
 *
 * Since 1.124 Synapse deletes unreferenced groups and re-encodes their children. Against that a lock is
 * not enough, because a purge that waited for it goes on with its old snapshot; the transaction has to
 * write a row that the purge writes as well. So: REPEATABLE READ; both groups locked in the order of
 * their ids, of one room, and not marked for deletion; the predecessor's row rewritten as it is; the
 * stored edge and rows compared with what was read. Whatever fails, the group is left alone, which is
 * always right: a group's state is the same under its old encoding.
 */
export const GUARD_DEFINITION = `SET lock_timeout = '10s';
SET synapse_compress_state.rewritten = '0';
SET synapse_compress_state.skipped = '0';

CREATE OR REPLACE PROCEDURE pg_temp.take_state_group(
    group_id bigint, room text, old_predecessor bigint, new_predecessor bigint,
    old_rows bigint, old_rows_hash numeric
) LANGUAGE plpgsql AS $procedure$
DECLARE
    reason text;
    stored_edges bigint[];
    stored_rows bigint;
    stored_hash numeric;
    found_groups bigint;
    pending boolean := false;
    outcome text := 'synapse_compress_state.rewritten';
BEGIN
    BEGIN
        SELECT count(*) INTO found_groups FROM (
            SELECT id FROM state_groups
            WHERE id IN (group_id, new_predecessor) AND room_id = room
            ORDER BY id FOR NO KEY UPDATE
        ) AS locked;
        IF to_regclass('state_groups_pending_deletion') IS NOT NULL THEN
            EXECUTE 'SELECT EXISTS (SELECT FROM state_groups_pending_deletion WHERE state_group IN ($1, $2))'
            INTO pending USING group_id, new_predecessor;
        END IF;
        SELECT coalesce(array_agg(DISTINCT prev_state_group), '{}') INTO stored_edges
        FROM state_group_edges WHERE state_group = group_id;
        SELECT count(*), coalesce(sum(hashtextextended(
            event_id, hashtextextended(state_key, hashtextextended(type, 0)))), 0)
        INTO stored_rows, stored_hash
        FROM state_groups_state WHERE state_group = group_id;

        IF found_groups <> num_nonnulls(group_id, new_predecessor) THEN
            reason := 'it or its new predecessor is not in the room any more';
        ELSIF pending THEN
            reason := 'it or its new predecessor is about to be deleted';
        ELSIF new_predecessor >= group_id THEN
            reason := 'its new predecessor is not older';
        ELSIF stored_edges IS DISTINCT FROM array_remove(ARRAY[old_predecessor], NULL) THEN
            reason := 'its predecessor is not what was read';
        ELSIF stored_rows <> old_rows OR stored_hash <> old_rows_hash THEN
            reason := 'its rows are not what was read';
        ELSE
            UPDATE state_groups SET room_id = room_id WHERE id = new_predecessor;
            DELETE FROM state_group_edges WHERE state_group = group_id;
            IF new_predecessor IS NOT NULL THEN
                INSERT INTO state_group_edges (state_group, prev_state_group)
                VALUES (group_id, new_predecessor);
            END IF;
            DELETE FROM state_groups_state WHERE state_group = group_id;
        END IF;
    EXCEPTION WHEN serialization_failure OR deadlock_detected OR lock_not_available THEN
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
`;

/** True in a transaction whose group `take_state_group` has taken. */
export const PASSED = "current_setting('synapse_compress_state.taken') = 'yes'";

/** The last statement: how many groups were rewritten and how many left as they were. */
export const GUARD_SUMMARY = `
SELECT current_setting('synapse_compress_state.rewritten') AS "state groups rewritten",
    current_setting('synapse_compress_state.skipped') AS "left as they were";
`;
