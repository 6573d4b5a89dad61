INSERT INTO backend_minutes (
    "time", instance, version, started_at, seconds, requests, client_errors, server_errors,
    answer_mean_ms, answer_p95_ms, stored, updated, duplicate, stale, limited, rejected, failed,
    batches, batch_reports, commit_mean_ms, commit_p95_ms, queue_reports, queue_bytes,
    pool_active, pool_idle, pool_max, memory_bytes, cpu_seconds, values_dropped,
    entries_dropped, database_bytes)
VALUES (
    clock_timestamp(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
    $17, $18, $19, $20, $21, $22, $23::bigint, $24::bigint, $25::bigint, $26, $27, $28, $29,
    pg_database_size(current_database()))
