/**
 * The guarded rewriting of many state groups at once: temporary tables that a batch of changes is copied
 * into, and a procedure of the session's own that applies it. The script of the `copy` format and the
 * `apply` command use the same.
 *
 * What makes it safe beside a running Synapse:
 *
 * - Since 1.124 Synapse deletes unreferenced groups and re-encodes their children. A lock alone does not
 *   stop a purge that waited for it and goes on with its old snapshot; our transaction has to write a row
 *   that the purge writes as well. So it is REPEATABLE READ and short, locks all groups and all new
 *   predecessors in the order of their ids, and updates these rows as they are. Each edge is deleted and
 *   inserted, even where it stays: a purge of the old predecessor deletes it too.
 * - A group is rewritten only if it and its new predecessor are there, in the room, and not marked for
 *   deletion; the predecessor is older; its stored edge and rows are what was read; and the new rows that
 *   arrived are, by number and hash, what was planned. So rows that were lost or spoilt on the way, in a
 *   file that was cut off, leave the group as it is.
 * - What a trigger or a rule keeps from being deleted or inserted is an error, and all is rolled back.
 * - To leave a group as it is is always right: each change keeps its group's state, so any part of the
 *   changes, in any order, does. The state that a change was planned on is still the group's when it is
 *   applied, however late: nobody changes the state of a group. Synapse writes it once; a purge, this
 *   program and the old tool only encode it anew. The same holds for the new predecessor, whose encoding
 *   may be another by now, and which can't be another group of the same id, as ids come from a sequence: so
 *   neither keys nor events of the two can have changed, unless the database was put back to an earlier time
 *   and gave ids out again, which the README warns of. A chain whose ids fall has no cycle.
 *
 * Groups are looked at one by one, so that the rows that were just hashed are at hand when they are
 * deleted; that is faster than a statement for all. They are found through a bitmap, a page at a time, whose
 * plan needs no statistics either and takes a third less than a scan of the index, which goes to each row.
 * New rows arrive in order, and what sums them up without sorting them again uses no disk. What is left of the
 * batches before is at most a quarter of a megabyte to pass by.
 *
 * Needs PostgreSQL 11, USAGE on the tables' schema, TEMPORARY on the database, SELECT and UPDATE on
 * `state_groups`, SELECT, INSERT and DELETE on `state_group_edges` and `state_groups_state`, and SELECT
 * on `state_groups_pending_deletion` where that exists.
 */

/** Where a batch's changes are copied to. */
export const COPY_CHANGES =
  'COPY pg_temp.synapse_compress_state_changes (state_group, old_predecessor, new_predecessor, old_rows, old_hash, new_rows, new_rows_hash) FROM STDIN';

/** Where their new rows are copied to. */
export const COPY_ROWS =
  'COPY pg_temp.synapse_compress_state_rows (state_group, type, state_key, event_id) FROM STDIN';

/** Begins the transaction that rewrites a batch. */
export const BEGIN_BATCH = 'BEGIN ISOLATION LEVEL REPEATABLE READ';

/**
 * Makes the session's temporary tables and procedures; may be run again in the same session.
 *
 * `rewrite_state_groups(room, in_parts, dry_run)` rewrites what was copied, empties the tables, and leaves
 * in the setting `synapse_compress_state.batch` what came of it, as JSON. Where another transaction is in
 * the way, that is an error; but with `in_parts` the batch is halved until only the groups concerned are
 * left, and these are skipped. With `dry_run` it locks and writes nothing, but says what it would do.
 */
