//! The validated report: what the rest of the program works with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::dropped::Dropped;
use super::timeline::Timeline;

/// A point in time in milliseconds since 1970-01-01T00:00:00Z, as devices send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// This moment plus a duration, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This moment minus a duration, saturating.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl From<SystemTime> for UnixMs {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::default().plus(since_epoch)
    }
}

/// A value of a reported column, by Postgres' name of its type; `None` is "not reported".
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "Postgres' names")]
pub enum ColumnValue<'a> {
    BigInt(Option<i64>),
    Integer(Option<i32>),
    Real(Option<f32>),
    Text(Option<&'a str>),
}

/// A Rust type that a reported column can have.
trait Reported {
    fn value(field: Option<&Self>) -> ColumnValue<'_>;
}

macro_rules! reported {
    ($rust:ty, $kind:ident, $field:ident => $value:expr) => {
        impl Reported for $rust {
            fn value($field: Option<&Self>) -> ColumnValue<'_> {
                ColumnValue::$kind($value)
            }
        }
    };
}
reported!(i64, BigInt, field => field.copied());
reported!(i32, Integer, field => field.copied());
reported!(f32, Real, field => field.copied());
reported!(String, Text, field => field.map(String::as_str));
reported!(&'static str, Text, field => field.copied());

macro_rules! session_report {
    ($($column:ident: $rust:ty),* $(,)?) => {
        /// One validated session report of any SDK generation. Times are in milliseconds; `None`
        /// is "not reported". Numbers fit their columns; texts fit their columns and are storable.
        #[derive(Debug, Clone, PartialEq)]
        #[expect(missing_docs, reason = "each field is the column of the same name, see the schema")]
        pub struct SessionReport {
            pub session_id: String,
            /// The report's own clock.
            pub reported_at: UnixMs,
            /// `sessionStartDateIso`, where the SDK knew it.
            pub started_at: Option<UnixMs>,
            $(pub $column: Option<$rust>,)*
            /// `sessionDurationMs` where it is too long for the column: it still tells which report
            /// is the newer.
            pub long_duration_ms: Option<i64>,
            /// The timeline entries that the report brings, if any.
            pub timeline: Option<Timeline>,
            /// The whole report as JSON text that Postgres can hold.
            pub payload: Box<str>,
            /// What of the payload is in no column because it cannot be.
            pub dropped: Dropped,
        }

        impl SessionReport {
            /// Every reported column, which a newer report replaces: its name, and a value that
            /// tells its type.
            pub fn columns() -> impl Iterator<Item = (&'static str, ColumnValue<'static>)> {
                [$((stringify!($column), <$rust as Reported>::value(None))),*].into_iter()
            }

            /// The values of [`Self::columns`], in that order.
            pub fn values(&self) -> impl Iterator<Item = ColumnValue<'_>> {
                [$(Reported::value(self.$column.as_ref())),*].into_iter()
            }
        }
    };
}

// The one list of reported columns: name and type. What writes them (types, functions,
// statements, rows) is made from it; where each comes from is a field in wire.rs with a rule in
// validate.rs. The last nine are the slots of own fields: see paths.rs.
session_report! {
    error_count: i32,
    player_startup_ms: i64,
    session_duration_ms: i64,
    play_time_ms: i64,
    rebuffer_time_ms: i64,
    seek_time_ms: i64,
    dropped_frames: i64,
    rebuffer_count: i32,
    seek_count: i32,
    quality_switch_count: i32,
    avg_bitrate_kbps: i32,
    rebuffer_ratio: f32,
    content_id: String,
    stream_type: &'static str,
    last_error_code: String,
    last_error_category: &'static str,
    device_model: String,
    os_name: String,
    os_version: String,
    app_name: String,
    app_version: String,
    sdk_version: String,
    connection_type: String,
    dimension_1: String,
    dimension_2: String,
    dimension_3: String,
    dimension_4: String,
    dimension_5: String,
    dimension_6: String,
    dimension_7: String,
    dimension_8: String,
    viewer_id: String,
}

impl SessionReport {
    /// What decides which of two reports of a session is the newer, as larger: the length of the
    /// session by the device's monotonic clock (absent is 0), then its wall clock, which can be
    /// set back in the middle of a session.
    #[must_use]
    pub fn version(&self) -> (i64, UnixMs) {
        let duration_ms = self.session_duration_ms.or(self.long_duration_ms);
        (duration_ms.unwrap_or(0), self.reported_at)
    }

    /// About how much memory the report holds, in bytes; what the ingest queue is bounded by.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        let timeline = self.timeline.as_ref().map_or(0, |timeline| timeline.json.len());
        size_of::<Self>() + self.payload.len() + timeline
    }
}
