-- The one definition of the view; migration 0003 made its first. The server replaces it when this
-- text or the own dimensions change (src/store/session_qoe.rs).
--
-- Columns only, no function that looks at other rows: the planner takes the view apart, so that
-- a query through it reads partitions and indexes as one on `sessions` does.
-- New columns come last, so that the view can be replaced under running queries and other views.
CREATE OR REPLACE VIEW session_qoe AS
SELECT session_key, tenant_id, session_id, "timestamp", reported_at, received_at, created_at, report_count, clock_skew_ms,
       content_id, stream_type, app_name, app_version, sdk_version, device_model, os_name, os_version,
       connection_type, last_error_code, last_error_category,
       player_startup_ms, session_duration_ms, play_time_ms, rebuffer_time_ms, seek_time_ms,
       rebuffer_count, seek_count, quality_switch_count, error_count, avg_bitrate_kbps, dropped_frames,
       coalesce(play_time_ms, 0) + coalesce(player_startup_ms, 0)
         + coalesce(rebuffer_time_ms, 0) + coalesce(seek_time_ms, 0) AS watched_ms,
       coalesce(error_count > 0, false) AS failed,
       coalesce(play_time_ms > 0, false) AS played,
       received_at > now() - interval '1 minute' AS reporting,
       coalesce(error_count > 0, false) AND NOT coalesce(play_time_ms > 0, false) AS start_failed,
       NOT coalesce(error_count > 0, false) AND NOT coalesce(play_time_ms > 0, false)
         AND received_at <= now() - interval '1 minute' AS exited_before_start,
       coalesce(rebuffer_count > 0, rebuffer_time_ms > 0, false) AS rebuffered,
       coalesce(player_startup_ms > 4000, false) AS slow_start,
       coalesce(error_count > 0, false) OR coalesce(player_startup_ms > 4000, false)
         OR coalesce(50 * rebuffer_time_ms > coalesce(play_time_ms, 0) + coalesce(player_startup_ms, 0)
              + coalesce(rebuffer_time_ms, 0) + coalesce(seek_time_ms, 0), false)
         OR (NOT coalesce(play_time_ms > 0, false) AND received_at <= now() - interval '1 minute') AS bad,
       800 / (8 + player_startup_ms / 1000.0::float8) AS startup_score,
       CASE WHEN play_time_ms > 0 THEN
         50 / sqrt(1 + (coalesce(rebuffer_count, 0) / 2.0::float8) ^ 2)
         + 50 * exp((-10.0)::float8 * coalesce(rebuffer_time_ms, 0) / greatest(1,
             coalesce(play_time_ms, 0) + coalesce(player_startup_ms, 0)
             + coalesce(rebuffer_time_ms, 0) + coalesce(seek_time_ms, 0)))
       END AS smoothness_score,
       CASE WHEN error_count > 0 THEN 0 WHEN play_time_ms > 0 THEN 100
            WHEN received_at <= now() - interval '1 minute' THEN 50 END AS playback_success_score,
       {own}
FROM sessions;

COMMENT ON VIEW session_qoe IS 'Sessions with the quality-of-experience terms of each; sums, counts and percentiles over it are the formulas of docs/sql.md';
COMMENT ON COLUMN session_qoe.watched_ms IS 'Watched time (CTA-2066), milliseconds: play + startup + rebuffer + seek time, what was not reported counts 0; divide sums by its sum';
COMMENT ON COLUMN session_qoe.failed IS 'At least one error; error rate = failed sessions / sessions';
COMMENT ON COLUMN session_qoe.played IS 'Play time was reported';
COMMENT ON COLUMN session_qoe.reporting IS 'A report was received in the last minute: a viewer now';
COMMENT ON COLUMN session_qoe.start_failed IS 'Video start failure: never played, with an error';
COMMENT ON COLUMN session_qoe.exited_before_start IS 'Exit before video start: never played, without an error, and no report in the last minute';
COMMENT ON COLUMN session_qoe.rebuffered IS 'At least one rebuffer';
COMMENT ON COLUMN session_qoe.slow_start IS 'Startup time over 4 seconds';
COMMENT ON COLUMN session_qoe.bad IS 'A session with trouble: an error, a startup over 4 seconds, more than 2 % of the watched time rebuffering, or an exit before video start';
COMMENT ON COLUMN session_qoe.startup_score IS 'Startup score (Mux): 8 / (8 + seconds) * 100; null without a startup time';
COMMENT ON COLUMN session_qoe.smoothness_score IS 'Smoothness score (Mux): mean of 100 / sqrt(1 + (rebuffers / 2)^2) and 100 * e^(-10 * rebuffer share of watched time); null if never played';
COMMENT ON COLUMN session_qoe.playback_success_score IS 'Playback success score (Mux): 0 with an error, 50 for an exit before start, 100 otherwise; null while a session that has not played is reporting';
{comments}
DO $$
DECLARE name text;
BEGIN
    -- What the view passes on means what it means in the table.
    FOR name IN SELECT attname FROM pg_attribute WHERE attrelid = 'session_qoe'::regclass AND attnum > 0
                  AND col_description(attrelid, attnum) IS NULL LOOP
        EXECUTE format('COMMENT ON COLUMN session_qoe.%I IS %L', name,
            (SELECT col_description(attrelid, attnum) FROM pg_attribute
             WHERE attrelid = 'sessions'::regclass AND attname = name));
    END LOOP;
END $$;
