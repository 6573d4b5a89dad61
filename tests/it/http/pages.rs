//! A long timeline is read page by page.

use serde_json::{Value, json};

use super::{NOW_MS, is_error};
use crate::support::Server;

/// A server with a session of 300 entries, of which many have the same `elapsedMs`.
async fn with_entries() -> Server {
    let server = Server::at(NOW_MS).await;
    for part in 0..3_i64 {
        let entries: Vec<Value> = (0..100)
            .map(|number: i64| {
                let elapsed = part * 1_000 + number / 40;
                json!({"timestampMs": NOW_MS + number, "elapsedMs": elapsed, "playbackState": "PLAYING", "n": number})
            })
            .collect();
        let report =
            json!({"sessionId": "s", "timestamp": NOW_MS + part, "timelineEvents": entries});
        assert_eq!(server.post(report.to_string()).await.status, 200);
    }
    server
}

async fn page(server: &Server, query: &str) -> (Vec<Value>, Option<String>) {
    let answer = server.get(&format!("/v1/sessions/s?{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut session = answer.json();
    assert_eq!(session["session_id"], "s");
    let Value::Array(entries) = session["timeline"].take() else { panic!("{}", answer.text) };
    let next = session.get("timelineNext").expect("always there");
    (entries, next.as_str().map(str::to_owned))
}

#[tokio::test]
async fn pages_are_the_whole_timeline_in_order() {
    let server = with_entries().await;
    let (all, next) = page(&server, "").await;
    assert_eq!((all.len(), next), (300, None));
    let place = |entry: &Value| (entry["elapsed_ms"].as_i64(), entry["n"].as_i64());
    assert!(all.is_sorted_by_key(place));
    for limit in [1, 7, 40, 100, 299, 300] {
        let (mut entries, mut next) = page(&server, &format!("timelineLimit={limit}")).await;
        while let Some(after) = next {
            assert_eq!(entries.len() % limit, 0);
            let query = format!("timelineLimit={limit}&timelineAfter={after}");
            let (more, then) = page(&server, &query).await;
            assert!(!more.is_empty() && more.len() <= limit);
            entries.extend(more);
            next = then;
        }
        assert_eq!(entries, all, "in pages of {limit}");
    }
}

#[tokio::test]
async fn a_page_begins_after_a_time() {
    let server = with_entries().await;
    let (entries, next) = page(&server, "timelineAfter=1001").await;
    assert_eq!((entries.len(), next), (120, None));
    assert_eq!((&entries[0]["elapsed_ms"], &entries[0]["n"]), (&json!(1002), &json!(80)));
    assert_eq!(page(&server, "timelineAfter=99999999999").await, (Vec::new(), None));
    assert_eq!(page(&server, "timelineAfter=9223372036854775807").await.0.len(), 0);
    assert_eq!(page(&server, "timelineAfter=-1").await.0.len(), 300);
}

#[tokio::test]
async fn what_is_no_page_is_named() {
    let server = with_entries().await;
    for (name, value) in [
        ("timelineLimit", "0"),
        ("timelineLimit", "-1"),
        ("timelineLimit", "10001"),
        ("timelineLimit", "many"),
        ("timelineLimit", ""),
        ("timelineAfter", "soon"),
        ("timelineAfter", "1.x"),
        ("timelineAfter", ""),
    ] {
        let answer = server.get(&format!("/v1/sessions/s?{name}={value}")).await;
        let message = is_error(&answer, 400, "INVALID_SCHEMA");
        assert!(message.starts_with(name), "{message}");
    }
}
