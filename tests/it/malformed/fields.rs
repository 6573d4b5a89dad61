//! What must be refused for one field of a report.

use super::NOW_MS;
use super::refused::{Refused, case, member, report};

pub fn corpus() -> Vec<Refused> {
    let mut cases = numbers();
    cases.extend(texts());
    cases.extend(versions());
    cases.extend(timelines());
    cases
}

fn event(field: &str, members: &str) -> Refused {
    let good = format!(r#"{{"timestampMs":{NOW_MS},"elapsedMs":1,"playbackState":"PLAYING"}}"#);
    let body = report(&format!(r#""timelineEvents":[{good},{{{members}}}]"#));
    case(&format!("$.timelineEvents[1]{field}"), body)
}

/// What no integer field takes.
const INTEGERS: [&str; 5] = ["\"12\"", "true", "{}", "[1]", "0.5"];
/// What no text field takes.
const TEXTS: [&str; 4] = ["12", "true", "[]", "{}"];

/// Every field that holds a number, with what it does not take.
fn numbers() -> Vec<Refused> {
    let mut cases = Vec::new();
    let mut refuse = |field: &str, values: &[&str]| {
        for value in values {
            cases.push(member(&format!("$.{field}"), &format!("\"{field}\":{value}")));
        }
    };
    for field in [
        "sessionDurationMs",
        "startupTimeMs",
        "playTimeMs",
        "rebufferTimeMs",
        "droppedFrames",
        "totalDroppedFrames",
        "totalSeekTimeMs",
        "totalSeekCount",
        "rebufferCount",
        "errorCount",
        "qualitySwitchCount",
        "avgBitrateKbps",
        "meanVideoFormatBitrate",
    ] {
        refuse(field, &INTEGERS);
    }
    refuse("rebufferRatio", &["\"0.5\"", "true", "[]", "{}"]);
    refuse("sessionDurationMs", &["-1", "-9223372036854775807", "-1e300"]);
    cases
}

/// Every field that holds a text or an object, with what it does not take.
fn texts() -> Vec<Refused> {
    let mut cases = Vec::new();
    let mut refuse = |path: &str, members: &str, values: &[&str]| {
        for value in values {
            cases.push(member(path, &members.replace('?', value)));
        }
    };
    for field in [
        "contentId",
        "streamType",
        "lastErrorCategory",
        "deviceModel",
        "sdkVersion",
        "connectionType",
    ] {
        refuse(&format!("$.{field}"), &format!("\"{field}\":?"), &TEXTS);
    }
    for (object, field) in
        [("device", "model"), ("device", "os"), ("app", "name"), ("app", "version")]
    {
        let path = format!("$.{object}.{field}");
        refuse(&path, &format!("\"{object}\":{{\"{field}\":?}}"), &TEXTS);
    }
    for field in ["device", "app"] {
        let not_objects = ["\"Pixel\"", "12", "false", "[]", "[{}]"];
        refuse(&format!("$.{field}"), &format!("\"{field}\":?"), &not_objects);
    }
    for field in ["lastErrorCode", "osVersion"] {
        refuse(&format!("$.{field}"), &format!("\"{field}\":?"), &TEXTS[1..]);
    }
    refuse("$.device.osVersion", r#""device":{"osVersion":?}"#, &TEXTS[1..]);
    let not_times = [
        "\" \"",
        "\"soon\"",
        "12",
        "true",
        "{}",
        "\"2026-02-14T10:30:00.000\"",
        "\"2026-02-14\"",
        "\"2026-13-14T10:30:00Z\"",
        "\"2026-02-30T10:30:00Z\"",
        "\"1795000000000\"",
        "\"NULL\"",
    ];
    refuse("$.sessionStartDateIso", r#""sessionStartDateIso":?"#, &not_times);
    cases
}

fn versions() -> Vec<Refused> {
    let version =
        |version: &str| member("$.schemaVersion", &format!("\"schemaVersion\":{version}"));
    let invalid = ["1", "1.0", "true", "{}", "\"\"", "\"abc\"", "\"v1\"", "\"-1.0\"", "\" 1.0\""];
    let unsupported = ["\"2.0.0\"", "\"0.9\"", "\"10.0.0\"", "\"99999999999999999999.0\""];
    let unsupported =
        unsupported.map(|text| Refused { code: "UNSUPPORTED_SCHEMA_VERSION", ..version(text) });
    invalid.map(version).into_iter().chain(unsupported).collect()
}

fn timelines() -> Vec<Refused> {
    let mut cases: Vec<Refused> = ["{}", "\"none\"", "12", "true"]
        .map(|value| member("$.timelineEvents", &format!("\"timelineEvents\":{value}")))
        .into();
    let entry = r#"{"timestampMs":1,"elapsedMs":1,"playbackState":"IDLE"}"#;
    for element in ["null", "1", "\"x\"", "[]", "true"] {
        let body = format!("\"timelineEvents\":[{entry},{element}]");
        cases.push(member("$.timelineEvents[1]", &body));
    }
    // The last of two counts.
    let right = r#""timestampMs":1,"elapsedMs":1,"playbackState":"PLAYING","#;
    for (field, values) in [
        ("timestampMs", &["\"1\"", "1.5", "[]"][..]),
        ("elapsedMs", &["\"1\"", "0.1"]),
        ("playbackState", &["1", "{}"]),
        ("currentBitrate", &["\"1\"", "1.5"]),
        ("networkType", &["1", "{}"]),
        ("totalDroppedFrames", &["\"1\"", "1.5"]),
        ("bufferedDurationMs", &["[]"]),
        ("rebufferCount", &["{}"]),
        ("rebufferTimeMs", &["true"]),
    ] {
        for value in values {
            cases.push(event(&format!(".{field}"), &format!("{right}\"{field}\":{value}")));
        }
    }
    cases
}
