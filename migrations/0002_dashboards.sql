-- What dashboards, alerts and people's own SQL read: views that carry the formulas once, and
-- two small tables in which the backend says how it is doing, for a Grafana that has nothing
-- but this database.

-- Wilson score interval of a share (E. B. Wilson, 1927), 95 %: between which two shares the true
-- one lies when `hits` of `total` were seen. Null without any.
CREATE FUNCTION wilson_low(hits bigint, total bigint) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN total > 0 THEN greatest(0, (
        hits + 1.9208 - 1.96 * sqrt(greatest(0, hits * (total - hits)::double precision / total + 0.9604))
    ) / (total + 3.8416)) END;
COMMENT ON FUNCTION wilson_low(bigint, bigint) IS 'Lower end of the 95 % Wilson interval of hits / total, 0 to 1; null for a total of 0';

CREATE FUNCTION wilson_high(hits bigint, total bigint) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN total > 0 THEN least(1, (
        hits + 1.9208 + 1.96 * sqrt(greatest(0, hits * (total - hits)::double precision / total + 0.9604))
    ) / (total + 3.8416)) END;
COMMENT ON FUNCTION wilson_high(bigint, bigint) IS 'Upper end of the 95 % Wilson interval of hits / total, 0 to 1; null for a total of 0';

-- Columns only, no function that looks at other rows: the planner takes the view apart, so that
-- a query through it reads partitions and indexes as one on `sessions` does.
CREATE VIEW session_qoe AS
SELECT tenant_id, session_id, "timestamp", reported_at, received_at, created_at, report_count, clock_skew_ms,
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
            WHEN received_at <= now() - interval '1 minute' THEN 50 END AS playback_success_score
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

CREATE VIEW refused_reports AS
SELECT id, tenant_id, received_at, code, field, detail, octet_length(body) AS body_bytes
FROM rejected_reports;
COMMENT ON VIEW refused_reports IS 'Reports refused with 400 without their bodies: what and why, nothing of what was sent';
COMMENT ON COLUMN refused_reports.id IS 'As in rejected_reports';
COMMENT ON COLUMN refused_reports.tenant_id IS 'As in rejected_reports';
COMMENT ON COLUMN refused_reports.received_at IS 'Server clock at receipt';
COMMENT ON COLUMN refused_reports.code IS 'Error code of the answer';
COMMENT ON COLUMN refused_reports.field IS 'JSON path that the answer named';
COMMENT ON COLUMN refused_reports.detail IS 'What the answer said of it; never a value that was sent';
COMMENT ON COLUMN refused_reports.body_bytes IS 'Length of the body kept in rejected_reports';

