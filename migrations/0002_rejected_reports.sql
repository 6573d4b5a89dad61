-- Refused with 400, kept for the operator. Bounded per tenant and expiring.
CREATE TABLE rejected_reports (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id   text        NOT NULL,
    received_at timestamptz NOT NULL,
    code        text        NOT NULL,
    field       text        NOT NULL,
    detail      text        NOT NULL,
    body        bytea       NOT NULL
);
CREATE INDEX rejected_reports_tenant ON rejected_reports (tenant_id, id DESC);
CREATE INDEX rejected_reports_received_at ON rejected_reports USING brin (received_at);

COMMENT ON TABLE rejected_reports IS 'Bodies refused with 400, the newest of each tenant, for 30 days';
COMMENT ON COLUMN rejected_reports.id IS 'In order of arrival';
COMMENT ON COLUMN rejected_reports.tenant_id IS 'Tenant of the API key that sent the body';
COMMENT ON COLUMN rejected_reports.received_at IS 'Server clock at receipt';
COMMENT ON COLUMN rejected_reports.code IS 'Error code of the answer';
COMMENT ON COLUMN rejected_reports.field IS 'JSON path that the answer named';
COMMENT ON COLUMN rejected_reports.detail IS 'What the answer said of it';
COMMENT ON COLUMN rejected_reports.body IS 'The bytes after decompression (as received, where that failed); of a batch, the one report';

CREATE VIEW refused_reports AS
SELECT id, tenant_id, received_at, code, field, detail, octet_length(body) AS body_bytes
FROM rejected_reports;
COMMENT ON VIEW refused_reports IS 'Reports refused with 400 without their bodies: what and why, nothing of what was sent';
COMMENT ON COLUMN refused_reports.id IS 'As in rejected_reports';
COMMENT ON COLUMN refused_reports.tenant_id IS 'As in rejected_reports';
COMMENT ON COLUMN refused_reports.received_at IS 'Server clock at receipt';
COMMENT ON COLUMN refused_reports.code IS 'Error code of the answer';
COMMENT ON COLUMN refused_reports.field IS 'JSON path that the answer named';
COMMENT ON COLUMN refused_reports.detail IS 'What the answer said of it; never a value that was sent';
COMMENT ON COLUMN refused_reports.body_bytes IS 'Length of the body kept in rejected_reports';
