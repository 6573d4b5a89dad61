-- Not advisory locks: any role that can log in could take those, Grafana's too.
CREATE TABLE retention_lock ();
COMMENT ON TABLE retention_lock IS 'Locked, never read: one instance at a time removes what has outlived its retention';
CREATE TABLE rejected_lock ();
COMMENT ON TABLE rejected_lock IS 'Locked, never read: one instance at a time adds to rejected_reports, so that its bound holds';

COMMENT ON TABLE rejected_reports IS 'Bodies rejected with 400, 413 or 415, for 30 days: the newest 10,000 and 128 MiB in all, shared fairly between tenants';
COMMENT ON COLUMN sessions.received_at IS 'Database clock when the newest report applied was received';
COMMENT ON COLUMN sessions.created_at IS 'Database clock when the first report was received';
