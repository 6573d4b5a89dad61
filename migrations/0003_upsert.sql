-- The upsert as one call, which is one round trip and one transaction (docs/adr/0014-the-upsert-is-one-call.md).
--
-- Statements over arrays, each with a snapshot of its own, as if a client sent them one by one.
-- Reports come sorted by key, and every statement goes through them in that order, so that any
-- number of servers can write the same sessions at once without deadlocks.
--
-- Types and function are no more than the server's side of a statement. A version that writes
-- other columns brings ones of its own, so that servers of both versions can write at the same
-- time. `session_row` and `timeline_row` are those of the version before.

CREATE TYPE timeline_entry AS (
    elapsed_ms           bigint,
    timestamp_ms         bigint,
    playback_state       text,
    current_bitrate      bigint,
    network_type         text,
    total_dropped_frames bigint,
    buffered_duration_ms bigint,
    rebuffer_count       integer,
    rebuffer_time_ms     bigint
);
COMMENT ON TYPE timeline_entry IS 'An entry for session_timeline, as the server sends it';

CREATE TYPE session_report AS (
    tenant_id            text,
    session_id           text,
    reported_at          timestamptz,
    received_at          timestamptz,
    created_at           timestamptz,
    report_count         integer,
    clock_skew_ms        bigint,
    content_id           text,
    stream_type          text,
    player_startup_ms    bigint,
    session_duration_ms  bigint,
    play_time_ms         bigint,
    rebuffer_time_ms     bigint,
    seek_time_ms         bigint,
    rebuffer_count       integer,
    seek_count           integer,
    quality_switch_count integer,
    error_count          integer,
    rebuffer_ratio       real,
    avg_bitrate_kbps     integer,
    dropped_frames       bigint,
    last_error_code      text,
    last_error_category  text,
    device_model         text,
    os_name              text,
    os_version           text,
    app_name             text,
    app_version          text,
    sdk_version          text,
    connection_type      text,
    payload              jsonb,
    timeline             timeline_entry[]
);
COMMENT ON TYPE session_report IS
    'A row for sessions and its timeline entries, as the server sends them';

CREATE FUNCTION upsert_reports(
    keys          uuid[],           -- session_key of each report, ascending, none twice
    places        timestamptz[],    -- where its session is to live, unless that is settled
    reports       session_report[],
    with_timeline boolean           -- whether any of them has timeline entries
)
-- Nothing where every report is its session's first. Otherwise, for every report that is now its
-- session's newest: report_count of the row and reported_at; for every other: null, and
-- reported_at of the row.
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
    place    timestamptz;
    applied  integer := 0;
BEGIN
    found := ARRAY(
        SELECT (SELECT p."timestamp" FROM session_places p WHERE p.key = k.key)
        FROM pg_catalog.unnest(keys) AS k (key));
    missing := pg_catalog.cardinality(pg_catalog.array_positions(found, NULL));

    -- Whoever inserts first settles where a session lives. Nearly always nobody else is at it,
    -- and plain inserts, which take no provisions against that, are cheaper.
    IF missing > 0 THEN
        BEGIN
            INSERT INTO session_places (key, "timestamp")
            SELECT k.key, k.place
            FROM ROWS FROM (
                pg_catalog.unnest(keys), pg_catalog.unnest(places), pg_catalog.unnest(found)
            ) AS k (key, place, found)
            WHERE k.found IS NULL;

            IF missing = reported THEN
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
                RETURN;
            END IF;
            places := ARRAY(
                SELECT coalesce(k.found, k.place)
                FROM ROWS FROM (pg_catalog.unnest(places), pg_catalog.unnest(found))
                  AS k (place, found));
        EXCEPTION WHEN unique_violation THEN
            INSERT INTO session_places (key, "timestamp")
            SELECT * FROM ROWS FROM (pg_catalog.unnest(keys), pg_catalog.unnest(places))
            ON CONFLICT (key) DO NOTHING;
            GET DIAGNOSTICS missing = ROW_COUNT;
            places := ARRAY(
                SELECT (SELECT p."timestamp" FROM session_places p WHERE p.key = k.key)
                FROM pg_catalog.unnest(keys) AS k (key));
            IF pg_catalog.array_position(places, NULL) IS NOT NULL THEN
                RAISE serialization_failure USING MESSAGE = 'a place vanished while it was read';
            END IF;
        END;
    ELSE
        places := found;
    END IF;

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
        IF count = 1 AND missing < reported AND NOT EXISTS (
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
COMMENT ON FUNCTION upsert_reports(uuid[], timestamptz[], session_report[], boolean) IS
    'Writes a batch of reports, at most one of each session: places, rows and timeline entries';
