-- Sums of sessions by time and dimension: what dashboards read for ranges over a few hours.
-- A job makes them from `sessions` (src/store/rollup).
CREATE TABLE rollups (
    dimension              text        NOT NULL,
    minutes                smallint    NOT NULL,
    bucket                 timestamptz NOT NULL,
    part                   smallint    NOT NULL,
    tenant_id              text        NOT NULL,
    stream_type            text,
    value                  text,
    first_at               timestamptz NOT NULL,
    last_at                timestamptz NOT NULL,
    sessions               integer     NOT NULL,
    reports                bigint,
    failed                 integer,
    played                 integer,
    start_failed           integer,
    exited_before_start    integer,
    rebuffered             integer,
    slow_start             integer,
    bad                    integer,
    bad_played             integer,
    mostly_rebuffered      integer,
    mostly_slow_start      integer,
    started                integer,
    without_startup        integer,
    without_content        integer,
    without_device         integer,
    clock_skewed           integer,
    player_startup_ms      bigint,
    session_duration_ms    bigint,
    play_time_ms           bigint,
    rebuffer_time_ms       bigint,
    seek_time_ms           bigint,
    watched_ms             bigint,
    rebuffer_count         bigint,
    counted_watched_ms     bigint,
    seek_count             bigint,
    quality_switch_count   bigint,
    error_count            bigint,
    rated_play_time_ms     bigint,
    startup_score_milli    bigint,
    smoothness_score_milli bigint,
    dropped_frames         numeric,
    rated_kbits            numeric,
    player_startup_squares numeric,
    watched_squares        numeric,
    rebuffer_squares       numeric,
    rebuffer_watched       numeric,
    startup_bins           smallint[],
    startup_counts         integer[],
    startup_watched_ms     bigint[],
    rebuffering_bins       smallint[],
    rebuffering_counts     integer[],
    rebuffering_watched_ms bigint[],
    delay_bins             smallint[],
    delay_counts           integer[]
);
-- The hours that are being watched are replaced again and again.
ALTER TABLE rollups SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
CREATE INDEX rollups_dimension ON rollups (dimension, minutes, bucket);
CREATE INDEX rollups_bucket ON rollups (bucket);

COMMENT ON TABLE rollups IS 'Sums of sessions by time and dimension; read them through qoe() and its siblings. A sum of 0 is null';
COMMENT ON COLUMN rollups.dimension IS 'What the row is broken down by beside tenant and stream type: empty for nothing else, or the name of a dimension, such as app_version';
COMMENT ON COLUMN rollups.minutes IS 'Length of the bucket: 30 (without a dimension), 60 (with one), 360 or 1440. Longer ones repeat what the shorter ones say, where rollup_blocks says so';
COMMENT ON COLUMN rollups.bucket IS 'Begin of the bucket; sessions are placed by their "timestamp"';
COMMENT ON COLUMN rollups.part IS 'Rows of one bucket with different parts add up: of an hour that retention has taken sessions from, those who were there before are in a lower part than those who came later';
COMMENT ON COLUMN rollups.tenant_id IS 'As in sessions';
COMMENT ON COLUMN rollups.stream_type IS 'As in sessions';
COMMENT ON COLUMN rollups.value IS 'Value of the dimension; null where it was not reported, "(other)" for all but the 100 values with the most sessions of a tenant and bucket';
COMMENT ON COLUMN rollups.first_at IS 'Smallest "timestamp" of these sessions';
COMMENT ON COLUMN rollups.last_at IS 'Largest "timestamp" of these sessions';
COMMENT ON COLUMN rollups.sessions IS 'Sessions';
COMMENT ON COLUMN rollups.reports IS 'Sum of report_count';
COMMENT ON COLUMN rollups.failed IS 'Sessions with failed, see session_qoe';
COMMENT ON COLUMN rollups.played IS 'Sessions with played';
COMMENT ON COLUMN rollups.start_failed IS 'Sessions with start_failed';
COMMENT ON COLUMN rollups.exited_before_start IS 'Sessions with exited_before_start';
COMMENT ON COLUMN rollups.rebuffered IS 'Sessions with rebuffered';
COMMENT ON COLUMN rollups.slow_start IS 'Sessions with slow_start';
COMMENT ON COLUMN rollups.bad IS 'Sessions with bad';
COMMENT ON COLUMN rollups.bad_played IS 'Sessions with bad and played';
COMMENT ON COLUMN rollups.mostly_rebuffered IS 'Sessions whose gravest trouble is rebuffering';
COMMENT ON COLUMN rollups.mostly_slow_start IS 'Sessions whose gravest trouble is a slow start';
COMMENT ON COLUMN rollups.started IS 'Sessions with a startup time';
COMMENT ON COLUMN rollups.without_startup IS 'Sessions that played without a startup time';
COMMENT ON COLUMN rollups.without_content IS 'Sessions without content_id';
COMMENT ON COLUMN rollups.without_device IS 'Sessions without device_model';
COMMENT ON COLUMN rollups.clock_skewed IS 'Sessions with clock_skew_ms';
COMMENT ON COLUMN rollups.player_startup_ms IS 'Sum of player_startup_ms';
COMMENT ON COLUMN rollups.session_duration_ms IS 'Sum of session_duration_ms';
COMMENT ON COLUMN rollups.play_time_ms IS 'Sum of play_time_ms';
COMMENT ON COLUMN rollups.rebuffer_time_ms IS 'Sum of rebuffer_time_ms';
COMMENT ON COLUMN rollups.seek_time_ms IS 'Sum of seek_time_ms';
COMMENT ON COLUMN rollups.watched_ms IS 'Sum of watched_ms';
COMMENT ON COLUMN rollups.rebuffer_count IS 'Sum of rebuffer_count';
COMMENT ON COLUMN rollups.counted_watched_ms IS 'Sum of watched_ms of sessions with a rebuffer_count';
COMMENT ON COLUMN rollups.seek_count IS 'Sum of seek_count';
COMMENT ON COLUMN rollups.quality_switch_count IS 'Sum of quality_switch_count';
COMMENT ON COLUMN rollups.error_count IS 'Sum of error_count';
COMMENT ON COLUMN rollups.rated_play_time_ms IS 'Sum of play_time_ms of sessions with an avg_bitrate_kbps';
COMMENT ON COLUMN rollups.startup_score_milli IS 'Sum of startup_score, each in thousandths';
COMMENT ON COLUMN rollups.smoothness_score_milli IS 'Sum of smoothness_score, each in thousandths';
COMMENT ON COLUMN rollups.dropped_frames IS 'Sum of dropped_frames';
COMMENT ON COLUMN rollups.rated_kbits IS 'Sum of avg_bitrate_kbps * play_time_ms';
COMMENT ON COLUMN rollups.player_startup_squares IS 'Sum of player_startup_ms squared';
COMMENT ON COLUMN rollups.watched_squares IS 'Sum of watched_ms squared';
COMMENT ON COLUMN rollups.rebuffer_squares IS 'Sum of rebuffer_time_ms squared';
COMMENT ON COLUMN rollups.rebuffer_watched IS 'Sum of rebuffer_time_ms * watched_ms';
COMMENT ON COLUMN rollups.startup_bins IS 'Bins of player_startup_ms, ascending: bin b holds the values over g^(b-1) up to g^b, where g = 1.015 / 0.985; 2 * g^b / (g + 1) is off by at most 1.5 % (DDSketch, Masson et al., 2019)';
COMMENT ON COLUMN rollups.startup_counts IS 'Sessions in each of startup_bins';
COMMENT ON COLUMN rollups.startup_watched_ms IS 'Sum of watched_ms in each of startup_bins';
COMMENT ON COLUMN rollups.rebuffering_bins IS 'Shares of rebuffering, ascending: 100 * rebuffer_time_ms / watched_ms of a session, rounded up';
COMMENT ON COLUMN rollups.rebuffering_counts IS 'Sessions in each of rebuffering_bins';
COMMENT ON COLUMN rollups.rebuffering_watched_ms IS 'Sum of watched_ms in each of rebuffering_bins';
COMMENT ON COLUMN rollups.delay_bins IS 'Bins of received_at - reported_at in milliseconds, as startup_bins; negative ones for negative values, 0 for less than a millisecond';
COMMENT ON COLUMN rollups.delay_counts IS 'Sessions in each of delay_bins';

