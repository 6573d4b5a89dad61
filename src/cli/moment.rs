//! Points in time as people write them on a command line.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::clock::Clock;
use crate::report::UnixMs;

/// A point in time: RFC 3339, a date (its midnight in UTC), or a span back from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(UnixMs);

impl Moment {
    pub(super) const fn at(at: UnixMs) -> Self {
        Self(at)
    }

    pub(super) const fn unix_ms(self) -> UnixMs {
        self.0
    }

    fn read(text: &str, now: UnixMs) -> Option<UnixMs> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Some(UnixMs(at.as_millisecond()));
        }
        // A time without an offset would be taken for its date.
        let is_date = !text.contains(':');
        if let Some(date) = text.parse::<Date>().ok().filter(|_| is_date) {
            let midnight = date.to_zoned(TimeZone::UTC).ok()?;
            return Some(UnixMs(midnight.timestamp().as_millisecond()));
        }
        let span: Span = text.parse().ok()?;
        // A day is 24 hours: there are no time zones here.
        let span = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        Some(now.minus(span.try_into().ok()?))
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::read(text, Clock::system().now()).map(Self).ok_or(
            "write a time as 2026-02-14T10:30:00Z, a date as 2026-02-14, or a span back from now \
             as 24h or 30d",
        )
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Timestamp::from_millisecond(self.0.0).unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_three_ways() {
        let now = UnixMs(1_795_000_000_000);
        for (text, expected) in [
            ("2026-11-18T11:06:40Z", Some(now.0)),
            ("2026-11-18T12:06:40+01:00", Some(now.0)),
            ("2026-11-18", Some(1_794_960_000_000)),
            ("24h", Some(now.0 - 86_400_000)),
            ("30d", Some(now.0 - 30 * 86_400_000)),
            ("2026-11-18T11:06:40", None),
            ("-1h", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(Moment::read(text, now), expected.map(UnixMs), "{text}");
        }
    }
}
