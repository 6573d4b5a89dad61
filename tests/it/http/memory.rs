//! What large bodies and answers cost: memory for a moment, and no more of it than they are.

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
