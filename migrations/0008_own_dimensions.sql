-- Own fields of an app's reports as columns: DIMENSIONS and VIEWER_ID.
--
-- The columns are always there, under fixed names, because what writes them belongs to the version
-- of the binary. Which of them holds which field is configuration, and is kept in own_dimensions.
ALTER TABLE sessions
    ADD COLUMN dimension_1 text,
    ADD COLUMN dimension_2 text,
    ADD COLUMN dimension_3 text,
    ADD COLUMN dimension_4 text,
    ADD COLUMN dimension_5 text,
    ADD COLUMN dimension_6 text,
    ADD COLUMN dimension_7 text,
    ADD COLUMN dimension_8 text,
    ADD COLUMN viewer_id   text;
COMMENT ON COLUMN sessions.dimension_1 IS 'Slot 1 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.dimension_2 IS 'Slot 2 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.dimension_3 IS 'Slot 3 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.dimension_4 IS 'Slot 4 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.dimension_5 IS 'Slot 5 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.dimension_6 IS 'Slot 6 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.dimension_7 IS 'Slot 7 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.dimension_8 IS 'Slot 8 of own_dimensions; session_qoe has it under its name';
COMMENT ON COLUMN sessions.viewer_id IS 'What VIEWER_ID points to in the report: who watched, as the app names them (first 512 characters)';

-- It holds still while a session runs, so updates stay within their page.
CREATE INDEX sessions_viewer ON sessions (viewer_id, "timestamp" DESC) WHERE viewer_id IS NOT NULL;

CREATE TABLE own_dimensions (
    slot        smallint    PRIMARY KEY CHECK (slot BETWEEN 0 AND 8),
    name        text        NOT NULL UNIQUE,
    path        text        NOT NULL,
    assignment  bigint      NOT NULL,
    since       timestamptz NOT NULL,
    hides_older boolean     NOT NULL,
    filled_to   timestamptz
);
COMMENT ON TABLE own_dimensions IS 'Which column of sessions holds which own field of DIMENSIONS and VIEWER_ID, and from when on';
COMMENT ON COLUMN own_dimensions.slot IS '1 to 8: column dimension_1 to dimension_8 of sessions; 0: column viewer_id';
COMMENT ON COLUMN own_dimensions.name IS 'Its name in session_qoe; viewer_id for slot 0';
COMMENT ON COLUMN own_dimensions.path IS 'Where the value is in a report: keys separated by dots';
COMMENT ON COLUMN own_dimensions.assignment IS 'Grows with each change of a slot, in all of the table: a server that knows another one must look again before it writes';
COMMENT ON COLUMN own_dimensions.since IS 'The column has this field''s values of all reports that were received later';
COMMENT ON COLUMN own_dimensions.hides_older IS 'Whether the column still has values of another name or path in sessions whose newest report was received before; session_qoe hides them';
COMMENT ON COLUMN own_dimensions.filled_to IS 'Sessions from this session time on have been filled from their payloads: null where that has not begun, -infinity where it is done';

CREATE TABLE backfill_lock ();
COMMENT ON TABLE backfill_lock IS 'Locked, never read: one instance at a time fills columns of own dimensions from payloads';
