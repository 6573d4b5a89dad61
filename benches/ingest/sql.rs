//! What the baselines write: the same columns with the same values as the server.

use super::reports::{ENTRIES, PACE_MS, REPORTS_PER_SESSION, RUNNING_SESSIONS, report_a, report_c};

/// Clients of pgbench; the server's pool is as large by default.
pub const CLIENTS: u64 = 20;

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
pub fn values_a(session_id: &str, timestamp: &str) -> String {
    let payload = literal(&report_a("00000000-0000-4000-8000-000000000000", 1_795_000_000_000));
    format!(
        "'default', {session_id}, {timestamp}, {timestamp}, {timestamp}, {timestamp}, 1, \
         NULL::bigint, 'episode-0412', 'VOD', 1850::bigint, NULL::bigint, 1260000::bigint, \
         5200::bigint, NULL::bigint, 3, NULL::integer, 6, 1, 0.0041::real, 4200, 12::bigint, \
         '2001', 'NETWORK', 'Pixel 8', 'Android', '14', 'Rivulet', '3.4.1', NULL::text, \
         NULL::text, {payload}"
    )
}

/// The columns, in their order.
pub fn columns() -> String {
    COLUMNS.join(", ")
}

fn on_conflict() -> String {
    let updates: Vec<String> = COLUMNS
        .iter()
        .enumerate()
        .filter(|(index, _)| !FIXED.contains(index))
        .map(|(_, column)| format!("{column} = excluded.{column}"))
        .collect();
    format!(
        "ON CONFLICT (session_id, tenant_id, \"timestamp\") DO UPDATE SET {}, report_count = \
         sessions.report_count + excluded.report_count WHERE sessions.reported_at < \
         excluded.reported_at",
        updates.join(", ")
    )
}

/// pgbench's script for a new session per transaction.
pub fn row_script() -> String {
    let values = values_a("gen_random_uuid()::text", "now()");
    format!("INSERT INTO sessions ({}) VALUES ({values}) {};\n", columns(), on_conflict())
}

/// pgbench's script for the mix: as in `reports::Mix`, each client has slots in which sessions
/// run, and these stand at different steps. One statement writes the row and the entries.
pub fn mix_script(base_ms: u64) -> String {
    let slots = RUNNING_SESSIONS / CLIENTS;
    // A payload for each step: were it always the same, an update would write little WAL.
    let payload = |step| {
        let id = "00000000-0000-4000-8000-000000000000";
        let time = 1_795_000_000_000 + step * PACE_MS;
        let payload = literal(&report_c(id, "2026-11-18T11:06:40.000Z", time, step));
        format!("\nWHEN {step} THEN {payload}")
    };
    let payloads: String = (0..REPORTS_PER_SESSION).map(payload).collect();
    let (columns, on_conflict) = (columns(), on_conflict());
    format!(
        "\\set slot :t % {slots}
\\set turn :t / {slots} + :slot + :client_id
\\set t :t + 1
\\set step :turn % {REPORTS_PER_SESSION}
\\set session :turn / {REPORTS_PER_SESSION}
\\set number (:session * {slots} + :slot) * 1000 + :client_id
\\set start {base_ms} + :session * 1000 + :client_id * {slots} + :slot
\\set elapsed (:step + 1) * {PACE_MS}
WITH session AS (
INSERT INTO sessions ({columns}) VALUES (
'default', md5((:number)::bigint::text)::uuid::text, to_timestamp((:start)::float8 / 1000),
to_timestamp(((:start)::float8 + (:elapsed)::float8) / 1000), now(), now(), 1, NULL, NULL, NULL,
812, (:elapsed)::bigint, (:elapsed)::bigint - 1000, (:step)::bigint * 310, (:step)::bigint * 55,
(:step)::integer, (:step)::integer / 4, NULL, 0, 0.0107, 3900, (:step)::bigint * 2, NULL, NULL,
'SHIELD Android TV', NULL, '30', NULL, NULL, '1.0.1', 'Wi-Fi',
CASE (:step)::integer {payloads} END) {on_conflict})
INSERT INTO session_timeline (
tenant_id, session_id, \"timestamp\", elapsed_ms, timestamp_ms, playback_state, current_bitrate,
network_type, total_dropped_frames, buffered_duration_ms, rebuffer_count, rebuffer_time_ms)
SELECT 'default', md5((:number)::bigint::text)::uuid::text,
to_timestamp((:start)::float8 / 1000), (:elapsed)::bigint - {PACE_MS} + e * {every},
1795000000000 + e, 'PLAYING', 3200000 + 100000 * (e % 5), 'Wi-Fi', (:step)::bigint * 2, 900 * e,
(:step)::integer, (:step)::bigint * 310
FROM generate_series(0, {last}) AS entry (e)
ON CONFLICT (session_id, tenant_id, \"timestamp\", elapsed_ms) DO NOTHING;
",
        every = PACE_MS / ENTRIES,
        last = ENTRIES - 1,
    )
}
