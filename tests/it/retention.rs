//! Retention: whole months, the edge, sessions that straddle it, and late reports.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use media3watch::jobs::run_retention;
use serde_json::json;

use crate::support::{Database, Server, ServerOptions};

/// 2026-11-18T11:08:20Z.
const NOW_MS: i64 = 1_795_000_100_000;
const DAY_MS: i64 = 86_400_000;

async fn post_at(server: &Server, id: &str, received: i64, started: i64) {
    server.clock_ms.store(received, Ordering::Relaxed);
    let start = jiff::Timestamp::from_millisecond(started)
        .expect("a date")
        .to_string();
    let body = json!({
        "sessionId": id, "timestamp": received, "sessionStartDateIso": start,
        "timelineEvents": [{"timestampMs": received, "elapsedMs": 1, "playbackState": "PLAYING"}],
    });
    let answer = server.post(body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A server that took a session a day for 200 days, when they happened.
async fn with_history(options: ServerOptions, database: &Database) -> Server {
    let options = ServerOptions {
        now_ms: Some(NOW_MS - 200 * DAY_MS),
        ..options
    };
    let server = Server::with(options, database).await;
    for age in (0..200).rev() {
        let time = NOW_MS - age * DAY_MS;
        post_at(&server, &format!("day{age}"), time, time).await;
    }
    server
}

async fn count(database: &Database, table: &str) -> i64 {
    database
        .number(&format!("SELECT count(*) FROM {table}"))
        .await
}

#[tokio::test]
async fn whole_months_are_dropped_and_the_edge_is_deleted() {
    let database = Database::new().await;
    let server = with_history(ServerOptions::default(), &database).await;
    assert_eq!(count(&database, "sessions").await, 200);
    assert!(run_retention(&server.app).await);

    // 90 days before 18 November is 20 August: July and before are gone whole.
    let partitions = "SELECT inhrelid::regclass::text FROM pg_inherits
                      WHERE inhparent = 'sessions'::regclass ORDER BY 1 LIMIT 1";
    assert_eq!(database.lines(partitions).await, ["sessions_2026_08"]);
    let timelines = partitions.replace("'sessions'", "'session_timeline'");
    assert_eq!(
        database.lines(&timelines).await,
        ["session_timeline_2026_08"]
    );
    for table in ["sessions", "session_timeline", "session_places"] {
        // Days 0 to 90: the oldest began exactly 90 days ago, to the millisecond.
        assert_eq!(count(&database, table).await, 91, "{table}");
    }
    let oldest = r#"SELECT session_id FROM sessions ORDER BY "timestamp" LIMIT 1"#;
    assert_eq!(database.lines(oldest).await, ["day90"]);

    assert!(server.metric("retention_dropped_partitions_total").await >= 6.0);
    assert!(
        server
            .metric("retention_deleted_rows_total{table=\"sessions\"}")
            .await
            >= 1.0
    );
    assert!(
        server
            .metric("retention_deleted_rows_total{table=\"session_places\"}")
            .await
            >= 109.0
    );
    // A second run finds nothing to do.
    assert!(run_retention(&server.app).await);
    assert_eq!(count(&database, "sessions").await, 91);
}

#[tokio::test]
async fn zero_keeps_everything() {
    let database = Database::new().await;
    let env = vec![("RETENTION_DAYS", "0".to_owned())];
    let options = ServerOptions {
        env,
        ..ServerOptions::default()
    };
    let server = with_history(options, &database).await;
    assert!(run_retention(&server.app).await);
    assert_eq!(count(&database, "sessions").await, 200);
}

#[tokio::test]
async fn a_session_that_straddles_the_edge_stays_one_row() {
    let server = Server::at(NOW_MS - 90 * DAY_MS).await;
    let started = NOW_MS - 90 * DAY_MS;
    post_at(&server, "s", started, started).await;
    // Ninety days later it is still at it. Its place has expired, its row is not pruned yet.
    post_at(&server, "s", NOW_MS, started).await;
    let row = r#"SELECT count(*) || ' ' || max(report_count) || ' ' ||
                 (extract(epoch FROM max("timestamp")) * 1000)::bigint || ' ' || max(clock_skew_ms)
                 FROM sessions"#;
    let expected = format!("1 1 {NOW_MS} {}", NOW_MS - started);
    assert_eq!(server.database.value(row).await, Some(expected));
    assert_eq!(count(&server.database, "session_timeline").await, 1);
    assert_eq!(count(&server.database, "session_places").await, 1);
    // Now it is young again: pruning leaves it alone, and a report updates it.
    assert!(run_retention(&server.app).await);
    post_at(&server, "s", NOW_MS + 1, started).await;
    let row = "SELECT count(*) || ' ' || max(report_count) FROM sessions";
    assert_eq!(server.database.value(row).await.as_deref(), Some("1 2"));
}

#[tokio::test]
async fn a_late_report_for_a_session_already_gone_is_stored_at_its_receipt() {
    let database = Database::new().await;
    let server = with_history(ServerOptions::default(), &database).await;
    assert!(run_retention(&server.app).await);
    // One from a dropped month, one from the deleted part of the edge.
    for age in [150, 95] {
        post_at(&server, &format!("day{age}"), NOW_MS, NOW_MS - age * DAY_MS).await;
        let row = format!(
            r#"SELECT count(*) || ' ' || (extract(epoch FROM max("timestamp")) * 1000)::bigint
               FROM sessions WHERE session_id = 'day{age}'"#
        );
        assert_eq!(database.value(&row).await, Some(format!("1 {NOW_MS}")));
    }
    assert!(run_retention(&server.app).await);
    assert_eq!(count(&database, "sessions").await, 93);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_prune_at_once_while_reports_come_in() {
    let database = Database::new().await;
    let one = with_history(ServerOptions::default(), &database).await;
    let options = ServerOptions {
        now_ms: Some(NOW_MS),
        ..ServerOptions::default()
    };
    let two = Server::with(options, &database).await;
    let reports = async {
        for minute in 0..50 {
            post_at(
                &one,
                &format!("late{minute}"),
                NOW_MS,
                NOW_MS - 100 * DAY_MS,
            )
            .await;
        }
    };
    let (first, second, ()) =
        tokio::join!(run_retention(&one.app), run_retention(&two.app), reports);
    assert!(first && second);
    // The second server prunes at its start too, so either may have found the other at it.
    assert!(run_retention(&one.app).await);
    assert_eq!(count(&database, "sessions").await, 91 + 50);
    assert_eq!(count(&database, "session_places").await, 91 + 50);
    let twice =
        "SELECT count(*) FROM (SELECT FROM sessions GROUP BY session_id HAVING count(*) > 1) AS d";
    assert_eq!(database.number(twice).await, 0);
}

/// Dropping a partition waits for readers; it must give up before it holds up the writers.
#[tokio::test]
async fn a_slow_reader_delays_pruning_and_nobody_else() {
    let database = Database::new().await;
    let server = with_history(ServerOptions::default(), &database).await;
    let mut reader = database.connect().await;
    let hold = "BEGIN; SELECT count(*) FROM sessions";
    sqlx::raw_sql(hold)
        .execute(&mut reader)
        .await
        .expect("reads");

    let began = Instant::now();
    let write = async {
        // While the drop waits in the queue for the reader.
        tokio::time::sleep(Duration::from_millis(300)).await;
        post_at(&server, "meanwhile", NOW_MS, NOW_MS).await;
        began.elapsed()
    };
    let (pruned, written) = tokio::join!(run_retention(&server.app), write);
    assert!(!pruned, "the reader is still there");
    assert!(
        written < Duration::from_secs(5),
        "a report waited {written:?}"
    );
    drop(reader);
    while !run_retention(&server.app).await {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "pruning never gets through"
        );
    }
    assert_eq!(count(&database, "sessions").await, 92);
}

#[tokio::test]
async fn refused_bodies_expire_after_thirty_days() {
    let server = Server::at(NOW_MS - 31 * DAY_MS).await;
    assert_eq!(server.post("{").await.status, 400);
    server.clock_ms.store(NOW_MS, Ordering::Relaxed);
    assert_eq!(server.post("[").await.status, 400);
    assert_eq!(count(&server.database, "rejected_reports").await, 2);
    assert!(run_retention(&server.app).await);
    let kept = "SELECT convert_from(body, 'UTF8') FROM rejected_reports";
    assert_eq!(server.database.lines(kept).await, ["["]);
}