export const DEFINE_REWRITING = `SET client_min_messages = 'warning';
SET row_security = off;
CREATE TEMPORARY TABLE IF NOT EXISTS synapse_compress_state_changes (
    state_group bigint PRIMARY KEY, old_predecessor bigint, new_predecessor bigint,
    old_rows bigint NOT NULL, old_hash numeric NOT NULL,
    new_rows bigint NOT NULL, new_rows_hash numeric NOT NULL
);
CREATE TEMPORARY TABLE IF NOT EXISTS synapse_compress_state_rows (
    state_group bigint NOT NULL, type text NOT NULL, state_key text NOT NULL, event_id text NOT NULL
);

CREATE OR REPLACE FUNCTION pg_temp.rewrite_part(
    room text, first_group bigint, last_group bigint, dry_run boolean,
    OUT rewritten bigint[], OUT done bigint, OUT deleted bigint, OUT inserted bigint,
    OUT skipped bigint[], OUT reasons text[]
) LANGUAGE plpgsql SET enable_seqscan = off SET enable_indexscan = off SET enable_sort = off SET jit = off AS $function$
#variable_conflict use_variable
DECLARE
    locked bigint[];
    pending bigint[] := '{}';
    change record;
    stored_edges bigint[];
    stored_rows bigint;
    stored_hash numeric;
    reason text;
    predecessors bigint[];
    touched bigint[];
    rows_written bigint;
BEGIN
    rewritten := '{}';
    done := 0;
    deleted := 0;
    inserted := 0;
    skipped := '{}';
    reasons := '{}';
    locked := ARRAY(
        SELECT state_group FROM pg_temp.synapse_compress_state_changes
        WHERE state_group BETWEEN first_group AND last_group
        UNION SELECT new_predecessor FROM pg_temp.synapse_compress_state_changes
        WHERE state_group BETWEEN first_group AND last_group);
    -- So said, the room's index is no way to them, which the planner takes where rooms are small as a rule.
    IF dry_run THEN
        locked := ARRAY(SELECT id FROM state_groups WHERE id = ANY (locked) AND (room_id = room) IS TRUE);
    ELSE
        locked := ARRAY(SELECT id FROM state_groups WHERE id = ANY (locked) AND (room_id = room) IS TRUE
            ORDER BY id FOR NO KEY UPDATE);
    END IF;
    -- Before 1.124 there is no such table, and a statement that is not reached is not looked at.
    IF to_regclass('state_groups_pending_deletion') IS NOT NULL THEN
        pending := ARRAY(SELECT state_group FROM state_groups_pending_deletion
            WHERE state_group = ANY (locked));
    END IF;

    FOR change IN
        SELECT *, coalesce(arrived.rows, 0) AS arrived_rows, coalesce(arrived.hash, 0) AS arrived_hash,
            group_found.id IS NOT NULL AND (new_predecessor IS NULL OR predecessor_found.id IS NOT NULL) AS found
        FROM pg_temp.synapse_compress_state_changes
        LEFT JOIN unnest(locked) AS group_found (id) ON group_found.id = state_group
        LEFT JOIN unnest(locked) AS predecessor_found (id) ON predecessor_found.id = new_predecessor
        LEFT JOIN (
            SELECT state_group, count(*) AS rows, sum(hashtextextended(
                event_id, hashtextextended(state_key, hashtextextended(type, 0)))) AS hash
            FROM pg_temp.synapse_compress_state_rows GROUP BY state_group
        ) AS arrived USING (state_group)
        WHERE state_group BETWEEN first_group AND last_group
        ORDER BY state_group
    LOOP
        SELECT coalesce(array_agg(DISTINCT prev_state_group), '{}') INTO stored_edges
        FROM state_group_edges WHERE state_group = change.state_group;
        SELECT count(*), coalesce(sum(hashtextextended(
            event_id, hashtextextended(state_key, hashtextextended(type, 0)))), 0)
        INTO stored_rows, stored_hash
        FROM state_groups_state WHERE state_group = change.state_group;

        reason := NULL;
        IF NOT change.found THEN
            reason := 'it or its new predecessor is not in the room any more';
        ELSIF change.state_group = ANY (pending) OR change.new_predecessor = ANY (pending) THEN
            reason := 'it or its new predecessor is about to be deleted';
        ELSIF change.new_predecessor >= change.state_group THEN
            reason := 'its new predecessor is not older';
        ELSIF change.arrived_rows <> change.new_rows OR change.arrived_hash <> change.new_rows_hash THEN
            reason := 'its new rows did not arrive as they were planned';
        ELSIF stored_edges = array_remove(ARRAY[change.new_predecessor], NULL)
            AND stored_rows = change.new_rows AND stored_hash = change.new_rows_hash THEN
            done := done + 1;
        ELSIF stored_edges <> array_remove(ARRAY[change.old_predecessor], NULL) THEN
            reason := 'its predecessor is not what was read';
        ELSIF stored_rows <> change.old_rows
            OR stored_hash + hashtextextended(format('%s %s %s',
                change.state_group, change.old_predecessor, change.new_predecessor), 0) <> change.old_hash THEN
            reason := 'its rows are not what was read, or its change is spoilt';
        ELSE
            rewritten := rewritten || change.state_group;
            deleted := deleted + stored_rows;
            inserted := inserted + change.new_rows;
            IF NOT dry_run THEN
                DELETE FROM state_group_edges WHERE state_group = change.state_group;
                GET DIAGNOSTICS rows_written = ROW_COUNT;
                IF rows_written < cardinality(stored_edges) THEN
                    RAISE 'The edge of state group % was not deleted: a trigger or a rule is in the way.',
                        change.state_group;
                END IF;
                DELETE FROM state_groups_state WHERE state_group = change.state_group;
                GET DIAGNOSTICS rows_written = ROW_COUNT;
                IF rows_written <> stored_rows THEN
                    RAISE 'Of state group %, % of % rows were deleted: a trigger or a rule is in the way.',
                        change.state_group, rows_written, stored_rows;
                END IF;
            END IF;
        END IF;
        IF reason IS NOT NULL THEN
            skipped := skipped || change.state_group;
            reasons := reasons || reason;
        END IF;
    END LOOP;
    IF dry_run THEN
        RETURN;
    END IF;

    predecessors := ARRAY(
        SELECT new_predecessor FROM unnest(rewritten) AS state_group
        JOIN pg_temp.synapse_compress_state_changes USING (state_group)
        WHERE new_predecessor IS NOT NULL);
    touched := ARRAY(SELECT unnest(rewritten) UNION SELECT unnest(predecessors));
    UPDATE state_groups SET room_id = room_id WHERE id = ANY (touched);
    GET DIAGNOSTICS rows_written = ROW_COUNT;
    IF rows_written <> cardinality(touched) THEN
        RAISE '% of % rows of state_groups were written: a trigger or a rule is in the way.',
            rows_written, cardinality(touched);
    END IF;
    INSERT INTO state_group_edges (state_group, prev_state_group)
    SELECT state_group, new_predecessor FROM unnest(rewritten) AS state_group
    JOIN pg_temp.synapse_compress_state_changes USING (state_group)
    WHERE new_predecessor IS NOT NULL;
    GET DIAGNOSTICS rows_written = ROW_COUNT;
    IF rows_written <> cardinality(predecessors) THEN
        RAISE '% of % edges were inserted: a trigger or a rule is in the way.',
            rows_written, cardinality(predecessors);
    END IF;
    INSERT INTO state_groups_state (state_group, room_id, type, state_key, event_id)
    SELECT state_group, room, type, state_key, event_id FROM unnest(rewritten) AS state_group
    JOIN pg_temp.synapse_compress_state_rows USING (state_group);
    GET DIAGNOSTICS rows_written = ROW_COUNT;
    IF rows_written <> inserted THEN
        RAISE '% of % rows were inserted: a trigger or a rule is in the way.', rows_written, inserted;
    END IF;
END
$function$;

CREATE OR REPLACE PROCEDURE pg_temp.rewrite_state_groups(
    room text, in_parts boolean, dry_run boolean DEFAULT false
)
LANGUAGE plpgsql SET lock_timeout = '5s' AS $procedure$
DECLARE
    groups bigint[] := ARRAY(
        SELECT state_group FROM pg_temp.synapse_compress_state_changes ORDER BY state_group);
    -- The parts to come, each as the places of its first and its last group; the next one at the end.
    firsts int[] := ARRAY[1];
    lasts int[] := ARRAY[cardinality(groups)];
    parts int := 1;
    first int;
    last int;
    part record;
    failures int := 0;
    rewritten bigint := 0;
    done bigint := 0;
    deleted bigint := 0;
    inserted bigint := 0;
    skipped bigint[] := '{}';
    blocked bigint := 0;
    reasons text[] := '{}';
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        RAISE 'State groups are rewritten at REPEATABLE READ, not at %.', current_setting('transaction_isolation');
    END IF;
    WHILE parts > 0 LOOP
        first := firsts[parts];
        last := lasts[parts];
        parts := parts - 1;
        CONTINUE WHEN first > last;
        BEGIN
            SELECT * INTO part FROM pg_temp.rewrite_part(room, groups[first], groups[last], dry_run);
            rewritten := rewritten + cardinality(part.rewritten);
            done := done + part.done;
            deleted := deleted + part.deleted;
            inserted := inserted + part.inserted;
            skipped := skipped || part.skipped;
            reasons := reasons || part.reasons;
        EXCEPTION WHEN serialization_failure OR deadlock_detected OR lock_not_available OR unique_violation THEN
            IF NOT in_parts THEN
                RAISE;
            END IF;
            failures := failures + 1;
            -- Others wait for what is locked by now. So the next waits are short, and there are not many.
            SET LOCAL lock_timeout = '200ms';
            IF first = last OR failures >= 20 THEN
                blocked := blocked + last - first + 1;
                skipped := skipped || groups[first:last];
                reasons := reasons || array_fill(SQLERRM, ARRAY[last - first + 1]);
            ELSE
                firsts[parts + 1] := (first + last) / 2 + 1;
                lasts[parts + 1] := last;
                firsts[parts + 2] := first;
                lasts[parts + 2] := (first + last) / 2;
                parts := parts + 2;
            END IF;
        END;
    END LOOP;
    -- TRUNCATE makes new files and has all be planned anew: for few groups that takes longer than to rewrite them.
    IF pg_total_relation_size('pg_temp.synapse_compress_state_changes')
        + pg_total_relation_size('pg_temp.synapse_compress_state_rows') > 256 * 1024 THEN
        TRUNCATE pg_temp.synapse_compress_state_changes, pg_temp.synapse_compress_state_rows;
    ELSE
        DELETE FROM pg_temp.synapse_compress_state_changes;
        DELETE FROM pg_temp.synapse_compress_state_rows;
    END IF;

    FOR place IN 1 .. cardinality(skipped) LOOP
        RAISE NOTICE 'State group % was left as it is: %.', skipped[place], reasons[place];
    END LOOP;
    PERFORM set_config('synapse_compress_state.batch', jsonb_build_object(
        'rewritten', rewritten, 'done', done, 'deleted', deleted, 'inserted', inserted, 'blocked', blocked,
        'skipped', coalesce((SELECT jsonb_agg(jsonb_build_array(state_group, reason))
            FROM unnest(skipped, reasons) AS left_alone (state_group, reason)), '[]'))::text, true);
    PERFORM set_config(name, (coalesce(nullif(current_setting(name, true), ''), '0')::bigint + count)::text, false)
    FROM (VALUES ('synapse_compress_state.rewritten', rewritten), ('synapse_compress_state.done', done),
        ('synapse_compress_state.skipped', cardinality(skipped)::bigint)) AS counts (name, count);
END
$procedure$;
`;