-- Written with the reports, in their transaction; what is here is not in the rollups yet.
CREATE TABLE rollup_touches (
    hour timestamptz NOT NULL,
    at   timestamptz,
    due  timestamptz NOT NULL
);
ALTER TABLE rollup_touches SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE rollup_touches IS 'Hours whose sessions have changed since the rollups were made';
COMMENT ON COLUMN rollup_touches.hour IS 'Begin of the hour of the sessions'' "timestamp"';
COMMENT ON COLUMN rollup_touches.at IS 'When a report changed them; null where it was no report';
COMMENT ON COLUMN rollup_touches.due IS 'When the rollups are made anew: at once, or when a session that has only begun counts as left';

CREATE TABLE rollup_blocks (
    minutes    smallint    NOT NULL,
    bucket     timestamptz NOT NULL,
    is_merged  boolean     NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (minutes, bucket)
);
COMMENT ON TABLE rollup_blocks IS 'Longer buckets of the rollups';
COMMENT ON COLUMN rollup_blocks.minutes IS 'Length: 360 or 1440';
COMMENT ON COLUMN rollup_blocks.bucket IS 'Begin';
COMMENT ON COLUMN rollup_blocks.is_merged IS 'Whether the rows of this length are what the shorter ones add up to; otherwise the shorter ones are to be read';
COMMENT ON COLUMN rollup_blocks.changed_at IS 'When a shorter one changed last';

CREATE TABLE rollup_sealed (
    hour  timestamptz PRIMARY KEY,
    part  smallint    NOT NULL,
    until timestamptz
);
COMMENT ON TABLE rollup_sealed IS 'Hours that retention has taken sessions from: what they came to stays in the rollups';
COMMENT ON COLUMN rollup_sealed.hour IS 'Begin of the hour';
COMMENT ON COLUMN rollup_sealed.part IS 'Part of the rollups that holds the other sessions of the hour, and those which come later';
COMMENT ON COLUMN rollup_sealed.until IS 'Sessions of the hour before this time are being deleted, and are in a lower part already; null once they are gone';

CREATE TABLE rollup_lock ();
COMMENT ON TABLE rollup_lock IS 'Locked, never read: one instance at a time makes rollups';

-- Sessions that are there already. Servers of the version before still write, and touch nothing: the
-- hours of the last day are made again when they have been replaced.
INSERT INTO rollup_touches (hour, at, due)
SELECT hour, NULL::timestamptz, due
FROM (SELECT DISTINCT date_trunc('hour', "timestamp", 'UTC') AS hour FROM sessions) AS hours
CROSS JOIN (VALUES (now()), (now() + interval '15 minutes'), (now() + interval '1 hour')) AS dues (due)
WHERE due = now() OR hour > now() - interval '1 day';
