//! The shapes of the original tables: which columns there are, and the SQL that reads them.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::store::Error;

const COLUMNS: &str = "
    SELECT attname::text, typname::text FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";

/// Columns of `sessions` and the keys of the SDK's report that filled them.
const SESSION_FIELDS: &[(&str, &str)] = &[
    ("content_id", "contentId"),
    ("stream_type", "streamType"),
    ("session_start_date_iso", "sessionStartDateIso"),
    ("session_duration_ms", "sessionDurationMs"),
    ("player_startup_ms", "startupTimeMs"),
    ("startup_time_ms", "startupTimeMs"),
    ("rebuffer_time_ms", "rebufferTimeMs"),
    ("rebuffer_count", "rebufferCount"),
    ("play_time_ms", "playTimeMs"),
    ("rebuffer_ratio", "rebufferRatio"),
    ("total_dropped_frames", "totalDroppedFrames"),
    ("total_seek_count", "totalSeekCount"),
    ("total_seek_time_ms", "totalSeekTimeMs"),
    ("mean_video_format_bitrate", "meanVideoFormatBitrate"),
    ("error_count", "errorCount"),
    ("device_model", "deviceModel"),
    ("os_version", "osVersion"),
    ("sdk_version", "sdkVersion"),
    ("connection_type", "connectionType"),
];

/// The same for `session_timeline` and an entry of `timelineEvents`.
const ENTRY_FIELDS: &[(&str, &str)] = &[
    ("timestamp_ms", "timestampMs"),
    ("elapsed_ms", "elapsedMs"),
    ("playback_state", "playbackState"),
    ("current_bitrate", "currentBitrate"),
    ("network_type", "networkType"),
    ("total_dropped_frames", "totalDroppedFrames"),
    ("buffered_duration_ms", "bufferedDurationMs"),
    ("rebuffer_count", "rebufferCount"),
    ("rebuffer_time_ms", "rebufferTimeMs"),
];

/// The columns of a table with the names of their types; none if there is no such table.
pub(super) struct Columns(HashMap<String, String>);

impl Columns {
    pub(super) async fn of(connection: &mut PgConnection, table: &str) -> Result<Self, Error> {
        let columns: Vec<(String, String)> =
            sqlx::query_as(COLUMNS).bind(table).persistent(false).fetch_all(connection).await?;
        Ok(Self(columns.into_iter().collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn has_all(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.has(name))
    }

    /// Our own `sessions` has most of these columns too, and a key.
    pub(super) fn is_original(&self) -> bool {
        let common = ["session_id", "timestamp", "rebuffer_time_ms", "error_count", "created_at"];
        let has_startup = self.has("player_startup_ms") || self.has("startup_time_ms");
        self.has_all(&common) && has_startup && !self.has("session_key")
    }

    /// A column in Unix milliseconds, whichever type it has.
    fn unix_ms(&self, name: &str) -> String {
        if self.0.get(name).is_some_and(|kind| kind.starts_with("timestamp")) {
            let ms = format!(r#"round(extract(epoch FROM r."{name}") * 1000)::bigint"#);
            return format!(r#"CASE WHEN isfinite(r."{name}") THEN {ms} END"#);
        }
        format!(r#"r."{name}"::bigint"#)
    }

    /// The fields that are there as arguments of `json_build_object`.
    fn json_arguments(&self, fields: &[(&str, &str)]) -> String {
        let argument = |&(name, key): &(&str, &str)| {
            let kind = self.0.get(name)?;
            // JSON has no such numbers; Postgres would write them as strings.
            let value = if ["float4", "float8", "numeric"].contains(&kind.as_str()) {
                format!(
                    "CASE WHEN r.{name}::text NOT IN ('NaN', 'Infinity', '-Infinity') THEN r.{name} END"
                )
            } else {
                format!("r.{name}")
            };
            Some(format!("'{key}', {value}"))
        };
        fields.iter().filter_map(argument).collect::<Vec<_>>().join(", ")
    }

    /// The cursor over `sessions`: id, receipt, columns as a report, payload.
    pub(super) fn sessions(&self) -> String {
        // A payload that is no object has no keys to merge, so it is kept under one of its own.
        let payload = if self.has("payload") {
            "CASE jsonb_typeof(r.payload::jsonb) WHEN 'object' THEN r.payload::text WHEN 'null' THEN NULL
             ELSE jsonb_build_object('payload', r.payload)::text END"
        } else {
            "NULL::text"
        };
        format!(
            "DECLARE original_sessions NO SCROLL CURSOR FOR SELECT r.session_id::text, {}::bigint,
             json_build_object('sessionId', r.session_id, 'timestamp', {}, {})::text, {payload}
             FROM sessions r",
            self.unix_ms("created_at"),
            self.unix_ms("timestamp"),
            self.json_arguments(SESSION_FIELDS),
        )
    }

    /// The entries of some sessions, session by session; `None` if there are no timelines.
    pub(super) fn entries(&self) -> Option<String> {
        let is_there = self.has_all(&["session_id", "timestamp_ms", "elapsed_ms"]);
        is_there.then(|| {
            format!(
                "SELECT r.session_id::text, json_build_object({})::text FROM session_timeline r
                 WHERE r.session_id = ANY($1) ORDER BY r.session_id, r.elapsed_ms, r.timestamp_ms",
                self.json_arguments(ENTRY_FIELDS)
            )
        })
    }
}

/// Whether the table `sessions` is that of the original backend.
pub(in crate::store) async fn is_original(connection: &mut PgConnection) -> Result<bool, Error> {
    Ok(Columns::of(connection, "sessions").await?.is_original())
}
