//! Durations and moments as people write them on a command line.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::cli::moment;
use crate::clock::Clock;

/// `30s`, `5m`, `2h`, `30d`, `1h 30m`: more than nothing, at most ten years.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);
    let usage = "write a number and a unit: 30s, 5m, 2h or 30d";
    let span: Span = text.parse().map_err(|_| usage.to_owned())?;
    // A day is 24 hours: there are no time zones here.
    let duration =
        span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| usage.to_owned())?;
    let duration = Duration::try_from(duration).map_err(|_| usage.to_owned())?;
    if duration < Duration::from_secs(1) || duration > LONGEST {
        return Err("it must be at least one second and at most ten years".to_owned());
    }
    Ok(duration)
}

/// A point in time, as all commands read it.
pub(super) fn parse_moment(text: &str) -> Result<Moment, String> {
    let moment: moment::Moment = text.parse()?;
    u64::try_from(moment.unix_ms().0)
        .ok()
        .filter(|ms| *ms >= Moment::EARLIEST_MS)
        .map(|unix_ms| Moment { unix_ms })
        .ok_or_else(|| "it must lie after the year 2000".to_owned())
}

/// A point in time, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) unix_ms: u64,
}

impl Moment {
    /// 2000-01-01, so that ten years of history still lie after the epoch.
    const EARLIEST_MS: u64 = 946_684_800_000;

    /// This moment.
    pub(super) fn now() -> Self {
        let unix_ms = u64::try_from(Clock::system().now().0).unwrap_or_default();
        Self { unix_ms: unix_ms.max(Self::EARLIEST_MS) }
    }

    /// RFC 3339 with milliseconds, to be passed to `--until` again.
    pub(super) fn rfc3339(self) -> String {
        let ms = i64::try_from(self.unix_ms).unwrap_or(i64::MAX);
        format!("{:.3}", Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("30s", 30),
            ("5m", 300),
            ("2h", 7_200),
            ("30d", 2_592_000),
            ("1h 30m", 5_400),
            ("2w", 1_209_600),
            ("1500ms", 1),
        ] {
            let duration = parse_duration(text).map(|duration| duration.as_secs());
            assert_eq!(duration, Ok(seconds), "{text}");
        }
        for text in ["", "60", "s", "-5s", "0s", "10ms", "1y", "11000000d", "soon"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_read_and_written_back() {
        let moment = parse_moment("2026-02-14T11:30:00.250+01:00").expect("a moment");
        assert_eq!(moment.rfc3339(), "2026-02-14T10:30:00.250Z");
        assert_eq!(parse_moment(&moment.rfc3339()), Ok(moment));
        for text in ["2026-02-14T10:30:00", "yesterday", "1970-01-01T00:00:00Z", "1970-01-01"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }
}
