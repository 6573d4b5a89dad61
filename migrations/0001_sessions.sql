-- Sessions, their timelines, and the table that settles a session's place on the time axis.
-- Partitions are made by the server, ahead of time and on demand (src/store/partitions.rs).
-- Functions and types that write are not here: they belong to the version of the binary
-- (src/store/write/functions.rs).

-- 128 bits of SHA-256 stand for the two texts that name a session: a third as wide, cheap to
-- compare, and what a sharded Postgres distributes all tables by. If two sessions ever shared a
-- key, the second one would be taken for the first; at 10^12 sessions the odds are 1 in 10^15.
CREATE FUNCTION session_key(tenant_id text, session_id text) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN encode(substring(sha256(convert_to(tenant_id || E'\x1f' || session_id, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid;
COMMENT ON FUNCTION session_key(text, text) IS 'Key of a session in all tables: the first 128 bits of SHA-256(tenant_id, 0x1F, session_id)';

-- Columns of fixed width come first: what dashboards read is then found without decoding texts.
CREATE TABLE sessions (
    session_key          uuid        NOT NULL,
    "timestamp"          timestamptz NOT NULL,
    reported_at          timestamptz NOT NULL,
    received_at          timestamptz NOT NULL,
    created_at           timestamptz NOT NULL,
    report_count         integer     NOT NULL,
    error_count          integer,
    player_startup_ms    bigint,
    session_duration_ms  bigint,
    play_time_ms         bigint,
    rebuffer_time_ms     bigint,
    seek_time_ms         bigint,
    dropped_frames       bigint,
    clock_skew_ms        bigint,
    timeline_from_ms     bigint,
    timeline_until_ms    bigint,
    timeline_entries     integer,
    timeline_bytes       integer,
    rebuffer_count       integer,
    seek_count           integer,
    quality_switch_count integer,
    avg_bitrate_kbps     integer,
    rebuffer_ratio       real,
    tenant_id            text        NOT NULL,
    session_id           text        NOT NULL,
    content_id           text,
    stream_type          text,
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
    PRIMARY KEY (session_key, "timestamp")
) PARTITION BY RANGE ("timestamp");

COMMENT ON TABLE sessions IS 'One row per tenant and playback session: the newest report, partitioned by month of "timestamp"';
COMMENT ON COLUMN sessions.session_key IS 'session_key(tenant_id, session_id): what tables are joined by';
COMMENT ON COLUMN sessions."timestamp" IS 'The session''s one place on the time axis, set by the first report and never moved: its claimed start, or the time of receipt where that claim cannot be believed';
COMMENT ON COLUMN sessions.reported_at IS 'Device clock of the newest report applied';
COMMENT ON COLUMN sessions.received_at IS 'Server clock when the newest report applied was received';
COMMENT ON COLUMN sessions.created_at IS 'Server clock when the first report was received';
COMMENT ON COLUMN sessions.report_count IS 'Reports applied: 1, plus one for each newer report';
COMMENT ON COLUMN sessions.error_count IS 'Number of errors; a session with more than 0 counts as failed';
COMMENT ON COLUMN sessions.player_startup_ms IS 'Startup time: play command to first frame, milliseconds';
COMMENT ON COLUMN sessions.session_duration_ms IS 'Wall-clock length of the session, milliseconds, by the device''s monotonic clock; the report with the larger one is the newer';
COMMENT ON COLUMN sessions.play_time_ms IS 'Time spent playing, milliseconds';
COMMENT ON COLUMN sessions.rebuffer_time_ms IS 'Time spent rebuffering (not startup, not seeks), milliseconds';
COMMENT ON COLUMN sessions.seek_time_ms IS 'Time spent seeking, milliseconds';
COMMENT ON COLUMN sessions.dropped_frames IS 'Video frames dropped';
COMMENT ON COLUMN sessions.clock_skew_ms IS 'Receipt minus the device''s claimed start in milliseconds, set where that claim was not believed';
COMMENT ON COLUMN sessions.timeline_from_ms IS 'For the server: elapsed_ms of the first entry of the newest report, null where its entries were compared with those before';
COMMENT ON COLUMN sessions.timeline_until_ms IS 'For the server: largest elapsed_ms of the timeline';
COMMENT ON COLUMN sessions.timeline_entries IS 'Entries in session_timeline, null where there were never any';
COMMENT ON COLUMN sessions.timeline_bytes IS 'For the server: bytes of these entries as they are stored';
COMMENT ON COLUMN sessions.rebuffer_count IS 'Number of rebuffers';
COMMENT ON COLUMN sessions.seek_count IS 'Number of seeks';
COMMENT ON COLUMN sessions.quality_switch_count IS 'Number of video format changes';
COMMENT ON COLUMN sessions.avg_bitrate_kbps IS 'Average video bitrate, kilobits per second';
COMMENT ON COLUMN sessions.rebuffer_ratio IS 'Media3''s rebufferRatio, 0 to 1: rebuffer / (play + join + rebuffer + seek); aggregate sums instead of averaging it';
COMMENT ON COLUMN sessions.tenant_id IS 'Tenant of the API key that sent the report';
COMMENT ON COLUMN sessions.session_id IS 'sessionId as the SDK made it';
COMMENT ON COLUMN sessions.content_id IS 'contentId: what was played, as the app names it (first 512 characters)';
COMMENT ON COLUMN sessions.stream_type IS 'VOD, LIVE, UNKNOWN (another value was sent) or null';
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

-- A look-up by session_id alone. Hashes are half as large as the texts in a B-tree.
CREATE INDEX sessions_session_id ON sessions USING hash (session_id);
-- Only columns that hold still while a session runs are indexed: reports every few seconds
-- then update the row in place (HOT), without touching any index.
CREATE INDEX sessions_timestamp ON sessions ("timestamp" DESC);
CREATE INDEX sessions_errors ON sessions ("timestamp" DESC) WHERE error_count > 0;
CREATE INDEX sessions_content ON sessions (content_id, "timestamp" DESC) WHERE content_id IS NOT NULL;

-- The entries that one report added, as a JSON array of arrays: an entry then costs a third of
-- what a row of its own would. `json` keeps the text, so equal entries are equal texts.
CREATE TABLE timeline_chunks (
    session_key uuid        NOT NULL,
    "timestamp" timestamptz NOT NULL,
    from_ms     bigint      NOT NULL,
    until_ms    bigint      NOT NULL,
    entries     json        NOT NULL
) PARTITION BY RANGE ("timestamp");
-- It has no key, so rows are known by all their values where shards move or replicas follow.
ALTER TABLE timeline_chunks REPLICA IDENTITY FULL;
-- Not unique: the row in sessions, locked while entries are added, says what is there already.
-- Equal keys share one entry of the index.
CREATE INDEX timeline_chunks_session_key ON timeline_chunks (session_key);

COMMENT ON TABLE timeline_chunks IS 'Timeline entries as reports brought them; read them through session_timeline';
COMMENT ON COLUMN timeline_chunks.session_key IS 'As in sessions';
COMMENT ON COLUMN timeline_chunks."timestamp" IS 'The session''s "timestamp": entries live and expire with their session';
COMMENT ON COLUMN timeline_chunks.from_ms IS 'elapsed_ms of the first entry';
COMMENT ON COLUMN timeline_chunks.until_ms IS 'elapsed_ms of the last entry';
COMMENT ON COLUMN timeline_chunks.entries IS 'Entries in order of elapsed_ms, each an array of the columns of session_timeline from elapsed_ms to other_fields; nulls at its end are left out';

CREATE VIEW session_timeline AS
SELECT s.tenant_id, s.session_id, s."timestamp",
       (e.entry ->> 0)::bigint  AS elapsed_ms,
       (e.entry ->> 1)::bigint  AS timestamp_ms,
       e.entry ->> 2            AS playback_state,
       (e.entry ->> 3)::bigint  AS current_bitrate,
       e.entry ->> 4            AS network_type,
       (e.entry ->> 5)::bigint  AS total_dropped_frames,
       (e.entry ->> 6)::bigint  AS buffered_duration_ms,
       (e.entry ->> 7)::integer AS rebuffer_count,
       (e.entry ->> 8)::bigint  AS rebuffer_time_ms,
       (e.entry -> 9)::jsonb    AS other_fields,
       s.session_key
FROM sessions s
JOIN timeline_chunks c ON c.session_key = s.session_key AND c."timestamp" = s."timestamp"
CROSS JOIN LATERAL json_array_elements(c.entries) AS e (entry);

COMMENT ON VIEW session_timeline IS 'What the player was doing, entry by entry';
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
COMMENT ON COLUMN session_timeline.session_key IS 'As in sessions: what to join by';
COMMENT ON COLUMN session_timeline.other_fields IS 'Fields of the entry that no column is for, as sent';

-- A unique key of a partitioned table must hold the partition key, so it cannot say that a
-- session has one row. This table does: session -> "timestamp", settled by whoever inserts first.
CREATE TABLE session_times (
    session_key uuid        PRIMARY KEY,
    "timestamp" timestamptz NOT NULL
);
-- Session times arrive in order, so the smallest kind of index finds the expired ones.
CREATE INDEX session_times_timestamp ON session_times USING brin ("timestamp");

COMMENT ON TABLE session_times IS 'The session time of each session: one row per session, written before the session''s first row';
COMMENT ON COLUMN session_times.session_key IS 'As in sessions';
COMMENT ON COLUMN session_times."timestamp" IS 'sessions."timestamp" of that session';

-- Not an advisory lock: any role of the database can take those, Grafana's too.
CREATE TABLE server_lock ();
COMMENT ON TABLE server_lock IS 'Locked, never read: one instance at a time makes partitions, or the role for Grafana';
