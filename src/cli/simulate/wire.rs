//! The JSON of a report, as each SDK generation writes it.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::Serialize;
use uuid::Uuid;

use super::chance::pick;
use super::model::{Content, Generation, Install};
use super::session::{Entry, Snapshot};

/// What all reports of one session have in common.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) session_id: Uuid,
    pub(super) started_unix_ms: u64,
    pub(super) install: Install,
    pub(super) content: Content,
    custom: Custom,
}

impl Header {
    /// Draws the rest of a session's identity.
    pub(super) fn draw(
        rng: &mut StdRng,
        install: Install,
        content: Content,
        started_unix_ms: u64,
    ) -> Self {
        let session_id = uuid::Builder::from_random_bytes(rng.random()).into_uuid();
        let custom = Custom {
            experiment_group: pick::<&str>(rng, &[("variant-a", 1), ("variant-b", 1)]),
            cdn: pick::<&str>(rng, &[("edge-eu", 6), ("edge-us", 3), ("edge-ap", 1)]),
            plan: pick::<&str>(rng, &[("free", 7), ("premium", 3)]),
        };
        Self { session_id, started_unix_ms, install, content, custom }
    }

    /// The report of `snapshot` as one line of JSON.
    pub(super) fn render(&self, snapshot: &Snapshot) -> Vec<u8> {
        let json = match self.install.generation {
            Generation::A => serde_json::to_vec(&self.report_a(snapshot)),
            Generation::B => serde_json::to_vec(&self.report_b(snapshot)),
            Generation::C => serde_json::to_vec(&self.report_c(snapshot)),
        };
        json.expect("plain structs of numbers and strings become JSON")
    }

    fn report_a(&self, snapshot: &Snapshot) -> ReportA<'_> {
        let totals = &snapshot.totals;
        ReportA {
            schema_version: "1.0.0",
            session_id: self.session_id.to_string(),
            timestamp: self.started_unix_ms + snapshot.at_ms,
            content_id: &self.content.id,
            stream_type: if self.content.is_live { "LIVE" } else { "VOD" },
            startup_time_ms: totals.startup_ms,
            play_time_ms: totals.play_ms,
            rebuffer_time_ms: totals.rebuffer_ms,
            rebuffer_count: totals.rebuffers,
            rebuffer_ratio: totals.rebuffer_ratio(),
            error_count: totals.errors,
            last_error_code: totals.last_error.map(|error| error.code),
            last_error_category: totals.last_error.map(|error| error.category),
            quality_switch_count: totals.quality_switches,
            avg_bitrate_kbps: totals.mean_bitrate().map(|bits| bits / 1_000),
            dropped_frames: totals.dropped_frames,
            device: DeviceA {
                model: self.install.device.model,
                os: "Android",
                os_version: self.install.os_version(),
            },
            app: AppA {
                name: self.install.app_name(),
                version: self.install.app_version(self.started_unix_ms),
            },
            custom: &self.custom,
        }
    }

    fn report_b(&self, snapshot: &Snapshot) -> ReportB {
        let totals = &snapshot.totals;
        // Gone before the player had any statistics: nothing is known but how long it was open.
        let known = totals.play_ms > 0 || totals.errors > 0 || snapshot.at_ms >= 2_000;
        ReportB {
            session_id: self.session_id.to_string(),
            timestamp: self.started_unix_ms + snapshot.at_ms,
            session_start_date_iso: if known {
                iso(self.started_unix_ms)
            } else {
                "null".to_owned()
            },
            session_duration_ms: snapshot.at_ms,
            startup_time_ms: totals.startup_ms,
            rebuffer_time_ms: known.then_some(totals.rebuffer_ms),
            rebuffer_count: known.then_some(totals.rebuffers),
            play_time_ms: known.then_some(totals.play_ms),
            rebuffer_ratio: known.then(|| totals.rebuffer_ratio()),
            total_dropped_frames: known.then_some(totals.dropped_frames),
            total_seek_count: known.then_some(totals.seeks),
            total_seek_time_ms: known.then_some(totals.seek_ms),
            mean_video_format_bitrate: mean_bitrate(snapshot),
            error_count: known.then_some(totals.errors),
        }
    }

    fn report_c<'a>(&'a self, snapshot: &'a Snapshot) -> ReportC<'a> {
        let totals = &snapshot.totals;
        ReportC {
            session_id: self.session_id.to_string(),
            session_start_date_iso: iso(self.started_unix_ms),
            startup_time_ms: totals.startup_ms,
            total_seek_count: totals.seeks,
            total_seek_time_ms: totals.seek_ms,
            error_count: totals.errors,
            device_model: self.install.device.model,
            os_version: self.install.api_level,
            sdk_version: self.install.sdk_version(self.started_unix_ms),
            connection_type: snapshot.network.label(),
            timestamp: self.started_unix_ms + snapshot.at_ms,
            session_duration_ms: snapshot.at_ms,
            play_time_ms: totals.play_ms,
            rebuffer_time_ms: totals.rebuffer_ms,
            rebuffer_count: totals.rebuffers,
            rebuffer_ratio: totals.rebuffer_ratio(),
            total_dropped_frames: totals.dropped_frames,
            mean_video_format_bitrate: mean_bitrate(snapshot),
            timeline_events: snapshot
                .entries
                .iter()
                .map(|entry| TimelineEvent::new(entry, self.started_unix_ms))
                .collect(),
        }
    }
}

