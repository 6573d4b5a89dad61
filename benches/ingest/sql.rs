//! What the baselines write: the same columns with the same values as the server, in the tables
//! that the server has made, of an older or a newer schema; and what is asked of the catalogue.

use super::reports::{
    ENTRIES_OF_10_000, ENTRIES_STRIDE, Entries, PACE_MS, REPORTS_PER_SESSION, RUNNING_SESSIONS,
    report_a, report_c,
};

/// Clients of pgbench; the server's pool is as large by default.
pub const CLIENTS: u64 = 20;

/// Tables, partitions left out: those of a partitioned table are part of it.
pub const TABLES: &str = "SELECT oid::regclass::text FROM pg_class \
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition";

/// Whether `sessions` has a key of its own.
pub const SESSION_KEY: &str = "SELECT attname::text FROM pg_attribute \
    WHERE attrelid = 'sessions'::regclass AND attname = 'session_key'";

/// The table that holds the entries of a report in one row, if `session_timeline` is a view.
pub const CHUNKS: &str = "SELECT c.oid::regclass::text FROM pg_class c \
    JOIN pg_attribute a ON a.attrelid = c.oid \
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') \
      AND NOT c.relispartition AND a.attname = 'entries' AND a.atttypid = 'json'::regtype \
      AND (SELECT relkind FROM pg_class WHERE oid = 'session_timeline'::regclass) = 'v'";

/// The table of a session's key and its `\"timestamp\"`, and nothing else.
pub const TIMES: &str = "SELECT c.oid::regclass::text FROM pg_class c \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') \
      AND NOT c.relispartition GROUP BY c.oid \
    HAVING array_agg(a.atttypid::regtype::text || CASE WHEN a.attname = 'timestamp' \
                     THEN ' timestamp' ELSE '' END ORDER BY a.attnum) \
         = ARRAY['uuid', 'timestamp with time zone timestamp']";

/// Bytes by table and part. Adds up to `pg_total_relation_size` of all tables.
pub const SIZES: &str = "WITH t AS ( \
      SELECT oid, reltoastrelid, coalesce(pg_partition_root(oid), oid)::regclass::text AS root \
      FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace NOT IN \
        ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) \
        AND relpersistence = 'p' AND oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace), \
    parts AS ( \
      SELECT root || ' heap' AS part, pg_table_size(oid) - CASE reltoastrelid WHEN 0 THEN 0 \
             ELSE pg_total_relation_size(reltoastrelid) END AS bytes FROM t \
      UNION ALL SELECT root || ' toast', pg_total_relation_size(reltoastrelid) FROM t \
             WHERE reltoastrelid <> 0 \
      UNION ALL SELECT root || ' ' || am.amname, pg_relation_size(i.indexrelid) FROM t \
             JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class x ON x.oid = i.indexrelid \
             JOIN pg_am am ON am.oid = x.relam) \
    SELECT part, sum(bytes)::float8 FROM parts GROUP BY part HAVING sum(bytes) > 0 ORDER BY part";

/// What differs between schemas, for those who write to them without a server.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// [`SESSION_KEY`]
    pub has_key: bool,
    /// [`CHUNKS`]
    pub chunks: Option<String>,
    /// [`TIMES`]
    pub times: Option<String>,
}

const COLUMNS: [&str; 32] = [
    "tenant_id",
    "session_id",
    "\"timestamp\"",
    "reported_at",
    "received_at",
    "created_at",
    "report_count",
    "clock_skew_ms",
    "content_id",
    "stream_type",
    "player_startup_ms",
    "session_duration_ms",
    "play_time_ms",
    "rebuffer_time_ms",
    "seek_time_ms",
    "rebuffer_count",
    "seek_count",
    "quality_switch_count",
    "error_count",
    "rebuffer_ratio",
    "avg_bitrate_kbps",
    "dropped_frames",
    "last_error_code",
    "last_error_category",
    "device_model",
    "os_name",
    "os_version",
    "app_name",
    "app_version",
    "sdk_version",
    "connection_type",
    "payload",
];
/// Columns that an update leaves alone; `report_count` it counts up.
const FIXED: [usize; 6] = [0, 1, 2, 5, 6, 7];

