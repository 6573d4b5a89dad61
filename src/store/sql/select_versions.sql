SELECT k.key, s.reported_at
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[])
     WITH ORDINALITY AS k (key, session_id, tenant_id, "timestamp", position)
JOIN sessions s ON s.session_id = k.session_id AND s.tenant_id = k.tenant_id
               AND s."timestamp" = k."timestamp"
ORDER BY k.position
FOR UPDATE OF s
