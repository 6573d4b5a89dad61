SELECT (to_jsonb(s) - ARRAY['session_key', 'timeline_from_ms', 'timeline_until_ms', 'timeline_entries', 'timeline_bytes']
  || jsonb_build_object('timeline', coalesce((
    SELECT jsonb_agg(coalesce((e.entry -> 9)::jsonb, '{}') || jsonb_build_object(
        'elapsed_ms', e.entry -> 0,
        'timestamp_ms', e.entry -> 1,
        'playback_state', e.entry -> 2,
        'current_bitrate', e.entry -> 3,
        'network_type', e.entry -> 4,
        'total_dropped_frames', e.entry -> 5,
        'buffered_duration_ms', e.entry -> 6,
        'rebuffer_count', e.entry -> 7,
        'rebuffer_time_ms', e.entry -> 8
      ) ORDER BY (e.entry ->> 0)::bigint, e.number)
    FROM timeline_chunks c
    CROSS JOIN LATERAL json_array_elements(c.entries) WITH ORDINALITY AS e (entry, number)
    WHERE c.session_key = s.session_key AND c."timestamp" = s."timestamp"
), '[]')))::text
FROM sessions s
WHERE s.session_key = $1 AND s.tenant_id = $2 AND s.session_id = $3
