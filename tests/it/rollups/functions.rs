//! What the server's job makes of sessions, read through `qoe()`, is what the sessions say:
//! before longer buckets are merged, after that, and when a late report has undone a merge.

use serde_json::json;

use super::{post, post_odd_ones, settle, simulate};
use crate::qoe::{DIMENSIONS, HOUR, Question};
use crate::support::{Database, Server, now_ms};

/// Every kind of question, each compared with the sessions.
async fn ask(database: &Database) {
    let by_type = Some(("stream_type", "stream_type"));
    Question::all().check(database).await;
    for by in DIMENSIONS {
        Question { by: Some(by), ..Question::all() }.check(database).await;
    }
    let errors = Some(("error", "concat(last_error_category, ' ', last_error_code)"));
    Question { by: errors, condition: "failed", ..Question::all() }.check(database).await;
    for step in ["30 minutes", "6 hours", "12 hours", "1 day"] {
        Question { step: Some((step, step)), ..Question::all() }.check(database).await;
    }
    for (filters, condition) in [
        (r#"{"stream_type": "VOD"}"#, "stream_type = 'VOD'"),
        (r#"{"app_version": "not reported"}"#, "app_version IS NULL"),
        (
            r#"{"content_id": ["Ü \"x\" ''y''", "(other)"]}"#,
            "content_id IN ('Ü \"x\" ''y''', '(other)')",
        ),
    ] {
        let question = Question { filters, condition, ..Question::all() };
        question.check(database).await;
        Question { by: by_type, ..question }.check(database).await;
    }

    // Where two dimensions meet, and in short ranges, the sessions themselves are read, and the
    // range is exact.
    let range = Question::all().range;
    let (filters, condition) = (r#"{"connection_type": "4G"}"#, "connection_type = '4G'");
    let by = Some(("device_model", "device_model"));
    Question { filters, condition, by, read: range, ..Question::all() }.check(database).await;
    let range = (50 * HOUR + 7, 53 * HOUR + 7);
    let short = Question { range, read: range, ..Question::all() };
    short.check(database).await;
    Question { by, step: Some(("5 minutes", "5 minutes")), ..short }.check(database).await;

    // Sessions that did not fail are in no row of "error", whatever is read.
    let (filters, condition) = (r#"{"error": "not reported"}"#, "false");
    for question in [Question::all(), short] {
        let question = Question { filters, condition, by: by_type, ..question };
        assert_eq!(question.check(database).await, 0);
    }
}

#[tokio::test]
async fn what_the_job_makes_is_what_qoe_says() {
    let server = Server::start().await;
    let database = &server.database;
    simulate(&server, &["--history", "3d", "--sessions", "1500"]).await;
    post_odd_ones(&server).await;
    // Those that never played count as left a minute after their report: let that be over, so that
    // nothing changes while questions are asked.
    database
        .execute(
            "UPDATE sessions SET received_at = received_at - interval '2 minutes';
             CREATE TABLE base AS SELECT date_trunc('hour', now(), 'UTC') - interval '55 hours' AS b",
        )
        .await;
    server.app.store.touch_rollups(None, None).await.expect("touched");
    settle(&server.app).await;
    ask(database).await;

    let quiet = "UPDATE rollup_blocks SET changed_at = changed_at - interval '5 minutes'";
    database.execute(quiet).await;
    settle(&server.app).await;
    let merged = "SELECT count(*) FROM rollup_blocks, base
                  WHERE is_merged AND bucket >= b AND bucket + minutes * interval '1 minute' <= b + interval '54 hours'";
    let before = database.number(merged).await;
    assert!(before >= 8, "{before}");
    ask(database).await;

    let start = "SELECT to_char((b + interval '30 hours') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM base";
    let start = database.value(start).await.expect("a time");
    let late = json!({"sessionId": "late", "timestamp": now_ms(), "sessionStartDateIso": start,
                      "playTimeMs": 9_000, "startupTimeMs": 700, "contentId": "late"});
    post(&server, late).await;
    settle(&server.app).await;
    assert!(database.number(merged).await < before);
    ask(database).await;
    let content = Some(("content_id", "content_id"));
    let (filters, condition) = (r#"{"content_id": "late"}"#, "content_id = 'late'");
    let question = Question { by: content, filters, condition, ..Question::all() };
    assert_eq!(question.check(database).await, 1);
}
