/** Which of `pg_locks` are on the tables that are rewritten. */
export const ON_TABLES = `relation IN ('state_groups'::regclass, 'state_group_edges'::regclass, 'state_groups_state'::regclass)
            AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

/**
 * What lets Synapse's purges go first. One that waits for a transaction of ours, or comes to a row that we have
 * written since it began, has to begin anew; it does so at once, and after five times gives up. Where the next
 * transaction of ours is there again before it is through, that may happen, above all to the purge of a large room,
 * which takes longer than ours. So before COMMIT we note who waits for us and who has been writing for a while, and
 * afterwards we let these go first: we pause until they write no more.
 *
 * That ends after ten seconds, and whoever was waited for in vain is not waited for again until it was seen to write
 * no more. In all, ten seconds are given and a half of the time that goes by: a server that is busy with others does
 * not hold us up for hours.
 *
 * A function and two procedures of the session's own. All users may read `pg_locks`, unless that was forbidden;
 * then nobody is seen, and nobody is waited for. How long another user's transactions take shows to few: others wait
 * only for those who wait for us.
 */
export const DEFINE_GIVING_WAY = `
CREATE OR REPLACE FUNCTION pg_temp.sessions_that_write(longer_than interval) RETURNS text[] LANGUAGE plpgsql AS $function$
BEGIN
    -- Where it can be seen that a session does nothing in its transaction, it is not waited for.
    RETURN ARRAY(
        SELECT DISTINCT split_part(virtualtransaction, '/', 1)
        FROM pg_locks LEFT JOIN pg_stat_activity AS session USING (pid)
        WHERE pid <> pg_backend_pid() AND mode IN ('RowShareLock', 'RowExclusiveLock')
            AND ${ON_TABLES}
            AND (longer_than = '0' OR xact_start < clock_timestamp() - longer_than)
            AND (state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '1 s') IS NOT TRUE);
EXCEPTION WHEN insufficient_privilege THEN
    RETURN '{}';
END
$function$;

CREATE OR REPLACE PROCEDURE pg_temp.note_who_goes_first() LANGUAGE plpgsql AS $procedure$
DECLARE
    in_vain text[] := ARRAY(
        SELECT unnest(nullif(current_setting('synapse_compress_state.in_vain', true), '')::text[])
        INTERSECT SELECT unnest(pg_temp.sessions_that_write('0')));
BEGIN
    PERFORM set_config('synapse_compress_state.in_vain', in_vain::text, false);
    -- Most transactions of Synapse are over sooner.
    PERFORM set_config('synapse_compress_state.first', ARRAY(
        SELECT split_part(virtualtransaction, '/', 1) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted
            AND transactionid = (txid_current() % 4294967296)::text::xid
        UNION SELECT unnest(pg_temp.sessions_that_write('0.1 s'))
        EXCEPT SELECT unnest(in_vain))::text, false);
EXCEPTION WHEN insufficient_privilege THEN
    PERFORM set_config('synapse_compress_state.first', '{}', false);
END
$procedure$;

CREATE OR REPLACE PROCEDURE pg_temp.let_them_go_first() LANGUAGE plpgsql AS $procedure$
DECLARE
    sessions text[] := current_setting('synapse_compress_state.first');
    started timestamptz := clock_timestamp();
    -- In seconds since 1970, and in seconds.
    begun float := coalesce(nullif(current_setting('synapse_compress_state.begun', true), ''), extract(epoch FROM started)::text);
    given float := coalesce(nullif(current_setting('synapse_compress_state.given', true), ''), '0');
    half_the_timeout interval := nullif(current_setting('statement_timeout')::interval, '0') / 2;
    until timestamptz := started + least('10 s', half_the_timeout,
        (10 + (extract(epoch FROM started) - begun) / 2 - given) * interval '1 s');
    writing text[];
    -- Who has failed begins anew at once, and may just not be seen.
    times_quiet int := 0;
BEGIN
    PERFORM set_config('synapse_compress_state.begun', begun::text, false);
    IF sessions = '{}' OR until <= started THEN
        RETURN;
    END IF;
    WHILE times_quiet < 2 AND clock_timestamp() < until LOOP
        PERFORM pg_sleep_for(least('0.1 s', half_the_timeout));
        writing := ARRAY(SELECT unnest(sessions) INTERSECT SELECT unnest(pg_temp.sessions_that_write('0')));
        times_quiet := CASE writing WHEN '{}' THEN times_quiet + 1 ELSE 0 END;
    END LOOP;
    PERFORM set_config('synapse_compress_state.given',
        (given + extract(epoch FROM clock_timestamp() - started))::text, false);
    PERFORM set_config('synapse_compress_state.in_vain', ARRAY(
        SELECT unnest(nullif(current_setting('synapse_compress_state.in_vain', true), '')::text[])
        UNION SELECT unnest(writing))::text, false);
END
$procedure$;
`;
