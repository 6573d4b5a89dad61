CREATE TYPE session_report_{version} AS ({fields});
COMMENT ON TYPE session_report_{version} IS
    'A row for sessions as a server of this version sends it';

CREATE FUNCTION insert_reports_{version}(
    keys    uuid[],                     -- of each report, ascending, none twice
    times   timestamptz[],              -- the session time of each
    reports session_report_{version}[],
    -- First and last elapsed_ms of the timeline entries of each, and the entries; null where none
    -- has any.
    froms   bigint[],
    untils  bigint[],
    entries json[],
    -- The last assignment of own_dimensions that the server knows; null where it writes none of
    -- these columns.
    assignment bigint
)
-- Whether every report was its session's first. If not, nothing is written.
RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    IF assignment IS NOT NULL THEN
        -- Keeps the columns from being assigned anew until this is committed.
        LOCK TABLE own_dimensions IN ROW SHARE MODE;
        IF assignment <> (SELECT coalesce(pg_catalog.max(o.assignment), 0) FROM own_dimensions o) THEN
            RAISE SQLSTATE '{other_assignment}' USING MESSAGE = 'own dimensions were assigned anew';
        END IF;
    END IF;

    INSERT INTO session_times (session_key, "timestamp")
    SELECT * FROM ROWS FROM (pg_catalog.unnest(keys), pg_catalog.unnest(times));

    INSERT INTO sessions (session_key, "timestamp", {columns})
    SELECT keys[r.ordinality], times[r.ordinality], {values}
    FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r;

    IF entries IS NOT NULL THEN
        INSERT INTO timeline_chunks (session_key, "timestamp", from_ms, until_ms, entries)
        SELECT * FROM ROWS FROM (
            pg_catalog.unnest(keys), pg_catalog.unnest(times), pg_catalog.unnest(froms),
            pg_catalog.unnest(untils), pg_catalog.unnest(entries)
        ) AS r (key, "time", from_ms, until_ms, entries)
        WHERE r.entries IS NOT NULL;
    END IF;
    -- These hours are no longer what the rollups say.
    INSERT INTO rollup_touches (hour, at, due)
    SELECT DISTINCT pg_catalog.date_trunc('hour', t."time", 'UTC'), pg_catalog.now(), pg_catalog.now()
    FROM pg_catalog.unnest(times) AS t ("time");
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION insert_reports_{version} IS
    'Writes a batch of reports of new sessions, one of each: session times, rows and timeline entries';

CREATE FUNCTION upsert_reports_{version}(
    keys    uuid[],                     -- of each report, ascending, none twice
    times   timestamptz[],              -- the session time of each, unless that is settled
    reports session_report_{version}[],
    -- First and last elapsed_ms of the timeline entries of each, and the entries; null where none
    -- has any.
    froms   bigint[],
    untils  bigint[],
    entries json[],
    -- The last assignment of own_dimensions that the server knows; null where it writes none of
    -- these columns.
    assignment bigint
)
-- For every report: report_count where it is now its session's newest, else null; version and
-- session time of the row; and whether its timeline entries were added.
RETURNS TABLE (key uuid, count integer, duration_ms bigint, reported_at timestamptz,
               settled timestamptz, added boolean)
LANGUAGE plpgsql
-- Plans are made once per connection, maybe while the tables are still empty.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    reported CONSTANT integer := pg_catalog.cardinality(keys);
    found    timestamptz[];
    missing  integer;
    inserted integer := 0;
    applied  uuid[] := '{}';
    added_to uuid[] := '{}';
    all_added boolean;
    waits    text;
