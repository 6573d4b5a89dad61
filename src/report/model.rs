//! The validated report: what the rest of the program works with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// One validated session report of any SDK generation. Times are in milliseconds; `None` is
/// "not reported". Numbers fit their columns; texts fit their columns and are storable.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field is the column of the same name, see the schema")]
pub struct SessionReport {
    pub session_id: String,
    /// The report's own clock: the version for newer-wins.
    pub reported_at: UnixMs,
    /// `sessionStartDateIso`, where the SDK knew it.
    pub started_at: Option<UnixMs>,
    pub content_id: Option<String>,
    pub stream_type: Option<&'static str>,
    pub player_startup_ms: Option<i64>,
    pub session_duration_ms: Option<i64>,
    pub play_time_ms: Option<i64>,
    pub rebuffer_time_ms: Option<i64>,
    pub seek_time_ms: Option<i64>,
    pub rebuffer_count: Option<i32>,
    pub seek_count: Option<i32>,
    pub quality_switch_count: Option<i32>,
    pub error_count: Option<i32>,
    pub rebuffer_ratio: Option<f32>,
    pub avg_bitrate_kbps: Option<i32>,
    pub dropped_frames: Option<i64>,
    pub last_error_code: Option<String>,
    pub last_error_category: Option<&'static str>,
    pub device_model: Option<String>,
    pub os_name: Option<String>,
    pub os_version: Option<String>,
    pub app_name: Option<String>,
    pub app_version: Option<String>,
    pub sdk_version: Option<String>,
    pub connection_type: Option<String>,
    pub timeline: Vec<TimelineEntry>,
    /// The whole report as JSON text that Postgres can hold.
    pub payload: Box<str>,
}

impl SessionReport {
    /// About how much memory the report holds, in bytes; what the ingest queue is bounded by.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.payload.len() + self.timeline.len() * size_of::<TimelineEntry>()
    }
}

/// One entry of a session's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// Device clock, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Milliseconds since the session began; unique within the session.
    pub elapsed_ms: i64,
    /// What the player was doing.
    pub playback_state: PlaybackState,
    /// Bits per second.
    pub current_bitrate: Option<i64>,
    /// As the SDK names it, for example `Wi-Fi`.
    pub network_type: Option<String>,
    /// Running total of the session.
    pub total_dropped_frames: Option<i64>,
    /// Media buffered ahead, milliseconds.
    pub buffered_duration_ms: Option<i64>,
    /// Running total of the session.
    pub rebuffer_count: Option<i32>,
    /// Running total of the session, milliseconds.
    pub rebuffer_time_ms: Option<i64>,
}

/// Player states of a timeline entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PlaybackState {
    Idle,
    Buffering,
    Playing,
    Paused,
    Ended,
}

impl PlaybackState {
    /// All states, for messages and decoding.
    pub const ALL: [Self; 5] =
        [Self::Idle, Self::Buffering, Self::Playing, Self::Paused, Self::Ended];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Buffering => "BUFFERING",
            Self::Playing => "PLAYING",
            Self::Paused => "PAUSED",
            Self::Ended => "ENDED",
        }
    }
}
