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

pub struct Corpus(Vec<Accepted>);

impl Corpus {
    /// A report with further members.
    pub fn add(&mut self, members: &str, columns: Columns<'_>) -> &mut Accepted {
        let id = format!("odd-{}", self.0.len());
        let members = if members.is_empty() { String::new() } else { format!(",{members}") };
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
    pub fn id(&mut self, json: &str) -> &mut Accepted {
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
    pub fn cleaned(&mut self, members: &str, with: &[(&str, &str)], columns: Columns<'_>) {
        let case = self.add(members, columns);
        let replace = |text: String, (from, to): &(&str, &str)| text.replace(from, to);
        case.stored = Some(with.iter().fold(case.body.clone(), replace));
    }
}

pub fn corpus() -> Vec<Accepted> {
    let mut corpus = Corpus(Vec::new());
    super::values::texts(&mut corpus);
    super::values::numbers(&mut corpus);
    clocks(&mut corpus);
    shapes(&mut corpus);
    timelines(&mut corpus);
    corpus.0
}

fn clocks(corpus: &mut Corpus) {
    let receipt = (r#"extract(epoch FROM "timestamp") * 1000"#, Some("1795000100000.000000"));
    // In seconds, of 1970, in 2106, and as far as it goes.
    corpus.at("1795000100", &[receipt, ("clock_skew_ms", Some("1793205099900"))]);
    corpus.at("1", &[receipt, ("clock_skew_ms", Some("1795000099999"))]);
    corpus.at("4291747200000", &[receipt, ("clock_skew_ms", Some("-2496747100000"))]);
    corpus.at("253402300800000", &[receipt, ("extract(year FROM reported_at)", Some("10000"))]);
    corpus
        .at("9223372036854775807", &[receipt, ("extract(year FROM reported_at)", Some("294276"))]);
    corpus.at("1.7950001e12", &[receipt, ("clock_skew_ms", None)]);
    let started = r#"extract(epoch FROM "timestamp")"#;
    corpus.add(r#""sessionStartDateIso":"null""#, &[receipt]);
    corpus.add(r#""sessionStartDateIso":null"#, &[receipt]);
    corpus.add(r#""sessionStartDateIso":"""#, &[receipt]);
    let midnight = r#""sessionStartDateIso":"2026-11-17T24:00:00.000Z""#;
    corpus.add(midnight, &[(started, Some("1794960000.000000"))]);
    // 2026-11-18T11:06:40Z
    for start in [
        "2026-11-18T12:06:40.000+01:00",
        "2026-11-18T11:06:40Z",
        "2026-11-18T00:06:40-11:00",
        "\u{662}\u{660}\u{662}\u{666}-\u{661}\u{661}-\u{661}\u{668}T\u{661}\u{661}:\u{660}\u{666}:\u{664}\u{660}.\u{660}\u{660}\u{660}Z",
        "\u{6f2}\u{6f0}\u{6f2}\u{6f6}-\u{6f1}\u{6f1}-\u{6f1}\u{6f8}T\u{6f1}\u{6f1}:\u{6f0}\u{6f6}:\u{6f4}\u{6f0}Z",
    ] {
        let start = format!("\"sessionStartDateIso\":\"{start}\"");
        corpus.add(&start, &[(started, Some("1795000000.000000"))]);
    }
    for unbelievable in [
        "1970-01-01T00:00:00Z",
        "2106-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "9999-12-01T00:00:00Z",
        "11983-02-14T10:30:00.000Z",
        "+11983-02-14T10:30:00.000Z",
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
        &[("play_time_ms", Some("2")), ("payload->>'playTimeMs'", Some("2"))],
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
        &[("content_id", Some("b")), ("payload->>'contentId'", Some("b"))],
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
    let nulls: Vec<String> = fields.iter().map(|field| format!("\"{field}\":null")).collect();
    corpus.add(&nulls.join(","), &[("stream_type", None), ("rebuffer_ratio", None)]);
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
    let one_moment =
        [entry("5", ""), entry("5.0", r#","rebufferCount":1"#), entry("5.0", ""), entry("6", "")];
    corpus.add(&list(&one_moment), &[]).timeline = 3;
    let odd = [
        entry("0", r#","currentBitrate":-1,"networkType":null,"unknown":[{}]"#),
        entry("2678400000", r#","timestampMs":9223372036854775807,"networkType":"\ud83d\ude00""#),
    ];
    corpus.add(&list(&odd), &[]).timeline = 2;
    let cut = [entry("1", &format!(",\"networkType\":\"{}\"", "n".repeat(10_000)))];
    corpus.add(&list(&cut), &[]).timeline = 1;
    for sent in [2_000, 2_001, 10_000] {
        let many: Vec<String> = (0..sent).map(|n| entry(&n.to_string(), "")).collect();
        corpus.add(&list(&many), &[]).timeline = 2_000;
    }
    for (impossible, stored) in [
        (r#","timestampMs":0"#, 1),
        (r#","timestampMs":-1"#, 1),
        (r#","timestampMs":null"#, 1),
        (r#","elapsedMs":-1"#, 1),
        (r#","elapsedMs":9007199254740992"#, 1),
        (r#","playbackState":"STALLED""#, 1),
        (r#","playbackState":"PLAYING ""#, 1),
        (r#","playbackState":"""#, 1),
        (r#","totalDroppedFrames":-2"#, 1),
        (r#","rebufferCount":-3"#, 1),
        (r#","rebufferTimeMs":-5"#, 1),
        (r#","rebufferCount":2147483648"#, 2),
        (r#","bufferedDurationMs":-37"#, 2),
        (r#","currentBitrate":-2"#, 2),
        (r#","totalDroppedFrames":-1"#, 2),
    ] {
        corpus.add(&list(&[entry("1", impossible), entry("2", "")]), &[]).timeline = stored;
    }
}
