//! Where a session lies on the time axis: device clocks are wrong, dashboards must not be.

use std::time::Duration;

use super::model::{SessionReport, UnixMs};

const DAY: Duration = Duration::from_hours(24);
/// How far ahead of the server a device's clock may be and still be believed.
const MAX_AHEAD: Duration = Duration::from_mins(10);
/// Nothing is placed before 2020-01-01, however long sessions are kept: Media3 is younger,
/// and a clock of 1970 must not make a partition of its own.
const EARLIEST: UnixMs = UnixMs(1_577_836_800_000);

/// How long sessions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    days: u32,
}

impl Retention {
    /// Keeps sessions for so many days; 0 keeps them for ever.
    #[must_use]
    pub const fn days(days: u32) -> Self {
        Self { days }
    }

    /// Sessions before this moment may be pruned; `None` keeps everything.
    #[must_use]
    pub fn cutoff(self, now: UnixMs) -> Option<UnixMs> {
        (self.days > 0).then(|| now.minus(DAY * self.days))
    }

    /// The earliest moment at which a session is believed to have begun.
    #[must_use]
    pub fn earliest_believable(self, now: UnixMs) -> UnixMs {
        self.cutoff(now).map_or(EARLIEST, |cutoff| cutoff.max(EARLIEST))
    }
}

/// A session's one place on the time axis, fixed by the first report that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTime {
    /// Column `"timestamp"`.
    pub timestamp: UnixMs,
    /// Receipt minus the device's claim in milliseconds, where the claim was not believed.
    pub clock_skew_ms: Option<i64>,
}

impl SessionTime {
    /// The start that the device claims, or the time of receipt where the claim is more than
    /// ten minutes ahead of the server or lies before the retention period.
    #[must_use]
    pub fn of(report: &SessionReport, received: UnixMs, retention: Retention) -> Self {
        let claim = report.started_at.unwrap_or(report.reported_at);
        let believable = retention.earliest_believable(received)..=received.plus(MAX_AHEAD);
        if believable.contains(&claim) {
            return Self { timestamp: claim, clock_skew_ms: None };
        }
        Self { timestamp: received, clock_skew_ms: Some(received.0.saturating_sub(claim.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    fn place(timestamp: i64, start: Option<&str>, days: u32) -> SessionTime {
        let start = start.map_or("null".to_owned(), |s| format!("\"{s}\""));
        let body =
            format!(r#"{{"sessionId":"s","timestamp":{timestamp},"sessionStartDateIso":{start}}}"#);
        let report = report::parse(body.as_bytes(), &report::Paths::NONE).expect("valid");
        SessionTime::of(&report, NOW, Retention::days(days))
    }

    #[test]
    fn start_wins_over_timestamp() {
        let placed = place(NOW.0, Some("2026-11-18T11:06:40.000Z"), 90);
        assert_eq!(
            placed,
            SessionTime { timestamp: UnixMs(1_795_000_000_000), clock_skew_ms: None }
        );
        assert_eq!(place(NOW.0 - 5, Some("null"), 90).timestamp, UnixMs(NOW.0 - 5));
    }

    #[test]
    fn future_and_past_are_clamped_to_receipt() {
        let minute = 60_000;
        assert_eq!(place(NOW.0 + 10 * minute, None, 90).clock_skew_ms, None);
        let ahead = place(NOW.0 + 10 * minute + 1, None, 90);
        assert_eq!(ahead, SessionTime { timestamp: NOW, clock_skew_ms: Some(-10 * minute - 1) });
        let old = place(86_400_123, None, 90);
        assert_eq!(old, SessionTime { timestamp: NOW, clock_skew_ms: Some(NOW.0 - 86_400_123) });
        assert_eq!(place(i64::MAX, None, 90).timestamp, NOW);
    }

    #[test]
    fn without_retention_only_impossible_clocks_are_clamped() {
        assert_eq!(place(EARLIEST.0, None, 0).clock_skew_ms, None);
        assert!(place(EARLIEST.0 - 1, None, 0).clock_skew_ms.is_some());
        assert_eq!(Retention::days(0).cutoff(NOW), None);
    }
}
