-- What of stored reports is in no column or timeline, because it cannot be.
ALTER TABLE backend_minutes
    ADD COLUMN values_dropped  jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN entries_dropped jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN backend_minutes.values_dropped IS 'Values of stored reports that cannot be and are null in their column, as {field: count}; the payload has them';
COMMENT ON COLUMN backend_minutes.entries_dropped IS 'Timeline entries that were not stored, as {reason: count}: invalid, thinned, session_full';