/// JSON as a literal. pgbench takes a colon and a letter for a variable, older ones a digit too.
fn literal(json: &str) -> String {
    let mut literal = String::with_capacity(json.len() + 64);
    for (at, letter) in json.char_indices() {
        // A colon within a text, as in a time, can only be escaped.
        let is_in_text = letter == ':' && at > 0 && json.as_bytes()[at - 1] != b'"';
        match letter {
            ':' if is_in_text => literal.push_str("\\u003a"),
            ':' => literal.push_str(": "),
            letter => literal.push(letter),
        }
    }
    format!("'{literal}'::jsonb")
}

/// The values of a row like that of [`report_a`], in the order of the columns.
pub fn values_a(schema: &Schema, session_id: &str, timestamp: &str) -> String {
    let payload = literal(&report_a("00000000-0000-4000-8000-000000000000", 1_795_000_000_000));
    format!(
        "'default', {session_id}, {timestamp}, {timestamp}, {timestamp}, {timestamp}, 1, \
         NULL::bigint, 'episode-0412', 'VOD', 1850::bigint, NULL::bigint, 1260000::bigint, \
         5200::bigint, NULL::bigint, 3, NULL::integer, 6, 1, 0.0041::real, 4200, 12::bigint, \
         '2001', 'NETWORK', 'Pixel 8', 'Android', '14', 'Rivulet', '3.4.1', NULL::text, \
         NULL::text, {payload}{}",
        key(schema, session_id)
    )
}

/// The value of a session's key, where there is one.
fn key(schema: &Schema, session_id: &str) -> String {
    if schema.has_key { format!(", session_key('default', {session_id})") } else { String::new() }
}

/// The columns, in their order.
pub fn columns(schema: &Schema) -> String {
    COLUMNS.join(", ") + if schema.has_key { ", session_key" } else { "" }
}

fn on_conflict(schema: &Schema) -> String {
    let target = if schema.has_key { "session_key" } else { "session_id, tenant_id" };
    let updates: Vec<String> = COLUMNS
        .iter()
        .enumerate()
        .filter(|(index, _)| !FIXED.contains(index))
        .map(|(_, column)| format!("{column} = excluded.{column}"))
        .collect();
    format!(
        "ON CONFLICT ({target}, \"timestamp\") DO UPDATE SET {}, report_count = \
         sessions.report_count + excluded.report_count WHERE sessions.reported_at < \
         excluded.reported_at",
        updates.join(", ")
    )
}

/// pgbench's script for a new session per transaction.
pub fn row_script(schema: &Schema) -> String {
    let (columns, on_conflict) = (columns(schema), on_conflict(schema));
    if schema.has_key {
        // The id is needed twice.
        let values = values_a(schema, "new.id", "now()");
        return format!(
            "INSERT INTO sessions ({columns}) SELECT {values} FROM (SELECT \
             gen_random_uuid()::text AS id OFFSET 0) AS new {on_conflict};\n"
        );
    }
    let values = values_a(schema, "gen_random_uuid()::text", "now()");
    format!("INSERT INTO sessions ({columns}) VALUES ({values}) {on_conflict};\n")
}

