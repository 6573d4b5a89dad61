//! The rules of the wire format: from fields as sent to a report that fits the columns.

use jiff::Timestamp;

use super::json::Cleaned;
use super::model::{SessionReport, UnixMs};
use super::rejection::{Code, Rejection};
use super::timeline::{PlaybackState, Timeline, TimelineEntry};
use super::wire::{
    AppInfo, Device, Ignored, MAX_TIMELINE_ENTRIES, Report, Shaped, TimelineEvent, Value,
};

/// Longest `sessionId` in characters.
const MAX_SESSION_ID_CHARS: usize = 128;
/// Texts are cut to this for their column, in characters; the payload keeps them whole. An
/// index entry of Postgres holds at most about 2,700 bytes.
const MAX_COLUMN_CHARS: usize = 512;
/// Largest integer that survives a double, and small enough that sums of a few columns
/// cannot overflow bigint in anyone's SQL.
const MAX_LARGE: i64 = 9_007_199_254_740_991;
const MAX_COUNT: i64 = i32::MAX as i64;
/// What Media3 reports for "unset" in some totals.
const UNSET: i64 = -1;

const STREAM_TYPES: [&str; 2] = ["VOD", "LIVE"];
const ERROR_CATEGORIES: [&str; 4] = ["NETWORK", "DRM", "SOURCE", "DECODER"];
const UNKNOWN: &str = "UNKNOWN";

pub(super) fn validate(
    report: &Report<'_>,
    cleaned: &Cleaned<'_>,
) -> Result<SessionReport, Rejection> {
    schema_version(&report.schema_version)?;
    let session_id = session_id(&report.session_id, cleaned.was_changed())?;
    let reported_at = required_time("$.timestamp", &report.timestamp)?;
    let started_at = session_start(&report.session_start)?;
    let session_duration_ms = large("$.sessionDurationMs", &report.session_duration_ms)?;
    if session_duration_ms == Some(0) {
        return Err(Rejection::invalid("$.sessionDurationMs", "expected more than 0"));
    }
    let device = object("$.device", &report.device)?;
    let app = object("$.app", &report.app)?;
    let Device { model, os, os_version, .. } = device.unwrap_or(&NO_DEVICE);
    let AppInfo { name, version, .. } = app.unwrap_or(&NO_APP);

    let own_bitrate = count("$.avgBitrateKbps", &report.avg_bitrate_kbps)?;
    let mean_bitrate = mean_bitrate_kbps(&report.mean_video_format_bitrate)?;
    let dropped = large("$.droppedFrames", &report.dropped_frames)?;
    let total_dropped = large_total("$.totalDroppedFrames", &report.total_dropped_frames)?;
    let device_model = text("$.device.model", model)?;
    let flat_device_model = text("$.deviceModel", &report.device_model)?;
    let nested_os_version = text_or_number("$.device.osVersion", os_version)?;
    let flat_os_version = text_or_number("$.osVersion", &report.os_version)?;

    Ok(SessionReport {
        session_id,
        reported_at,
        started_at,
        content_id: text("$.contentId", &report.content_id)?,
        stream_type: one_of("$.streamType", &report.stream_type, &STREAM_TYPES)?,
        player_startup_ms: large("$.startupTimeMs", &report.startup_time_ms)?,
        session_duration_ms,
        play_time_ms: large("$.playTimeMs", &report.play_time_ms)?,
        rebuffer_time_ms: large("$.rebufferTimeMs", &report.rebuffer_time_ms)?,
        seek_time_ms: large_total("$.totalSeekTimeMs", &report.total_seek_time_ms)?,
        rebuffer_count: count("$.rebufferCount", &report.rebuffer_count)?,
        seek_count: count_total("$.totalSeekCount", &report.total_seek_count)?,
        quality_switch_count: count("$.qualitySwitchCount", &report.quality_switch_count)?,
        error_count: count("$.errorCount", &report.error_count)?,
        rebuffer_ratio: ratio("$.rebufferRatio", &report.rebuffer_ratio)?,
        avg_bitrate_kbps: own_bitrate.or(mean_bitrate),
        dropped_frames: dropped.or(total_dropped),
        last_error_code: text_or_number("$.lastErrorCode", &report.last_error_code)?,
        last_error_category: one_of(
            "$.lastErrorCategory",
            &report.last_error_category,
            &ERROR_CATEGORIES,
        )?,
        device_model: device_model.or(flat_device_model),
        os_name: text("$.device.os", os)?,
        os_version: nested_os_version.or(flat_os_version),
        app_name: text("$.app.name", name)?,
        app_version: text("$.app.version", version)?,
        sdk_version: text("$.sdkVersion", &report.sdk_version)?,
        connection_type: text("$.connectionType", &report.connection_type)?,
        timeline: Timeline::of(&timeline(report)?),
        payload: cleaned.text().into(),
    })
}

