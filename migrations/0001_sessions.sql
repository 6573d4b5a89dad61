-- Sessions, their timelines, and the table that settles where on the time axis a session lives.
-- Partitions are made by the server, ahead of time and on demand (src/store/partitions.rs).

CREATE TABLE sessions (
    tenant_id            text        NOT NULL,
    session_id           text        NOT NULL,
    "timestamp"          timestamptz NOT NULL,
    reported_at          timestamptz NOT NULL,
    received_at          timestamptz NOT NULL,
    created_at           timestamptz NOT NULL,
    report_count         integer     NOT NULL,
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
    payload              jsonb       NOT NULL,
    -- Leads with session_id, so that look-ups by id alone use it.
    PRIMARY KEY (session_id, tenant_id, "timestamp")
) PARTITION BY RANGE ("timestamp");

COMMENT ON TABLE sessions IS 'One row per tenant and playback session: the newest report, partitioned by month of "timestamp"';
COMMENT ON COLUMN sessions.tenant_id IS 'Tenant of the API key that sent the report';
COMMENT ON COLUMN sessions.session_id IS 'sessionId as the SDK made it';
COMMENT ON COLUMN sessions."timestamp" IS 'The session''s one place on the time axis, set by the first report and never moved: its claimed start, or the time of receipt where that claim cannot be believed';
COMMENT ON COLUMN sessions.reported_at IS 'Device clock of the newest report applied; a report with a later one replaces this row';
COMMENT ON COLUMN sessions.received_at IS 'Server clock when the newest report applied was received';
COMMENT ON COLUMN sessions.created_at IS 'Server clock when the first report was received';
COMMENT ON COLUMN sessions.report_count IS 'Reports applied: 1, plus one for each newer report';
COMMENT ON COLUMN sessions.clock_skew_ms IS 'Receipt minus the device''s claimed start in milliseconds, set where that claim was not believed';
COMMENT ON COLUMN sessions.content_id IS 'contentId: what was played, as the app names it (first 512 characters)';
COMMENT ON COLUMN sessions.stream_type IS 'VOD, LIVE, UNKNOWN (another value was sent) or null';
COMMENT ON COLUMN sessions.player_startup_ms IS 'Startup time: play command to first frame, milliseconds';
COMMENT ON COLUMN sessions.session_duration_ms IS 'Wall-clock length of the session, milliseconds';
COMMENT ON COLUMN sessions.play_time_ms IS 'Time spent playing, milliseconds';
COMMENT ON COLUMN sessions.rebuffer_time_ms IS 'Time spent rebuffering (not startup, not seeks), milliseconds';
COMMENT ON COLUMN sessions.seek_time_ms IS 'Time spent seeking, milliseconds';
COMMENT ON COLUMN sessions.rebuffer_count IS 'Number of rebuffers';
COMMENT ON COLUMN sessions.seek_count IS 'Number of seeks';
COMMENT ON COLUMN sessions.quality_switch_count IS 'Number of video format changes';
COMMENT ON COLUMN sessions.error_count IS 'Number of errors; a session with more than 0 counts as failed';
COMMENT ON COLUMN sessions.rebuffer_ratio IS 'Media3''s rebufferRatio, 0 to 1: rebuffer / (play + join + rebuffer + seek); aggregate sums instead of averaging it';
COMMENT ON COLUMN sessions.avg_bitrate_kbps IS 'Average video bitrate, kilobits per second';
COMMENT ON COLUMN sessions.dropped_frames IS 'Video frames dropped';
COMMENT ON COLUMN sessions.last_error_code IS 'Code of the last error, as the SDK sent it';
COMMENT ON COLUMN sessions.last_error_category IS 'NETWORK, DRM, SOURCE, DECODER, UNKNOWN or null';
COMMENT ON COLUMN sessions.device_model IS 'Device model';
COMMENT ON COLUMN sessions.os_name IS 'Operating system, where the SDK sends it';
COMMENT ON COLUMN sessions.os_version IS 'Version of the operating system, or its Android API level';
COMMENT ON COLUMN sessions.app_name IS 'Name of the app';
COMMENT ON COLUMN sessions.app_version IS 'Version of the app';
COMMENT ON COLUMN sessions.sdk_version IS 'Version of the Media3Watch SDK';
COMMENT ON COLUMN sessions.connection_type IS 'Network of the device, for example Wi-Fi or 4G';
COMMENT ON COLUMN sessions.payload IS 'The whole newest report as sent, unknown fields included';

-- Only columns that hold still while a session runs are indexed: reports every few seconds
-- then update the row in place (HOT), without touching any index.
CREATE INDEX sessions_timestamp ON sessions ("timestamp" DESC);
CREATE INDEX sessions_errors ON sessions ("timestamp" DESC) WHERE error_count > 0;
CREATE INDEX sessions_content ON sessions (content_id, "timestamp" DESC) WHERE content_id IS NOT NULL;

