//! What large bodies and answers cost: memory for a moment, and no more of it than they are.

use std::any::Any;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use super::bodies::{ENCODINGS, compress};
use super::{NOW_MS, report};
use crate::support::{Binary, Database, KEY, Raw};

/// A bomb costs no more than an honest body: 512 MB from 16 KB raise the process's peak by no more
/// than the window that brotli has on top, 16 MiB.
///
/// The peak, because what is resident at a moment depends on when the allocator gave back pages.
#[tokio::test]
async fn bombs_are_refused_and_cost_no_memory() {
    let database = Database::new().await;
    let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
    // TLS is never spoken, but its provider must be named.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let send = async |encoding: &str, path: &str, body: &[u8]| {
        let request = client.post(server.url(path)).header("X-API-Key", KEY);
        let request = request.header("Content-Encoding", encoding);
        let answer = request.body(body.to_vec()).send().await;
        answer.expect("an answer").status().as_u16()
    };
    // Honest bodies, as large as they may be, set the measure.
    let most = format!("[{}{}]", report("s"), " ".repeat((8 << 20) - 2 - report("s").len()));
    for encoding in ENCODINGS {
        let honest = compress(encoding, most.as_bytes());
        for _ in 0..8 {
            assert_eq!(send(encoding, "/v1/sessions/batch", &honest).await, 200);
        }
    }
    let before = server.peak_memory_mib();
    let blanks = vec![b' '; 16 << 20];
    for encoding in ENCODINGS {
        let part = compress(encoding, &blanks);
        // Parts add up to 512 MiB, where the format has parts.
        let has_parts = matches!(encoding, "gzip" | "x-gzip" | "zstd");
        let bomb = part.repeat(if has_parts { 32 } else { 1 });
        assert!(bomb.len() < 1 << 20, "{encoding}: {}", bomb.len());
        for path in ["/v1/sessions", "/v1/sessions/batch"] {
            for _ in 0..5 {
                assert_eq!(send(encoding, path, &bomb).await, 413, "{encoding}");
            }
        }
    }
    let grown = server.peak_memory_mib() - before;
    assert!(grown < 32.0, "{grown} MiB more than {before} MiB");
}

/// A connection that has had a large answer, and waits for its next request, is as small as ever.
#[tokio::test]
async fn answers_do_not_stay_with_their_connections() {
    let database = Database::new().await;
    let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
    let large =
        json!({"sessionId": "s", "timestamp": NOW_MS, "note": "x".repeat(1_000_000)}).to_string();
    let mut raw = Raw::connect(server.address).await;
    let head = format!("Host: h\r\nX-API-Key: {KEY}\r\n");
    raw.write(format!(
        "POST /v1/sessions HTTP/1.1\r\n{head}Content-Length: {}\r\n\r\n{large}",
        large.len()
    ))
    .await;
    let (status, answer) = raw.answer().await;
    assert!(status.starts_with("HTTP/1.1 200"), "{status}{answer}");
    let mut idle = vec![raw];
    let mut before = 0.0;
    for number in 0..70 {
        // The first ones set the measure.
        if number == 10 {
            before = server.peak_memory_mib();
        }
        let mut raw = Raw::connect(server.address).await;
        raw.write(format!("GET /v1/sessions/s HTTP/1.1\r\n{head}\r\n")).await;
        let (head, body) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.len() > 1_000_000);
        idle.push(raw);
    }
    let grown = server.peak_memory_mib() - before;
    assert!(grown < 30.0, "{grown} MiB more than {before} MiB");
}