-- One row a minute and instance, kept for 30 days: heartbeat, and what /metrics says, in short.
CREATE TABLE backend_minutes (
    instance         text             NOT NULL,
    "time"           timestamptz      NOT NULL,
    version          text             NOT NULL,
    started_at       timestamptz      NOT NULL,
    seconds          double precision NOT NULL,
    requests         bigint           NOT NULL,
    client_errors    bigint           NOT NULL,
    server_errors    bigint           NOT NULL,
    answer_mean_ms   double precision,
    answer_p95_ms    double precision,
    stored           bigint           NOT NULL,
    updated          bigint           NOT NULL,
    duplicate        bigint           NOT NULL,
    stale            bigint           NOT NULL,
    limited          bigint           NOT NULL,
    rejected         jsonb            NOT NULL,
    failed           jsonb            NOT NULL,
    batches          bigint           NOT NULL,
    batch_reports    bigint           NOT NULL,
    commit_mean_ms   double precision,
    commit_p95_ms    double precision,
    queue_reports    bigint           NOT NULL,
    queue_bytes      bigint           NOT NULL,
    pool_active      integer          NOT NULL,
    pool_idle        integer          NOT NULL,
    pool_max         integer          NOT NULL,
    memory_bytes     bigint,
    cpu_seconds      double precision,
    database_bytes   bigint           NOT NULL,
    PRIMARY KEY ("time", instance)
);
COMMENT ON TABLE backend_minutes IS 'How each backend instance is doing, a row a minute and one at its start, for 30 days; the newest row is its heartbeat';
COMMENT ON COLUMN backend_minutes.instance IS 'Host name and port of the instance';
COMMENT ON COLUMN backend_minutes."time" IS 'Database clock when the row was written';
COMMENT ON COLUMN backend_minutes.version IS 'Version of the backend';
COMMENT ON COLUMN backend_minutes.started_at IS 'When the instance started';
COMMENT ON COLUMN backend_minutes.seconds IS 'What the counts cover: seconds since the row before, or since the start';
COMMENT ON COLUMN backend_minutes.requests IS 'Requests answered on the routes that take reports';
COMMENT ON COLUMN backend_minutes.client_errors IS 'Of these, answered with 4xx';
COMMENT ON COLUMN backend_minutes.server_errors IS 'Of these, answered with 5xx';
COMMENT ON COLUMN backend_minutes.answer_mean_ms IS 'Mean time to answer them, milliseconds; null without any';
COMMENT ON COLUMN backend_minutes.answer_p95_ms IS '95th percentile of it, read off a histogram';
COMMENT ON COLUMN backend_minutes.stored IS 'Reports that made a session';
COMMENT ON COLUMN backend_minutes.updated IS 'Reports that updated one';
COMMENT ON COLUMN backend_minutes.duplicate IS 'Reports acknowledged that were stored already';
COMMENT ON COLUMN backend_minutes.stale IS 'Reports acknowledged that were older than what is stored';
COMMENT ON COLUMN backend_minutes.limited IS 'Requests answered with 429';
COMMENT ON COLUMN backend_minutes.rejected IS 'Reports refused with 4xx other than 429, as {code: count}';
COMMENT ON COLUMN backend_minutes.failed IS 'Reports answered with 5xx, as {code: count}';
COMMENT ON COLUMN backend_minutes.batches IS 'Batches in which reports went to the database';
COMMENT ON COLUMN backend_minutes.batch_reports IS 'Reports in them';
COMMENT ON COLUMN backend_minutes.commit_mean_ms IS 'Mean time from a report''s arrival in the queue to its outcome, milliseconds; null without any';
COMMENT ON COLUMN backend_minutes.commit_p95_ms IS '95th percentile of it, read off a histogram';
COMMENT ON COLUMN backend_minutes.queue_reports IS 'Reports waiting for their commit at that moment';
COMMENT ON COLUMN backend_minutes.queue_bytes IS 'Memory of these, bytes';
COMMENT ON COLUMN backend_minutes.pool_active IS 'Database connections in use at that moment';
COMMENT ON COLUMN backend_minutes.pool_idle IS 'Database connections open and idle';
COMMENT ON COLUMN backend_minutes.pool_max IS 'Database connections allowed';
COMMENT ON COLUMN backend_minutes.memory_bytes IS 'Resident memory of the process; null where the system does not tell';
COMMENT ON COLUMN backend_minutes.cpu_seconds IS 'Processor time used since the row before, seconds; null where the system does not tell';
COMMENT ON COLUMN backend_minutes.database_bytes IS 'Size of the database on disk';

-- Runs of background jobs, for 90 days.
CREATE TABLE job_runs (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job         text        NOT NULL,
    instance    text        NOT NULL,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    result      text        NOT NULL,
    detail      text        NOT NULL
);
CREATE INDEX job_runs_started_at ON job_runs (started_at DESC);
COMMENT ON TABLE job_runs IS 'Runs of background jobs, for 90 days';
COMMENT ON COLUMN job_runs.id IS 'In the order in which they ended';
COMMENT ON COLUMN job_runs.job IS 'partitions or retention';
COMMENT ON COLUMN job_runs.instance IS 'Host name and port of the instance that ran it';
COMMENT ON COLUMN job_runs.started_at IS 'When it began';
COMMENT ON COLUMN job_runs.finished_at IS 'When it ended';
COMMENT ON COLUMN job_runs.result IS 'ok, failed, or skipped because another instance was at it';
COMMENT ON COLUMN job_runs.detail IS 'What it did, or why it failed';
