/**
 * What lets Synapse's purges go first. One that waits for a transaction of ours, or comes to a row that we have
 * written since it began, has to begin anew; it does so at once, and after five times gives up. Where the next
 * transaction of ours is there again before it is through, that may happen, above all to the purge of a large room,
 * which takes longer than ours. So before COMMIT we note who waits for us and who has been writing for a while, and
 * afterwards we let these go first: we pause until they write no more, ten seconds at most.
 *
 * A function and two procedures of the session's own. All users may read `pg_locks`, unless that was forbidden;
 * then nobody is seen, and nobody is waited for.
 */
export const DEFINE_GIVING_WAY = `
CREATE OR REPLACE FUNCTION pg_temp.transactions_that_write(longer_than interval) RETURNS text[] LANGUAGE plpgsql AS $function$
BEGIN
    -- Where it can be seen that a session does nothing in its transaction, it is not waited for.
    RETURN ARRAY(
        SELECT DISTINCT virtualtransaction FROM pg_locks LEFT JOIN pg_stat_activity AS session USING (pid)
        WHERE pid <> pg_backend_pid() AND mode IN ('RowShareLock', 'RowExclusiveLock')
            AND relation IN ('state_groups'::regclass, 'state_group_edges'::regclass, 'state_groups_state'::regclass)
            AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (xact_start > clock_timestamp() - longer_than) IS NOT TRUE
            AND (state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '1 s') IS NOT TRUE);
EXCEPTION WHEN insufficient_privilege THEN
    RETURN '{}';
END
$function$;

CREATE OR REPLACE PROCEDURE pg_temp.note_who_goes_first() LANGUAGE plpgsql AS $procedure$
BEGIN
    -- Most transactions of Synapse are over sooner. One that was waited for in vain is not waited for again.
    PERFORM set_config('synapse_compress_state.first', ARRAY(
        SELECT virtualtransaction FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted
            AND transactionid = (txid_current() % 4294967296)::text::xid
        UNION SELECT unnest(pg_temp.transactions_that_write('0.1 s'))
        EXCEPT SELECT unnest(nullif(current_setting('synapse_compress_state.in_vain', true), '')::text[]))::text, false);
EXCEPTION WHEN insufficient_privilege THEN
    PERFORM set_config('synapse_compress_state.first', '{}', false);
END
$procedure$;

CREATE OR REPLACE PROCEDURE pg_temp.let_them_go_first() LANGUAGE plpgsql AS $procedure$
DECLARE
    sessions text[] := ARRAY(SELECT split_part(noted, '/', 1)
        FROM unnest(current_setting('synapse_compress_state.first')::text[]) AS noted);
    half_the_timeout interval := nullif(current_setting('statement_timeout')::interval, '0') / 2;
    until timestamptz := clock_timestamp() + least('10 s', half_the_timeout);
    writing text[];
    -- Who has failed begins anew at once, and may just not be seen.
    times_quiet int := CASE sessions WHEN '{}' THEN 2 ELSE 0 END;
BEGIN
    WHILE times_quiet < 2 AND clock_timestamp() < until LOOP
        PERFORM pg_sleep_for(least('0.1 s', half_the_timeout));
        writing := ARRAY(SELECT present FROM unnest(pg_temp.transactions_that_write('0')) AS present
            WHERE split_part(present, '/', 1) = ANY (sessions));
        times_quiet := CASE writing WHEN '{}' THEN times_quiet + 1 ELSE 0 END;
    END LOOP;
    PERFORM set_config('synapse_compress_state.in_vain', coalesce(writing, '{}')::text, false);
END
$procedure$;
`;
