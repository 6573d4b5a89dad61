SELECT (to_jsonb(s) || jsonb_build_object('timeline', coalesce((
    SELECT jsonb_agg(to_jsonb(t) - 'tenant_id' - 'session_id' - 'timestamp' ORDER BY t.elapsed_ms)
    FROM session_timeline t
    WHERE t.session_id = s.session_id AND t.tenant_id = s.tenant_id AND t."timestamp" = s."timestamp"
), '[]')))::text
FROM sessions s
WHERE s.session_id = $1 AND s.tenant_id = $2
