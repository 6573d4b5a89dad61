//! The malformed corpus: what must be refused, alone and without harm to its neighbours, and
//! the oddities that must be stored.

mod accepted;
mod fields;
mod refused;
mod values;

use std::collections::HashMap;

use refused::{Fits, Refused};
use serde_json::{Value, json};

use crate::support::{Answer, Server};

const NOW_MS: i64 = 1_795_000_100_000;
/// Reports in a batch that holds a bad one, and where that one is.
const BATCH: usize = 50;
const BAD_AT: usize = 20;

/// What `rejected_reports` must hold, in the order of arrival.
#[derive(Debug, PartialEq)]
struct Kept {
    tenant: String,
    code: String,
    message: String,
    body: Vec<u8>,
}

impl Kept {
    fn of(case: &Refused, message: &str, body: &[u8]) -> Self {
        Self {
            tenant: "default".to_owned(),
            code: case.code.to_owned(),
            message: message.to_owned(),
            body: body.to_vec(),
        }
    }
}

/// The case among healthy reports that no other batch has.
fn batch(case: &Refused, batch: &str, before: &str, between: &str, after: &str) -> Vec<u8> {
    let mut bytes = before.as_bytes().to_vec();
    for index in 0..BATCH {
        if index > 0 {
            bytes.extend_from_slice(between.as_bytes());
        }
        if index == BAD_AT {
            bytes.extend_from_slice(&case.body);
        } else {
            let good = json!({"sessionId": format!("{batch}-{index}"), "timestamp": NOW_MS});
            bytes.extend_from_slice(good.to_string().as_bytes());
        }
    }
    bytes.extend_from_slice(after.as_bytes());
    bytes
}

/// The case failed alone: its neighbours are stored. Returns the message.
fn failed_alone(case: &Refused, answer: &Answer) -> String {
    let name = &case.name;
    assert_eq!(answer.status, 200, "{name}: {}", answer.text);
    let answer = answer.json();
    assert_eq!(
        (&answer["accepted"], &answer["rejected"]),
        (&json!(BATCH - 1), &json!(1)),
        "{name}: {answer}"
    );
    let results = answer["results"].as_array().expect("results");
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["index"], index, "{name}");
        let expected = if index == BAD_AT { "rejected" } else { "stored" };
        assert_eq!(result["status"], expected, "{name}: {result}");
        assert_eq!(result.get("error").is_some(), index == BAD_AT, "{name}: {result}");
    }
    let error = &results[BAD_AT]["error"];
    assert_eq!(error["code"], case.code, "{name}: {error}");
    error["message"].as_str().expect("a message").to_owned()
}

async fn kept(server: &Server) -> Vec<Kept> {
    let rows: Vec<(String, String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT tenant_id, code, field || ': ' || detail, body FROM rejected_reports ORDER BY id",
    )
    .fetch_all(&mut server.database.connect().await)
    .await
    .expect("rows");
    let kept = |(tenant, code, message, body)| Kept { tenant, code, message, body };
    rows.into_iter().map(kept).collect()
}

#[tokio::test]
async fn what_is_malformed_is_refused_alone_named_and_kept() {
    let server = Server::at(NOW_MS).await;
    let cases = refused::corpus();
    assert!(cases.len() >= 270, "{}", cases.len());
    let mut expected = Vec::new();
    let mut misnamed = Vec::new();
    let mut batches = 0;
    for (number, case) in cases.iter().enumerate() {
        let Refused { name, body, code, field, fits } = case;
        let answer = server.post(body.clone()).await;
        assert_eq!(answer.status, 400, "{name}: {}", answer.text);
        assert_eq!(answer.code(), *code, "{name}: {}", answer.text);
        let message = answer.message();
        if !message.starts_with(&format!("{field}: ")) {
            misnamed.push(format!("{name}: expected {field}, got {message}"));
        }
        assert!(message.len() < 1_000, "{name}: {message}");
        expected.push(Kept::of(case, &message, body));

        let array = batch(case, &format!("array-{number}"), "[", ",", "]");
        if matches!(fits, Fits::Anywhere | Fits::ArrayOnly) {
            let message = failed_alone(case, &server.post_batch(array).await);
            batches += 1;
            expected.push(Kept::of(case, &message, body));
        } else if *fits == Fits::LineOnly {
            let answer = server.post_batch(array.clone()).await;
            let (status, code) = (answer.status, answer.code());
            assert_eq!((status.as_u16(), code.as_str()), (400, case.code), "{name}");
            assert!(answer.message().starts_with("$: "), "{name}: {message}");
            expected.push(Kept::of(case, &answer.message(), &array));
        }
        if matches!(fits, Fits::Anywhere | Fits::LineOnly) {
            let lines = batch(case, &format!("lines-{number}"), "", "\n", "\n");
            let message = failed_alone(case, &server.post_ndjson(lines).await);
            batches += 1;
            expected.push(Kept::of(case, &message, body));
        }
    }
    assert!(misnamed.is_empty(), "{misnamed:#?}");
    let kept = kept(&server).await;
    assert_eq!(kept.len(), expected.len());
    for (kept, expected) in kept.iter().zip(&expected) {
        // Bodies of a megabyte are not for reading.
        assert!(kept == expected, "{}", expected.message);
    }
    let rows = server.database.number("SELECT count(*) FROM sessions");
    let neighbours = i64::try_from(batches * (BATCH - 1)).expect("a number");
    assert_eq!(rows.await, neighbours, "each neighbour, and nothing else");
    for code in ["INVALID_SCHEMA", "UNSUPPORTED_SCHEMA_VERSION"] {
        let series = format!("sessions_rejected_total{{code=\"{code}\"}}");
        let refused = expected.iter().filter(|kept| kept.code == code).count();
        assert!((server.metric(&series).await - refused as f64).abs() < 0.5);
    }
}

