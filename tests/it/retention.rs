//! Retention: whole months, the edge, sessions that straddle it, and late reports.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use media3watch::app::App;
use media3watch::jobs;
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::support::{Database, Server, ServerOptions};

/// 2026-11-18T11:08:20Z.
const NOW_MS: i64 = 1_795_000_100_000;
const DAY_MS: i64 = 86_400_000;

/// A run of retention that was not left to another: a server prunes at its start too, and
/// may still be at it.
pub async fn run_retention(app: &App) -> bool {
    const SKIPPED: &str = "job_runs_total{job=\"retention\",result=\"skipped\"}";
    let skipped = || {
        let text = app.metrics.render((0, 0, 0));
        let count = text.lines().find_map(|line| line.strip_prefix(SKIPPED)).expect(SKIPPED);
        count.trim().parse::<u64>().expect("a number")
    };
    loop {
        let before = skipped();
        let is_done = jobs::run_retention(app).await;
        if skipped() == before {
            return is_done;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn post_at(server: &Server, id: &str, received: i64, started: i64) {
    server.clock_ms.store(received, Ordering::Relaxed);
    let start = jiff::Timestamp::from_millisecond(started).expect("a date").to_string();
    let body = json!({
        "sessionId": id, "timestamp": received, "sessionStartDateIso": start,
        "timelineEvents": [{"timestampMs": received, "elapsedMs": 1, "playbackState": "PLAYING"}],
    });
    let answer = server.post(body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A server that took a session a day for 200 days, when they happened.
async fn with_history(options: ServerOptions, database: &Database) -> Server {
    let options = ServerOptions { now_ms: Some(NOW_MS - 200 * DAY_MS), ..options };
    let server = Server::with(options, database).await;
    for age in (0..200).rev() {
        let time = NOW_MS - age * DAY_MS;
        post_at(&server, &format!("day{age}"), time, time).await;
    }
    server
}

async fn count(database: &Database, table: &str) -> i64 {
    database.number(&format!("SELECT count(*) FROM {table}")).await
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
    let timelines = partitions.replace("'sessions'", "'timeline_chunks'");
    assert_eq!(database.lines(&timelines).await, ["timeline_chunks_2026_08"]);
    for table in ["sessions", "session_timeline", "session_times"] {
        // Days 0 to 90: the oldest began exactly 90 days ago, to the millisecond.
        assert_eq!(count(&database, table).await, 91, "{table}");
    }
    let oldest = r#"SELECT session_id FROM sessions ORDER BY "timestamp" LIMIT 1"#;
    assert_eq!(database.lines(oldest).await, ["day90"]);

    assert!(server.metric("retention_dropped_partitions_total").await >= 6.0);
    assert!(server.metric("retention_deleted_rows_total{table=\"sessions\"}").await >= 1.0);
    assert!(server.metric("retention_deleted_rows_total{table=\"session_times\"}").await >= 109.0);
    // A second run finds nothing to do.
    assert!(run_retention(&server.app).await);
    assert_eq!(count(&database, "sessions").await, 91);
}

#[tokio::test]
async fn zero_keeps_everything() {
    let database = Database::new().await;
    let env = vec![("RETENTION_DAYS", "0".to_owned())];
    let options = ServerOptions { env, ..ServerOptions::default() };
    let server = with_history(options, &database).await;
    assert!(run_retention(&server.app).await);
    assert_eq!(count(&database, "sessions").await, 200);
}

#[tokio::test]
async fn a_session_that_straddles_the_edge_stays_one_row() {
    let started = NOW_MS - 90 * DAY_MS - 1;
    let server = Server::at(started).await;
    post_at(&server, "s", started, started).await;
    let row = r#"SELECT count(*) || ' ' || max(report_count) || ' ' ||
                 (extract(epoch FROM max("timestamp")) * 1000)::bigint || ' ' ||
                 coalesce(max(clock_skew_ms), 0) FROM sessions"#;
    // Ninety days later it is still at it. As long as it is there, it is where it was.
    post_at(&server, "s", NOW_MS, started).await;
    let there = format!("1 2 {started} 0");
    assert_eq!(server.database.value(row).await, Some(there));
    // Once pruned it begins anew, at the time of receipt.
    assert!(run_retention(&server.app).await);
    for table in ["sessions", "session_timeline", "session_times"] {
        assert_eq!(count(&server.database, table).await, 0, "{table}");
    }
    for again in 1..=2 {
        post_at(&server, "s", NOW_MS + again, started).await;
        let anew = format!("1 {again} {} {}", NOW_MS + 1, NOW_MS + 1 - started);
        assert_eq!(server.database.value(row).await, Some(anew));
    }
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
    let options = ServerOptions { now_ms: Some(NOW_MS), ..ServerOptions::default() };
    let two = Server::with(options, &database).await;
    // Half of them to sessions that are about to go.
    let reports = async {
        for round in 0..25 {
            post_at(&one, &format!("late{round}"), NOW_MS, NOW_MS - 100 * DAY_MS).await;
            let age = 91 + round * 4;
            post_at(&two, &format!("day{age}"), NOW_MS, NOW_MS - age * DAY_MS).await;
        }
    };
    let (first, second, ()) =
        tokio::join!(run_retention(&one.app), run_retention(&two.app), reports);
    assert!(first && second);
    // The second server prunes at its start too, so either may have found the other at it.
    assert!(run_retention(&one.app).await);
    let sessions = count(&database, "sessions").await;
    // Of the 25 that were about to go, those whose report came after their pruning are new.
    assert!((91 + 25..=91 + 50).contains(&sessions), "{sessions}");
    assert_eq!(count(&database, "session_times").await, sessions);
    assert_eq!(count(&database, "session_timeline").await, sessions);
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
    sqlx::raw_sql(hold).execute(&mut reader).await.expect("reads");

    let began = Instant::now();
    let write = async {
        // While the drop waits in the queue for the reader.
        tokio::time::sleep(Duration::from_millis(300)).await;
        post_at(&server, "meanwhile", NOW_MS, NOW_MS).await;
        began.elapsed()
    };
    let (pruned, written) = tokio::join!(run_retention(&server.app), write);
    assert!(!pruned, "the reader is still there");
    assert!(written < Duration::from_secs(5), "a report waited {written:?}");
    drop(reader);
    while !run_retention(&server.app).await {
        assert!(began.elapsed() < Duration::from_secs(30), "pruning never gets through");
    }
    assert_eq!(count(&database, "sessions").await, 92);
}

/// A writer that has written its row and not yet its timeline waits for no drop of a month, and
/// the drop for no more than the writer's end.
#[tokio::test]
async fn a_month_is_dropped_beside_a_writer() {
    let database = Database::new().await;
    let server = with_history(ServerOptions::default(), &database).await;
    let mut writer = database.connect().await;
    let row = format!(
        r#"BEGIN; SET lock_timeout = '400ms';
           UPDATE sessions SET received_at = now() WHERE session_key = session_key('default', 'day1')
             AND "timestamp" > to_timestamp({}::float8 / 1000)"#,
        NOW_MS - 2 * DAY_MS,
    );
    sqlx::raw_sql(AssertSqlSafe(row)).execute(&mut writer).await.expect("writes");
    let timeline = async {
        // While the drop waits for the row.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let chunk = r#"INSERT INTO timeline_chunks
                       SELECT session_key, "timestamp", 1, 1, '[[1,1,"PLAYING"]]' FROM session_times
                       WHERE session_key = session_key('default', 'day1'); COMMIT"#;
        sqlx::raw_sql(chunk).execute(&mut writer).await.expect("the drop is not in the way");
    };
    let (pruned, ()) = tokio::join!(run_retention(&server.app), timeline);
    assert!(pruned, "the writer has ended in time");
    assert_eq!(count(&database, "sessions").await, 91);
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

/// A machine that boots with its clock a year ahead must not delete what is young.
#[tokio::test]
async fn a_clock_that_runs_ahead_deletes_nothing() {
    let now = crate::support::now_ms();
    let server = Server::at(now).await;
    post_at(&server, "s", now, now).await;
    server.clock_ms.store(now + 400 * DAY_MS, Ordering::Relaxed);
    assert!(run_retention(&server.app).await);
    assert_eq!(count(&server.database, "sessions").await, 1);
}

/// Whoever may log in may take any advisory lock, so none of ours is one.
#[tokio::test]
async fn no_lock_of_the_role_for_grafana_is_in_the_way() {
    let database = Database::new().await;
    let role = format!("grafana_{}", database.name());
    let env = vec![
        ("GRAFANA_DB_USER", role.clone()),
        ("GRAFANA_DB_PASSWORD", "a-password-for-tests".to_owned()),
    ];
    let options = || ServerOptions { env: env.clone(), ..ServerOptions::default() };
    let server = Server::with(options(), &database).await;
    assert!(run_retention(&server.app).await);
    let mut reader = database.connect().await;
    let as_reader = format!("SET SESSION AUTHORIZATION {role}");
    sqlx::raw_sql(AssertSqlSafe(as_reader)).execute(&mut reader).await.expect("it exists");
    // Every lock that a session of ours ever asks for.
    let ours = "SELECT count(*) FROM pg_proc WHERE prosrc LIKE '%advisory%' AND pronamespace = 'public'::regnamespace";
    assert_eq!(database.number(ours).await, 0);
    for class in [0x006d_3377, 0] {
        let take = format!(
            "SELECT pg_advisory_lock({class}, number) FROM generate_series(1, 9) AS number"
        );
        sqlx::raw_sql(AssertSqlSafe(take)).execute(&mut reader).await.expect("anybody may");
    }
    for table in ["server_lock", "retention_lock", "rejected_lock", "_sqlx_migrations"] {
        let lock = format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE");
        let refused = sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut reader).await;
        assert!(refused.is_err(), "{table}");
        sqlx::raw_sql("ROLLBACK").execute(&mut reader).await.expect("it ends");
    }
    assert!(run_retention(&server.app).await);
    let second = Server::with(options(), &database).await;
    assert_eq!(second.get("/health").await.status, 200);
}
