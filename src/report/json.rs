//! Text-level rules that keep a report storable, and the splitting of batches.
//!
//! Postgres refuses `\u0000` and lone surrogates in jsonb, and expands `1e131071` to a
//! number of 131,072 digits (a 200 KB body of such numbers reads back as 1 GB). serde_json
//! does not see any of this in fields that it skips, so one pass over the bytes does.

use std::borrow::Cow;

use super::rejection::Rejection;

/// Containers that may nest below the report itself.
const MAX_DEPTH: usize = 32;
/// Decimal exponents beyond this are refused: they only blow up storage.
const MAX_EXPONENT: u32 = 300;
/// What the exponents of one report may add up to: Postgres writes numbers out in full, so
/// they are the digits by which a report grows when it is read back.
const MAX_EXPONENT_SUM: u32 = 1_000_000;
/// Longest number literal in characters; an f64 in full decimal notation has at most 309
/// digits before the point.
const MAX_NUMBER_CHARS: usize = 400;
/// What a character that Postgres cannot hold becomes; as long as the escape it replaces.
const REPLACEMENT: &[u8; 6] = b"\\ufffd";

/// A report's text after [`clean`].
#[derive(Debug)]
pub(super) struct Cleaned<'a> {
    text: Cow<'a, str>,
}

impl Cleaned<'_> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// True when characters were replaced, so that text may differ from what was sent.
    pub(super) const fn was_changed(&self) -> bool {
        matches!(self.text, Cow::Owned(_))
    }
}

/// Checks encoding, depth and numbers, and replaces `\u0000` and lone surrogates by U+FFFD.
/// Grammar is left to the parser that follows.
pub(super) fn clean(body: &[u8]) -> Result<Cleaned<'_>, Rejection> {
    let body = without_bom(body);
    let text = std::str::from_utf8(body).map_err(|error| {
        Rejection::invalid("$", format!("not valid UTF-8 at byte {}", error.valid_up_to()))
    })?;
    let mut unstorable = Vec::new();
    let mut depth = 0_usize;
    let mut exponents = 0;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => at = end_of_string(body, at + 1, &mut unstorable),
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH + 1 {
                    let detail = format!("nested deeper than {MAX_DEPTH} levels");
                    return Err(Rejection::invalid(path_at(text, at), detail));
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(body, at);
                match exponent(&body[at..end]) {
                    Ok(exponent) => exponents += exponent,
                    Err(detail) => return Err(Rejection::invalid(path_at(text, at), detail)),
                }
                if exponents > MAX_EXPONENT_SUM {
                    let detail = "numbers with large exponents, too many of them";
                    return Err(Rejection::invalid(path_at(text, at), detail));
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if unstorable.is_empty() {
        return Ok(Cleaned { text: Cow::Borrowed(text) });
    }
    let mut bytes = body.to_vec();
    for at in unstorable {
        bytes[at..at + REPLACEMENT.len()].copy_from_slice(REPLACEMENT);
    }
    let text = String::from_utf8(bytes).expect("ASCII escapes replaced by ASCII escapes");
    Ok(Cleaned { text: Cow::Owned(text) })
}

/// Without the byte order mark that some editors and clients put before UTF-8.
fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

/// Index after the closing quote (or the end of the text); notes escapes to replace.
fn end_of_string(body: &[u8], mut at: usize, unstorable: &mut Vec<usize>) -> usize {
    while let Some(&byte) = body.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => match unicode_escape(body, at) {
                Some(0xD800..=0xDBFF)
                    if matches!(unicode_escape(body, at + 6), Some(0xDC00..=0xDFFF)) =>
                {
                    at += 12;
                }
                Some(0 | 0xD800..=0xDFFF) => {
                    unstorable.push(at);
                    at += 6;
                }
                Some(_) => at += 6,
                None => at += 2,
            },
            _ => at += 1,
        }
    }
    body.len()
}

/// The code unit of a `\uXXXX` escape that begins at `at`.
fn unicode_escape(body: &[u8], at: usize) -> Option<u16> {
    let escape = body.get(at..at + 6)?;
    if !escape.starts_with(b"\\u") || !escape[2..].iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(&escape[2..]).ok()?, 16).ok()
}

fn end_of_number(body: &[u8], start: usize) -> usize {
    let is_part = |b: &u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    body[start..].iter().position(|b| !is_part(b)).map_or(body.len(), |length| start + length)
}

/// The decimal exponent of a number, without its sign; 0 where it has none.
fn exponent(literal: &[u8]) -> Result<u32, String> {
    if literal.len() > MAX_NUMBER_CHARS {
        return Err(format!("a number of more than {MAX_NUMBER_CHARS} characters"));
    }
    let Some(e) = literal.iter().position(|b| matches!(b, b'e' | b'E')) else {
        return Ok(0);
    };
    let digits = literal[e + 1..].iter().filter(|b| b.is_ascii_digit());
    let exponent =
        digits.fold(0_u32, |value, b| value.saturating_mul(10).saturating_add(u32::from(b - b'0')));
    if exponent > MAX_EXPONENT {
        return Err(format!("a number with an exponent beyond ±{MAX_EXPONENT}"));
    }
    Ok(exponent)
}

