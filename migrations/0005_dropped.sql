-- What of stored reports is in no column or timeline, because it cannot be.
ALTER TABLE backend_minutes
    ADD COLUMN values_dropped  jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN entries_dropped jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN backend_minutes.values_dropped IS 'Values of stored reports that cannot be and are null in their column, as {field: count}; the payload has them';
COMMENT ON COLUMN backend_minutes.entries_dropped IS 'Timeline entries that were not stored, as {reason: count}: invalid, thinned, session_full';

-- The newer report is the one with the longer session, whatever the column holds.
ALTER TABLE sessions ADD COLUMN long_duration_ms bigint;
COMMENT ON COLUMN sessions.long_duration_ms IS 'sessionDurationMs of the newest report where it is over 31 days, so that session_duration_ms is null; the report with the larger one is the newer';

COMMENT ON TABLE rejected_reports IS 'Bodies rejected with 400, 413 or 415, the newest of each tenant, for 30 days';
COMMENT ON COLUMN rejected_reports.field IS 'JSON path, or header, that the answer named';
COMMENT ON VIEW refused_reports IS 'Reports rejected with 400, 413 or 415 without their bodies: what and why, nothing of what was sent';
COMMENT ON COLUMN refused_reports.field IS 'JSON path, or header, that the answer named';
