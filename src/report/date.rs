//! Dates as devices write them.

use jiff::Timestamp;

use super::model::UnixMs;

const DAY_MS: i64 = 24 * 3_600_000;
/// The Gregorian calendar repeats itself after 400 years.
const CYCLE_YEARS: i64 = 400;
const CYCLE_MS: i64 = 146_097 * DAY_MS;

/// The digit zero of every script, from which the other digits follow: Unicode's general
/// category Nd.
const ZEROS: [char; 65] = [
    '\u{660}',
    '\u{6f0}',
    '\u{7c0}',
    '\u{966}',
    '\u{9e6}',
    '\u{a66}',
    '\u{ae6}',
    '\u{b66}',
    '\u{be6}',
    '\u{c66}',
    '\u{ce6}',
    '\u{d66}',
    '\u{de6}',
    '\u{e50}',
    '\u{ed0}',
    '\u{f20}',
    '\u{1040}',
    '\u{1090}',
    '\u{17e0}',
    '\u{1810}',
    '\u{1946}',
    '\u{19d0}',
    '\u{1a80}',
    '\u{1a90}',
    '\u{1b50}',
    '\u{1bb0}',
    '\u{1c40}',
    '\u{1c50}',
    '\u{a620}',
    '\u{a8d0}',
    '\u{a900}',
    '\u{a9d0}',
    '\u{a9f0}',
    '\u{aa50}',
    '\u{abf0}',
    '\u{ff10}',
    '\u{104a0}',
    '\u{10d30}',
    '\u{11066}',
    '\u{110f0}',
    '\u{11136}',
    '\u{111d0}',
    '\u{112f0}',
    '\u{11450}',
    '\u{114d0}',
    '\u{11650}',
    '\u{116c0}',
    '\u{11730}',
    '\u{118e0}',
    '\u{11950}',
    '\u{11c50}',
    '\u{11d50}',
    '\u{11da0}',
    '\u{16a60}',
    '\u{16ac0}',
    '\u{16b50}',
    '\u{1d7ce}',
    '\u{1d7d8}',
    '\u{1d7e2}',
    '\u{1d7ec}',
    '\u{1d7f6}',
    '\u{1e140}',
    '\u{1e2f0}',
    '\u{1e950}',
    '\u{1fbf0}',
];

/// The moment of an ISO 8601 date with time and offset. Takes digits of any script, since
/// formatters write those of the device's language; `24:00`, the end of a day; and any year, since
/// clocks may be thousands of years ahead.
pub(super) fn parse(text: &str) -> Option<UnixMs> {
    let text: String = text.chars().map(with_ascii_digit).collect();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(UnixMs(time.as_millisecond()));
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    let (year, rest) = unsigned.split_at(unsigned.find('-')?);
    if !(4..=9).contains(&year.len()) {
        return None;
    }
    let year: i64 = text[..text.len() - rest.len()].parse().ok()?;
    let cycles = (year - 2000).div_euclid(CYCLE_YEARS);
    let (rest, days) = match (rest.get(..7), rest.get(7..9), rest.get(9..)) {
        (Some(date), Some("24"), Some(minutes)) => (format!("{date}00{minutes}"), 1),
        _ => (rest.to_owned(), 0),
    };
    // The same day of a year from 2000 to 2399.
    let alike = format!("{}{rest}", year - cycles * CYCLE_YEARS).parse::<Timestamp>().ok()?;
    let moved = cycles.saturating_mul(CYCLE_MS).saturating_add(days * DAY_MS);
    Some(UnixMs(alike.as_millisecond().saturating_add(moved)))
}

fn with_ascii_digit(character: char) -> char {
    if character.is_ascii() {
        return character;
    }
    let digit = |zero: char| u32::from(character).checked_sub(zero.into()).filter(|n| *n < 10);
    let digit = ZEROS.into_iter().find_map(digit);
    digit.and_then(|digit| char::from_digit(digit, 10)).unwrap_or(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-02-14T10:30:00Z
    const MOMENT: i64 = 1_771_065_000_000;

    #[test]
    fn digits_of_any_script_are_read() {
        for text in [
            "2026-02-14T10:30:00.000Z",
            "2026-02-14T13:30:00+0300",
            "\u{662}\u{660}\u{662}\u{666}-\u{660}\u{662}-\u{661}\u{664}T\u{661}\u{660}:\u{663}\u{660}:\u{660}\u{660}.\u{660}\u{660}\u{660}Z",
            "\u{6f2}\u{6f0}\u{6f2}\u{6f6}-\u{6f0}\u{6f2}-\u{6f1}\u{6f4}T\u{6f1}\u{6f0}:\u{6f3}\u{6f0}:\u{6f0}\u{6f0}Z",
            "\u{968}026-02-14T10:30:\u{966}0Z",
        ] {
            assert_eq!(parse(text), Some(UnixMs(MOMENT)), "{text}");
        }
    }

    #[test]
    fn a_day_may_end_at_24() {
        let midnight = parse("2026-03-01T00:00:00Z");
        assert_eq!(parse("2026-02-28T24:00:00.000Z"), midnight);
        assert_eq!(parse("2026-02-28T24:00:00Z"), midnight);
        assert_eq!(parse("2026-02-28T25:00:00Z"), None);
    }

    #[test]
    fn years_may_have_five_digits() {
        let day = |text| parse(text).map(|time| time.0.div_euclid(DAY_MS));
        // 11983 is 25 cycles after 1983.
        let later = day("1983-02-14T10:30:00Z").map(|days| days + 25 * 146_097);
        assert_eq!(day("11983-02-14T10:30:00.000Z"), later);
        assert_eq!(day("+11983-02-14T10:30:00Z"), later);
        assert_eq!(parse("999999999-01-01T00:00:00Z"), Some(UnixMs(i64::MAX)));
        for no_date in ["11983-02-30T10:30:00Z", "26-02-14T10:30:00Z", "11983", "-", "", "1983-"] {
            assert_eq!(parse(no_date), None, "{no_date}");
        }
    }
}
