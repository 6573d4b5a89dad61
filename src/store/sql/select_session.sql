-- One session, and a page of its timeline: from $4 (elapsed_ms) on, without the first $5 entries,
-- $6 entries at most. $7 is the session time.
SELECT (to_jsonb(s) - ARRAY['session_key', 'timeline_from_ms', 'timeline_until_ms', 'timeline_entries', 'timeline_bytes', {slots}]
  || jsonb_build_object({own})
  || jsonb_build_object('timeline', page.entries, 'timelineNext', page.next))::text
FROM sessions s
CROSS JOIN LATERAL (
    SELECT
        coalesce(jsonb_agg(coalesce((entry -> 9)::jsonb, '{}') || jsonb_build_object(
            'elapsed_ms', entry -> 0,
            'timestamp_ms', entry -> 1,
            'playback_state', entry -> 2,
            'current_bitrate', entry -> 3,
            'network_type', entry -> 4,
            'total_dropped_frames', entry -> 5,
            'buffered_duration_ms', entry -> 6,
            'rebuffer_count', entry -> 7,
            'rebuffer_time_ms', entry -> 8
        ) ORDER BY place) FILTER (WHERE place <= $5 + $6), '[]') AS entries,
        -- As TimelinePage::after reads it: behind that elapsed_ms, or behind so many of its entries.
        CASE WHEN count(*) > $6 THEN
            max(elapsed_ms) FILTER (WHERE place <= $5 + $6)
            || CASE WHEN max(elapsed_ms) > max(elapsed_ms) FILTER (WHERE place <= $5 + $6) THEN ''
                    ELSE '.' || max(nth) FILTER (WHERE place = $5 + $6) END
        END AS next
    FROM (
        SELECT entry, elapsed_ms,
               row_number() OVER (ORDER BY elapsed_ms, at_ms, number, entry::text COLLATE "C") AS place,
               row_number() OVER (PARTITION BY elapsed_ms ORDER BY at_ms, number, entry::text COLLATE "C") AS nth
        FROM timeline_chunks c
        CROSS JOIN LATERAL json_array_elements(c.entries) WITH ORDINALITY AS e (entry, number)
        CROSS JOIN LATERAL (SELECT (entry ->> 0)::bigint, (entry ->> 1)::bigint) AS t (elapsed_ms, at_ms)
        WHERE c.session_key = $1 AND c."timestamp" = $7
          AND c.until_ms >= $4 AND elapsed_ms >= $4
    ) AS numbered
    WHERE place > $5 AND place <= $5 + $6 + 1
) AS page
WHERE s.session_key = $1 AND s."timestamp" = $7 AND s.tenant_id = $2 AND s.session_id = $3
