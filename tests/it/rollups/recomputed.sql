-- What `rollups` must hold for the sessions that are there, computed from scratch: one row for each
-- of its rows with 30 or 60 minutes, where no dimension has more than 100 values in an hour.
WITH constants AS (
  SELECT ln(1.015 / 0.985) AS ln_gamma
), session AS MATERIALIZED (
  SELECT q.*,
         CASE WHEN failed THEN 'failed' WHEN exited_before_start THEN 'left'
              WHEN 50 * rebuffer_time_ms > watched_ms THEN 'rebuffered'
              WHEN slow_start THEN 'slow' ELSE 'other' END AS gravest,
         CASE WHEN player_startup_ms > 0 THEN ceil(ln(player_startup_ms::float8) / ln_gamma)::smallint
              WHEN player_startup_ms = 0 THEN 0 END AS startup_bin,
         ceil(100.0 * rebuffer_time_ms / nullif(watched_ms, 0))::smallint AS rebuffering_bin,
         (CASE WHEN delay < 0 THEN -1 ELSE 1 END
          * ceil(ln(greatest(abs(delay), 1)) / ln_gamma))::smallint AS delay_bin
  FROM session_qoe AS q, constants,
       LATERAL (SELECT date_part('epoch', received_at - reported_at) * 1000 AS delay) AS d
), placed AS (
  SELECT s.*, d.*
  FROM session AS s
  CROSS JOIN LATERAL (VALUES
    ('', 30, NULL, true),
    ('app_version', 60, app_version, true),
    ('sdk_version', 60, sdk_version, true),
    ('device_model', 60, device_model, true),
    ('os_version', 60, os_version, true),
    ('connection_type', 60, connection_type, true),
    ('content_id', 60, content_id, true),
    ('error_category', 60, CASE WHEN failed THEN last_error_category ELSE 'no error' END, true),
    ('error_code', 60, CASE WHEN failed THEN last_error_code ELSE 'no error' END, true),
    ('error', 60, concat(last_error_category, ' ', last_error_code), failed)
  ) AS d (dimension, minutes, value, is_counted)
  WHERE is_counted
), keyed AS MATERIALIZED (
  SELECT *, date_bin(minutes * interval '1 minute', "timestamp", 'epoch') AS bucket FROM placed
), startup AS (
  SELECT dimension, minutes, bucket, tenant_id, stream_type, value,
         array_agg(bin ORDER BY bin) AS bins, array_agg(sessions ORDER BY bin) AS counts,
         array_agg(watched ORDER BY bin) AS watched
  FROM (SELECT dimension, minutes, bucket, tenant_id, stream_type, value, startup_bin AS bin,
               count(*)::integer AS sessions, sum(watched_ms)::bigint AS watched
        FROM keyed WHERE startup_bin IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7) AS b
  GROUP BY 1, 2, 3, 4, 5, 6
), rebuffering AS (
  SELECT dimension, minutes, bucket, tenant_id, stream_type, value,
         array_agg(bin ORDER BY bin) AS bins, array_agg(sessions ORDER BY bin) AS counts,
         array_agg(watched ORDER BY bin) AS watched
  FROM (SELECT dimension, minutes, bucket, tenant_id, stream_type, value, rebuffering_bin AS bin,
               count(*)::integer AS sessions, sum(watched_ms)::bigint AS watched
        FROM keyed WHERE rebuffering_bin IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7) AS b
  GROUP BY 1, 2, 3, 4, 5, 6
), delay AS (
  SELECT dimension, minutes, bucket, tenant_id, stream_type, value,
         array_agg(bin ORDER BY bin) AS bins, array_agg(sessions ORDER BY bin) AS counts
  FROM (SELECT dimension, minutes, bucket, tenant_id, stream_type, value, delay_bin AS bin,
               count(*)::integer AS sessions
        FROM keyed WHERE delay_bin IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6, 7) AS b
  GROUP BY 1, 2, 3, 4, 5, 6
), sums AS (
  SELECT dimension, minutes, bucket, tenant_id, stream_type, value,
         min("timestamp") AS first_at, max("timestamp") AS last_at, count(*) AS sessions,
         sum(report_count) AS reports,
         count(*) FILTER (WHERE failed) AS failed,
         count(*) FILTER (WHERE played) AS played,
         count(*) FILTER (WHERE start_failed) AS start_failed,
         count(*) FILTER (WHERE exited_before_start) AS exited_before_start,
         count(*) FILTER (WHERE rebuffered) AS rebuffered,
         count(*) FILTER (WHERE slow_start) AS slow_start,
         count(*) FILTER (WHERE bad) AS bad,
         count(*) FILTER (WHERE bad AND played) AS bad_played,
         count(*) FILTER (WHERE gravest = 'rebuffered') AS mostly_rebuffered,
         count(*) FILTER (WHERE gravest = 'slow') AS mostly_slow_start,
         count(player_startup_ms) AS started,
         count(*) FILTER (WHERE played AND player_startup_ms IS NULL) AS without_startup,
         count(*) - count(content_id) AS without_content,
         count(*) - count(device_model) AS without_device,
         count(clock_skew_ms) AS clock_skewed,
         sum(player_startup_ms) AS player_startup_ms, sum(session_duration_ms) AS session_duration_ms,
         sum(play_time_ms) AS play_time_ms, sum(rebuffer_time_ms) AS rebuffer_time_ms,
         sum(seek_time_ms) AS seek_time_ms, sum(watched_ms) AS watched_ms,
         sum(rebuffer_count) AS rebuffer_count,
         sum(watched_ms) FILTER (WHERE rebuffer_count IS NOT NULL) AS counted_watched_ms,
         sum(seek_count) AS seek_count, sum(quality_switch_count) AS quality_switch_count,
         sum(error_count) AS error_count,
         sum(play_time_ms) FILTER (WHERE avg_bitrate_kbps IS NOT NULL) AS rated_play_time_ms,
         sum(round(1000 * startup_score)::bigint) AS startup_score_milli,
         sum(round(1000 * smoothness_score)::bigint) AS smoothness_score_milli,
         sum(dropped_frames) AS dropped_frames,
         sum(avg_bitrate_kbps::numeric * play_time_ms) AS rated_kbits,
         sum(player_startup_ms::numeric ^ 2) AS player_startup_squares,
         sum(watched_ms::numeric ^ 2) AS watched_squares,
         sum(rebuffer_time_ms::numeric ^ 2) AS rebuffer_squares,
         sum(rebuffer_time_ms::numeric * watched_ms) AS rebuffer_watched
  FROM keyed GROUP BY 1, 2, 3, 4, 5, 6
)
SELECT s.dimension, s.minutes, s.bucket, s.tenant_id, s.stream_type, s.value,
       first_at, last_at, sessions, reports, failed, played, start_failed, exited_before_start,
       rebuffered, slow_start, bad, bad_played, mostly_rebuffered, mostly_slow_start, started,
       without_startup, without_content, without_device, clock_skewed, player_startup_ms,
       session_duration_ms, play_time_ms, rebuffer_time_ms, seek_time_ms, watched_ms,
       rebuffer_count, counted_watched_ms, seek_count, quality_switch_count, error_count,
       rated_play_time_ms, startup_score_milli, smoothness_score_milli, dropped_frames,
       rated_kbits, trim_scale(player_startup_squares) AS player_startup_squares,
       trim_scale(watched_squares) AS watched_squares,
       trim_scale(rebuffer_squares) AS rebuffer_squares, rebuffer_watched,
       a.bins AS startup_bins, a.counts AS startup_counts, a.watched AS startup_watched_ms,
       r.bins AS rebuffering_bins, r.counts AS rebuffering_counts,
       r.watched AS rebuffering_watched_ms, d.bins AS delay_bins, d.counts AS delay_counts
FROM sums AS s
LEFT JOIN startup AS a ON (s.dimension, s.minutes, s.bucket, s.tenant_id) = (a.dimension, a.minutes, a.bucket, a.tenant_id)
  AND s.stream_type IS NOT DISTINCT FROM a.stream_type AND s.value IS NOT DISTINCT FROM a.value
LEFT JOIN rebuffering AS r ON (s.dimension, s.minutes, s.bucket, s.tenant_id) = (r.dimension, r.minutes, r.bucket, r.tenant_id)
  AND s.stream_type IS NOT DISTINCT FROM r.stream_type AND s.value IS NOT DISTINCT FROM r.value
LEFT JOIN delay AS d ON (s.dimension, s.minutes, s.bucket, s.tenant_id) = (d.dimension, d.minutes, d.bucket, d.tenant_id)
  AND s.stream_type IS NOT DISTINCT FROM d.stream_type AND s.value IS NOT DISTINCT FROM d.value
