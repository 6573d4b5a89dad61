INSERT INTO session_timeline (
    tenant_id, session_id, "timestamp", elapsed_ms, timestamp_ms, playback_state, current_bitrate,
    network_type, total_dropped_frames, buffered_duration_ms, rebuffer_count, rebuffer_time_ms)
SELECT * FROM pg_catalog.unnest($1::timeline_row[])
ON CONFLICT (session_id, tenant_id, "timestamp", elapsed_ms) DO NOTHING
