/**
 * What lets Synapse's purges go first. One that meets a transaction of ours has to begin anew; it does so at
 * once, and after five times gives up. Where the next transaction of ours is there again before it is through,
 * that may happen. So before COMMIT we note who waits for us, and afterwards we let these go first: we pause
 * until the transaction that each of them has begun anew is over, ten seconds at most.
 *
 * A function and two procedures of the session's own. All users may read `pg_locks`, unless that was forbidden;
 * then nobody is seen, and nobody is waited for.
 */
export const DEFINE_GIVING_WAY = `
CREATE OR REPLACE FUNCTION pg_temp.transactions_that_write() RETURNS text[] LANGUAGE plpgsql AS $function$
BEGIN
    -- Where it can be seen that a session does nothing in its transaction, it is not waited for.
    RETURN ARRAY(
        SELECT DISTINCT virtualtransaction FROM pg_locks LEFT JOIN pg_stat_activity AS session USING (pid)
        WHERE pid <> pg_backend_pid() AND mode IN ('RowShareLock', 'RowExclusiveLock')
            AND relation IN ('state_groups'::regclass, 'state_group_edges'::regclass, 'state_groups_state'::regclass)
            AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '1 s') IS NOT TRUE);
EXCEPTION WHEN insufficient_privilege THEN
    RETURN '{}';
END
$function$;

CREATE OR REPLACE PROCEDURE pg_temp.note_who_waits() LANGUAGE plpgsql AS $procedure$
BEGIN
    PERFORM set_config('synapse_compress_state.first', ARRAY(
        SELECT virtualtransaction FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted
            AND transactionid = (txid_current() % 4294967296)::text::xid)::text, false);
EXCEPTION WHEN insufficient_privilege THEN
    PERFORM set_config('synapse_compress_state.first', '{}', false);
END
$procedure$;

CREATE OR REPLACE PROCEDURE pg_temp.let_them_go_first() LANGUAGE plpgsql AS $procedure$
DECLARE
    noted text[] := current_setting('synapse_compress_state.first');
    until timestamptz := clock_timestamp()
        + least('10 s', nullif(current_setting('statement_timeout')::interval, '0') / 2);
BEGIN
    IF noted = '{}' THEN
        RETURN;
    END IF;
    PERFORM pg_sleep(0.2);
    -- The same sessions, each in the transaction that it is in by now.
    noted := ARRAY(SELECT present FROM unnest(pg_temp.transactions_that_write()) AS present
        JOIN unnest(noted) AS before ON split_part(present, '/', 1) = split_part(before, '/', 1));
    WHILE noted <> '{}' AND clock_timestamp() < until LOOP
        PERFORM pg_sleep(0.1);
        noted := ARRAY(SELECT unnest(noted) INTERSECT SELECT unnest(pg_temp.transactions_that_write()));
    END LOOP;
END
$procedure$;
`;
