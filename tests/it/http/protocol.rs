//! HTTP itself: keep-alive, HTTP/2, `Expect`, and what is no HTTP.

use reqwest::Version;
use std::time::Duration;

use super::{NOW_MS, report};
use crate::support::{KEY, Raw, Server};

const POST: &str = "POST /v1/sessions HTTP/1.1\r\nHost: h\r\nX-API-Key: dev-key\r\n";

#[tokio::test]
async fn many_requests_share_one_connection() {
    let server = Server::at(NOW_MS).await;
    let mut raw = Raw::connect(server.address).await;
    for (id, body, status) in [
        ("a", report("a"), "200 OK"),
        ("b", report("b"), "200 OK"),
        ("c", "{".to_owned(), "400 Bad Request"),
        ("d", report("d"), "200 OK"),
    ] {
        raw.write(format!(
            "{POST}X-Request-Id: {id}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        let (head, body) = raw.answer().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}{body}");
        assert!(head.contains(&format!("x-request-id: {id}\r\n")), "{head}");
    }
    // In chunks, and two requests at once.
    let body = report("e");
    let (one, two) = body.split_at(10);
    raw.write(format!(
        "{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x};x=y\r\n{two}\r\n0\r\n\r\n\
         GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
        one.len(),
        two.len(),
    ))
    .await;
    assert!(raw.answer().await.1.contains("\"sessionId\":\"e\""));
    assert!(raw.answer().await.1.contains("healthy"));
    assert!((server.metric("http_server_connections").await - 2.0).abs() < 0.5);
    raw.write("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
    assert!(raw.answer().await.0.contains("connection: close"));
    raw.closed_after(Duration::from_secs(1)).await;
    let mut old = Raw::connect(server.address).await;
    old.write("GET /health HTTP/1.0\r\n\r\n").await;
    assert!(old.answer().await.0.starts_with("HTTP/1.0 200"));
    old.closed_after(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn http_2_works_without_tls() {
    let server = Server::at(NOW_MS).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    let post = |id: String| {
        client.post(server.url("/v1/sessions")).header("X-API-Key", KEY).body(report(&id))
    };
    let answers = (0..100).map(|number| post(format!("s{number}")).send());
    for answer in futures_util::future::join_all(answers).await {
        let answer = answer.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    }
    // An answer to HEAD has no body, one that is an error too.
    for path in ["/health", "/nowhere", "/v1/sessions", "/v1/sessions/s"] {
        let by_get = client.get(server.url(path)).send().await.expect("an answer").status();
        let answer = client.head(server.url(path)).send().await.expect("an answer");
        assert_eq!(answer.status(), by_get, "{path}");
        assert!(answer.headers().contains_key("content-length"), "{path}");
        assert!(answer.bytes().await.expect("an end").is_empty(), "{path}");
    }
    let large = post("s".to_owned()).body("x".repeat(2_000_000)).send().await;
    assert_eq!(large.expect("an answer").status(), 413);
    assert_eq!(post("s".to_owned()).send().await.expect("an answer").status(), 200);
    let rows = "SELECT count(*) FROM sessions";
    assert_eq!(server.database.number(rows).await, 101);
}

#[tokio::test]
async fn clients_that_ask_before_they_send_are_answered() {
    let server = Server::at(NOW_MS).await;
    let body = report("s");
    let mut raw = Raw::connect(server.address).await;
    raw.write(format!("{POST}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len()))
        .await;
    assert_eq!(raw.read_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    raw.write(&body).await;
    assert!(raw.answer().await.0.starts_with("HTTP/1.1 200"));

    let asks = "Expect: 100-continue\r\nContent-Length: 20000000\r\n\r\n";
    for (request, status) in [
        (format!("{POST}{asks}"), "413"),
        (POST.replace("dev-key", "no") + asks, "401"),
        (POST.replace("/v1/sessions", "/nowhere") + asks, "404"),
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.write(request).await;
        let answer = tokio::time::timeout(Duration::from_secs(1), raw.answer()).await;
        let (head, _) = answer.expect("at once, and not asked for the body");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_cut_off() {
    let server = Server::at(NOW_MS).await;
    for nonsense in [
        "hello\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("{POST}Content-Length: x\r\n\r\n"),
        format!("{POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        format!("{POST}Content-Length: -1\r\n\r\n"),
        format!("{POST}Transfer-Encoding: gzip\r\n\r\n"),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(200)),
    ] {
        let mut raw = Raw::connect(server.address).await;
        raw.write(&nonsense).await;
        raw.closed_after(Duration::from_secs(3)).await;
    }
    assert_eq!(server.post(report("s")).await.status, 200);
    assert_eq!(server.database.number("SELECT count(*) FROM sessions").await, 1);
}