#[tokio::test]
async fn a_report_that_is_too_large_is_refused_alone() {
    let server = Server::at(NOW_MS).await;
    let at_limit = |bytes: usize| {
        let start = format!(r#"{{"sessionId":"large","timestamp":{NOW_MS},"x":""#);
        format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2)).into_bytes()
    };
    assert_eq!(server.post(at_limit(1 << 20)).await.status, 200);
    let case = Refused {
        name: "a byte too many".to_owned(),
        body: at_limit((1 << 20) + 1),
        code: "PAYLOAD_TOO_LARGE",
        field: "$".to_owned(),
        fits: Fits::Anywhere,
    };
    let answer = server.post(case.body.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, case.code));
    let array = batch(&case, "array", "[", ",", "]");
    let message = failed_alone(&case, &server.post_batch(array).await);
    let lines = batch(&case, "lines", "", "\n", "");
    assert_eq!(failed_alone(&case, &server.post_ndjson(lines).await), message);
    let expected = Kept::of(&case, &message, &case.body);
    assert!(kept(&server).await.iter().all(|kept| *kept == expected));
}

#[tokio::test]
async fn oddities_are_stored_and_read_back() {
    let server = Server::at(NOW_MS).await;
    let cases = accepted::corpus();
    assert!(cases.len() >= 190, "{}", cases.len());
    let mut connection = server.database.connect().await;
    for case in &cases {
        let (name, id) = (&case.name, &case.id);
        let answer = server.post(case.body.clone()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        assert_eq!(answer.json()["sessionId"], *id, "{name}");
        let is_whole: bool = sqlx::query_scalar(
            "SELECT payload = $2::text::jsonb FROM sessions WHERE session_id = $1",
        )
        .bind(id)
        .bind(case.stored.as_ref().unwrap_or(&case.body))
        .fetch_one(&mut connection)
        .await
        .expect("a row");
        assert!(is_whole, "{name}: the payload is another");
        for (column, expected) in &case.columns {
            let sql = format!("SELECT ({column})::text FROM sessions WHERE session_id = $1");
            let found: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
                .bind(id)
                .fetch_one(&mut connection)
                .await
                .expect("a row");
            assert_eq!(found.as_deref(), *expected, "{name}: {column}");
        }
        let entries: i64 =
            sqlx::query_scalar("SELECT count(*) FROM session_timeline WHERE session_id = $1")
                .bind(id)
                .fetch_one(&mut connection)
                .await
                .expect("a count");
        assert_eq!(entries, case.timeline, "{name}: timeline");
        let path = format!("/v1/sessions/{}", percent_encoded(id));
        let read = server.get(&path).await;
        assert_eq!(read.status, 200, "{name}: {}", read.text);
        // As raw parts: numbers of 300 digits are not for doubles.
        let parts: HashMap<String, &serde_json::value::RawValue> =
            serde_json::from_str(&read.text).expect("an object");
        assert_eq!(parts["session_id"].get(), json!(id).to_string(), "{name}");
    }

    // Once more, all in one batch: nothing is new.
    let lines: Vec<&str> = cases.iter().map(|case| &*case.body).collect();
    let answer = server.post_ndjson(lines.join("\n")).await.json();
    assert_eq!(answer["accepted"], cases.len(), "{answer}");
    let results = answer["results"].as_array().expect("results");
    let is_duplicate = |result: &Value| result["status"] == "duplicate";
    assert!(results.iter().all(is_duplicate), "{answer}");

    // What a dump does: every row of every table as text.
    let texts = server.database.lines(
        "SELECT to_jsonb(s)::text || s::text FROM sessions s
         UNION ALL SELECT to_jsonb(t)::text || t::text FROM session_timeline t",
    );
    assert!(texts.await.len() >= cases.len());
    let refused = "SELECT count(*) FROM rejected_reports";
    assert_eq!(server.database.number(refused).await, 0);
}

fn percent_encoded(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20")
}
