//! What the backend says of itself in the database.

use std::time::{Duration, Instant};

use media3watch::jobs::Heart;

use crate::retention::run_retention;
use crate::support::{Server, now_ms};

#[tokio::test]
async fn a_minute_says_what_happened_in_it() {
    let server = Server::start().await;
    wait_for(&server, "SELECT count(*) FROM backend_minutes").await;
    let mut heart = Heart::new(&server.app);
    heart.beat(&server.app).await.expect("written");
    let report =
        |id: &str, at: i64| format!(r#"{{"sessionId":"{id}","timestamp":{}}}"#, now_ms() + at);
    for (id, at) in [("a", 0), ("b", 0), ("a", 1_000), ("a", -5_000)] {
        assert_eq!(server.post(report(id, at)).await.status, 200);
    }
    assert_eq!(server.post("{}").await.status, 400);
    assert_eq!(server.get("/health").await.status, 200);
    heart.beat(&server.app).await.expect("written");

    let last = r#"FROM backend_minutes ORDER BY "time" DESC LIMIT 1"#;
    let counts =
        "SELECT concat_ws(' ', requests, client_errors, server_errors, stored, updated, duplicate,
                         stale, limited, rejected, failed, batch_reports, queue_reports)";
    assert_eq!(
        server.database.value(&format!("{counts} {last}")).await.expect("a row"),
        r#"5 1 0 2 1 0 1 0 {"INVALID_SCHEMA": 1} {} 4 0"#
    );
    let sane = "SELECT answer_mean_ms > 0 AND answer_p95_ms > 0 AND commit_mean_ms > 0
                   AND commit_p95_ms > 0 AND batches BETWEEN 1 AND 4 AND seconds > 0
                   AND pool_max = 20 AND pool_active + pool_idle BETWEEN 1 AND 20
                   AND database_bytes > 1000000 AND started_at <= now() AND version <> ''";
    assert_eq!(server.database.value(&format!("{sane} {last}")).await.as_deref(), Some("true"));
    let port = server.address.port().to_string();
    let instance = server.database.value(&format!("SELECT instance {last}")).await;
    assert!(instance.as_deref().is_some_and(|name| name.ends_with(&port)), "{instance:?}");
    // A minute in which nothing happened is told too.
    heart.beat(&server.app).await.expect("written");
    let quiet = format!("SELECT concat_ws(' ', requests, answer_mean_ms) {last}");
    assert_eq!(server.database.value(&quiet).await.as_deref(), Some("0"));
}

/// The first row is written when a server starts: a restart is seen at once.
#[tokio::test]
async fn a_start_is_a_heartbeat() {
    let server = Server::start().await;
    wait_for(&server, "SELECT count(*) FROM backend_minutes WHERE seconds < 10").await;
}

async fn wait_for(server: &Server, count: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.database.number(count).await == 0 {
        assert!(Instant::now() < deadline, "still none: {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn runs_of_jobs_are_told_and_old_ones_forgotten() {
    let server = Server::start().await;
    let first = "SELECT count(*) FROM job_runs WHERE job = 'retention'";
    wait_for(&server, first).await;
    server
        .database
        .execute(
            r#"INSERT INTO job_runs (job, instance, started_at, finished_at, result, detail)
               SELECT 'retention', 'old', t, t, 'ok', '' FROM (VALUES
                 (now() - interval '91 days'), (now() - interval '89 days')) AS v (t);
               INSERT INTO backend_minutes ("time", instance, version, started_at, seconds, requests,
                 client_errors, server_errors, stored, updated, duplicate, stale, limited, rejected, failed,
                 batches, batch_reports, queue_reports, queue_bytes, pool_active, pool_idle, pool_max, database_bytes)
               SELECT now() - n * interval '1 day', 'old', '', now(), 60, 0, 0, 0, 0, 0, 0, 0, 0, '{}', '{}',
                      0, 0, 0, 0, 0, 0, 0, 0 FROM generate_series(28.5, 33.5) AS n"#,
        )
        .await;
    assert!(run_retention(&server.app).await);
    let old = "SELECT count(*) FROM job_runs WHERE instance = 'old'";
    assert_eq!(server.database.number(old).await, 1);
    let old = "SELECT count(*) FROM backend_minutes WHERE instance = 'old'";
    assert_eq!(server.database.number(old).await, 2);
    let last = "SELECT concat_ws('|', job, result, finished_at >= started_at) FROM job_runs
                WHERE job = 'retention' AND instance <> 'old' ORDER BY id DESC LIMIT 1";
    assert_eq!(server.database.value(last).await.as_deref(), Some("retention|ok|t"));
    let detail = "SELECT count(*) FROM job_runs WHERE detail LIKE '%4 backend_minutes, 1 job_runs'";
    assert_eq!(server.database.number(detail).await, 1);
}

/// What happened after the last row is told at the end, when all reports have their outcome.
#[tokio::test]
async fn the_last_minute_is_told_too() {
    let server = Server::start().await;
    wait_for(&server, "SELECT count(*) FROM backend_minutes").await;
    let database = server.database.clone();
    let body = format!(r#"{{"sessionId":"s","timestamp":{}}}"#, now_ms());
    assert_eq!(server.post(body).await.status, 200);
    server.stop().await;
    assert_eq!(database.number("SELECT sum(stored)::bigint FROM backend_minutes").await, 1);
}
