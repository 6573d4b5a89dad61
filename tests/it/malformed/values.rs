//! Odd texts and numbers that must be stored.

use super::accepted::Corpus;

pub fn texts(corpus: &mut Corpus) {
    let nul = [(r"\u0000", "\u{fffd}")];
    corpus.cleaned(r#""contentId":"a\u0000b""#, &nul, &[("content_id", Some("a\u{fffd}b"))]);
    corpus.cleaned(r#""custom":{"k\u0000":["\u0000"]}"#, &nul, &[]);
    corpus.cleaned(
        r#""deviceModel":"\ud83d","x":"\udc00\ud83d\ude00""#,
        &[(r"\ud83d\ude00", "😀"), (r"\ud83d", "\u{fffd}"), (r"\udc00", "\u{fffd}")],
        &[("device_model", Some("\u{fffd}")), ("payload->>'x'", Some("\u{fffd}😀"))],
    );
    corpus.cleaned(
        r#""timelineEvents":[],"lastErrorCode":"\uDFFF\uD800""#,
        &[(r"\uDFFF\uD800", "\u{fffd}\u{fffd}")],
        &[("last_error_code", Some("\u{fffd}\u{fffd}"))],
    );
    corpus.add(r#""contentId":"\\u0000""#, &[("content_id", Some(r"\u0000"))]);
    corpus.add(
        "\"contentId\":\"👩‍👩‍👧‍👦 שלום مرحبا \u{202e}abc\u{202c} e\u{301}\"",
        &[("content_id", Some("👩‍👩‍👧‍👦 שלום مرحبا \u{202e}abc\u{202c} e\u{301}"))],
    );
    corpus.add(
        "\"contentId\":\"\u{7f}\u{85}\u{2028}\u{feff}\u{10ffff}\"",
        &[("length(content_id)", Some("5"))],
    );
    corpus.add(r#""contentId":"\"\\\/\b\f\n\r\t""#, &[("length(content_id)", Some("8"))]);
    corpus.add(
        r#""contentId":"'; DROP TABLE sessions; --""#,
        &[("content_id", Some("'; DROP TABLE sessions; --"))],
    );
    corpus.add(
        r#""contentId":"","deviceModel":" ""#,
        &[("content_id", Some("")), ("device_model", Some(" "))],
    );
    for (character, bytes) in [("x", "512"), ("é", "1024"), ("😀", "2048")] {
        let long = format!("\"contentId\":\"{}\"", character.repeat(100_000 / character.len()));
        corpus.add(
            &long,
            &[
                ("length(content_id)", Some("512")),
                ("octet_length(content_id)", Some(bytes)),
                ("octet_length(payload->>'contentId')", Some("100000")),
            ],
        );
    }
    let long = "y".repeat(100_000);
    corpus.add(
        &format!(
            r#""device":{{"model":"{long}","os":"{long}","osVersion":"{long}"}},"app":{{"name":"{long}","version":"{long}"}},"lastErrorCode":"{long}","connectionType":"{long}","sdkVersion":"{long}""#
        ),
        &[
            ("length(device_model || os_name || os_version || app_name)", Some("2048")),
            ("length(app_version || last_error_code || connection_type || sdk_version)", Some("2048")),
        ],
    );
    corpus.add(
        r#""streamType":"DVR","lastErrorCategory":"COSMIC""#,
        &[
            ("stream_type", Some("UNKNOWN")),
            ("last_error_category", Some("UNKNOWN")),
            ("payload->>'streamType'", Some("DVR")),
        ],
    );
    corpus.add(
        r#""streamType":"vod","lastErrorCategory":"""#,
        &[("stream_type", Some("UNKNOWN")), ("last_error_category", Some("UNKNOWN"))],
    );
    for id in [
        &*format!("\"{}\"", "i".repeat(128)),
        &*format!("\"{}\"", "😀".repeat(128)),
        r#""a/b?c=d&e#f%20g h""#,
        r#""\u00e9\ud83d\ude00""#,
        r#"" padded ""#,
        r#""'\"\\""#,
    ] {
        corpus.id(id);
    }
}

pub fn numbers(corpus: &mut Corpus) {
    corpus.add(
        r#""playTimeMs":1850.0,"rebufferCount":2e0,"startupTimeMs":1.85e3,"errorCount":-0.0,"sessionDurationMs":1E+3"#,
        &[
            ("play_time_ms", Some("1850")),
            ("rebuffer_count", Some("2")),
            ("player_startup_ms", Some("1850")),
            ("error_count", Some("0")),
            ("session_duration_ms", Some("1000")),
        ],
    );
    corpus.add(
        r#""meanVideoFormatBitrate":-1,"totalDroppedFrames":-1,"totalSeekCount":-1,"totalSeekTimeMs":-1"#,
        &[("avg_bitrate_kbps", None), ("dropped_frames", None), ("seek_count", None), ("seek_time_ms", None)],
    );
    corpus.add(
        r#""meanVideoFormatBitrate":-1.0,"avgBitrateKbps":7"#,
        &[("avg_bitrate_kbps", Some("7"))],
    );
    corpus.add(r#""meanVideoFormatBitrate":999"#, &[("avg_bitrate_kbps", Some("0"))]);
    corpus.add(
        r#""meanVideoFormatBitrate":2147483647000"#,
        &[("avg_bitrate_kbps", Some("2147483647"))],
    );
    corpus.add(
        r#""playTimeMs":2678400000,"droppedFrames":9007199254740991,"rebufferCount":2147483647"#,
        &[
            ("play_time_ms", Some("2678400000")),
            ("dropped_frames", Some("9007199254740991")),
            ("rebuffer_count", Some("2147483647")),
        ],
    );
    for (ratio, stored) in [
        ("0", "0"),
        ("-0.0", "0"),
        ("1", "1"),
        ("1.0", "1"),
        ("1e-40", "0"),
        ("1e-300", "0"),
        ("0.30000000000000004", "0.3"),
        ("0.99999999999999999999", "1"),
        ("1.0000001", "1"),
        ("1.001", "1"),
        ("-0.0009", "0"),
    ] {
        corpus.add(&format!("\"rebufferRatio\":{ratio}"), &[("rebuffer_ratio", Some(stored))]);
    }
    impossible(corpus);
    corpus.add(r#""x":[1e300,-1e300,1e-300,1E+300,0e0],"y":{"z":1e300}"#, &[]);
    corpus.add(&format!("\"x\":[{}]", vec!["1e300"; 3_000].join(",")), &[]);
    corpus.add(&format!("\"x\":-{},\"y\":0.{}", "9".repeat(399), "1".repeat(398)), &[]);
    corpus.add(r#""x":[18446744073709551616,9223372036854775808,0.1,-0]"#, &[]);
    corpus.add(r#""lastErrorCode":"ERROR_CODE_IO""#, &[("last_error_code", Some("ERROR_CODE_IO"))]);
    corpus.add(r#""lastErrorCode":2004"#, &[("last_error_code", Some("2004"))]);
    corpus.add(r#""lastErrorCode":-1.5"#, &[("last_error_code", Some("-1.5"))]);
    corpus.add(r#""osVersion":34,"device":{"osVersion":null}"#, &[("os_version", Some("34"))]);
    corpus.add(r#""osVersion":13.5"#, &[("os_version", Some("13.5"))]);
    corpus.add(r#""osVersion":1e300"#, &[("length(os_version)", Some("301"))]);
}

/// Values that cannot be: their columns are NULL, and the payload keeps them.
fn impossible(corpus: &mut Corpus) {
    for (field, column) in [
        ("startupTimeMs", "player_startup_ms"),
        ("playTimeMs", "play_time_ms"),
        ("rebufferTimeMs", "rebuffer_time_ms"),
        ("totalSeekTimeMs", "seek_time_ms"),
        ("droppedFrames", "dropped_frames"),
        ("totalDroppedFrames", "dropped_frames"),
        ("rebufferCount", "rebuffer_count"),
        ("totalSeekCount", "seek_count"),
        ("errorCount", "error_count"),
        ("qualitySwitchCount", "quality_switch_count"),
        ("avgBitrateKbps", "avg_bitrate_kbps"),
        ("meanVideoFormatBitrate", "avg_bitrate_kbps"),
        ("rebufferRatio", "rebuffer_ratio"),
    ] {
        for value in
            ["-1", "-3", "-9223372036854775807", "9223372036854775808", "9007199254740992", "1e300"]
        {
            corpus.add(&format!("\"{field}\":{value}"), &[(column, None)]);
        }
    }
    for ratio in ["-0.1", "1.0011", "1.5", "2"] {
        corpus.add(&format!("\"rebufferRatio\":{ratio}"), &[("rebuffer_ratio", None)]);
    }
    for nothing in ["0", "0.0", "-0", "2678400001"] {
        let duration = format!("\"sessionDurationMs\":{nothing}");
        corpus.add(&duration, &[("session_duration_ms", None)]);
    }
}