/// JSON path of the value at byte `target`, for messages only: it walks the text up to there.
/// Keys longer than 64 characters are shortened.
pub(super) fn path_at(text: &str, target: usize) -> String {
    enum Step {
        Key(String),
        Index(usize),
    }
    let bytes = text.as_bytes();
    let mut steps: Vec<Step> = Vec::new();
    let mut last_string = (0, 0);
    let mut at = 0;
    while at < target.min(bytes.len()) {
        match bytes[at] {
            b'"' => {
                let end = end_of_string(bytes, at + 1, &mut Vec::new());
                last_string = (at + 1, end.saturating_sub(1));
                at = end;
                continue;
            }
            b'{' => steps.push(Step::Key(String::new())),
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => drop(steps.pop()),
            b':' => {
                if let Some(Step::Key(key)) = steps.last_mut() {
                    let name = text.get(last_string.0..last_string.1).unwrap_or_default();
                    *key = name.chars().filter(|c| !c.is_control()).take(64).collect();
                }
            }
            b',' => {
                if let Some(Step::Index(index)) = steps.last_mut() {
                    *index += 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    // The deepest few steps of a bomb say nothing: the first eight name the place.
    let mut path = String::from("$");
    for step in steps.iter().take(8) {
        match step {
            Step::Key(key) if key.is_empty() => {}
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

/// The reports of a batch, each as the bytes that were sent for it.
pub type Split<'a> = Vec<&'a [u8]>;

/// Splits a JSON array into its elements without parsing them, so that one broken element
/// does not take its neighbours along. Stops after one element more than `most`, which is
/// enough to refuse the batch: a small body can hold millions of commas.
///
/// # Errors
/// When the text is not one closed array.
pub fn split_array(body: &[u8], most: usize) -> Result<Split<'_>, Rejection> {
    let body = without_bom(body).trim_ascii();
    let inner = body
        .strip_prefix(b"[")
        .ok_or_else(|| Rejection::invalid("$", "expected a JSON array of reports"))?;
    let mut items = Vec::new();
    let (mut depth, mut start, mut at) = (0_usize, 0, 0);
    while let Some(&byte) = inner.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(inner, at + 1, &mut Vec::new());
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b',' if depth == 0 => {
                items.push(inner[start..at].trim_ascii());
                start = at + 1;
                if items.len() > most {
                    return Ok(items);
                }
            }
            b']' => {
                let last = inner[start..at].trim_ascii();
                if !(last.is_empty() && items.is_empty()) {
                    items.push(last);
                }
                if at + 1 != inner.len() {
                    return Err(Rejection::invalid("$", "text after the end of the array"));
                }
                return Ok(items);
            }
            _ => {}
        }
        at += 1;
    }
    Err(Rejection::invalid("$", "the array of reports is not closed"))
}

/// Splits NDJSON into its lines, one more than `most` at most; blank lines are left out.
#[must_use]
pub fn split_lines(body: &[u8], most: usize) -> Split<'_> {
    let lines = without_bom(body).split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).take(most + 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        clean(text.as_bytes()).expect("clean").text().to_owned()
    }

    #[test]
    fn unstorable_escapes_become_replacement_characters() {
        assert_eq!(cleaned(r#"{"a":"x\u0000y"}"#), r#"{"a":"x\ufffdy"}"#);
        assert_eq!(cleaned(r#"{"a":"\ud800"}"#), r#"{"a":"\ufffd"}"#);
        assert_eq!(cleaned(r#"{"a":"\udc00\ud83d\ude00"}"#), r#"{"a":"\ufffd\ud83d\ude00"}"#);
        assert_eq!(cleaned(r#"{"a":"\ud800\ud800\udc00"}"#), r#"{"a":"\ufffd\ud800\udc00"}"#);
    }

    #[test]
    fn an_escaped_backslash_is_not_an_escape() {
        let text = r#"{"a":"\\u0000"}"#;
        assert_eq!(cleaned(text), text);
    }

    #[test]
    fn numbers_that_blow_up_are_refused_with_their_path() {
        let refused = clean(br#"{"custom":{"n":[1,{"deep":1e301}]}}"#).expect_err("refused");
        assert_eq!(refused.field, "$.custom.n[1].deep");
        assert!(clean(br#"{"n":-1E-301}"#).is_err());
        assert!(clean(br#"{"n":1e300,"s":"1e999"}"#).is_ok());
        assert!(clean(format!(r#"{{"n":{}}}"#, "9".repeat(401)).as_bytes()).is_err());
    }

    #[test]
    fn many_numbers_that_blow_up_are_refused_together() {
        let report = |count| format!(r#"{{"n":[{}]}}"#, vec!["1e300"; count].join(","));
        assert!(clean(report(3_333).as_bytes()).is_ok());
        assert_eq!(clean(report(3_334).as_bytes()).expect_err("refused").field, "$.n[3333]");
    }

    #[test]
    fn depth_is_counted_below_the_report() {
        let nested = |levels: usize| {
            format!(r#"{{"a":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels)).into_bytes()
        };
        assert!(clean(&nested(32)).is_ok());
        assert!(clean(&nested(33)).is_err());
        assert!(clean(&vec![b'['; 1_000_000]).is_err());
    }

    #[test]
    fn arrays_split_without_parsing() {
        let split = split_array(br#" [ {"a":"],["} , 2,{"b":[1,2]},broken ] "#, 10).expect("split");
        assert_eq!(split, [&br#"{"a":"],["}"#[..], b"2", br#"{"b":[1,2]}"#, b"broken"]);
        assert_eq!(split_array(b"[]", 10).expect("empty"), Vec::<&[u8]>::new());
        assert_eq!(split_array(b"[1,]", 10).expect("trailing comma").len(), 2);
        for open in [&b"[{}"[..], b"{}", b"", b"[{}] x", b"[\"a]"] {
            assert!(split_array(open, 10).is_err());
        }
    }

    #[test]
    fn lines_split_and_blank_ones_go() {
        assert_eq!(split_lines(b"{}\r\n\n {} \n", 10), [b"{}", b"{}"]);
    }
}
