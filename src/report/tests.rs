//! The rules at their boundaries, and on inputs that nobody would write.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{
    Code, Dropped, NUMBER_FIELDS, Paths, Rejection, SessionReport, UnixMs, peek_session_id,
    split_array, split_lines,
};

const FULL: &str = include_str!("../../tests/fixtures/wire/a-full.json");
const TIMELINE: &str = include_str!("../../tests/fixtures/wire/c-report-2.json");

fn parse(body: &[u8]) -> Result<SessionReport, Rejection> {
    super::parse(body, &Paths::NONE)
}

fn with(members: &str) -> Result<SessionReport, String> {
    let body = format!(r#"{{"sessionId":"s","timestamp":7,{members}}}"#);
    parse(body.as_bytes()).map_err(|rejection| rejection.to_string())
}

fn accepted(members: &str) -> SessionReport {
    with(members).expect(members)
}

fn refused(members: &str) -> String {
    with(members).expect_err(members)
}

#[test]
fn numbers_are_taken_up_to_their_bounds() {
    assert_eq!(accepted(r#""playTimeMs":2678400000"#).play_time_ms, Some(31 * 86_400_000));
    assert_eq!(accepted(r#""droppedFrames":9007199254740991"#).dropped_frames, Some((1 << 53) - 1));
    assert_eq!(accepted(r#""errorCount":2147483647.0"#).error_count, Some(i32::MAX));
    assert_eq!(accepted(r#""rebufferCount":-0"#).rebuffer_count, Some(0));
    assert_eq!(accepted(r#""meanVideoFormatBitrate":4600999"#).avg_bitrate_kbps, Some(4600));
    assert_eq!(refused(r#""playTimeMs":1.5"#), "$.playTimeMs: expected a whole number");
    assert_eq!(refused(r#""playTimeMs":"1""#), "$.playTimeMs: expected a number, found a string");
    assert_eq!(
        refused(r#""timestamp":0"#),
        "$.timestamp: out of range, expected Unix milliseconds"
    );
}

#[test]
fn what_is_unset_is_none() {
    for unset in ["-1", "-1.0", "null"] {
        let report = accepted(&format!(
            r#""meanVideoFormatBitrate":{unset},"totalSeekCount":{unset},"totalSeekTimeMs":{unset},"totalDroppedFrames":{unset}"#
        ));
        assert_eq!(report.avg_bitrate_kbps, None);
        assert_eq!(
            (report.seek_count, report.seek_time_ms, report.dropped_frames),
            (None, None, None)
        );
    }
}

/// Each optional number takes what cannot be, says so, and takes -1 for unknown.
#[test]
fn numbers_that_cannot_be_are_dropped_and_counted() {
    for field in NUMBER_FIELDS.into_iter().filter(|field| !field.contains('.')) {
        for impossible in
            ["-9223372036854775807", "-3", "1e300", "-1e300", "9223372036854775808", "1e16"]
        {
            if field == "sessionDurationMs" && impossible.starts_with('-') {
                assert_eq!(
                    refused(&format!("\"{field}\":{impossible}")),
                    "$.sessionDurationMs: out of range, expected at least 0"
                );
                continue;
            }
            let report = accepted(&format!("\"{field}\":{impossible}"));
            assert_eq!(report.dropped.values, [(field, 1)], "{field} {impossible}");
            let values =
                |report: &SessionReport| format!("{:?}", report.values().collect::<Vec<_>>());
            assert_eq!(values(&report), values(&accepted("\"x\":1")), "{field} {impossible}");
        }
        if field != "sessionDurationMs" {
            let report = accepted(&format!("\"{field}\":-1.0"));
            assert!(report.dropped.is_empty(), "{field}");
        }
        assert!(refused(&format!("\"{field}\":\"1\"")).starts_with(&format!("$.{field}: ")));
    }
    assert_eq!(accepted(r#""playTimeMs":2678400001"#).dropped.values, [("playTimeMs", 1)]);
    assert_eq!(accepted(r#""errorCount":2147483648"#).dropped.values, [("errorCount", 1)]);
}

#[test]
fn a_duration_of_nothing_is_no_duration() {
    for nothing in ["0", "-0", "0.0", "null"] {
        let report = accepted(&format!("\"sessionDurationMs\":{nothing}"));
        assert_eq!((report.session_duration_ms, report.dropped), (None, Dropped::default()));
    }
}

#[test]
fn the_field_of_its_own_generation_comes_first() {
    let report = accepted(
        r#""avgBitrateKbps":1,"meanVideoFormatBitrate":2000,"droppedFrames":3,"totalDroppedFrames":4,
           "device":{"model":"a","osVersion":"14"},"deviceModel":"b","osVersion":34"#,
    );
    assert_eq!((report.avg_bitrate_kbps, report.dropped_frames), (Some(1), Some(3)));
    assert_eq!(report.device_model.as_deref(), Some("a"));
    assert_eq!(report.os_version.as_deref(), Some("14"));
}

#[test]
fn ratios_fit_a_real() {
    let ratio = |text: &str| accepted(&format!("\"rebufferRatio\":{text}")).rebuffer_ratio;
    assert_eq!(ratio("1"), Some(1.0));
    for nothing in ["0", "-0.0", "1e-40", "1e-300"] {
        let ratio = ratio(nothing).expect("a ratio");
        assert!(ratio.to_bits() == 0, "{nothing} became {ratio}");
    }
    for (close, bound) in
        [("1.0000001", 1.0), ("1.001", 1.0), ("-0.001", 0.0), ("-1e-9", 0.0), ("-0.0", 0.0)]
    {
        let report = accepted(&format!("\"rebufferRatio\":{close}"));
        assert_eq!((report.rebuffer_ratio, report.dropped.is_empty()), (Some(bound), true));
    }
    for wrong in ["-0.0011", "1.0011", "1.5", "2", "-2"] {
        let report = accepted(&format!("\"rebufferRatio\":{wrong}"));
        assert_eq!(report.rebuffer_ratio, None, "{wrong}");
        assert_eq!(report.dropped.values, [("rebufferRatio", 1)], "{wrong}");
    }
}

#[test]
fn ids_are_counted_in_characters() {
    for (id, is_valid) in
        [("é".repeat(128), true), ("é".repeat(129), false), (" ".repeat(3), false)]
    {
        let body = format!(r#"{{"sessionId":"{id}","timestamp":1}}"#);
        assert_eq!(parse(body.as_bytes()).is_ok(), is_valid, "{id}");
        assert_eq!(peek_session_id(body.as_bytes()).is_some(), is_valid, "{id}");
    }
    let refused = br#"{"sessionId":"s","timestamp":-1}"#;
    assert_eq!(peek_session_id(refused).as_deref(), Some("s"));
    for nothing in [&b""[..], b"\xff", b"[]", b"{\"sessionId\":1}", b"{\"sessionId\":\"s\""] {
        assert_eq!(peek_session_id(nothing), None);
    }
}

#[test]
fn starts_are_moments_with_an_offset() {
    let start = |text: &str| {
        with(&format!("\"sessionStartDateIso\":{text}")).map(|report| report.started_at)
    };
    for same in
        ["2026-02-14T10:30:00.000Z", "2026-02-14T11:30:00+01:00", "2026-02-14T10:30:00.0009Z"]
    {
        assert_eq!(start(&format!("\"{same}\"")), Ok(Some(UnixMs(1_771_065_000_000))), "{same}");
    }
    for absent in ["null", "\"null\"", "\" null \"", "\"\""] {
        assert_eq!(start(absent), Ok(None));
    }
    for wrong in ["\" \"", "\"2026-02-14T10:30:00\"", "\"2026-02-14\"", "0", "\"now\""] {
        assert!(start(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn versions_of_the_first_major_are_understood() {
    let code = |version: &str| {
        let body = format!(r#"{{"sessionId":"s","timestamp":1,"schemaVersion":{version}}}"#);
        parse(body.as_bytes()).err().map(|rejection| rejection.code)
    };
    for known in ["null", "\"1\"", "\"1.0.0\"", "\"1.12-rc\""] {
        assert_eq!(code(known), None, "{known}");
    }
    for other in ["\"0\"", "\"2.0\"", "\"11\""] {
        assert_eq!(code(other), Some(Code::UnsupportedSchemaVersion), "{other}");
    }
    for wrong in ["\"\"", "\"x\"", "1", "[]"] {
        assert_eq!(code(wrong), Some(Code::InvalidSchema), "{wrong}");
    }
}

#[test]
fn timelines_name_the_entry() {
    let entry = |more: &str| {
        with(&format!(
            r#""timelineEvents":[{{"timestampMs":1,"elapsedMs":0,"playbackState":"ENDED"{more}}}]"#
        ))
    };
    let report = entry(r#","currentBitrate":-1,"networkType":null"#).expect("valid");
    assert_eq!(&*report.timeline.expect("an entry").json, r#"[[0,1,"ENDED"]]"#);
    // What nobody knows stays with the entry, and what was cleaned stays clean.
    let report =
        entry(r#","rebufferCount":2,"codec":"av1\u0000","x":{"y":[1.50]}"#).expect("valid");
    assert_eq!(
        &*report.timeline.expect("an entry").json,
        r#"[[0,1,"ENDED",null,null,null,null,2,null,{"codec":"av1\ufffd","x":{"y":[1.50]}}]]"#
    );
    assert_eq!(
        refused(r#""timelineEvents":[null]"#),
        "$.timelineEvents[0]: expected an object, found null"
    );
    assert_eq!(
        entry(r#","rebufferCount":"1""#).expect_err("refused"),
        "$.timelineEvents[0].rebufferCount: expected a number, found a string"
    );
    let many = vec!["0"; 2_001].join(",");
    assert_eq!(
        refused(&format!("\"timelineEvents\":[{many}]")),
        "$.timelineEvents[0]: expected an object, found a number"
    );
}

#[test]
fn an_entry_that_cannot_be_is_left_out_alone() {
    let good = r#"{"timestampMs":1,"elapsedMs":7,"playbackState":"PLAYING"}"#;
    let beside = |members: &str| {
        let entry = format!(
            r#"{{"timestampMs":1,"elapsedMs":0,"playbackState":"ENDED","bufferedDurationMs":-5,{members}}}"#
        );
        accepted(&format!(r#""timelineEvents":[{entry},{good}]"#))
    };
    for impossible in [
        r#""timestampMs":0"#,
        r#""timestampMs":null"#,
        r#""elapsedMs":-1"#,
        r#""elapsedMs":2678400001"#,
        r#""playbackState":"STALLED""#,
        r#""playbackState":null"#,
        r#""totalDroppedFrames":-2"#,
        r#""rebufferCount":-3"#,
        r#""rebufferTimeMs":-9223372036854775807"#,
    ] {
        let report = beside(impossible);
        assert_eq!(&*report.timeline.expect("an entry").json, r#"[[7,1,"PLAYING"]]"#);
        let dropped = Dropped { invalid_entries: 1, ..Dropped::default() };
        assert_eq!(report.dropped, dropped, "{impossible}");
    }
    // Unknown totals and impossible values cost themselves alone.
    let report = beside(r#""currentBitrate":-7,"rebufferCount":-1,"rebufferTimeMs":1e300"#);
    let json = report.timeline.expect("entries").json;
    assert_eq!(&*json, r#"[[0,1,"ENDED"],[7,1,"PLAYING"]]"#);
    let values = ["currentBitrate", "bufferedDurationMs", "rebufferTimeMs"];
    let dropped: Vec<&str> = report.dropped.values.iter().map(|(field, _)| *field).collect();
    assert_eq!(dropped, values.map(|field| format!("timelineEvents.{field}")));
}

#[test]
fn long_timelines_are_thinned_evenly() {
    let entry =
        |n: usize| format!(r#"{{"timestampMs":1,"elapsedMs":{n},"playbackState":"PLAYING"}}"#);
    for (sent, widest) in [(2_000, 1), (2_001, 2), (5_000, 3), (15_000, 8)] {
        let entries: Vec<String> = (0..sent).map(entry).collect();
        // The last of two counts, here too.
        let members = format!(r#""timelineEvents":[1],"timelineEvents":[{}]"#, entries.join(","));
        let report = accepted(&members);
        let timeline = report.timeline.expect("entries");
        assert_eq!((timeline.count, timeline.from_ms), (2_000, 0));
        assert_eq!(timeline.until_ms, i64::try_from(sent - 1).expect("small"));
        assert_eq!(report.dropped.thinned_entries, u32::try_from(sent - 2_000).expect("small"));
        let elapsed: Vec<i64> = timeline
            .texts()
            .map(|text| text[1..].split(',').next().expect("one").parse().expect("a number"))
            .collect();
        let gaps = elapsed.windows(2).map(|pair| pair[1] - pair[0]);
        let (least, most) = gaps.fold((i64::MAX, 0), |(a, b), gap| (a.min(gap), b.max(gap)));
        assert!(most == widest && most - least <= 1, "{sent}: {least} to {most}");
    }
}

/// Entries that cannot be take no place from those that can.
#[test]
fn only_possible_entries_are_thinned() {
    let entry = |n: usize| {
        let state = if n % 3 == 1 { "FLYING" } else { "PLAYING" };
        format!(r#"{{"timestampMs":1,"elapsedMs":{n},"playbackState":"{state}"}}"#)
    };
    for (sent, invalid, thinned) in [(3_000, 1_000, 0), (3_300, 1_100, 200)] {
        let entries: Vec<String> = (0..sent).map(entry).collect();
        let report = accepted(&format!(r#""timelineEvents":[{}]"#, entries.join(",")));
        let timeline = report.timeline.expect("entries");
        assert_eq!((timeline.count, timeline.from_ms), (2_000, 0));
        assert_eq!(timeline.until_ms, i64::try_from(sent - 1).expect("small"));
        let dropped = (report.dropped.invalid_entries, report.dropped.thinned_entries);
        assert_eq!(dropped, (invalid, thinned));
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let body = "{\"sessionId\":\"s\",\"timestamp\":1}";
    let marked = format!("\u{feff}{body}");
    assert_eq!(&*parse(marked.as_bytes()).expect("valid").payload, body);
    assert_eq!(split_lines(marked.as_bytes(), 10), [body.as_bytes()]);
    let array = format!("\u{feff}[{body}]");
    assert_eq!(split_array(array.as_bytes(), 10).expect("an array"), [body.as_bytes()]);
}

#[test]
fn the_payload_is_what_was_sent_but_for_what_cannot_be_stored() {
    let body = r#" {"sessionId":"s" , "timestamp":1,"x":"\u00e9"} "#;
    assert_eq!(&*parse(body.as_bytes()).expect("valid").payload, body);
    assert!(accepted(r#""x":"\u0000""#).payload.contains(r"\ufffd"));
}

/// Bytes are changed at random: nothing panics, messages stay short, and what is accepted is
/// accepted again, as the same report, from its own payload.
#[test]
fn any_bytes_are_refused_or_accepted_for_good() {
    const PIECES: [&str; 16] = [
        "\"", "\\", "{", "}", "[", "]", ",", ":", "-", "1e301", "null", "\\u0000", "\\ud800",
        "\u{e9}", "\0", " ",
    ];
    let mut rng = StdRng::seed_from_u64(7);
    let mut passed = 0;
    for round in 0..10_000 {
        let mut bytes = if round % 2 == 0 { FULL } else { TIMELINE }.as_bytes().to_vec();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            let piece = PIECES[rng.random_range(0..PIECES.len())];
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => drop(bytes.splice(at..at, piece.bytes())),
                2 => drop(bytes.drain(at..bytes.len().min(at + 5))),
                _ => bytes.truncate(at.max(1)),
            }
        }
        match parse(&bytes) {
            Ok(report) => {
                passed += 1;
                let again = parse(report.payload.as_bytes()).expect("accepted before");
                assert_eq!(again, report);
            }
            Err(rejection) => {
                assert!(rejection.field.starts_with('$'), "{rejection}");
                assert!(rejection.to_string().len() < 1_000, "{rejection}");
                assert!(!rejection.to_string().contains('\0'), "{rejection}");
            }
        }
    }
    assert!(passed > 100, "{passed}");
}

#[test]
fn batches_split_into_what_they_were_made_of() {
    let mut rng = StdRng::seed_from_u64(7);
    let items =
        [r#"{"a":"],[\""}"#, "[1,[2]]", "\"x,y\"", "12", "nul", r#"{"\\":{}}"#, "{\"a\":1]"];
    for _ in 0..1_000 {
        let picked: Vec<&str> =
            (0..rng.random_range(0..8)).map(|_| items[rng.random_range(0..items.len())]).collect();
        let expected: Vec<&[u8]> = picked.iter().map(|item| item.as_bytes()).collect();
        let array = format!("[{}]", picked.join(" , "));
        assert_eq!(split_array(array.as_bytes(), 1_000).expect("an array"), expected);
        let lines = picked.join(["\n", "\r\n", "\n\n"][rng.random_range(0..3)]);
        assert_eq!(split_lines(lines.as_bytes(), 1_000), expected);
    }
}
