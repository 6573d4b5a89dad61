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