BEGIN
    IF assignment IS NOT NULL THEN
        -- Keeps the columns from being assigned anew until this is committed.
        LOCK TABLE own_dimensions IN ROW SHARE MODE;
        IF assignment <> (SELECT coalesce(pg_catalog.max(o.assignment), 0) FROM own_dimensions o) THEN
            RAISE SQLSTATE '{other_assignment}' USING MESSAGE = 'own dimensions were assigned anew';
        END IF;
    END IF;

    found := ARRAY(
        SELECT (SELECT t."timestamp" FROM session_times t WHERE t.session_key = k.key)
        FROM pg_catalog.unnest(keys) AS k (key));
    missing := pg_catalog.cardinality(pg_catalog.array_positions(found, NULL));

    -- Whoever inserts first settles the session time.
    IF missing > 0 THEN
        INSERT INTO session_times (session_key, "timestamp")
        SELECT k.key, k."time"
        FROM ROWS FROM (
            pg_catalog.unnest(keys), pg_catalog.unnest(times), pg_catalog.unnest(found)
        ) AS k (key, "time", found)
        WHERE k.found IS NULL
        ON CONFLICT (session_key) DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        IF inserted < missing THEN
            found := ARRAY(
                SELECT (SELECT t."timestamp" FROM session_times t WHERE t.session_key = k.key)
                FROM pg_catalog.unnest(keys) AS k (key));
            IF pg_catalog.array_position(found, NULL) IS NOT NULL THEN
                RAISE serialization_failure USING MESSAGE = 'a session time vanished while it was read';
            END IF;
        END IF;
        times := ARRAY(
            SELECT coalesce(k.found, k."time")
            FROM ROWS FROM (pg_catalog.unnest(times), pg_catalog.unnest(found)) AS k ("time", found));
    ELSE
        times := found;
    END IF;

    FOR key, count, duration_ms, reported_at, settled, added IN
        INSERT INTO sessions AS s (session_key, "timestamp", {columns})
        SELECT keys[r.ordinality], times[r.ordinality], {values}
        FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r
        {on_conflict}
        RETURNING {returned}
    LOOP
        -- A row was inserted. Where its session had a time, both were pruned after that was
        -- read, and the session may have another one by now; or somebody deleted the row by
        -- hand, and the time is still there.
        IF count = 1 AND inserted < reported AND NOT EXISTS (
            SELECT FROM session_times t WHERE t.session_key = key AND t."timestamp" = settled)
        THEN
            RAISE serialization_failure USING MESSAGE = 'a session was pruned while it was written';
        END IF;
        applied := applied || key;
        IF added THEN
            added_to := added_to || key;
        END IF;
        RETURN NEXT;
    END LOOP;

    IF pg_catalog.cardinality(applied) < reported THEN
        -- Rows of reports that were not newer. They are locked since the upsert looked at them.
        waits := pg_catalog.current_setting('lock_timeout');
        BEGIN
            -- A plan that was made before locks all partitions, also those that these rows are not
            -- in. Where somebody has locked one of them, a new plan, which takes longer, does not.
            PERFORM pg_catalog.set_config('lock_timeout', '5ms', true);
            RETURN QUERY
            SELECT s.session_key, NULL::integer, {duration}, s.reported_at, s."timestamp", false
            FROM ROWS FROM (pg_catalog.unnest(keys), pg_catalog.unnest(times)) AS k (key, "time")
            -- Not "=", for which the planner would take the narrower index on "timestamp" alone.
            JOIN sessions s ON s.session_key = k.key AND s."timestamp" BETWEEN k."time" AND k."time"
            WHERE k.key <> ALL (applied);
            PERFORM pg_catalog.set_config('lock_timeout', waits, true);
        EXCEPTION WHEN lock_not_available THEN
            RETURN QUERY EXECUTE
            'SELECT s.session_key, NULL::integer, {duration}, s.reported_at, s."timestamp", false
             FROM sessions s
             WHERE s.session_key = ANY ($1) AND s.session_key <> ALL ($2) AND s."timestamp" = ANY ($3)'
            USING keys, applied, times;
        END;
    END IF;

    IF entries IS NOT NULL THEN
        all_added := pg_catalog.cardinality(added_to) = reported;
        INSERT INTO timeline_chunks (session_key, "timestamp", from_ms, until_ms, entries)
        SELECT * FROM ROWS FROM (
            pg_catalog.unnest(keys), pg_catalog.unnest(times), pg_catalog.unnest(froms),
            pg_catalog.unnest(untils), pg_catalog.unnest(entries)
        ) AS r (key, "time", from_ms, until_ms, entries)
        WHERE r.entries IS NOT NULL AND (all_added OR r.key = ANY (added_to));
    END IF;

    IF pg_catalog.cardinality(applied) > 0 THEN
        -- These hours are no longer what the rollups say.
        INSERT INTO rollup_touches (hour, at, due)
        SELECT DISTINCT pg_catalog.date_trunc('hour', t."time", 'UTC'), pg_catalog.now(), pg_catalog.now()
        FROM pg_catalog.unnest(times) AS t ("time");
    END IF;
END
$$;
COMMENT ON FUNCTION upsert_reports_{version} IS
    'Writes a batch of reports, at most one of each session: session times, rows and timeline entries';
