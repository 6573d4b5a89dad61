//! Batches, and reading sessions.

use reqwest::Method;
use serde_json::{Value, json};

use super::{NOW_MS, is_error, report, results};
use crate::support::Server;

fn many(prefix: &str, count: usize) -> String {
    let reports: Vec<String> =
        (0..count).map(|number| report(&format!("{prefix}{number}"))).collect();
    format!("[{}]", reports.join(","))
}

#[tokio::test]
async fn a_thousand_reports_are_a_batch_and_one_more_is_not() {
    let server = Server::at(NOW_MS).await;
    let answer = server.post_batch(many("a", 1_000)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1_000), &json!(0)));
    assert!(results(&answer).iter().all(|result| result.0 == "stored"));

    let too_many = many("b", 1_001);
    let message = is_error(&server.post_batch(too_many.clone()).await, 413, "PAYLOAD_TOO_LARGE");
    assert!(message.contains("more than 1000"), "{message}");
    let lines = vec!["{}"; 1_001].join("\n");
    is_error(&server.post_ndjson(lines).await, 413, "PAYLOAD_TOO_LARGE");
    let rows = "SELECT count(*) FROM sessions";
    assert_eq!(server.database.number(rows).await, 1_000);
    let kept = "SELECT convert_from(body, 'UTF8') FROM rejected_reports ORDER BY id LIMIT 1";
    assert_eq!(server.database.value(kept).await, Some(too_many));
}

#[tokio::test]
async fn each_report_of_a_batch_has_its_own_result() {
    let server = Server::at(NOW_MS).await;
    assert_eq!(server.post(report("old")).await.status, 200);
    let at = |id: &str, timestamp: i64| json!({"sessionId": id, "timestamp": timestamp});
    let batch = json!([
        at("new", NOW_MS),
        at("old", NOW_MS),
        at("old", NOW_MS - 1),
        {"sessionId": "bad", "timestamp": NOW_MS, "playTimeMs": "1"},
        {"timestamp": NOW_MS},
        {"sessionId": "next", "timestamp": NOW_MS, "schemaVersion": "2.0"},
        null,
        at("old", NOW_MS + 1),
    ]);
    let expected = [
        ("stored", Some("new"), None),
        ("duplicate", Some("old"), None),
        ("stale", Some("old"), None),
        ("rejected", Some("bad"), Some("INVALID_SCHEMA")),
        ("rejected", None, Some("INVALID_SCHEMA")),
        ("rejected", Some("next"), Some("UNSUPPORTED_SCHEMA_VERSION")),
        ("rejected", None, Some("INVALID_SCHEMA")),
        ("stored", Some("old"), None),
    ];
    let answer = server.post_batch(batch.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    assert_eq!(results(&answer), expected);
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(4), &json!(4)));
    let keys: Vec<&String> = answer.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["accepted", "rejected", "results"]);
    let error = json!({"index": 3, "sessionId": "bad", "status": "rejected", "error": {
        "code": "INVALID_SCHEMA", "message": "$.playTimeMs: expected a number, found a string"}});
    assert_eq!(answer["results"][3], error);
    assert_eq!(answer["results"][0], json!({"index": 0, "sessionId": "new", "status": "stored"}));
    assert_eq!(answer["results"][4]["sessionId"], Value::Null);
}

#[tokio::test]
async fn batches_come_as_arrays_or_lines() {
    let server = Server::at(NOW_MS).await;
    let two = format!("\r\n{}\r\n\r\n  \n{}", report("a"), report("b"));
    let pretty = serde_json::to_string_pretty(&json!([{"sessionId": "a", "timestamp": NOW_MS}]));
    let empty = json!({"accepted": 0, "rejected": 0, "results": []});
    for nothing in ["[]", " [ \n ] "] {
        let answer = server.post_batch(nothing).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, empty.clone()));
    }
    for nothing in ["", "\n", "\r\n \r\n"] {
        let answer = server.post_ndjson(nothing).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, empty.clone()));
    }
    let answer = server.post_ndjson(two.clone()).await.json();
    assert_eq!(results(&answer), [("stored", Some("a"), None), ("stored", Some("b"), None)]);
    let answer = server.post_ndjson(two + "\n").await.json();
    assert_eq!(answer["accepted"], 2);
    let answer = server.post_batch(pretty.expect("JSON")).await.json();
    assert_eq!(results(&answer), [("duplicate", Some("a"), None)]);
    for broken in ["", "{}", "null", "12", "[{}", "{}]", "[] []", "[\"", " \u{feff}[]"] {
        is_error(&server.post_batch(broken).await, 400, "INVALID_SCHEMA");
    }
    let kept = "SELECT count(*) FROM rejected_reports WHERE field = '$'";
    assert_eq!(server.database.number(kept).await, 9);
    let answer = server.post_batch("[1,]").await.json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(0), &json!(2)));
    // Lines are for the batch.
    let request = server.request(Method::POST, "/v1/sessions").body(report("c"));
    let request = request.header("Content-Type", "application/x-ndjson");
    is_error(&server.send(request).await, 415, "UNSUPPORTED_MEDIA_TYPE");
}

#[tokio::test]
async fn sessions_are_read_by_any_id() {
    let server = Server::at(NOW_MS).await;
    for (id, path) in [
        ("a b", "a%20b"),
        (" ", "%20"),
        ("a/b", "a%2Fb"),
        ("a/b/../c", "a%2fb%2F..%2Fc"),
        ("50%", "50%25"),
        ("q?x=1#y", "q%3Fx=1%23y"),
        ("plus+plus", "plus+plus"),
        ("日本😀", "%E6%97%A5%E6%9C%AC%F0%9F%98%80"),
        ("..", "%2E%2E%2F"),
        ("'; --", "%27%3B%20--"),
    ] {
        let path = format!("/v1/sessions/{path}");
        let is_there = server.post(report(id)).await.status == 200;
        // By hand: clients tidy paths up.
        let mut raw = crate::support::Raw::connect(server.address).await;
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: dev-key\r\n\r\n")).await;
        let (head, body) = raw.answer().await;
        if is_there && id != ".." {
            assert!(head.starts_with("HTTP/1.1 200"), "{id}: {head}");
            let session: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(session["session_id"], id);
        } else {
            // A blank id is none, and `../` is another than `..`.
            assert!(head.starts_with("HTTP/1.1 404"), "{id}: {head}");
        }
    }
    let long = "x".repeat(5_000);
    for nobody in ["nobody", "%00", "a%00b", "%FF", "%ED%A0%80", "%zz", "%", &*long] {
        is_error(&server.get(&format!("/v1/sessions/{nobody}")).await, 404, "NOT_FOUND");
    }
}
