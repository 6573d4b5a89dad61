//! Rate limits as clients see them.

use std::time::Duration;

use super::{NOW_MS, is_error, report};
use crate::support::{Database, Server, ServerOptions};

#[tokio::test]
async fn over_the_limit_clients_are_told_when_to_come_back_and_may() {
    let options = ServerOptions {
        env: vec![
            ("RATE_LIMIT_REQUESTS", "3".to_owned()),
            ("RATE_LIMIT_WINDOW_SEC", "6".to_owned()),
        ],
        now_ms: Some(NOW_MS),
        ..ServerOptions::default()
    };
    let server = Server::with(options, &Database::new().await).await;
    for remaining in ["2", "1", "0"] {
        let answer = server.post(report("s")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-limit"), "3");
        assert_eq!(answer.header("ratelimit-remaining"), remaining);
        let reset: u64 = answer.header("ratelimit-reset").parse().expect("seconds");
        assert!((1..=6).contains(&reset), "{reset}");
        assert!(!answer.headers.contains_key("retry-after"));
    }
    let answer = server.post(report("s")).await;
    is_error(&answer, 429, "RATE_LIMIT_EXCEEDED");
    assert_eq!(answer.header("ratelimit-remaining"), "0");
    let wait: u64 = answer.header("retry-after").parse().expect("whole seconds");
    assert!((1..=5).contains(&wait), "{wait}");
    // Every limited route, and no other.
    is_error(&server.post_batch("[]").await, 429, "RATE_LIMIT_EXCEEDED");
    is_error(&server.get("/v1/sessions/s").await, 429, "RATE_LIMIT_EXCEEDED");
    assert_eq!(server.get("/health").await.status, 200);
    assert!((server.metric("rate_limited_total{tenant=\"default\"}").await - 3.0).abs() < 0.5);
    // A key that is wrong has no limit to use up.
    let request = reqwest::Client::new().post(server.url("/v1/sessions"));
    is_error(&server.send(request).await, 401, "INVALID_API_KEY");

    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(server.post(report("s")).await.status, 200);
}

#[tokio::test]
async fn refusals_tell_the_limit_too() {
    let server = Server::at(NOW_MS).await;
    for answer in [
        server.post("{}").await,
        server.get("/v1/sessions/nobody").await,
        server.post_batch("{}").await,
    ] {
        assert!(answer.status.is_client_error());
        for header in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
            assert!(answer.header(header).parse::<u32>().is_ok(), "{header}");
        }
    }
    for path in ["/health", "/metrics", "/openapi.json", "/nowhere"] {
        assert!(!server.get(path).await.headers.contains_key("ratelimit-limit"));
    }
}
