//! More clients than connections: who gives way, and who is answered all the same.

use std::time::Duration;

use media3watch::limit::Limits;
use tokio::time::timeout;

use super::{NOW_MS, report};
use crate::support::{Database, Raw, Server, ServerOptions};

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";

async fn server(connections: usize, of_an_address: usize, trusted: &str) -> Server {
    let limits = Limits {
        connections,
        connections_of_an_address: of_an_address,
        spare_connections: 2,
        // No clock of the server ends what these tests hold open.
        head: Duration::from_mins(5),
        idle: Duration::from_mins(5),
        still: Duration::from_mins(5),
        body: Duration::from_mins(5),
        ..Limits::default()
    };
    let options = ServerOptions {
        env: vec![("TRUSTED_PROXIES", trusted.to_owned())],
        now_ms: Some(NOW_MS),
        limits,
        ..ServerOptions::default()
    };
    Server::with(options, &Database::new().await).await
}

async fn status(raw: &mut Raw, request: &str) -> (u16, String) {
    assert!(raw.write(request).await, "closed");
    let (head, _) = raw.answer().await;
    (head[9..12].parse().expect("a status"), head)
}

async fn is_healthy(raw: &mut Raw) {
    assert_eq!(status(raw, HEALTH).await.0, 200);
}

async fn gave_way(raw: &mut Raw) {
    raw.closed_after(Duration::from_secs(5)).await;
}

async fn stays_open(raw: &mut Raw) {
    let closed = timeout(Duration::from_millis(100), raw.closed_after(Duration::from_mins(1)));
    assert!(closed.await.is_err(), "closed");
}

/// One idle connection after the other, all of different ages.
async fn idle(server: &Server, from: [u8; 4], count: usize) -> Vec<Raw> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut raw = Raw::connect_from(from, server.address).await;
        is_healthy(&mut raw).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        all.push(raw);
    }
    all
}

/// A post whose body is still to come.
async fn busy(server: &Server, from: [u8; 4]) -> Raw {
    let mut raw = Raw::connect_from(from, server.address).await;
    let length = report("s").len();
    let head = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: h\r\nX-API-Key: dev-key\r\nContent-Length: {length}\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    assert!(raw.write(head).await);
    // Now the handler waits for the body.
    assert!(raw.read_until("\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    raw
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn when_all_connections_are_taken_the_longest_idle_gives_way() {
    let server = server(4, 4, "").await;
    let mut busy = busy(&server, [127, 0, 0, 2]).await;
    // A head that never ends is as idle as nothing.
    let mut half = Raw::connect(server.address).await;
    assert!(half.write("GET /health HTTP/1.1\r\nHost").await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut idle = idle(&server, [127, 0, 0, 1], 2).await;

    let mut next = Raw::connect_from([127, 0, 0, 3], server.address).await;
    is_healthy(&mut next).await;
    gave_way(&mut half).await;
    stays_open(&mut idle[0]).await;
    // Having been used last, this one stays.
    is_healthy(&mut idle[0]).await;
    let mut last = Raw::connect_from([127, 0, 0, 4], server.address).await;
    is_healthy(&mut last).await;
    gave_way(&mut idle[1]).await;
    for raw in [&mut idle[0], &mut next, &mut last] {
        is_healthy(raw).await;
    }
    assert!(busy.write(report("s")).await);
    assert!(busy.answer().await.0.starts_with("HTTP/1.1 200"));
    let evicted = server.metric("http_server_connections_evicted_total{reason=\"full\"}").await;
    // The scrape itself may have needed room.
    assert!((2.0..=3.0).contains(&evicted), "{evicted}");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn one_address_has_its_share_unless_it_is_a_trusted_proxy() {
    let server = server(20, 3, "127.0.0.8/30").await;
    let mut other = idle(&server, [127, 0, 0, 2], 1).await;
    let mut crowd = idle(&server, [127, 0, 0, 3], 8).await;
    for (number, raw) in crowd.iter_mut().enumerate() {
        if number < 5 {
            gave_way(raw).await;
        } else {
            is_healthy(raw).await;
        }
    }
    is_healthy(&mut other[0]).await;
    let mut proxied = idle(&server, [127, 0, 0, 9], 8).await;
    for raw in &mut proxied {
        is_healthy(raw).await;
    }
    let evicted = "http_server_connections_evicted_total{reason=\"address\"}";
    assert!((server.metric(evicted).await - 5.0).abs() < 0.5);
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn probes_are_answered_when_every_connection_is_busy() {
    let server = server(3, 3, "").await;
    let mut all = Vec::new();
    for number in 2..5 {
        all.push(busy(&server, [127, 0, 0, number]).await);
    }
    // Spare connections give way to each other: however many there were, the next is answered.
    let mut spare = Vec::new();
    for path in ["/health", "/health/live", "/health/ready", "/health", "/health"] {
        let mut raw = Raw::connect(server.address).await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(status(&mut raw, &request).await.0, 200, "{path}");
        spare.push(raw);
    }
    let body = report("x");
    let post = format!(
        "POST /v1/sessions HTTP/1.1\r\nHost: h\r\nX-API-Key: dev-key\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for request in [post.as_str(), "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"] {
        let mut raw = Raw::connect(server.address).await;
        let (code, head) = status(&mut raw, request).await;
        assert_eq!(code, 503, "{head}");
        assert!(head.contains("connection: close\r\n") && head.contains("retry-after: "), "{head}");
        gave_way(&mut raw).await;
    }
    // With room again, a spare connection is one like all others.
    let mut spare = Raw::connect(server.address).await;
    is_healthy(&mut spare).await;
    let mut first = all.remove(0);
    assert!(first.write(report("s")).await);
    assert!(first.answer().await.0.starts_with("HTTP/1.1 200"));
    drop(first);
    // The server learns of the end a moment later.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    loop {
        let mut raw = Raw::connect(server.address).await;
        let (code, head) = status(&mut raw, &post).await;
        if code == 200 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{head}");
    }
}
