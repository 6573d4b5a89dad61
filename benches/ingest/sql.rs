//! What the baselines write: the same columns with the same values as the server.

use super::reports::{Kind, PACE_MS, REPORTS_PER_SESSION, RUNNING_SESSIONS, report_a, report_c};

/// Clients of pgbench; the server's pool is as large by default.
pub const CLIENTS: u64 = 20;

const COLUMNS: [&str; 33] = [
    "session_key",
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
const FIXED: [usize; 7] = [0, 1, 2, 3, 6, 7, 8];

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
pub fn values_a(session_key: &str, session_id: &str, timestamp: &str) -> String {
    let payload = literal(&report_a("00000000-0000-4000-8000-000000000000", 1_795_000_000_000));
    format!(
        "{session_key}, 'default', {session_id}, {timestamp}, {timestamp}, {timestamp}, {timestamp}, 1, \
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
        "ON CONFLICT (session_key, \"timestamp\") DO UPDATE SET {}, report_count = \
         sessions.report_count + excluded.report_count WHERE sessions.reported_at < \
         excluded.reported_at",
        updates.join(", ")
    )
}

/// pgbench's script for a new session per transaction.
pub fn row_script() -> String {
    let values = values_a("gen_random_uuid()", "gen_random_uuid()::text", "now()");
    format!("INSERT INTO sessions ({}) VALUES ({values}) {};\n", columns(), on_conflict())
}

/// pgbench's script for the mix: as in `reports::Mix`, each client has slots in which sessions
/// run, and these stand at different steps. One statement writes the row and the entries.
pub fn mix_script(kind: Kind, base_ms: u64) -> String {
    let slots = RUNNING_SESSIONS / CLIENTS;
    // A payload for each step: were it always the same, an update would write little WAL.
    let payload = |step| {
        let id = "00000000-0000-4000-8000-000000000000";
        let time = 1_795_000_000_000 + step * PACE_MS;
        let payload = literal(&report_c(kind, id, "2026-11-18T11:06:40.000Z", time, step));
        format!("\nWHEN {step} THEN {payload}")
    };
    let payloads: String = (0..REPORTS_PER_SESSION).map(payload).collect();
    let chunks: String = (0..REPORTS_PER_SESSION).map(|step| chunk(kind, step)).collect();
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
md5((:number)::bigint::text)::uuid, 'default', md5((:number)::bigint::text)::uuid::text,
to_timestamp((:start)::float8 / 1000), to_timestamp(((:start)::float8 + (:elapsed)::float8) / 1000), now(), now(), 1, NULL, NULL, NULL,
812, (:elapsed)::bigint, (:elapsed)::bigint - 1000, (:step)::bigint * 310, (:step)::bigint * 55,
(:step)::integer, (:step)::integer / 4, NULL, 0, 0.0107, 3900, (:step)::bigint * 2, NULL, NULL,
'SHIELD Android TV', NULL, '30', NULL, NULL, '1.0.1', 'Wi-Fi',
CASE (:step)::integer {payloads} END) {on_conflict})
INSERT INTO timeline_chunks (session_key, \"timestamp\", entries)
VALUES (md5((:number)::bigint::text)::uuid, to_timestamp((:start)::float8 / 1000),
CASE (:step)::integer {chunks} END);
"
    )
}

/// The timeline entries of a step, as the server stores them.
fn chunk(kind: Kind, step: u64) -> String {
    let entry = |number: u64| {
        let elapsed = step * PACE_MS + number * (PACE_MS / kind.entries(step));
        format!(
            r#"[{elapsed}, {}, "PLAYING", {}, "Wi-Fi", {}, {}, {step}, {}]"#,
            1_795_000_000_000 + elapsed,
            3_200_000 + 100_000 * (number % 5),
            step * 2 + number / 6,
            900 * number,
            step * 310,
        )
    };
    let entries: Vec<String> = (0..kind.entries(step)).map(entry).collect();
    format!("\nWHEN {step} THEN '[{}]'::json", entries.join(", "))
}
