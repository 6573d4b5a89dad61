//! The OpenAPI 3.1 description, generated from the handlers.

use std::sync::LazyLock;

use serde::Serialize;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::{session, sessions, status};

/// What every error looks like.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorDetail,
}

/// A stable code and a sentence that names the field by its JSON path.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    #[schema(example = "INVALID_SCHEMA")]
    code: String,
    #[schema(example = "$.timestamp: is required")]
    message: String,
    /// Unix milliseconds.
    #[schema(example = 1_795_000_000_000_i64)]
    timestamp: i64,
}

/// One report of any SDK generation. Unknown fields are kept in the payload. An optional number
/// that cannot be, such as a negative count, is stored as NULL and costs nothing else; -1 means
/// unknown.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportBody {
    /// 1 to 128 characters, not blank, no control characters.
    #[schema(min_length = 1, max_length = 128)]
    session_id: String,
    /// Device clock when the report was built, Unix milliseconds: the version of the report.
    #[schema(minimum = 1)]
    timestamp: i64,
    /// `1.x`; absent in SDK reports.
    schema_version: Option<String>,
    /// ISO 8601 with an offset; the text `null` counts as absent.
    session_start_date_iso: Option<String>,
    /// 0 counts as absent.
    #[schema(minimum = 0)]
    session_duration_ms: Option<i64>,
    content_id: Option<String>,
    /// `VOD` or `LIVE`; others are stored as `UNKNOWN`.
    stream_type: Option<String>,
    startup_time_ms: Option<i64>,
    play_time_ms: Option<i64>,
    rebuffer_time_ms: Option<i64>,
    rebuffer_count: Option<i32>,
    /// 0 to 1.
    rebuffer_ratio: Option<f64>,
    error_count: Option<i32>,
    /// A number or a text.
    #[schema(value_type = Option<Object>)]
    last_error_code: Option<String>,
    /// `NETWORK`, `DRM`, `SOURCE` or `DECODER`; others are stored as `UNKNOWN`.
    last_error_category: Option<String>,
    quality_switch_count: Option<i32>,
    avg_bitrate_kbps: Option<i32>,
    /// Bits per second.
    mean_video_format_bitrate: Option<i64>,
    dropped_frames: Option<i64>,
    total_dropped_frames: Option<i64>,
    total_seek_count: Option<i32>,
    total_seek_time_ms: Option<i64>,
    device: Option<DeviceBody>,
    app: Option<AppBody>,
    device_model: Option<String>,
    /// A number (API level) or a text.
    #[schema(value_type = Option<Object>)]
    os_version: Option<String>,
    sdk_version: Option<String>,
    connection_type: Option<String>,
    /// Of more than 2,000 entries 2,000 are stored, evenly spread.
    timeline_events: Option<Vec<TimelineEventBody>>,
}

/// `device` of schema 1.0.0.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DeviceBody {
    model: Option<String>,
    os: Option<String>,
    os_version: Option<String>,
}

/// `app` of schema 1.0.0.
#[derive(Debug, Serialize, ToSchema)]
struct AppBody {
    name: Option<String>,
    version: Option<String>,
}

/// What the player was doing at one moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TimelineEventBody {
    timestamp_ms: i64,
    elapsed_ms: i64,
    /// `IDLE`, `BUFFERING`, `PLAYING`, `PAUSED` or `ENDED`.
    playback_state: String,
    current_bitrate: Option<i64>,
    network_type: Option<String>,
    total_dropped_frames: Option<i64>,
    buffered_duration_ms: Option<i64>,
    rebuffer_count: Option<i32>,
    rebuffer_time_ms: Option<i64>,
}

/// A session: the columns of table `sessions` by name, own dimensions by theirs, `payload`, and
/// `timeline`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionBody {
    tenant_id: String,
    session_id: String,
    /// The session's place on the time axis, ISO 8601.
    timestamp: String,
    reported_at: String,
    received_at: String,
    created_at: String,
    report_count: i32,
    /// What `VIEWER_ID` points to.
    viewer_id: Option<String>,
    /// The newest report as it was sent.
    #[schema(value_type = Object)]
    payload: String,
    /// A page of it, in order of `elapsed_ms`.
    #[schema(value_type = Vec<Object>)]
    timeline: Vec<String>,
    /// What to send as `timelineAfter` for the next page; null on the last one.
    #[serde(rename = "timelineNext")]
    timeline_next: Option<String>,
}

struct ApiKeyHeader;

impl Modify for ApiKeyHeader {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let header = ApiKeyValue::with_description("X-API-Key", "A key of the tenant");
        if let Some(components) = openapi.components.as_mut() {
            let scheme = SecurityScheme::ApiKey(ApiKey::Header(header));
            components.add_security_scheme("apiKey", scheme);
        }
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Media3Watch backend",
        description = "Takes playback session reports of the Media3Watch Android SDK. \
                       Every answer carries X-Request-Id; answers under /v1 carry RateLimit-Limit, \
                       RateLimit-Remaining and RateLimit-Reset once the key is known.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        sessions::post_one,
        sessions::post_batch,
        session::get_one,
        status::health,
        status::live,
        status::ready,
        status::metrics,
        status::openapi,
    ),
    components(schemas(ErrorBody)),
    modifiers(&ApiKeyHeader),
    tags(
        (name = "sessions", description = "Session reports"),
        (name = "status", description = "Health, metrics, this description")
    )
)]
struct Document;

/// The description as pretty-printed JSON, with a newline at its end.
#[must_use]
pub fn document() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = Document::openapi().to_pretty_json().expect("the description is JSON");
        text.push('\n');
        text
    });
    &TEXT
}
