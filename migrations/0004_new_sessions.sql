-- The upsert as two functions (docs/adr/0018-new-sessions-without-a-look.md): one for batches in
-- which every session is expected to be new, which looks nothing up, and `upsert_reports` of
-- 0003 for all others, without its part for the former. Servers of the version before go on
-- with the latter alone.

CREATE FUNCTION insert_reports(
    keys          uuid[],           -- session_key of each report, ascending, none twice
    places        timestamptz[],    -- where its session is to live
    reports       session_report[],
    with_timeline boolean           -- whether any of them has timeline entries
)
-- Whether every report was its session's first. If not, nothing is written.
RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO session_places (key, "timestamp")
    SELECT * FROM ROWS FROM (pg_catalog.unnest(keys), pg_catalog.unnest(places));

    INSERT INTO sessions (
        tenant_id, session_id, "timestamp", reported_at, received_at, created_at,
        report_count, clock_skew_ms, content_id, stream_type, player_startup_ms,
        session_duration_ms, play_time_ms, rebuffer_time_ms, seek_time_ms,
        rebuffer_count, seek_count, quality_switch_count, error_count,
        rebuffer_ratio, avg_bitrate_kbps, dropped_frames, last_error_code,
        last_error_category, device_model, os_name, os_version, app_name,
        app_version, sdk_version, connection_type, payload)
    SELECT
        r.tenant_id, r.session_id, places[r.ordinality], r.reported_at,
        r.received_at, r.created_at, r.report_count, r.clock_skew_ms, r.content_id,
        r.stream_type, r.player_startup_ms, r.session_duration_ms, r.play_time_ms,
        r.rebuffer_time_ms, r.seek_time_ms, r.rebuffer_count, r.seek_count,
        r.quality_switch_count, r.error_count, r.rebuffer_ratio, r.avg_bitrate_kbps,
        r.dropped_frames, r.last_error_code, r.last_error_category, r.device_model,
        r.os_name, r.os_version, r.app_name, r.app_version, r.sdk_version,
        r.connection_type, r.payload
    FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r;

    IF with_timeline THEN
        INSERT INTO session_timeline (
            tenant_id, session_id, "timestamp", elapsed_ms, timestamp_ms,
            playback_state, current_bitrate, network_type, total_dropped_frames,
            buffered_duration_ms, rebuffer_count, rebuffer_time_ms)
        SELECT r.tenant_id, r.session_id, places[r.ordinality], e.*
        FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r,
            pg_catalog.unnest(r.timeline) AS e;
    END IF;
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION insert_reports(uuid[], timestamptz[], session_report[], boolean) IS
    'Writes a batch of reports of new sessions, one of each: places, rows and timeline entries';

CREATE OR REPLACE FUNCTION upsert_reports(
    keys          uuid[],           -- session_key of each report, ascending, none twice
    places        timestamptz[],    -- where its session is to live, unless that is settled
    reports       session_report[],
    with_timeline boolean           -- whether any of them has timeline entries
)
-- For every report that is now its session's newest: report_count of the row and reported_at;
-- for every other: null, and reported_at of the row.
RETURNS TABLE (session text, tenant text, count integer, version timestamptz)
LANGUAGE plpgsql
-- Plans are made once per connection, maybe while the tables are still empty.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
    reported CONSTANT integer := pg_catalog.cardinality(keys);
    found    timestamptz[];
    missing  integer;
    inserted integer := 0;
    place    timestamptz;
    applied  integer := 0;