/// pgbench's script for the mix: as in `reports::Mix`, each client has slots in which sessions
/// run, and these stand at different steps. One statement writes the row and the entries.
pub fn mix_script(schema: &Schema, base_ms: u64, entries: Entries) -> String {
    let slots = RUNNING_SESSIONS / CLIENTS;
    // A payload for each step: were it always the same, an update would write little WAL. It has
    // as many entries as most reports have; choosing among more would cost the baseline time.
    let payload = |step| {
        let id = "00000000-0000-4000-8000-000000000000";
        let time = 1_795_000_000_000 + step * PACE_MS;
        let start = "2026-11-18T11:06:40.000Z";
        let payload = literal(&report_c(id, start, time, step, entries.usual()));
        format!("\nWHEN {step} THEN {payload}")
    };
    let payloads: String = (0..REPORTS_PER_SESSION).map(payload).collect();
    let id = "md5((:number)::bigint::text)::uuid::text";
    let (columns, on_conflict, key) = (columns(schema), on_conflict(schema), key(schema, id));
    format!(
        "\\set slot :t % {slots}
\\set turn :t / {slots} + :slot + :client_id
\\set ticket ((:t + :client_id * 500) * {ENTRIES_STRIDE}) % 10000
\\set entries {entries}
\\set every {PACE_MS} / greatest(:entries, 1)
\\set t :t + 1
\\set step :turn % {REPORTS_PER_SESSION}
\\set session :turn / {REPORTS_PER_SESSION}
\\set number (:session * {slots} + :slot) * 1000 + :client_id
\\set start {base_ms} + :session * 1000 + :client_id * {slots} + :slot
\\set elapsed (:step + 1) * {PACE_MS}
WITH session AS (
INSERT INTO sessions ({columns}) VALUES (
'default', {id}, to_timestamp((:start)::float8 / 1000),
to_timestamp(((:start)::float8 + (:elapsed)::float8) / 1000), now(), now(), 1, NULL, NULL, NULL,
812, (:elapsed)::bigint, (:elapsed)::bigint - 1000, (:step)::bigint * 310, (:step)::bigint * 55,
(:step)::integer, (:step)::integer / 4, NULL, 0, 0.0107, 3900, (:step)::bigint * 2, NULL, NULL,
'SHIELD Android TV', NULL, '30', NULL, NULL, '1.0.1', 'Wi-Fi',
CASE (:step)::integer {payloads} END{key}) {on_conflict})
{timeline};
",
        entries = entries_expression(entries),
        timeline = timeline(schema, id),
    )
}

/// [`Entries::of`] for pgbench.
fn entries_expression(entries: Entries) -> String {
    if entries == Entries::Twelve {
        return entries.usual().to_string();
    }
    let mut below = 0;
    let cases = (0..).zip(ENTRIES_OF_10_000).map(|(count, share)| {
        below += share;
        format!(" when :ticket < {below} then {count}")
    });
    format!("case{} end", cases.collect::<String>())
}

/// The entries of a report: a row each, or all in one.
fn timeline(schema: &Schema, id: &str) -> String {
    // From the start of the step on, PACE_MS before its end.
    const ELAPSED: &str = "(:elapsed)::bigint - 15000 + e * (:every)::bigint";
    const START: &str = "to_timestamp((:start)::float8 / 1000)";
    const SERIES: &str = "generate_series(0, (:entries)::integer - 1) AS entry (e)";
    if let Some(chunks) = &schema.chunks {
        return format!(
            "INSERT INTO {chunks} (session_key, \"timestamp\", from_ms, until_ms, entries)
SELECT session_key('default', {id}), {START}, min({ELAPSED}), max({ELAPSED}), ('[' || string_agg('[' || {ELAPSED} || ',' ||
1795000000000 + e || ',\"PLAYING\",' || 3200000 + 100000 * (e % 5) || ',\"Wi-Fi\",' ||
(:step)::bigint * 2 || ',' || 900 * e || ',' || (:step)::integer || ',' || (:step)::bigint * 310 ||
']', ',') || ']')::json
FROM {SERIES} HAVING count(*) > 0"
        );
    }
    format!(
        "INSERT INTO session_timeline (
tenant_id, session_id, \"timestamp\", elapsed_ms, timestamp_ms, playback_state, current_bitrate,
network_type, total_dropped_frames, buffered_duration_ms, rebuffer_count, rebuffer_time_ms)
SELECT 'default', {id}, {START}, {ELAPSED},
1795000000000 + e, 'PLAYING', 3200000 + 100000 * (e % 5), 'Wi-Fi', (:step)::bigint * 2, 900 * e,
(:step)::integer, (:step)::bigint * 310
FROM {SERIES}
ON CONFLICT (session_id, tenant_id, \"timestamp\", elapsed_ms) DO NOTHING"
    )
}
