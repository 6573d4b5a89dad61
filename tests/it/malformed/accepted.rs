//! What is odd and must be stored all the same.

use super::NOW_MS;

pub struct Accepted {
    pub name: String,
    pub id: String,
    pub body: String,
    /// The payload, where it is not the body as it is.
    pub stored: Option<String>,
    /// SQL over the row, and its value as text.
    pub columns: Vec<(&'static str, Option<&'static str>)>,
    pub timeline: i64,
}

type Columns<'a> = &'a [(&'static str, Option<&'static str>)];

struct Corpus(Vec<Accepted>);

impl Corpus {
    /// A report with further members.
    fn add(&mut self, members: &str, columns: Columns<'_>) -> &mut Accepted {
        let id = format!("odd-{}", self.0.len());
        let members = if members.is_empty() {
            String::new()
        } else {
            format!(",{members}")
        };
        let body = format!(r#"{{"sessionId":"{id}","timestamp":{NOW_MS}{members}}}"#);
        self.whole(id, body, columns)
    }

    /// A report of a moment.
    fn at(&mut self, timestamp: &str, columns: Columns<'_>) -> &mut Accepted {
        let id = format!("odd-{}", self.0.len());
        let body = format!(r#"{{"timestamp":{timestamp},"sessionId":"{id}"}}"#);
        self.whole(id, body, columns)
    }

    /// A session by its id, as JSON text.
    fn id(&mut self, json: &str) -> &mut Accepted {
        let id = serde_json::from_str(json).expect("a string");
        let body = format!(r#"{{"sessionId":{json},"timestamp":{NOW_MS}}}"#);
        self.whole(id, body, &[])
    }

    fn whole(&mut self, id: String, body: String, columns: Columns<'_>) -> &mut Accepted {
        self.0.push(Accepted {
            name: body.chars().take(120).collect(),
            id,
            body,
            stored: None,
            columns: columns.to_vec(),
            timeline: 0,
        });
        self.0.last_mut().expect("just added")
    }

    /// Members with something that is replaced.
    fn cleaned(&mut self, members: &str, with: &[(&str, &str)], columns: Columns<'_>) {
        let case = self.add(members, columns);
        let replace = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        case.stored = Some(with.iter().fold(case.body.clone(), replace));
    }
}

pub fn corpus() -> Vec<Accepted> {
    let mut corpus = Corpus(Vec::new());
    texts(&mut corpus);
    numbers(&mut corpus);
    clocks(&mut corpus);
    shapes(&mut corpus);
    timelines(&mut corpus);
    corpus.0
}

fn texts(corpus: &mut Corpus) {
    let nul = [(r"\u0000", "\u{fffd}")];
    corpus.cleaned(
        r#""contentId":"a\u0000b""#,
        &nul,
        &[("content_id", Some("a\u{fffd}b"))],
    );
    corpus.cleaned(r#""custom":{"k\u0000":["\u0000"]}"#, &nul, &[]);
    corpus.cleaned(
        r#""deviceModel":"\ud83d","x":"\udc00\ud83d\ude00""#,
        &[
            (r"\ud83d\ude00", "😀"),
            (r"\ud83d", "\u{fffd}"),
            (r"\udc00", "\u{fffd}"),
        ],
        &[
            ("device_model", Some("\u{fffd}")),
            ("payload->>'x'", Some("\u{fffd}😀")),
        ],
    );
    corpus.cleaned(
        r#""timelineEvents":[],"lastErrorCode":"\uDFFF\uD800""#,
        &[(r"\uDFFF\uD800", "\u{fffd}\u{fffd}")],
        &[("last_error_code", Some("\u{fffd}\u{fffd}"))],
    );
    corpus.add(
        r#""contentId":"\\u0000""#,
        &[("content_id", Some(r"\u0000"))],
    );
    corpus.add(
        "\"contentId\":\"👩‍👩‍👧‍👦 שלום مرحبا \u{202e}abc\u{202c} e\u{301}\"",
        &[(
            "content_id",
            Some("👩‍👩‍👧‍👦 שלום مرحبا \u{202e}abc\u{202c} e\u{301}"),
        )],
    );
    corpus.add(
        "\"contentId\":\"\u{7f}\u{85}\u{2028}\u{feff}\u{10ffff}\"",
        &[("length(content_id)", Some("5"))],
    );
    corpus.add(
        r#""contentId":"\"\\\/\b\f\n\r\t""#,
        &[("length(content_id)", Some("8"))],
    );
    corpus.add(
        r#""contentId":"'; DROP TABLE sessions; --""#,
        &[("content_id", Some("'; DROP TABLE sessions; --"))],
    );
    corpus.add(
        r#""contentId":"","deviceModel":" ""#,
        &[("content_id", Some("")), ("device_model", Some(" "))],
    );
    for (character, bytes) in [("x", "512"), ("é", "1024"), ("😀", "2048")] {
        let long = format!(
            "\"contentId\":\"{}\"",
            character.repeat(100_000 / character.len())
        );
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
        &[
            ("stream_type", Some("UNKNOWN")),
            ("last_error_category", Some("UNKNOWN")),
        ],
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

fn numbers(corpus: &mut Corpus) {
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
    corpus.add(
        r#""meanVideoFormatBitrate":999"#,
        &[("avg_bitrate_kbps", Some("0"))],
    );
    corpus.add(
        r#""meanVideoFormatBitrate":2147483647000"#,
        &[("avg_bitrate_kbps", Some("2147483647"))],
    );
    corpus.add(
        r#""playTimeMs":9007199254740991,"droppedFrames":9007199254740991,"rebufferCount":2147483647"#,
        &[
            ("play_time_ms", Some("9007199254740991")),
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
    ] {
        corpus.add(
            &format!("\"rebufferRatio\":{ratio}"),
            &[("rebuffer_ratio", Some(stored))],
        );
    }
    corpus.add(
        r#""x":[1e300,-1e300,1e-300,1E+300,0e0],"y":{"z":1e300}"#,
        &[],
    );
    corpus.add(&format!("\"x\":[{}]", vec!["1e300"; 3_000].join(",")), &[]);
    corpus.add(
        &format!("\"x\":-{},\"y\":0.{}", "9".repeat(399), "1".repeat(398)),
        &[],
    );
    corpus.add(
        r#""x":[18446744073709551616,9223372036854775808,0.1,-0]"#,
        &[],
    );
    corpus.add(
        r#""lastErrorCode":"ERROR_CODE_IO""#,
        &[("last_error_code", Some("ERROR_CODE_IO"))],
    );
    corpus.add(
        r#""lastErrorCode":2004"#,
        &[("last_error_code", Some("2004"))],
    );
    corpus.add(
        r#""lastErrorCode":-1.5"#,
        &[("last_error_code", Some("-1.5"))],
    );
    corpus.add(
        r#""osVersion":34,"device":{"osVersion":null}"#,
        &[("os_version", Some("34"))],
    );
    corpus.add(r#""osVersion":13.5"#, &[("os_version", Some("13.5"))]);
    corpus.add(
        r#""osVersion":1e300"#,
        &[("length(os_version)", Some("301"))],
    );
}

fn clocks(corpus: &mut Corpus) {
    let receipt = (
        r#"extract(epoch FROM "timestamp") * 1000"#,
        Some("1795000100000.000000"),
    );
    // In seconds, of 1970, in 2106, and as far as it goes.
    corpus.at(
        "1795000100",
        &[receipt, ("clock_skew_ms", Some("1793205099900"))],
    );
    corpus.at("1", &[receipt, ("clock_skew_ms", Some("1795000099999"))]);
    corpus.at(
        "4291747200000",
        &[receipt, ("clock_skew_ms", Some("-2496747100000"))],
    );
    corpus.at(
        "253402300800000",
        &[receipt, ("extract(year FROM reported_at)", Some("10000"))],
    );
    corpus.at(
        "9223372036854775807",
        &[receipt, ("extract(year FROM reported_at)", Some("294276"))],
    );
    corpus.at("1.7950001e12", &[receipt, ("clock_skew_ms", None)]);
    let started = r#"extract(epoch FROM "timestamp")"#;
    corpus.add(r#""sessionStartDateIso":"null""#, &[receipt]);
    corpus.add(r#""sessionStartDateIso":null"#, &[receipt]);
    // 2026-11-18T11:06:40Z
    for start in [
        "2026-11-18T12:06:40.000+01:00",
        "2026-11-18T11:06:40Z",
        "2026-11-18T00:06:40-11:00",
    ] {
        let start = format!("\"sessionStartDateIso\":\"{start}\"");
        corpus.add(&start, &[(started, Some("1795000000.000000"))]);
    }
    for unbelievable in [
        "1970-01-01T00:00:00Z",
        "2106-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-01T00:00:00Z",
    ] {
        let start = format!("\"sessionStartDateIso\":\"{unbelievable}\"");
        corpus.add(&start, &[receipt, ("clock_skew_ms IS NULL", Some("false"))]);
    }
}

fn shapes(corpus: &mut Corpus) {
    corpus.add("", &[("play_time_ms", None)]);
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("\"x\":{}1{}", open.repeat(32), close.repeat(32));
        corpus.add(&deep, &[]);
    }
    corpus.add(
        r#""playTimeMs":"wrong","playTimeMs":1,"playTimeMs":2"#,
        &[
            ("play_time_ms", Some("2")),
            ("payload->>'playTimeMs'", Some("2")),
        ],
    );
    corpus.add(
        r#""device":{"model":"a","os":"b"},"device":{"model":"c","model":"d"}"#,
        &[
            ("device_model", Some("d")),
            ("os_name", None),
            ("payload->'device'", Some(r#"{"model": "d"}"#)),
        ],
    );
    corpus.add(
        r#""contentId":"a","content\u0049d":"b""#,
        &[
            ("content_id", Some("b")),
            ("payload->>'contentId'", Some("b")),
        ],
    );
    corpus.add(r#""app":{"name":"a"},"app":null"#, &[("app_name", None)]);
    corpus.add(
        r#""device":{},"app":{},"custom":{},"x":[],"timelineEvents":[]"#,
        &[("device_model", None)],
    );
    corpus.add(
        r#""device":{"model":null},"deviceModel":"flat","app":{"other":1}"#,
        &[("device_model", Some("flat"))],
    );
    let fields = [
        "schemaVersion",
        "sessionStartDateIso",
        "sessionDurationMs",
        "contentId",
        "streamType",
        "startupTimeMs",
        "playTimeMs",
        "rebufferTimeMs",
        "rebufferCount",
        "rebufferRatio",
        "errorCount",
        "lastErrorCode",
        "lastErrorCategory",
        "qualitySwitchCount",
        "avgBitrateKbps",
        "meanVideoFormatBitrate",
        "droppedFrames",
        "totalDroppedFrames",
        "totalSeekCount",
        "totalSeekTimeMs",
        "device",
        "app",
        "deviceModel",
        "osVersion",
        "sdkVersion",
        "connectionType",
        "timelineEvents",
        "custom",
    ];
    let nulls: Vec<String> = fields
        .iter()
        .map(|field| format!("\"{field}\":null"))
        .collect();
    corpus.add(
        &nulls.join(","),
        &[("stream_type", None), ("rebuffer_ratio", None)],
    );
    for version in ["1", "1.0.0", "1.99.7-beta", "01.0"] {
        corpus.add(&format!("\"schemaVersion\":\"{version}\""), &[]);
    }
    let key = "k".repeat(10_000);
    corpus.add(&format!("\"{key}\":{{\"{key}\":1}}"), &[]);
    corpus.add(r#""":1," ":2,"$.x[0]":3,"__proto__":4"#, &[]);
    let many: Vec<String> = (0..20_000).map(|n| format!("\"{n}\":{n}")).collect();
    corpus.add(&many.join(","), &[]);
    let members = |bytes| format!("\"x\":\"{}\"", "x".repeat(bytes));
    corpus.add(&members((1 << 20) - 64), &[]);
}

fn timelines(corpus: &mut Corpus) {
    let entry = |elapsed: &str, more: &str| {
        format!(r#"{{"timestampMs":1,"elapsedMs":{elapsed},"playbackState":"PLAYING"{more}}}"#)
    };
    let list = |entries: &[String]| format!("\"timelineEvents\":[{}]", entries.join(","));
    let equal = [
        entry("5", ""),
        entry("5.0", r#","rebufferCount":1"#),
        entry("6", ""),
    ];
    corpus.add(&list(&equal), &[]).timeline = 2;
    let odd = [
        entry(
            "0",
            r#","currentBitrate":-1,"networkType":null,"unknown":[{}]"#,
        ),
        entry(
            "9007199254740991",
            r#","timestampMs":9223372036854775807,"networkType":"\ud83d\ude00""#,
        ),
    ];
    corpus.add(&list(&odd), &[]).timeline = 2;
    let cut = [entry(
        "1",
        &format!(",\"networkType\":\"{}\"", "n".repeat(10_000)),
    )];
    corpus.add(&list(&cut), &[]).timeline = 1;
    let many: Vec<String> = (0..500).map(|n| entry(&n.to_string(), "")).collect();
    corpus.add(&list(&many), &[]).timeline = 500;
}