BEGIN
    found := ARRAY(
        SELECT (SELECT p."timestamp" FROM session_places p WHERE p.key = k.key)
        FROM pg_catalog.unnest(keys) AS k (key));
    missing := pg_catalog.cardinality(pg_catalog.array_positions(found, NULL));

    -- Whoever inserts first settles where a session lives.
    IF missing > 0 THEN
        INSERT INTO session_places (key, "timestamp")
        SELECT k.key, k.place
        FROM ROWS FROM (
            pg_catalog.unnest(keys), pg_catalog.unnest(places), pg_catalog.unnest(found)
        ) AS k (key, place, found)
        WHERE k.found IS NULL
        ON CONFLICT (key) DO NOTHING;
        GET DIAGNOSTICS inserted = ROW_COUNT;
        IF inserted < missing THEN
            found := ARRAY(
                SELECT (SELECT p."timestamp" FROM session_places p WHERE p.key = k.key)
                FROM pg_catalog.unnest(keys) AS k (key));
            IF pg_catalog.array_position(found, NULL) IS NOT NULL THEN
                RAISE serialization_failure USING MESSAGE = 'a place vanished while it was read';
            END IF;
        END IF;
    END IF;
    places := ARRAY(
        SELECT coalesce(k.found, k.place)
        FROM ROWS FROM (pg_catalog.unnest(places), pg_catalog.unnest(found)) AS k (place, found));

    FOR session, tenant, count, version, place IN
        INSERT INTO sessions AS s (
            tenant_id, session_id, "timestamp", reported_at, received_at, created_at,
            report_count, clock_skew_ms, content_id, stream_type, player_startup_ms,
            session_duration_ms, play_time_ms, rebuffer_time_ms, seek_time_ms, rebuffer_count,
            seek_count, quality_switch_count, error_count, rebuffer_ratio, avg_bitrate_kbps,
            dropped_frames, last_error_code, last_error_category, device_model, os_name,
            os_version, app_name, app_version, sdk_version, connection_type, payload)
        SELECT
            r.tenant_id, r.session_id, places[r.ordinality], r.reported_at, r.received_at,
            r.created_at, r.report_count, r.clock_skew_ms, r.content_id, r.stream_type,
            r.player_startup_ms, r.session_duration_ms, r.play_time_ms, r.rebuffer_time_ms,
            r.seek_time_ms, r.rebuffer_count, r.seek_count, r.quality_switch_count,
            r.error_count, r.rebuffer_ratio, r.avg_bitrate_kbps, r.dropped_frames,
            r.last_error_code, r.last_error_category, r.device_model, r.os_name, r.os_version,
            r.app_name, r.app_version, r.sdk_version, r.connection_type, r.payload
        FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r
        ON CONFLICT (session_id, tenant_id, "timestamp") DO UPDATE SET
            reported_at = excluded.reported_at,
            received_at = excluded.received_at,
            report_count = s.report_count + excluded.report_count,
            content_id = excluded.content_id,
            stream_type = excluded.stream_type,
            player_startup_ms = excluded.player_startup_ms,
            session_duration_ms = excluded.session_duration_ms,
            play_time_ms = excluded.play_time_ms,
            rebuffer_time_ms = excluded.rebuffer_time_ms,
            seek_time_ms = excluded.seek_time_ms,
            rebuffer_count = excluded.rebuffer_count,
            seek_count = excluded.seek_count,
            quality_switch_count = excluded.quality_switch_count,
            error_count = excluded.error_count,
            rebuffer_ratio = excluded.rebuffer_ratio,
            avg_bitrate_kbps = excluded.avg_bitrate_kbps,
            dropped_frames = excluded.dropped_frames,
            last_error_code = excluded.last_error_code,
            last_error_category = excluded.last_error_category,
            device_model = excluded.device_model,
            os_name = excluded.os_name,
            os_version = excluded.os_version,
            app_name = excluded.app_name,
            app_version = excluded.app_version,
            sdk_version = excluded.sdk_version,
            connection_type = excluded.connection_type,
            payload = excluded.payload
        WHERE s.reported_at < excluded.reported_at
        RETURNING s.session_id, s.tenant_id, s.report_count, s.reported_at, s."timestamp"
    LOOP
        -- A row was inserted. Where its session had a place, both were pruned after that was
        -- read, and the session may live elsewhere by now; or somebody deleted the row by hand,
        -- and the place is still there.
        IF count = 1 AND inserted < reported AND NOT EXISTS (
            SELECT FROM session_places p
            WHERE p.key = session_key(tenant, session) AND p."timestamp" = place)
        THEN
            RAISE serialization_failure USING MESSAGE = 'a session was pruned while it was written';
        END IF;
        applied := applied + 1;
        RETURN NEXT;
    END LOOP;

    IF applied < reported THEN
        -- Rows of reports that were not newer (and of some that were applied: equal now). They
        -- are locked since the upsert looked at them.
        RETURN QUERY
        SELECT r.session_id, r.tenant_id, NULL::integer, s.reported_at
        FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r
        -- Not "=", for which the planner would take the narrower index on "timestamp" alone.
        JOIN sessions s ON s.session_id = r.session_id AND s.tenant_id = r.tenant_id
                       AND s."timestamp" BETWEEN places[r.ordinality] AND places[r.ordinality]
        WHERE s.reported_at >= r.reported_at;
    END IF;

    IF with_timeline THEN
        IF applied = reported THEN
            -- A newer report brings new entries.
            BEGIN
                INSERT INTO session_timeline (
                    tenant_id, session_id, "timestamp", elapsed_ms, timestamp_ms, playback_state,
                    current_bitrate, network_type, total_dropped_frames, buffered_duration_ms,
                    rebuffer_count, rebuffer_time_ms)
                SELECT r.tenant_id, r.session_id, places[r.ordinality], e.*
                FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r,
                    pg_catalog.unnest(r.timeline) AS e;
                RETURN;
            EXCEPTION WHEN unique_violation THEN
                -- Some are there: go on below.
            END;
        END IF;
        INSERT INTO session_timeline (
            tenant_id, session_id, "timestamp", elapsed_ms, timestamp_ms, playback_state,
            current_bitrate, network_type, total_dropped_frames, buffered_duration_ms,
            rebuffer_count, rebuffer_time_ms)
        SELECT r.tenant_id, r.session_id, places[r.ordinality], e.*
        FROM pg_catalog.unnest(reports) WITH ORDINALITY AS r,
            pg_catalog.unnest(r.timeline) AS e
        ON CONFLICT (session_id, tenant_id, "timestamp", elapsed_ms) DO NOTHING;
    END IF;
END
$$;
