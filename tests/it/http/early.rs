//! Responses that come before the body was read: they arrive, and a connection that will be
//! closed says so.

use std::time::Duration;

use super::{NOW_MS, report};
use crate::support::{Database, Raw, Server, ServerOptions};

const LARGE: usize = 900_000;

/// A request as a client sends it that writes all of it before it reads.
fn request(method: &str, path: &str, key: &str, body: &str) -> (String, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    (head, body.to_owned())
}

async fn limited() -> Server {
    let options = ServerOptions {
        env: vec![
            ("RATE_LIMIT_REQUESTS", "1".to_owned()),
            ("RATE_LIMIT_WINDOW_SEC", "86400".to_owned()),
        ],
        now_ms: Some(NOW_MS),
        ..ServerOptions::default()
    };
    let server = Server::with(options, &Database::new().await).await;
    assert_eq!(server.post(report("s")).await.status, 200);
    server
}

fn says_close(head: &str) -> bool {
    head.contains("\r\nconnection: close\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_reach_clients_that_write_everything_first() {
    let server = limited().await;
    let large = "x".repeat(LARGE);
    let huge = "x".repeat(9_000_000);
    for (method, path, key, body, status, times) in [
        ("POST", "/v1/sessions", "no", &large, "401", 100),
        ("POST", "/v1/sessions/batch", "no", &large, "401", 20),
        ("POST", "/v1/sessions", "dev-key", &large, "429", 100),
        ("POST", "/nowhere", "dev-key", &large, "404", 20),
        ("PUT", "/v1/sessions", "dev-key", &large, "405", 20),
        ("GET", "/v1/sessions/s", "no", &large, "401", 20),
        ("GET", "/health", "", &large, "200", 20),
        ("POST", "/v1/sessions", "no", &huge, "401", 5),
    ] {
        let (head, body) = request(method, path, key, body);
        for number in 0..times {
            let mut raw = Raw::connect(server.address).await;
            let written = raw.write(&head).await && raw.write(&body).await;
            assert!(written, "{method} {path}, {number}: a broken pipe");
            let (head, _) = raw.answer().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
            assert!(says_close(&head), "{head}");
        }
    }
    // A head that is too large: hyper answers it, before routes are looked at.
    for _ in 0..50 {
        let mut raw = Raw::connect(server.address).await;
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(60_000));
        assert!(raw.write(head).await, "a broken pipe");
        assert!(raw.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 431"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_any_framing_that_is_not_read_is_no_broken_pipe() {
    let server = limited().await;
    let piece = "x".repeat(30_000);
    let piece = format!("{:x}\r\n{piece}\r\n", piece.len());
    for number in 0..50 {
        let mut raw = Raw::connect(server.address).await;
        let head = "POST /v1/sessions HTTP/1.1\r\nHost: h\r\nX-API-Key: no\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let written = raw.write(head).await && raw.write(piece.repeat(30) + "0\r\n\r\n").await;
        assert!(written, "{number}: a broken pipe");
        let (head, _) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 401") && says_close(&head), "{head}");
    }
}

/// A client that does not wait to be asked, or that asks and sends all the same.
#[tokio::test]
async fn small_bodies_that_nobody_reads_leave_the_connection_usable() {
    let server = limited().await;
    for (path, key, status) in [
        ("/v1/sessions", "dev-key", "429"),
        ("/v1/sessions", "no", "401"),
        ("/nowhere", "no", "404"),
    ] {
        let mut raw = Raw::connect(server.address).await;
        for number in 0..300 {
            let body = report(&"x".repeat(number % 100 * 300));
            let (head, body) = request("POST", path, key, &body);
            // In two pieces, the second sometimes later than the response.
            assert!(raw.write(head).await, "{number}: a broken pipe");
            if number % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert!(raw.write(body).await, "{number}: a broken pipe");
            let (head, _) = raw.answer().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
            assert!(!says_close(&head), "{head}");
        }
    }
    // Not asked for the body, the client must not be kept waiting for it.
    let mut raw = Raw::connect(server.address).await;
    let (head, _) = request("POST", "/v1/sessions", "no", &report("s"));
    assert!(raw.write(head.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n")).await);
    let (head, _) = raw.answer().await;
    assert!(head.starts_with("HTTP/1.1 401") && says_close(&head), "{head}");
    raw.closed_after(Duration::from_secs(5)).await;
}

/// What is thrown away is bounded, in bytes and in time.
#[tokio::test]
async fn bodies_without_end_are_cut_off() {
    let server = limited().await;
    let mut raw = Raw::connect(server.address).await;
    let head = "POST /v1/sessions HTTP/1.1\r\nHost: h\r\nX-API-Key: no\r\n\
                Content-Length: 100000000000\r\n\r\n";
    assert!(raw.write(head).await);
    let piece = vec![b'x'; 1 << 20];
    let mut written = 0;
    while raw.write(&piece).await {
        written += 1;
        assert!(written < 100, "{written} MiB, and it still reads");
    }
}
