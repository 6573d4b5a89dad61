//! The rules of the wire format: from fields as sent to a report that fits the columns.

use super::dropped::Dropped;
use super::json::Cleaned;
use super::model::{SessionReport, UnixMs};
use super::number::{self, path, wrong_type};
use super::paths::Paths;
use super::rejection::{Code, Rejection};
use super::timeline::Timeline;
use super::wire::{AppInfo, Device, Ignored, Report, Shaped, Value};
use super::{date, entries};

/// Longest `sessionId` in characters.
const MAX_SESSION_ID_CHARS: usize = 128;
/// Texts are cut to this for their column, in characters; the payload keeps them whole. An
/// index entry of Postgres holds at most about 2,700 bytes.
pub(crate) const MAX_COLUMN_CHARS: usize = 512;
const STREAM_TYPES: [&str; 2] = ["VOD", "LIVE"];
const ERROR_CATEGORIES: [&str; 4] = ["NETWORK", "DRM", "SOURCE", "DECODER"];
const UNKNOWN: &str = "UNKNOWN";

pub(super) fn validate(
    report: &Report<'_>,
    cleaned: &Cleaned<'_>,
    own: &Paths,
) -> Result<SessionReport, Rejection> {
    schema_version(&report.schema_version)?;
    let session_id = session_id(&report.session_id, cleaned.was_changed())?;
    let reported_at = timestamp(&report.timestamp)?;
    let started_at = session_start(&report.session_start)?;
    let mut dropped = Dropped::default();
    let (session_duration_ms, long_duration_ms) =
        session_duration(&report.session_duration_ms, &mut dropped)?;
    let device = object("device", &report.device)?;
    let app = object("app", &report.app)?;
    let Device { model, os, os_version, .. } = device.unwrap_or(&NO_DEVICE);
    let AppInfo { name, version, .. } = app.unwrap_or(&NO_APP);

    let own_bitrate = dropped.count("avgBitrateKbps", &report.avg_bitrate_kbps)?;
    let mean_bitrate =
        dropped.kilobits("meanVideoFormatBitrate", &report.mean_video_format_bitrate)?;
    let frames = dropped.large("droppedFrames", &report.dropped_frames)?;
    let total_frames = dropped.large("totalDroppedFrames", &report.total_dropped_frames)?;
    let device_model = text("device.model", model)?;
    let flat_device_model = text("deviceModel", &report.device_model)?;
    let nested_os_version = text_or_number("device.osVersion", os_version)?;
    let flat_os_version = text_or_number("osVersion", &report.os_version)?;

    let [
        viewer_id,
        dimension_1,
        dimension_2,
        dimension_3,
        dimension_4,
        dimension_5,
        dimension_6,
        dimension_7,
        dimension_8,
    ] = own.read(cleaned.text());

    Ok(SessionReport {
        session_id,
        reported_at,
        started_at,
        content_id: text("contentId", &report.content_id)?,
        stream_type: one_of("streamType", &report.stream_type, &STREAM_TYPES)?,
        player_startup_ms: dropped.duration("startupTimeMs", &report.startup_time_ms)?,
        session_duration_ms,
        long_duration_ms,
        play_time_ms: dropped.duration("playTimeMs", &report.play_time_ms)?,
        rebuffer_time_ms: dropped.duration("rebufferTimeMs", &report.rebuffer_time_ms)?,
        seek_time_ms: dropped.duration("totalSeekTimeMs", &report.total_seek_time_ms)?,
        rebuffer_count: dropped.count("rebufferCount", &report.rebuffer_count)?,
        seek_count: dropped.count("totalSeekCount", &report.total_seek_count)?,
        quality_switch_count: dropped.count("qualitySwitchCount", &report.quality_switch_count)?,
        error_count: dropped.count("errorCount", &report.error_count)?,
        rebuffer_ratio: dropped.ratio("rebufferRatio", &report.rebuffer_ratio)?,
        avg_bitrate_kbps: own_bitrate.or(mean_bitrate),
        dropped_frames: frames.or(total_frames),
        last_error_code: text_or_number("lastErrorCode", &report.last_error_code)?,
        last_error_category: one_of(
            "lastErrorCategory",
            &report.last_error_category,
            &ERROR_CATEGORIES,
        )?,
        device_model: device_model.or(flat_device_model),
        os_name: text("device.os", os)?,
        os_version: nested_os_version.or(flat_os_version),
        app_name: text("app.name", name)?,
        app_version: text("app.version", version)?,
        sdk_version: text("sdkVersion", &report.sdk_version)?,
        connection_type: text("connectionType", &report.connection_type)?,
        dimension_1,
        dimension_2,
        dimension_3,
        dimension_4,
        dimension_5,
        dimension_6,
        dimension_7,
        dimension_8,
        viewer_id,
        timeline: Timeline::of(&entries::of(report, cleaned.text(), &mut dropped)?),
        payload: cleaned.text().into(),
        dropped,
    })
}

static NO_DEVICE: Device<'static> =
    Device { model: Value::Unset, os: Value::Unset, os_version: Value::Unset, other: Ignored };
static NO_APP: AppInfo<'static> =
    AppInfo { name: Value::Unset, version: Value::Unset, other: Ignored };

