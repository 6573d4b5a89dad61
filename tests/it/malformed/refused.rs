//! What must be refused.

use super::NOW_MS;

/// Where a case can be put without breaking what is around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fits {
    Anywhere,
    /// It holds a newline.
    ArrayOnly,
    /// It breaks the array that holds it.
    LineOnly,
    /// Between others it is nothing.
    Nowhere,
}

pub struct Refused {
    pub name: String,
    pub body: Vec<u8>,
    pub code: &'static str,
    /// The JSON path that the message begins with.
    pub field: String,
    pub fits: Fits,
}

pub fn case(field: &str, body: impl Into<Vec<u8>>) -> Refused {
    let body = body.into();
    let name = String::from_utf8_lossy(&body).chars().take(100).collect();
    Refused { name, body, code: "INVALID_SCHEMA", field: field.to_owned(), fits: Fits::Anywhere }
}

/// A report that is right but for `members`, which come last.
pub fn report(members: &str) -> String {
    format!(r#"{{"sessionId":"bad","timestamp":{NOW_MS},{members}}}"#)
}

pub fn member(field: &str, members: &str) -> Refused {
    case(field, report(members))
}

pub fn corpus() -> Vec<Refused> {
    let mut cases = documents();
    cases.extend(bytes());
    cases.extend(required());
    cases.extend(super::fields::corpus());
    cases.extend(bombs());
    cases
}

/// Not one JSON object.
fn documents() -> Vec<Refused> {
    let fitting = |fits, field, body: &str| Refused { fits, ..case(field, body) };
    let mut cases = vec![
        fitting(Fits::Nowhere, "$", ""),
        fitting(Fits::Nowhere, "$", " \r\n\t "),
        fitting(Fits::LineOnly, "$.timestamp", r#"{"sessionId":"bad","timestamp":"#),
        fitting(Fits::LineOnly, "$.timestamp", r#"{"sessionId":"bad","timestamp":1"#),
        fitting(Fits::LineOnly, "$", r#"{"sess"#),
        fitting(Fits::LineOnly, "$.sessionId", r#"{"sessionId":"bad"#),
        fitting(Fits::LineOnly, "$.sessionId", r#"{"sessionId":"bad\"#),
        fitting(Fits::LineOnly, "$.a[2]", r#"{"a":[1,2,"#),
        fitting(Fits::LineOnly, "$", r#"{"sessionId":"bad","timestamp":1}]"#),
        case("$.sessionId", r#"{"sessionId":"bad"]"#),
        fitting(Fits::ArrayOnly, "$", "{\"sessionId\":\"bad\",\"timestamp\":1}\n{}"),
    ];
    for body in [
        "hello",
        "<html></html>",
        "null",
        "true",
        "12",
        r#""a string""#,
        "[]",
        r#"[{"sessionId":"bad","timestamp":1}]"#,
        "sessionId=bad&timestamp=1",
        "{sessionId:1}",
        "{'sessionId':'bad'}",
        r#"{"sessionId" "bad"}"#,
        r#"{"sessionId":"bad","timestamp":1} x"#,
        r#"{"sessionId":"bad","timestamp":1}{}"#,
        r#"{"sessionId":"bad","timestamp":1}}"#,
        "\u{feff}\u{feff}{\"sessionId\":\"bad\",\"timestamp\":1}",
        "// nothing\u{2028}{}",
    ] {
        cases.push(case("$", body));
    }
    cases
}

/// Text that is not JSON's.
fn bytes() -> Vec<Refused> {
    let raw = |before: &str, bytes: &[u8], after: &str| {
        let members = [before.as_bytes(), bytes, after.as_bytes()].concat();
        let start = format!(r#"{{"sessionId":"bad","timestamp":{NOW_MS},"#);
        [start.as_bytes(), &members, b"}"].concat()
    };
    vec![
        case("$", raw(r#""contentId":""#, b"\xff\xfe", r#"""#)),
        case("$", raw(r#""contentId":""#, b"\xed\xa0\x80", r#"""#)),
        case("$", raw(r#""contentId":""#, b"\xc0\x80", r#"""#)),
        case("$", raw(r#""x":["#, b"\xf5\x80\x80\x80", "]")),
        case("$", raw(r#"""#, b"\x80", r#"":1"#)),
        case("$.contentId", raw(r#""contentId":""#, b"a\0b", r#"""#)),
        case("$.contentId", raw(r#""contentId":""#, b"a\x1fb", r#"""#)),
        case("$.unknown", raw(r#""unknown":""#, b"a\tb", r#"""#)),
        case("$.x[0]", raw(r#""x":[""#, b"\0", r#""]"#)),
        Refused {
            fits: Fits::ArrayOnly,
            ..case("$.unknown", raw(r#""unknown":""#, b"a\nb", r#"""#))
        },
        member("$.unknown", r#""unknown":"\x""#),
        member("$.unknown", r#""unknown":"\u12""#),
        member("$.unknown", r#""unknown":"\u12g4""#),
        member("$.unknown", r#""unknown":01"#),
        member("$.unknown", r#""unknown":+1"#),
        member("$.unknown", r#""unknown":.5"#),
        member("$.unknown", r#""unknown":5."#),
        member("$.unknown", r#""unknown":1e"#),
        member("$.unknown", r#""unknown":0x10"#),
        member("$.unknown", r#""unknown":-"#),
        member("$.unknown", r#""unknown":NaN"#),
        member("$.unknown", r#""unknown":Infinity"#),
        member("$.unknown", r#""unknown":-Infinity"#),
        member("$.rebufferRatio", r#""rebufferRatio":NaN"#),
        member("$.playTimeMs", r#""playTimeMs":Infinity"#),
        member("$.unknown", r#""unknown":undefined"#),
        member("$.unknown", r#""unknown":True"#),
        member("$.unknown", r#""unknown":1,"#),
        member("$.unknown[1]", r#""unknown":[1,]"#),
        member("$.unknown", r#""unknown":"#),
        member("$.unknown.deep[1]", r#""unknown":{"deep":[1,nul]}"#),
    ]
}

fn required() -> Vec<Refused> {
    let id = |id: &str| case("$.sessionId", format!(r#"{{"sessionId":{id},"timestamp":1}}"#));
    let time = |time: &str| {
        let body = format!(r#"{{"sessionId":"bad","timestamp":{time}}}"#);
        case("$.timestamp", body)
    };
    let mut cases = vec![
        case("$.sessionId", "{}"),
        case("$.sessionId", r#"{"timestamp":1}"#),
        case("$.sessionId", r#"{"sessionid":"bad","timestamp":1}"#),
        case("$.timestamp", r#"{"sessionId":"bad"}"#),
        // The last of two counts.
        member("$.timestamp", r#""timestamp":0"#),
        member("$.sessionId", r#""sessionId":null"#),
        id(&format!("\"{}\"", "x".repeat(129))),
        id(&format!("\"{}\"", "é".repeat(129))),
        id(&format!("\"{}\"", "x".repeat(100_000))),
    ];
    cases.extend(
        [
            "null",
            "12",
            "true",
            "[]",
            "{}",
            r#""""#,
            r#"" ""#,
            r#""\t""#,
            "\"\u{2003}\"",
            r#""a\u0000b""#,
            r#""\u0000""#,
            r#""\ud800""#,
            r#""a\udc00b""#,
            r#""\udc00\ud800""#,
            r#""a\nb""#,
            r#""a\u001fb""#,
            r#""a\u007fb""#,
            r#""a\u0085b""#,
        ]
        .map(id),
    );
    cases.extend(
        [
            "null",
            "0",
            "-0",
            "0.0",
            "-1",
            "-1795000000000",
            "1795000000000.5",
            "1e-5",
            r#""1795000000000""#,
            r#""now""#,
            "true",
            "[1]",
            "{}",
            "9223372036854775808",
            "1e19",
            "-1e19",
            "1e300",
        ]
        .map(time),
    );
    cases
}

/// Small to send, large to keep.
fn bombs() -> Vec<Refused> {
    let mut cases: Vec<Refused> =
        ["1e301", "1e131071", "-1e999", "1E+400", "1e-301", "0e99999999999"]
            .map(|number| member("$.x", &format!("\"x\":{number}")))
            .into();
    cases.push(member("$.custom.a[1].b", r#""custom":{"a":[0,{"b":1e131071}]}"#));
    cases.push(member("$.x[0]", &format!("\"x\":[{}]", vec!["1e131071"; 22_000].join(","))));
    // Each is allowed; together they would read back fifty times as large.
    cases.push(member("$.x[3333]", &format!("\"x\":[{}]", vec!["1e300"; 20_000].join(","))));
    cases.push(member("$.x", &format!("\"x\":{}", "9".repeat(100_000))));
    cases.push(member("$.playTimeMs", &format!("\"playTimeMs\":{}", "9".repeat(401))));
    cases.push(member("$.x", &format!("\"x\":0.{}1", "0".repeat(100_000))));
    // The first eight steps name the place.
    let (arrays, objects) = ("$.x[0][0][0][0][0][0][0]", "$.x.a.a.a.a.a.a.a");
    for depth in [33, 100, 90_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        cases.push(member(arrays, &format!("\"x\":{open}{close}")));
        let (open, close) = ("{\"a\":".repeat(depth), "}".repeat(depth));
        cases.push(member(objects, &format!("\"x\":{open}1{close}")));
    }
    let unclosed = |field, body: String| Refused { fits: Fits::LineOnly, ..case(field, body) };
    cases.push(unclosed("$[0][0][0][0][0][0][0][0]", "[".repeat(1_000_000)));
    cases.push(unclosed("$.a.a.a.a.a.a.a.a", "{\"a\":".repeat(200_000)));
    cases
}
