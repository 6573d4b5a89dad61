//! Responses that clients do not read: how much memory they hold, and for how long.

use std::net::SocketAddr;
use std::time::Duration;

use h2::client::{Builder, ResponseFuture, SendRequest};
use hyper::Request;
use media3watch::limit::Limits;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::NOW_MS;
use crate::support::{Binary, Database, KEY, Raw, Server, ServerOptions, client};

/// An HTTP/2 client that never makes room for a body. It answers pings.
struct Deaf(SendRequest<bytes::Bytes>, tokio::task::JoinHandle<()>);

impl Deaf {
    async fn connect(from: [u8; 4], address: SocketAddr) -> Self {
        let stream = Raw::connect_from(from, address).await.into_stream();
        let handshake = Builder::new().initial_window_size(0).handshake(stream);
        let (requests, connection) = handshake.await.expect("HTTP/2");
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self(requests, connection)
    }

    /// Asks; the response's status comes, its body cannot.
    async fn get(&mut self, path: &str) -> (u16, ResponseFuture, h2::RecvStream) {
        let request = Request::get(format!("http://h{path}")).header("X-API-Key", KEY).body(());
        let mut requests = self.0.clone().ready().await.expect("open");
        let (response, _) = requests.send_request(request.expect("valid"), true).expect("sent");
        let mut response = response;
        let head = timeout(Duration::from_secs(20), &mut response).await.expect("in time");
        let (head, body) = head.expect("a response").into_parts();
        (head.status.as_u16(), response, body)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn sessions_that_nobody_reads_have_a_budget() {
    let database = Database::new().await;
    let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
    let http = client(Duration::from_secs(30));
    let large = json!({"sessionId": "s", "timestamp": NOW_MS, "note": "x".repeat(900_000)});
    let post = |id: &str, text: String| {
        let request = http.post(server.url("/v1/sessions")).header("X-API-Key", KEY);
        request.body(text.replace("\"s\"", &format!("\"{id}\""))).send()
    };
    assert_eq!(post("s", large.to_string()).await.expect("a response").status(), 200);
    let read = || http.get(server.url("/v1/sessions/s")).header("X-API-Key", KEY).send();
    assert_eq!(read().await.expect("a response").bytes().await.expect("whole").len() / 900_000, 1);
    let before = server.peak_memory_mib();

    let mut held = Vec::new();
    let (mut given, mut refused) = (0, 0);
    for _ in 0..3 {
        let mut deaf = Deaf::connect([127, 0, 0, 1], server.address).await;
        for _ in 0..25 {
            let response = deaf.get("/v1/sessions/s").await;
            match response.0 {
                200 => given += 1,
                503 => refused += 1,
                other => panic!("{other}"),
            }
            held.push(response);
        }
        held.push(deaf.get("/health").await);
        std::mem::forget(deaf.1);
    }
    assert!(given >= 20 && refused >= 20, "{given} given, {refused} refused");
    let grown = server.peak_memory_mib() - before;
    assert!(grown < 50.0, "{grown} MiB more than {before} MiB");
    // Reports go on.
    let report = super::report("s");
    assert_eq!(post("t", report).await.expect("a response").status(), 200);
    assert_eq!(read().await.expect("a response").status(), 503);
    // Once they are gone, others read again.
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while read().await.expect("a response").status() != 200 {
        assert!(Instant::now() < deadline, "the memory did not come back");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn without_a_key_one_address_holds_little() {
    let server = Server::at(NOW_MS).await;
    let mut held = Vec::new();
    // Small responses cost their streams.
    for (path, given) in [("/metrics", 200), ("/nowhere", 404)] {
        let mut refused = 0;
        for _ in 0..16 {
            let mut deaf = Deaf::connect([127, 0, 0, 2], server.address).await;
            for _ in 0..20 {
                let response = deaf.get(path).await;
                // Where there is no memory, a small response loses its body, and no more.
                let has_body = !response.2.is_end_stream();
                let lost = if path == "/metrics" { 503 } else { given };
                assert_eq!(response.0, if has_body { given } else { lost }, "{path}");
                refused += u32::from(!has_body);
                held.push((response, deaf.0.clone()));
            }
        }
        assert!(refused >= 60, "{path}: {refused}");
    }
    // Other addresses have their own share.
    assert_eq!(server.get("/metrics").await.status, 200);
    assert_eq!(server.get("/openapi.json").await.status, 200);
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut again = Deaf::connect([127, 0, 0, 2], server.address).await;
    while again.get("/metrics").await.0 != 200 {
        assert!(Instant::now() < deadline, "the memory did not come back");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn hasty(write: Duration) -> Server {
    let limits = Limits { write, ..Limits::default() };
    let options = ServerOptions { now_ms: Some(NOW_MS), limits, ..ServerOptions::default() };
    Server::with(options, &Database::new().await).await
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_response_that_stays_unread_ends_its_connection() {
    let server = hasty(Duration::from_millis(500)).await;
    let mut deaf = Deaf::connect([127, 0, 0, 2], server.address).await;
    let response = deaf.get("/metrics").await;
    assert_eq!(response.0, 200);
    // Requests in between change nothing.
    let busy = async {
        loop {
            let request = Request::get("http://h/health/live").body(()).expect("valid");
            let Ok(mut requests) = deaf.0.clone().ready().await else { break };
            let Ok((response, _)) = requests.send_request(request, true) else { break };
            if response.await.is_err() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), busy).await.expect("closed by now");
    assert_eq!(server.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let server = hasty(Duration::from_millis(100)).await;
    let large = json!({"sessionId": "s", "timestamp": NOW_MS, "note": "x".repeat(1_000_000)});
    assert_eq!(server.post(large.to_string()).await.status, 200);
    let mut raw = Raw::connect(server.address).await;
    let request = format!("GET /v1/sessions/s HTTP/1.1\r\nHost: h\r\nX-API-Key: {KEY}\r\n\r\n");
    // More than the buffers of the kernel hold.
    raw.write(request.repeat(8)).await;
    sleep(Duration::from_secs(2)).await;
    for _ in 0..8 {
        sleep(Duration::from_millis(300)).await;
        let (head, body) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 200") && body.len() > 1_000_000, "{head}");
    }
}
