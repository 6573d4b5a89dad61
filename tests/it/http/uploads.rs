//! Large bodies that take their time, beside small ones that do not.

use std::time::Duration;

use media3watch::limit::Limits;
use tokio::time::{Instant, sleep, timeout};

use super::{NOW_MS, report};
use crate::support::{Database, Raw, Server, ServerOptions};

const MIB: usize = 1 << 20;

async fn server(still: Duration) -> Server {
    let limits = Limits { still, ..Limits::default() };
    let options = ServerOptions { now_ms: Some(NOW_MS), limits, ..ServerOptions::default() };
    Server::with(options, &Database::new().await).await
}

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: h\r\nX-API-Key: dev-key\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// A batch of the largest size, of which the last bytes do not come.
async fn unfinished_batch(server: &Server) -> Raw {
    let mut raw = Raw::connect(server.address).await;
    raw.write(head("/v1/sessions/batch", 8 * MIB)).await;
    raw.write(vec![b' '; 8 * MIB - 1_000]).await;
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_drip_leave_room_for_reports() {
    let server = server(Duration::from_secs(6)).await;
    let uploads = (0..8).map(|_| unfinished_batch(&server));
    let mut uploads = futures_util::future::join_all(uploads).await;
    // They drip; meanwhile, every report is stored.
    let since = Instant::now();
    let mut stored = 0;
    while since.elapsed() < Duration::from_secs(2) {
        for raw in &mut uploads {
            raw.write(" ").await;
        }
        let answer = server.post(report(&format!("s{stored}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        stored += 1;
        sleep(Duration::from_millis(20)).await;
    }
    // One key has memory for four of them, and for those, drops buy no time.
    let (mut refused, mut late) = (0, 0);
    for mut raw in uploads {
        let (head, body) = raw.answer().await;
        match &head[9..12] {
            "503" => refused += u32::from(body.contains("OVERLOADED")),
            "408" => late += 1,
            _ => panic!("{head}"),
        }
    }
    assert!(refused >= 1 && late >= 1 && refused + late == 8, "{refused} refused, {late} late");
    let took = since.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}: far from the 60 s that a body may take");
    // The memory is there again.
    let batch = format!("[{}]{}", report("s"), " ".repeat(8 * MIB - 2 - report("s").len()));
    assert_eq!(server.post_batch(batch).await.status, 200);
}

#[tokio::test]
async fn a_large_body_may_be_slow_and_steady() {
    let server = server(Duration::from_secs(3)).await;
    let body = report("s");
    let body = format!("{body}{}", " ".repeat(400_000 - body.len()));
    let mut raw = Raw::connect(server.address).await;
    raw.write(head("/v1/sessions", body.len())).await;
    // Longer in all than a body may stand still.
    for piece in body.as_bytes().chunks(40_000) {
        sleep(Duration::from_millis(400)).await;
        assert!(raw.write(piece).await);
    }
    assert!(raw.answer().await.0.starts_with("HTTP/1.1 200"));
}

/// What a body is once decompressed counts, too.
#[tokio::test]
async fn decompressed_bodies_count_by_what_comes_out() {
    let server = server(Duration::from_mins(1)).await;
    let mut uploads = Vec::new();
    for _ in 0..4 {
        uploads.push(unfinished_batch(&server).await);
    }
    let batch = format!("[{}]{}", report("s"), " ".repeat(MIB));
    let batch = super::bodies::compress("gzip", batch.as_bytes());
    assert!(batch.len() < 4_096);
    let deadline = Instant::now() + Duration::from_secs(30);
    // Once all of what was sent has arrived.
    loop {
        let request = server.request(reqwest::Method::POST, "/v1/sessions/batch");
        let request = request.header("Content-Encoding", "gzip").body(batch.clone());
        let answer = server.send(request).await;
        if answer.status == 503 {
            assert_eq!(answer.code(), "OVERLOADED");
            break;
        }
        assert!(Instant::now() < deadline, "{}", answer.text);
        sleep(Duration::from_millis(300)).await;
        for raw in &mut uploads {
            // It came too late for its last piece: the batch above had the memory.
            if timeout(Duration::from_millis(1), raw.answer()).await.is_ok() {
                *raw = unfinished_batch(&server).await;
            }
        }
    }
}