/// `2026-02-14T10:30:00.000Z`
fn iso(unix_ms: u64) -> String {
    let ms = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    let timestamp = jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX);
    format!("{timestamp:.3}")
}

/// Bits per second, or the SDK's -1 for unknown.
fn mean_bitrate(snapshot: &Snapshot) -> i64 {
    snapshot.totals.mean_bitrate().and_then(|bits| i64::try_from(bits).ok()).unwrap_or(-1)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportA<'a> {
    schema_version: &'static str,
    session_id: String,
    timestamp: u64,
    content_id: &'a str,
    stream_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_time_ms: Option<u64>,
    play_time_ms: u64,
    rebuffer_time_ms: u64,
    rebuffer_count: u64,
    rebuffer_ratio: f64,
    error_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error_category: Option<&'static str>,
    quality_switch_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_bitrate_kbps: Option<u64>,
    dropped_frames: u64,
    device: DeviceA,
    app: AppA,
    custom: &'a Custom,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceA {
    model: &'static str,
    os: &'static str,
    os_version: &'static str,
}

#[derive(Debug, Serialize)]
struct AppA {
    name: &'static str,
    version: String,
}

/// What an app adds to generation A on its own.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Custom {
    experiment_group: &'static str,
    cdn: &'static str,
    plan: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportB {
    session_id: String,
    timestamp: u64,
    session_start_date_iso: String,
    session_duration_ms: u64,
    startup_time_ms: Option<u64>,
    rebuffer_time_ms: Option<u64>,
    rebuffer_count: Option<u64>,
    play_time_ms: Option<u64>,
    rebuffer_ratio: Option<f64>,
    total_dropped_frames: Option<u64>,
    total_seek_count: Option<u64>,
    total_seek_time_ms: Option<u64>,
    mean_video_format_bitrate: i64,
    error_count: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportC<'a> {
    session_id: String,
    session_start_date_iso: String,
    startup_time_ms: Option<u64>,
    total_seek_count: u64,
    total_seek_time_ms: u64,
    error_count: u64,
    device_model: &'static str,
    os_version: u16,
    sdk_version: String,
    connection_type: &'a str,
    timestamp: u64,
    session_duration_ms: u64,
    play_time_ms: u64,
    rebuffer_time_ms: u64,
    rebuffer_count: u64,
    rebuffer_ratio: f64,
    total_dropped_frames: u64,
    mean_video_format_bitrate: i64,
    timeline_events: Vec<TimelineEvent>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TimelineEvent {
    timestamp_ms: u64,
    elapsed_ms: u64,
    playback_state: &'static str,
    current_bitrate: Option<u32>,
    network_type: &'static str,
    total_dropped_frames: u64,
    buffered_duration_ms: u64,
    rebuffer_count: u64,
    rebuffer_time_ms: u64,
}

impl TimelineEvent {
    fn new(entry: &Entry, started_unix_ms: u64) -> Self {
        Self {
            timestamp_ms: started_unix_ms + entry.elapsed_ms,
            elapsed_ms: entry.elapsed_ms,
            playback_state: entry.state,
            current_bitrate: entry.bitrate,
            network_type: entry.network.label(),
            total_dropped_frames: entry.dropped_frames,
            buffered_duration_ms: entry.buffered_ms,
            rebuffer_count: entry.rebuffers,
            rebuffer_time_ms: entry.rebuffer_ms,
        }
    }
}