CREATE TABLE session_timeline (
    tenant_id            text        NOT NULL,
    session_id           text        NOT NULL,
    "timestamp"          timestamptz NOT NULL,
    elapsed_ms           bigint      NOT NULL,
    timestamp_ms         bigint      NOT NULL,
    playback_state       text        NOT NULL,
    current_bitrate      bigint,
    network_type         text,
    total_dropped_frames bigint,
    buffered_duration_ms bigint,
    rebuffer_count       integer,
    rebuffer_time_ms     bigint,
    PRIMARY KEY (session_id, tenant_id, "timestamp", elapsed_ms)
) PARTITION BY RANGE ("timestamp");

COMMENT ON TABLE session_timeline IS 'What the player was doing, entry by entry; reports add entries, one per session and elapsed_ms';
COMMENT ON COLUMN session_timeline.tenant_id IS 'As in sessions';
COMMENT ON COLUMN session_timeline.session_id IS 'As in sessions';
COMMENT ON COLUMN session_timeline."timestamp" IS 'The session''s "timestamp", not the entry''s: join on it, and entries live and expire with their session';
COMMENT ON COLUMN session_timeline.elapsed_ms IS 'Milliseconds since the session began';
COMMENT ON COLUMN session_timeline.timestamp_ms IS 'Device clock of the entry, Unix milliseconds';
COMMENT ON COLUMN session_timeline.playback_state IS 'IDLE, BUFFERING, PLAYING, PAUSED or ENDED';
COMMENT ON COLUMN session_timeline.current_bitrate IS 'Video bitrate, bits per second';
COMMENT ON COLUMN session_timeline.network_type IS 'Network at that moment, for example Wi-Fi';
COMMENT ON COLUMN session_timeline.total_dropped_frames IS 'Frames dropped since the session began';
COMMENT ON COLUMN session_timeline.buffered_duration_ms IS 'Media buffered ahead, milliseconds';
COMMENT ON COLUMN session_timeline.rebuffer_count IS 'Rebuffers since the session began';
COMMENT ON COLUMN session_timeline.rebuffer_time_ms IS 'Time rebuffered since the session began, milliseconds';

-- A unique key of a partitioned table must hold the partition key, so it cannot say that a
-- session has one row. This table does: (tenant, session) -> "timestamp", settled by whoever
-- inserts first. The key is 128 bits of SHA-256, a third as wide as the two texts; if two
-- sessions ever shared one, they would share a "timestamp", not a row.
CREATE TABLE session_places (
    key         uuid        PRIMARY KEY,
    "timestamp" timestamptz NOT NULL
);
-- Places arrive in order of time, so the smallest kind of index finds the expired ones.
CREATE INDEX session_places_timestamp ON session_places USING brin ("timestamp");

COMMENT ON TABLE session_places IS 'Where each session lives on the time axis: one row per session, written before the session''s first row';
COMMENT ON COLUMN session_places.key IS 'session_key(tenant_id, session_id)';
COMMENT ON COLUMN session_places."timestamp" IS 'sessions."timestamp" of that session';

CREATE FUNCTION session_key(tenant_id text, session_id text) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN encode(substring(sha256(convert_to(tenant_id || E'\x1f' || session_id, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid;
COMMENT ON FUNCTION session_key(text, text) IS 'Key of a session in session_places';

-- Refused with 400, kept for the operator. Bounded per tenant and expiring.
CREATE TABLE rejected_reports (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text        NOT NULL,
    received_at timestamptz NOT NULL,
    code        text        NOT NULL,
    field       text        NOT NULL,
    detail      text        NOT NULL,
    body        bytea       NOT NULL
);
CREATE INDEX rejected_reports_tenant ON rejected_reports (tenant_id, id DESC);
CREATE INDEX rejected_reports_received_at ON rejected_reports USING brin (received_at);

COMMENT ON TABLE rejected_reports IS 'Bodies refused with 400, the newest of each tenant, for 30 days';
COMMENT ON COLUMN rejected_reports.id IS 'In order of arrival';
COMMENT ON COLUMN rejected_reports.tenant_id IS 'Tenant of the API key that sent the body';
COMMENT ON COLUMN rejected_reports.received_at IS 'Server clock at receipt';
COMMENT ON COLUMN rejected_reports.code IS 'Error code of the answer';
COMMENT ON COLUMN rejected_reports.field IS 'JSON path that the answer named';
COMMENT ON COLUMN rejected_reports.detail IS 'What the answer said of it';
COMMENT ON COLUMN rejected_reports.body IS 'The bytes after decompression (as received, where that failed); of a batch, the one report';

-- Rows on their way in: a batch is one array of these. They are no more than the server's side
-- of a statement; a version that writes other columns brings types of its own, so that servers
-- of both versions can write at the same time.
CREATE TYPE session_row AS (
    tenant_id            text,
    session_id           text,
    "timestamp"          timestamptz,
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
    payload              jsonb
);
COMMENT ON TYPE session_row IS 'A row for sessions, as the server sends it';
CREATE TYPE timeline_row AS (
    tenant_id            text,
    session_id           text,
    "timestamp"          timestamptz,
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
COMMENT ON TYPE timeline_row IS 'A row for session_timeline, as the server sends it';

-- Not an advisory lock: any role of the database can take those, Grafana's too.
CREATE TABLE server_lock ();
COMMENT ON TABLE server_lock IS 'Locked, never read: one instance at a time makes partitions, or the role for Grafana';
