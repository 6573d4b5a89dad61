INSERT INTO sessions (
    tenant_id, session_id, "timestamp", reported_at, received_at, created_at, report_count,
    clock_skew_ms, content_id, stream_type, player_startup_ms, session_duration_ms, play_time_ms,
    rebuffer_time_ms, seek_time_ms, rebuffer_count, seek_count, quality_switch_count, error_count,
    rebuffer_ratio, avg_bitrate_kbps, dropped_frames, last_error_code, last_error_category,
    device_model, os_name, os_version, app_name, app_version, sdk_version, connection_type, payload)
SELECT * FROM pg_catalog.unnest($1::session_row[])
ON CONFLICT (session_id, tenant_id, "timestamp") DO UPDATE SET
    reported_at = excluded.reported_at,
    received_at = excluded.received_at,
    report_count = sessions.report_count + excluded.report_count,
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
WHERE sessions.reported_at < excluded.reported_at
RETURNING session_id, tenant_id, report_count
