//! The HTTP contract: every answer, every encoding, and the protocol around them.

mod batch;
mod bodies;
mod crowds;
mod early;
mod errors;
mod limits;
mod memory;
mod pages;
mod protocol;
mod status;
mod stopping;
mod unread;
mod uploads;

use serde_json::{Value, json};

use crate::support::Answer;

const NOW_MS: i64 = 1_795_000_100_000;

fn report(id: &str) -> String {
    json!({"sessionId": id, "timestamp": NOW_MS}).to_string()
}

/// The answer is this error, in the one shape that errors have, of a server whose clock
/// stands at `NOW_MS`. Returns the message.
#[track_caller]
fn is_error(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.header("x-request-id").is_empty());
    let body = answer.json();
    let message = body["error"]["message"].as_str().expect("a message");
    assert!(!message.is_empty());
    let whole = json!({"error": {"code": code, "message": message, "timestamp": NOW_MS}});
    assert_eq!(body, whole);
    message.to_owned()
}

/// The results of a batch as (status, session, error code).
fn results(answer: &Value) -> Vec<(&str, Option<&str>, Option<&str>)> {
    let results = answer["results"].as_array().expect("results");
    let summary = results.iter().enumerate().map(|(index, result)| {
        assert_eq!(result["index"], index);
        let status = result["status"].as_str().expect("a status");
        let code = result.get("error").map(|error| {
            assert!(error["message"].as_str().is_some_and(|text| text.starts_with('$')));
            error["code"].as_str().expect("a code")
        });
        (status, result["sessionId"].as_str(), code)
    });
    summary.collect()
}
