INSERT INTO session_timeline (
    tenant_id, session_id, "timestamp", elapsed_ms, timestamp_ms, playback_state, current_bitrate,
    network_type, total_dropped_frames, buffered_duration_ms, rebuffer_count, rebuffer_time_ms)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[], $6::text[],
    $7::bigint[], $8::text[], $9::bigint[], $10::bigint[], $11::integer[], $12::bigint[])
ON CONFLICT (session_id, tenant_id, "timestamp", elapsed_ms) DO NOTHING
