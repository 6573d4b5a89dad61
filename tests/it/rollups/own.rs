//! Own dimensions in rollups: filled from payloads when they are new.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{post, settle};
use crate::support::{Database, Server, ServerOptions, now_ms};

async fn server(database: &Database, dimensions: &str) -> Server {
    let env = vec![("DIMENSIONS", dimensions.to_owned())];
    Server::with(ServerOptions { env, ..ServerOptions::default() }, database).await
}

async fn post_sessions(server: &Server, prefix: &str) {
    for (number, cdn) in ["east", "east", "west", "east"].into_iter().enumerate() {
        let started = now_ms() - 86_400_000 * i64::try_from(number).expect("few");
        let start = jiff::Timestamp::from_millisecond(started).expect("a date").to_string();
        let report = json!({
            "sessionId": format!("{prefix}-{number}"), "timestamp": now_ms(),
            "sessionStartDateIso": start, "playTimeMs": 1_000,
            "custom": {"cdn": cdn, "plan": 7}, "app": {"version": "1"},
        });
        post(server, report).await;
    }
}

/// `value sessions` of a dimension over the last week, the most sessions first.
async fn by(database: &Database, dimension: &str) -> Vec<String> {
    let sql = format!(
        "SELECT value || ' ' || sessions FROM qoe(now() - interval '7 days', now(), by => '{dimension}')"
    );
    database.lines(&sql).await
}

/// Waits until what was stored before is filled, and made anew.
async fn filled(server: &Server) {
    let began = Instant::now();
    while !server.app.store.unfilled_fields().await.expect("the database answers").is_empty() {
        assert!(began.elapsed() < Duration::from_mins(1), "nothing fills the columns");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let touched = "SELECT count(*) FROM job_runs WHERE job = 'own_dimensions' AND result = 'ok'";
    while server.database.number(touched).await == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    settle(&server.app).await;
    server.database.execute("DELETE FROM job_runs WHERE job = 'own_dimensions'").await;
}

#[tokio::test]
async fn a_new_dimension_knows_the_sessions_from_before() {
    let database = Database::new().await;
    let before = Server::with(ServerOptions::default(), &database).await;
    post_sessions(&before, "before").await;
    settle(&before.app).await;
    before.stop().await;

    let with_cdn = server(&database, "cdn:custom.cdn").await;
    // What was there stays readable.
    assert_eq!(by(&database, "app_version").await, ["1 4"]);
    post_sessions(&with_cdn, "after").await;
    filled(&with_cdn).await;
    assert_eq!(by(&database, "cdn").await, ["east 6", "west 2"]);
    assert_eq!(by(&database, "app_version").await, ["1 8"]);
    let filtered =
        "SELECT sessions::text FROM qoe(now() - interval '7 days', now(), '{\"cdn\": \"west\"}')";
    assert_eq!(database.value(filtered).await.as_deref(), Some("2"));
    let both = filtered.replace("\"west\"", "\"west\", \"app_version\": \"1\"");
    assert_eq!(database.value(&both).await.as_deref(), Some("2"));
    with_cdn.stop().await;

    // Another list: the new name is filled, and the old one keeps what it has.
    let with_plan = server(&database, "plan:custom.plan").await;
    filled(&with_plan).await;
    assert_eq!(by(&database, "plan").await, ["7 8"]);
    assert_eq!(by(&database, "cdn").await, ["east 6", "west 2"]);
    with_plan.stop().await;

    // The same name for something else: nothing of what it meant before is added to it.
    let renamed = server(&database, "cdn:custom.plan").await;
    let old = by(&database, "cdn").await;
    assert!(!old.iter().any(|row| row.contains("st ")), "{old:?}");
    filled(&renamed).await;
    assert_eq!(by(&database, "cdn").await, ["7 8"]);
}
