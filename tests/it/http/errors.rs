//! Who is turned away, and how.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::HeaderValue;

use super::{NOW_MS, is_error, report};
use crate::support::{KEY, Raw, Server};

#[tokio::test]
async fn without_a_valid_key_nothing_is_read_or_stored() {
    let server = Server::at(NOW_MS).await;
    let client = reqwest::Client::new();
    // Readers' requests hold no report to be counted.
    let mut reports = 0.0;
    for (method, path) in [
        (Method::POST, "/v1/sessions"),
        (Method::POST, "/v1/sessions/batch"),
        (Method::GET, "/v1/sessions/s"),
    ] {
        for key in ["", " ", "dev-ke", "dev-key2", "DEV-KEY", "Bearer dev-key", "d\u{e9}v"] {
            let request = client.request(method.clone(), server.url(path));
            let key = HeaderValue::from_bytes(key.as_bytes()).expect("a header");
            let answer = server.send(request.header("X-API-Key", key).body(report("s"))).await;
            is_error(&answer, 401, "INVALID_API_KEY");
            assert!(!answer.headers.contains_key("ratelimit-limit"));
            reports += f64::from(method == Method::POST);
        }
        reports += f64::from(method == Method::POST);
        let request = client.request(method, server.url(path)).body(report("s"));
        is_error(&server.send(request).await, 401, "INVALID_API_KEY");
    }
    let series = "sessions_rejected_total{code=\"INVALID_API_KEY\"}";
    assert!((server.metric(series).await - reports).abs() < 0.5);
    assert_eq!(server.get("/v1/sessions/s").await.status, 404);
    let kept = "SELECT count(*) FROM rejected_reports";
    assert_eq!(server.database.number(kept).await, 0);
}

#[tokio::test]
async fn a_wrong_key_is_answered_before_the_body_comes() {
    let server = Server::at(NOW_MS).await;
    for framing in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let mut raw = Raw::connect(server.address).await;
        let head =
            format!("POST /v1/sessions HTTP/1.1\r\nHost: h\r\nX-API-Key: no\r\n{framing}\r\n\r\n");
        assert!(raw.write(head).await);
        let answer = tokio::time::timeout(Duration::from_secs(2), raw.answer()).await;
        let (head, body) = answer.expect("before the body");
        assert!(head.starts_with("HTTP/1.1 401"), "{head}");
        assert!(body.contains("INVALID_API_KEY"), "{body}");
    }
}

/// A client that goes on sending must get to see the answer, not a broken pipe, which it
/// would take for a reason to try again.
#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let server = Server::at(NOW_MS).await;
    let large = "x".repeat(1_000_000);
    for _ in 0..20 {
        let request = reqwest::Client::new().post(server.url("/v1/sessions"));
        let answer = server.send(request.header("X-API-Key", "no").body(large.clone())).await;
        is_error(&answer, 401, "INVALID_API_KEY");
        let request = server.request(Method::POST, "/v1/sessions").body(large.clone());
        let answer = server.send(request.header("Content-Type", "image/png")).await;
        is_error(&answer, 415, "UNSUPPORTED_MEDIA_TYPE");
        let request = server.request(Method::POST, "/nowhere").body(large.clone());
        is_error(&server.send(request).await, 404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_need_no_key() {
    let server = Server::at(NOW_MS).await;
    let client = reqwest::Client::new();
    for path in ["/", "/v1", "/v1/", "/v1/sessions/a/b", "/v2/sessions", "/health/x", "/%FF", "//"]
    {
        for key in ["", KEY] {
            let request = client.get(server.url(path)).header("X-API-Key", key);
            is_error(&server.send(request).await, 404, "NOT_FOUND");
        }
    }
    for (method, path, allowed) in [
        (Method::GET, "/v1/sessions", "POST"),
        (Method::PUT, "/v1/sessions", "POST"),
        (Method::GET, "/v1/sessions/batch", "POST"),
        (Method::DELETE, "/v1/sessions/s", "GET,HEAD"),
        (Method::POST, "/v1/sessions/s", "GET,HEAD"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::OPTIONS, "/metrics", "GET,HEAD"),
        (Method::from_bytes(b"BREW").expect("a method"), "/openapi.json", "GET,HEAD"),
    ] {
        let answer = server.send(client.request(method, server.url(path))).await;
        is_error(&answer, 405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), allowed, "{path}");
    }
}

/// URLs are put together from parts: a slash too many changes nothing.
#[tokio::test]
async fn slashes_too_many_change_nothing() {
    let server = Server::at(NOW_MS).await;
    for (number, path) in
        ["/v1/sessions/", "//v1/sessions", "/v1//sessions", "///v1/sessions//?x=//"]
            .into_iter()
            .enumerate()
    {
        let request = server.request(Method::POST, path).body(report(&format!("s{number}")));
        let answer = server.send(request).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        let read = server.get(&format!("/v1//sessions/s{number}/")).await;
        assert_eq!(read.status, 200, "{path}: {}", read.text);
    }
    let request = server.request(Method::POST, "/v1/sessions/batch/").body("[]");
    assert_eq!(server.send(request).await.status, 200);
    assert_eq!(server.get("/health/").await.status, 200);
    // Proxies keep this path from the outside, and no other.
    assert_eq!(server.get("/metrics").await.status, 200);
    for path in ["/metrics/", "//metrics", "/metrics//"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
    let series =
        "http_server_requests_total{method=\"POST\",route=\"/v1/sessions\",status=\"200\"}";
    assert!((server.metric(series).await - 4.0).abs() < 0.5);
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let server = Server::at(NOW_MS).await;
    let longest = "x".repeat(64);
    for own in ["a", "0af7651916cd43dd8448eb211c80319c", "a-b_c.d", &*longest] {
        for path in ["/health", "/nowhere", "/v1/sessions/nobody"] {
            let request = server.request(Method::GET, path).header("X-Request-Id", own);
            assert_eq!(server.send(request).await.header("x-request-id"), own);
        }
    }
    let mut made = std::collections::HashSet::new();
    let too_long = "x".repeat(65);
    for other in ["", "a b", "a\tb", "d\u{e9}j\u{e0}", "{}", "a/b", "<b>", "a\"b", &*too_long] {
        let other = HeaderValue::from_bytes(other.as_bytes()).expect("a header");
        let request = server.request(Method::GET, "/health").header("X-Request-Id", other);
        let answer = server.send(request).await;
        let id = answer.header("x-request-id");
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
        assert!(made.insert(id.to_owned()), "twice the same");
    }
    let request = reqwest::Client::new().post(server.url("/v1/sessions"));
    let answer = server.send(request.header("X-Request-Id", "mine")).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-request-id")), (401, "mine"));
}

#[tokio::test]
async fn a_success_says_only_what_it_must() {
    let server = Server::at(NOW_MS).await;
    for body in [report("s"), report("s")] {
        let answer = server.post(body).await;
        assert_eq!(answer.header("content-type"), "application/json");
        let expected = serde_json::json!({"status": "success", "sessionId": "s"});
        assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    }
}