static NO_DEVICE: Device<'static> =
    Device { model: Value::Unset, os: Value::Unset, os_version: Value::Unset, other: Ignored };
static NO_APP: AppInfo<'static> =
    AppInfo { name: Value::Unset, version: Value::Unset, other: Ignored };

fn wrong_type(path: &str, expected: &str, found: &str) -> Rejection {
    Rejection::invalid(path, format!("expected {expected}, found {found}"))
}

fn schema_version(value: &Value<'_>) -> Result<(), Rejection> {
    let path = "$.schemaVersion";
    let version = match value {
        Value::Unset => return Ok(()),
        Value::Text(version) => version,
        other => {
            return Err(wrong_type(path, "a version such as \"1.0.0\"", other.kind()));
        }
    };
    let major = version.split('.').next().unwrap_or_default();
    if major.is_empty() || !major.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Rejection::invalid(path, "expected a version such as \"1.0.0\""));
    }
    if major.trim_start_matches('0') != "1" {
        return Err(Rejection {
            code: Code::UnsupportedSchemaVersion,
            field: path.to_owned(),
            detail: "this server understands schema versions 1.x".to_owned(),
        });
    }
    Ok(())
}

pub(super) fn session_id(value: &Value<'_>, cleaned: bool) -> Result<String, Rejection> {
    let path = "$.sessionId";
    let id = match value {
        Value::Text(id) => id,
        Value::Unset => return Err(Rejection::invalid(path, "is required")),
        other => return Err(wrong_type(path, "a string", other.kind())),
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
    Err(Rejection::invalid(path, detail))
}

fn required_time(path: &str, value: &Value<'_>) -> Result<UnixMs, Rejection> {
    match integer(path, value, 1, i64::MAX)? {
        Some(time) => Ok(UnixMs(time)),
        None => Err(Rejection::invalid(path, "is required")),
    }
}

fn session_start(value: &Value<'_>) -> Result<Option<UnixMs>, Rejection> {
    let path = "$.sessionStartDateIso";
    let text = match value {
        Value::Unset => return Ok(None),
        Value::Text(text) => text.as_ref(),
        other => return Err(wrong_type(path, "a string", other.kind())),
    };
    match text.trim() {
        "" => Err(Rejection::invalid(path, "must not be blank")),
        "null" => Ok(None),
        text => match text.parse::<Timestamp>() {
            Ok(time) => Ok(Some(UnixMs(time.as_millisecond()))),
            Err(_) => Err(Rejection::invalid(
                path,
                "expected ISO 8601 with an offset, such as 2026-02-14T10:30:00.000Z",
            )),
        },
    }
}

/// An integer within `min..=max`; `1850.0` counts as one.
fn integer(path: &str, value: &Value<'_>, min: i64, max: i64) -> Result<Option<i64>, Rejection> {
    let out_of_range = || {
        let detail = if max == i64::MAX {
            format!("out of range, expected at least {min}")
        } else {
            format!("out of range, expected {min} to {max}")
        };
        Rejection::invalid(path, detail)
    };
    let number = match *value {
        Value::Unset => return Ok(None),
        Value::Int(number) => number,
        Value::Float(number) if number.is_finite() && number.fract() == 0.0 => {
            // 2^63 is exact as a double, so this comparison is too.
            if number.abs() >= 9_223_372_036_854_775_808.0 {
                return Err(out_of_range());
            }
            #[expect(clippy::cast_possible_truncation, reason = "integral and within i64")]
            let number = number as i64;
            number
        }
        Value::Float(_) => return Err(Rejection::invalid(path, "expected a whole number")),
        ref other => return Err(wrong_type(path, "a number", other.kind())),
    };
    if number < min || number > max {
        return Err(out_of_range());
    }
    Ok(Some(number))
}

/// A duration in milliseconds or a large total.
fn large(path: &str, value: &Value<'_>) -> Result<Option<i64>, Rejection> {
    integer(path, value, 0, MAX_LARGE)
}

/// As [`large`], for the `total…` fields in which old SDKs send -1 for unset.
fn large_total(path: &str, value: &Value<'_>) -> Result<Option<i64>, Rejection> {
    if is_unset(value) { Ok(None) } else { large(path, value) }
}

fn count(path: &str, value: &Value<'_>) -> Result<Option<i32>, Rejection> {
    let count = integer(path, value, 0, MAX_COUNT)?;
    Ok(count.map(|count| i32::try_from(count).expect("within MAX_COUNT")))
}

/// As [`count`], for the `total…` fields in which old SDKs send -1 for unset.
fn count_total(path: &str, value: &Value<'_>) -> Result<Option<i32>, Rejection> {
    if is_unset(value) { Ok(None) } else { count(path, value) }
}

#[expect(clippy::float_cmp, reason = "-1.0 is exact")]
fn is_unset(value: &Value<'_>) -> bool {
    matches!(*value, Value::Int(UNSET)) || matches!(*value, Value::Float(number) if number == -1.0)
}

/// `meanVideoFormatBitrate` is in bits per second, the column in kilobits.
fn mean_bitrate_kbps(value: &Value<'_>) -> Result<Option<i32>, Rejection> {
    if is_unset(value) {
        return Ok(None);
    }
    let bits = integer("$.meanVideoFormatBitrate", value, 0, MAX_COUNT * 1000)?;
    Ok(bits.map(|bits| i32::try_from(bits / 1000).expect("within MAX_COUNT")))
}

fn ratio(path: &str, value: &Value<'_>) -> Result<Option<f32>, Rejection> {
    let number = match *value {
        Value::Unset => return Ok(None),
        Value::Int(number) => number as f64,
        Value::Float(number) => number,
        ref other => return Err(wrong_type(path, "a number", other.kind())),
    };
    if !(0.0..=1.0).contains(&number) {
        return Err(Rejection::invalid(path, "out of range, expected 0 to 1"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the column is real")]
    let number = number as f32;
    // Below the smallest real Postgres reports an underflow; it means 0 here. So does -0.
    let is_nothing = number == 0.0 || number.is_subnormal();
    Ok(Some(if is_nothing { 0.0 } else { number }))
}

fn text(path: &str, value: &Value<'_>) -> Result<Option<String>, Rejection> {
    match value {
        Value::Unset => Ok(None),
        Value::Text(text) => Ok(Some(cut(text))),
        other => Err(wrong_type(path, "a string", other.kind())),
    }
}

/// Error codes and OS versions: a number in one generation, a string in another.
fn text_or_number(path: &str, value: &Value<'_>) -> Result<Option<String>, Rejection> {
    match value {
        Value::Int(number) => Ok(Some(number.to_string())),
        Value::Float(number) => Ok(Some(number.to_string())),
        Value::Other(kind) => Err(wrong_type(path, "a string or a number", kind)),
        Value::Unset | Value::Text(_) => text(path, value),
    }
}

/// The text as its column holds it.
fn cut(text: &str) -> String {
    let end = text.char_indices().nth(MAX_COLUMN_CHARS).map_or(text.len(), |(end, _)| end);
    text[..end].to_owned()
}

/// A value of a closed list; what is not on it is `UNKNOWN`, not an error.
fn one_of(
    path: &str,
    value: &Value<'_>,
    known: &[&'static str],
) -> Result<Option<&'static str>, Rejection> {
    match value {
        Value::Unset => Ok(None),
        Value::Text(text) => {
            Ok(Some(known.iter().find(|name| **name == text.as_ref()).copied().unwrap_or(UNKNOWN)))
        }
        other => Err(wrong_type(path, "a string", other.kind())),
    }
}

fn object<'r, T>(path: &str, shaped: &'r Shaped<T>) -> Result<Option<&'r T>, Rejection> {
    match shaped {
        Shaped::Unset => Ok(None),
        Shaped::Is(value) => Ok(Some(value)),
        Shaped::Other(kind) => Err(wrong_type(path, "an object", kind)),
    }
}

fn timeline(report: &Report<'_>) -> Result<Vec<TimelineEntry>, Rejection> {
    let entries = match &report.timeline {
        Shaped::Unset => return Ok(Vec::new()),
        Shaped::Is(entries) => entries,
        Shaped::Other(kind) => return Err(wrong_type("$.timelineEvents", "an array", kind)),
    };
    if entries.total > MAX_TIMELINE_ENTRIES {
        let detail = format!("{} entries, at most {MAX_TIMELINE_ENTRIES} allowed", entries.total);
        return Err(Rejection::invalid("$.timelineEvents", detail));
    }
    entries.kept.iter().enumerate().map(|(index, entry)| timeline_entry(index, entry)).collect()
}

fn timeline_entry(
    index: usize,
    entry: &Shaped<TimelineEvent<'_>>,
) -> Result<TimelineEntry, Rejection> {
    // Paths are built for errors only: there may be 500 entries.
    let within = |rejection: Rejection| Rejection {
        field: rejection.field.replacen('$', &format!("$.timelineEvents[{index}]"), 1),
        ..rejection
    };
    let read = || {
        let event = match entry {
            Shaped::Is(event) => event,
            Shaped::Unset => return Err(wrong_type("$", "an object", "null")),
            Shaped::Other(kind) => return Err(wrong_type("$", "an object", kind)),
        };
        let elapsed_ms = large("$.elapsedMs", &event.elapsed_ms)?;
        Ok(TimelineEntry {
            timestamp_ms: required_time("$.timestampMs", &event.timestamp_ms)?.0,
            elapsed_ms: elapsed_ms
                .ok_or_else(|| Rejection::invalid("$.elapsedMs", "is required"))?,
            playback_state: playback_state(&event.playback_state)?,
            current_bitrate: large_total("$.currentBitrate", &event.current_bitrate)?,
            network_type: text("$.networkType", &event.network_type)?,
            total_dropped_frames: large("$.totalDroppedFrames", &event.total_dropped_frames)?,
            buffered_duration_ms: large("$.bufferedDurationMs", &event.buffered_duration_ms)?,
            rebuffer_count: count("$.rebufferCount", &event.rebuffer_count)?,
            rebuffer_time_ms: large("$.rebufferTimeMs", &event.rebuffer_time_ms)?,
            other_fields: event.other.object(),
        })
    };
    read().map_err(within)
}

fn playback_state(value: &Value<'_>) -> Result<PlaybackState, Rejection> {
    let path = "$.playbackState";
    let text = match value {
        Value::Text(text) => text.as_ref(),
        Value::Unset => return Err(Rejection::invalid(path, "is required")),
        other => return Err(wrong_type(path, "a string", other.kind())),
    };
    PlaybackState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
        let known = PlaybackState::ALL.map(PlaybackState::as_str).join(", ");
        Rejection::invalid(path, format!("unknown state, expected one of {known}"))
    })
}