/// Sends a head of so many bytes on a connection of its own, which stays open. `None` if that is
/// too large for the server.
async fn idle_after(server: &Binary, version: &str, bytes: usize) -> Option<Box<dyn Any>> {
    let long = "x".repeat(bytes);
    if version == "HTTP/1" {
        let mut raw = Raw::connect(server.address).await;
        let head = format!("GET /health/live HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n");
        assert!(raw.write(head).await);
        let head = raw.read_until("\r\n\r\n").await;
        return head.starts_with("HTTP/1.1 200").then(|| Box::new(raw) as Box<dyn Any>);
    }
    let stream = Raw::connect(server.address).await.into_stream();
    let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    let request = hyper::Request::get("http://h/health/live").header("x", long);
    let (response, _) =
        requests.send_request(request.body(()).expect("valid"), true).expect("sent");
    let is_fine = response.await.is_ok_and(|response| response.status() == 200);
    is_fine.then(|| Box::new(requests) as Box<dyn Any>)
}

/// Without a key, a connection costs its buffers, whatever was sent on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn idle_connections_are_small() {
    const CONNECTIONS: usize = 1_500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
    if hard < 2 * CONNECTIONS as u64 + 1_000 {
        eprintln!("not tested: {hard} file descriptors are too few");
        return;
    }
    let database = Database::new().await;
    for (version, most_kib) in [("HTTP/1", 20.0), ("HTTP/2", 36.0)] {
        let env = [("DATABASE_URL", database.url.as_str()), ("TRUSTED_PROXIES", "127.0.0.1")];
        let server = Binary::serve(&env);
        // The largest head that there may be.
        let mut bytes = 60_000;
        while idle_after(&server, version, bytes).await.is_none() {
            bytes -= 1_000;
        }
        let mut idle = Vec::new();
        let mut before = 0.0;
        for number in 0..CONNECTIONS + 100 {
            // The first ones set the measure.
            if number == 100 {
                before = server.peak_memory_mib();
            }
            idle.push(idle_after(&server, version, bytes).await.expect("not too large"));
        }
        let each = (server.peak_memory_mib() - before) * 1024.0 / CONNECTIONS as f64;
        assert!(each < most_kib, "{version}, heads of {bytes} bytes: {each} KiB each");
    }
}

/// Heads have a size, and beyond it cost their client the connection and the server nothing.
#[tokio::test]
async fn large_heads_are_rejected() {
    let server = crate::support::Server::at(NOW_MS).await;
    for (bytes, status) in [(7_000, "200"), (9_000, "431"), (60_000, "431")] {
        let mut raw = Raw::connect(server.address).await;
        let long = "x".repeat(bytes);
        raw.write(format!("GET /health HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n")).await;
        let head = raw.read_until("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    let client = reqwest::Client::builder().http2_prior_knowledge().build().expect("a client");
    for (bytes, status) in [(7_000, 200), (9_000, 431)] {
        let request = client.get(server.url("/health")).header("x", "x".repeat(bytes));
        assert_eq!(request.send().await.expect("a response").status(), status, "{bytes}");
    }
}

/// A body that nobody may send is dropped as it comes, however many streams bring one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn bodies_without_a_key_are_not_kept() {
    let database = Database::new().await;
    let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
    let mut open = Vec::new();
    let mut before = 0.0;
    for number in 0..60 {
        // The first ones set the measure.
        if number == 10 {
            before = server.peak_memory_mib();
        }
        let stream = Raw::connect(server.address).await.into_stream();
        let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        for method in ["POST", "GET", "PUT"] {
            let request = hyper::Request::builder().method(method).uri("http://h/v1/sessions");
            let request = request.header("x-api-key", "no").body(()).expect("valid");
            requests = requests.ready().await.expect("open");
            let (response, mut body) = requests.send_request(request, false).expect("sent");
            // As much as the window permits; the rest, and the end, never come.
            let _ = body.send_data(vec![b'x'; 900_000].into(), false);
            let status = response.await.expect("a response").status();
            assert!(status == 401 || status == 405, "{status}");
            open.push((requests.clone(), body));
        }
    }
    let grown = server.peak_memory_mib() - before;
    assert!(grown < 25.0, "{grown} MiB more than {before} MiB");
}