fn schema_version(value: &Value<'_>) -> Result<(), Rejection> {
    let field = "schemaVersion";
    let version = match value {
        Value::Unset => return Ok(()),
        Value::Text(version) => version,
        other => {
            return Err(wrong_type(field, "a version such as \"1.0.0\"", other.kind()));
        }
    };
    let major = version.split('.').next().unwrap_or_default();
    if major.is_empty() || !major.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Rejection::invalid(path(field), "expected a version such as \"1.0.0\""));
    }
    if major.trim_start_matches('0') != "1" {
        return Err(Rejection {
            code: Code::UnsupportedSchemaVersion,
            field: path(field),
            detail: "this server understands schema versions 1.x".to_owned(),
        });
    }
    Ok(())
}

pub(super) fn session_id(value: &Value<'_>, cleaned: bool) -> Result<String, Rejection> {
    let field = "sessionId";
    let id = match value {
        Value::Text(id) => id,
        Value::Unset => return Err(Rejection::invalid(path(field), "is required")),
        other => return Err(wrong_type(field, "a string", other.kind())),
    };
    let detail = if id.trim().is_empty() {
        "must not be blank"
    } else if id.chars().count() > MAX_SESSION_ID_CHARS {
        "longer than 128 characters"
    } else if id.chars().any(char::is_control) || (cleaned && id.contains('\u{fffd}')) {
        // Cleaning would fold different ids into one: an id is refused instead.
        "must not contain control characters or unpaired surrogates"
    } else {
        return Ok(id.clone().into_owned());
    };
    Err(Rejection::invalid(path(field), detail))
}

fn timestamp(value: &Value<'_>) -> Result<UnixMs, Rejection> {
    let field = "timestamp";
    let Some(time) = number::whole(field, value)? else {
        return Err(Rejection::invalid(path(field), "is required"));
    };
    match i64::try_from(time) {
        Ok(time) if time > 0 => Ok(UnixMs(time)),
        _ => Err(Rejection::invalid(path(field), "out of range, expected Unix milliseconds")),
    }
}

/// The SDK measures it with a monotonic clock, which never runs backwards: a negative one is a
/// mistake in the app. 0 is what SDK 0.x sends when it does not know. One that is too long for the
/// column comes back as the second value.
fn session_duration(
    value: &Value<'_>,
    dropped: &mut Dropped,
) -> Result<(Option<i64>, Option<i64>), Rejection> {
    let field = "sessionDurationMs";
    let number = number::whole(field, value)?.unwrap_or_default();
    if number < 0 {
        return Err(Rejection::invalid(path(field), "out of range, expected at least 0"));
    }
    let duration = dropped.duration(field, value)?.filter(|duration| *duration > 0);
    let is_too_long = number > 0 && duration.is_none();
    Ok((duration, is_too_long.then(|| i64::try_from(number).unwrap_or(i64::MAX))))
}

fn session_start(value: &Value<'_>) -> Result<Option<UnixMs>, Rejection> {
    let field = "sessionStartDateIso";
    let text = match value {
        Value::Unset => return Ok(None),
        Value::Text(text) => text.as_ref(),
        other => return Err(wrong_type(field, "a string", other.kind())),
    };
    match (text, text.trim()) {
        ("", _) | (_, "null") => Ok(None),
        (_, "") => Err(Rejection::invalid(path(field), "must not be blank")),
        (_, text) => date::parse(text).map(Some).ok_or_else(|| {
            let detail = "expected ISO 8601 with an offset, such as 2026-02-14T10:30:00.000Z";
            Rejection::invalid(path(field), detail)
        }),
    }
}

pub(super) fn text(field: &str, value: &Value<'_>) -> Result<Option<String>, Rejection> {
    match value {
        Value::Unset => Ok(None),
        Value::Text(text) => Ok(Some(column_text(text))),
        other => Err(wrong_type(field, "a string", other.kind())),
    }
}

/// Error codes and OS versions: a number in one generation, a string in another.
fn text_or_number(field: &str, value: &Value<'_>) -> Result<Option<String>, Rejection> {
    match value {
        Value::Int(number) => Ok(Some(number.to_string())),
        Value::Float(number) => Ok(Some(number.to_string())),
        Value::Other(kind) => Err(wrong_type(field, "a string or a number", kind)),
        Value::Unset | Value::Text(_) => text(field, value),
    }
}

/// The text as its column holds it.
pub(super) fn column_text(text: &str) -> String {
    let end = text.char_indices().nth(MAX_COLUMN_CHARS).map_or(text.len(), |(end, _)| end);
    text[..end].to_owned()
}

/// A value of a closed list; what is not on it is `UNKNOWN`, not an error.
fn one_of(
    field: &str,
    value: &Value<'_>,
    known: &[&'static str],
) -> Result<Option<&'static str>, Rejection> {
    match value {
        Value::Unset => Ok(None),
        Value::Text(text) => {
            Ok(Some(known.iter().find(|name| **name == text.as_ref()).copied().unwrap_or(UNKNOWN)))
        }
        other => Err(wrong_type(field, "a string", other.kind())),
    }
}

fn object<'r, T>(field: &str, shaped: &'r Shaped<T>) -> Result<Option<&'r T>, Rejection> {
    match shaped {
        Shaped::Unset => Ok(None),
        Shaped::Is(value) => Ok(Some(value)),
        Shaped::Other(kind) => Err(wrong_type(field, "an object", kind)),
    }
}
