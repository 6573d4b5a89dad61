//! From a row of the original backend to the report that it stands for. No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};

use crate::report::{self, Paths, Rejection, Retention, SessionReport, SessionTime, UnixMs};
use crate::store::OriginalSession;

/// Fewer than a report may have, so that no timeline is thinned.
const ENTRIES_PER_REPORT: usize = 500;

/// Under this retention, only impossible clocks are clamped.
const FOR_EVER: Retention = Retention::days(0);

type Object = BTreeMap<String, Box<RawValue>>;

/// A session being imported: its report without the timeline, and entries still to be sent.
pub(super) struct Draft {
    /// The report as JSON, valid by itself.
    body: String,
    /// Server clock at receipt.
    pub(super) at: UnixMs,
    entries: Vec<String>,
    has_reports: bool,
    paths: Arc<Paths>,
}

impl Draft {
    /// The report of a row; `None` if it lies before the retention period.
    pub(super) fn of(row: &OriginalSession, limits: &Limits) -> Result<Option<Self>, Rejection> {
        let (body, report) = readable(row, limits)?;
        let at = receipt(&report, row.created_at, limits.now);
        let placed = SessionTime::of(&report, at, FOR_EVER).timestamp;
        if limits.retention.cutoff(limits.now).is_some_and(|cutoff| placed < cutoff) {
            return Ok(None);
        }
        let paths = Arc::clone(&limits.paths);
        Ok(Some(Self { body, at, entries: Vec::new(), has_reports: false, paths }))
    }

    /// Adds a timeline entry, and returns a report when there are enough for one.
    pub(super) fn add(&mut self, entry: String) -> Option<SessionReport> {
        self.entries.push(entry);
        if self.entries.len() < ENTRIES_PER_REPORT { None } else { self.report() }
    }

    /// The report with the remaining entries; `None` if all are in reports already.
    pub(super) fn finish(&mut self) -> Option<SessionReport> {
        if self.has_reports && self.entries.is_empty() { None } else { self.report() }
    }

    /// The report with the entries collected so far. All reports of a session have the same
    /// version, so only the first one changes its row; the others only add entries.
    fn report(&mut self) -> Option<SessionReport> {
        self.has_reports = true;
        let entries = std::mem::take(&mut self.entries);
        let report = report::parse(with_timeline(&self.body, &entries).as_bytes(), &self.paths);
        // Without entries it was valid.
        report.or_else(|_| report::parse(self.body.as_bytes(), &self.paths)).ok()
    }
}

/// What decides which rows are taken, and how.
pub(super) struct Limits {
    pub(super) now: UnixMs,
    pub(super) retention: Retention,
    pub(super) max_body_bytes: usize,
    /// Where reports have their own fields.
    pub(super) paths: Arc<Paths>,
}

/// The report of a row, as JSON and read.
fn readable(row: &OriginalSession, limits: &Limits) -> Result<(String, SessionReport), Rejection> {
    let payload = row.payload.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let columns: Option<Object> = serde_json::from_str(&row.columns).ok();
    let (Some(payload), Some(columns)) = (payload, columns) else {
        return read(row.columns.clone(), limits);
    };
    // A payload is whatever an app sent. If it makes no valid report, the columns may.
    read(merged(&payload, &columns, false), limits)
        .or_else(|_| read(merged(&payload, &columns, true), limits))
}

fn read(body: String, limits: &Limits) -> Result<(String, SessionReport), Rejection> {
    let max_bytes = limits.max_body_bytes;
    if body.len() > max_bytes {
        let detail = format!("more than {max_bytes} bytes, raise MAX_BODY_BYTES to take it");
        return Err(Rejection::too_large(detail));
    }
    let report = report::parse(body.as_bytes(), &limits.paths)?;
    Ok((body, report))
}

/// The payload, completed from the columns. For identity and time, the column always wins: the
/// original backend knew the session by it.
fn merged(payload: &Object, columns: &Object, columns_win: bool) -> String {
    let is_null = |value: &RawValue| value.get() == "null";
    let mut report = payload.clone();
    for (key, value) in columns.iter().filter(|(_, value)| !is_null(value)) {
        let wins = columns_win || matches!(key.as_str(), "sessionId" | "timestamp");
        if wins || payload.get(key).is_none_or(|value| is_null(value)) {
            report.insert(key.clone(), value.clone());
        }
    }
    // The first original backend took a number; schema 1.0.0 has a string.
    if let Some(version) = report.get_mut("schemaVersion")
        && version.get().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && let Ok(text) = to_raw_value(version.get())
    {
        *version = text;
    }
    serde_json::to_string(&report).unwrap_or_default()
}

/// When the report counts as received. That is now, so that alerts can tell an imported past from
/// live traffic. If the device's clock cannot be right, however, the session would be placed at the
/// time of receipt, and only the original backend knows that.
fn receipt(report: &SessionReport, created_at: Option<UnixMs>, now: UnixMs) -> UnixMs {
    let is_possible = FOR_EVER.earliest_believable(now)..=now;
    let is_believed = SessionTime::of(report, now, FOR_EVER).clock_skew_ms.is_none();
    created_at.filter(|at| !is_believed && is_possible.contains(at)).unwrap_or(now)
}

fn with_timeline(body: &str, entries: &[String]) -> String {
    match body.trim_end().strip_suffix('}') {
        Some(open) if !entries.is_empty() => {
            format!(r#"{open},"timelineEvents":[{}]}}"#, entries.join(","))
        }
        _ => body.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);
    const DAY: i64 = 86_400_000;

    fn limits(days: u32) -> Limits {
        let (retention, paths) = (Retention::days(days), Arc::default());
        Limits { now: NOW, retention, max_body_bytes: 1 << 20, paths }
    }

    fn row(columns: &str, payload: Option<&str>) -> OriginalSession {
        OriginalSession {
            session_id: "s".to_owned(),
            created_at: Some(UnixMs(NOW.0 - DAY)),
            columns: columns.to_owned(),
            payload: payload.map(str::to_owned),
        }
    }

    fn body(columns: &str, payload: &str) -> serde_json::Value {
        let draft = Draft::of(&row(columns, Some(payload)), &limits(90)).expect("valid");
        serde_json::from_str(&draft.expect("in time").body).expect("JSON")
    }

    #[test]
    fn a_payload_is_completed_and_corrected_from_the_columns() {
        let columns = r#"{"sessionId":"s","timestamp":1794999999999,"errorCount":2,"contentId":null,"startupTimeMs":7}"#;
        let payload = r#"{"sessionId":"other","timestamp":5,"errorCount":1,"startupTimeMs":null,"schemaVersion":1,"x":1e30}"#;
        let expected = serde_json::json!({
            "sessionId": "s", "timestamp": 1_794_999_999_999_i64, "errorCount": 1,
            "startupTimeMs": 7, "schemaVersion": "1", "x": 1e30,
        });
        assert_eq!(body(columns, payload), expected);
        // No report has such an error count; the column's is the same event, counted.
        assert_eq!(body(columns, r#"{"errorCount":"one"}"#)["errorCount"], 2);
        let wrong = Draft::of(&row(columns, Some(r#"{"device":"a phone"}"#)), &limits(90));
        assert_eq!(wrong.err().expect("refused").field, "$.device");
    }

    #[test]
    fn an_impossible_clock_gives_way_to_the_receipt_at_the_original_backend() {
        let at = |timestamp: i64, days: u32, created_at: i64| {
            let columns = format!(r#"{{"sessionId":"s","timestamp":{timestamp}}}"#);
            let row =
                OriginalSession { created_at: Some(UnixMs(created_at)), ..row(&columns, None) };
            Draft::of(&row, &limits(days)).expect("valid").map(|draft| draft.at.0 - NOW.0)
        };
        let (yesterday, last_year) = (NOW.0 - DAY, NOW.0 - 365 * DAY);
        assert_eq!(at(yesterday - 60_000, 90, yesterday), Some(0));
        // Clocks of 1970 and of the next year.
        assert_eq!(at(86_400_123, 90, yesterday), Some(-DAY));
        assert_eq!(at(NOW.0 + 365 * DAY, 90, yesterday), Some(-DAY));
        assert_eq!(at(86_400_123, 90, last_year), None);
        // A server's clock can be impossible too.
        assert_eq!(at(86_400_123, 90, 86_400_124), Some(0));
        assert_eq!(at(86_400_123, 90, NOW.0 + DAY), Some(0));
        assert_eq!(at(NOW.0 - 91 * DAY, 90, yesterday), None);
        assert_eq!(at(NOW.0 - 91 * DAY, 0, yesterday), Some(0));
    }

    #[test]
    fn long_timelines_become_several_reports_and_wrong_entries_are_left_out() {
        let columns = format!(r#"{{"sessionId":"s","timestamp":{}}}"#, NOW.0);
        let draft = Draft::of(&row(&columns, None), &limits(90)).expect("valid");
        let mut draft = draft.expect("in time");
        let entry = |n: usize, state: &str| {
            format!(r#"{{"timestampMs":{},"elapsedMs":{n},"playbackState":"{state}"}}"#, NOW.0)
        };
        let mut counts = Vec::new();
        for n in 0..ENTRIES_PER_REPORT + 2 {
            let state = if n == 3 { "SOMETHING" } else { "PLAYING" };
            counts.extend(draft.add(entry(n, state)).and_then(|report| report.timeline));
        }
        counts.extend(draft.finish().and_then(|report| report.timeline));
        let counts: Vec<i32> = counts.iter().map(|timeline| timeline.count).collect();
        assert_eq!(counts, [499, 2]);
        assert!(draft.finish().is_none());
    }
}
