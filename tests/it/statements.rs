//! What users' own SQL relies on: the statements of the documentation run as they are, prune
//! partitions, and use indexes.

use sqlx::AssertSqlSafe;

use crate::support::{Cluster, Database, Server, ServerOptions};

/// As users have them in their dashboards.
pub const STATEMENTS: [&str; 4] = [
    "SELECT percentile_cont(0.5)  WITHIN GROUP (ORDER BY player_startup_ms) AS p50,
       percentile_cont(0.75) WITHIN GROUP (ORDER BY player_startup_ms) AS p75,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY player_startup_ms) AS p95,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY player_startup_ms) AS p99
FROM sessions WHERE player_startup_ms IS NOT NULL AND timestamp > NOW() - INTERVAL '24 hours'",
    "SELECT DATE_TRUNC('day', timestamp) AS day, COUNT(*) AS error_count
FROM sessions WHERE error_count > 0 AND timestamp > NOW() - INTERVAL '7 days' GROUP BY day ORDER BY day DESC",
    "SELECT CASE WHEN rebuffer_time_ms = 0 THEN '0 ms (no rebuffer)' WHEN rebuffer_time_ms <= 1000 THEN '1-1000 ms'
            WHEN rebuffer_time_ms <= 5000 THEN '1001-5000 ms' ELSE '>5000 ms' END AS rebuffer_bucket, COUNT(*) AS session_count
FROM sessions WHERE rebuffer_time_ms IS NOT NULL AND timestamp > NOW() - INTERVAL '7 days' GROUP BY rebuffer_bucket ORDER BY rebuffer_bucket",
    "SELECT timestamp, player_startup_ms FROM sessions WHERE timestamp > NOW() - INTERVAL '7 days' ORDER BY timestamp DESC",
];

/// 85 days of sessions, one every two minutes.
async fn fill(database: &Database) {
    database
        .execute(
            r#"INSERT INTO sessions (session_key, tenant_id, session_id, "timestamp", reported_at, received_at,
                 created_at, report_count, player_startup_ms, rebuffer_time_ms, error_count, content_id, payload)
               SELECT session_key('default', id), 'default', id, t, t, t, t, 1, (random() * 3000)::int,
                 (random() * 6000)::int, (random() < 0.02)::int, 'content-' || n % 50, '{}'
               FROM generate_series(1, 60000) n, LATERAL (SELECT now() - n * interval '2 minutes' AS t, gen_random_uuid()::text AS id) AS times;
               INSERT INTO timeline_chunks SELECT session_key, "timestamp", 1, 1, '[[1,1,"PLAYING"]]' FROM sessions;
               ANALYZE"#,
        )
        .await;
}

async fn server_with_months() -> Server {
    let server = Server::start().await;
    // A report makes the partition of its month.
    for days in [30, 60, 85] {
        let timestamp = crate::support::now_ms() - days * 86_400_000;
        let body = format!(r#"{{"sessionId":"d{days}","timestamp":{timestamp}}}"#);
        assert_eq!(server.post(body).await.status, 200);
    }
    fill(&server.database).await;
    server
}

async fn plan(database: &Database, sql: &str) -> String {
    database
        .lines(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {sql}"))
        .await
        .join("\n")
}

#[tokio::test]
async fn the_documented_statements_prune_or_use_an_index() {
    let server = server_with_months().await;
    let mut connection = server.database.connect().await;
    for sql in STATEMENTS {
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect(sql);
        assert!(!rows.is_empty(), "{sql}");
        let plan = plan(&server.database, sql).await;
        assert!(plan.contains("Index") || plan.contains("Subplans Removed"), "{sql}\n{plan}");
        // Months before the last seven days are never read.
        let scanned =
            plan.lines().filter(|line| line.contains("Scan") && line.contains(" on sessions_"));
        let read = scanned.filter(|line| !line.contains("never executed")).count();
        assert!(read <= 5, "{sql}\n{plan}");
        let old = crate::support::now_ms() - 60 * 86_400_000;
        let old = jiff::Timestamp::from_millisecond(old)
            .expect("a date")
            .strftime("sessions_%Y_%m")
            .to_string();
        assert!(!plan.contains(&old), "{old} is read by {sql}\n{plan}");
    }
}

#[tokio::test]
async fn lookups_lists_errors_and_content_use_their_indexes() {
    let server = server_with_months().await;
    let database = &server.database;
    let id = database.value("SELECT min(session_id) FROM sessions").await.expect("an id");
    for (sql, index) in [
        (format!("SELECT * FROM sessions WHERE session_id = '{id}'"), "session_id_idx"),
        (format!("SELECT * FROM session_timeline WHERE session_id = '{id}'"), "session_key_idx"),
        (r#"SELECT * FROM sessions ORDER BY "timestamp" DESC LIMIT 50"#.to_owned(), "timestamp_idx"),
        (
            r#"SELECT * FROM sessions WHERE error_count > 0 AND "timestamp" > now() - interval '80 days'
               ORDER BY "timestamp" DESC LIMIT 50"#.to_owned(),
            "timestamp_idx",
        ),
        (
            r#"SELECT count(*) FROM sessions WHERE content_id = 'content-7'
               AND "timestamp" > now() - interval '30 days'"#.to_owned(),
            "content_id_timestamp_idx",
        ),
    ] {
        let plan = plan(database, &sql).await;
        assert!(plan.contains(index), "{sql}\n{plan}");
// The partitions made ahead are empty, and an empty table is best read whole.
        let seq_scans = plan.lines().filter(|line| line.contains("Seq Scan"));
        let of_rows = seq_scans
            .filter(|line| !line.contains("rows=0") && !line.contains("never executed"))
            .count();
        assert_eq!(of_rows, 0, "{sql}\n{plan}");
    }
}

/// Reports of running sessions must not touch an index: HOT updates, seen in the statistics.
#[tokio::test]
async fn updates_of_running_sessions_are_heap_only() {
    // A cluster of its own: a transaction that others keep open, in whatever database, keeps
    // Postgres from making room on the pages of this one.
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let database = Database::within(&cluster).await;
    let server = Server::with(ServerOptions::default(), &database).await;
    let now = crate::support::now_ms();
    for round in 0..40 {
        let lines: Vec<String> = (0..100)
            .map(|session| {
                let timestamp = now + round * 15_000;
                format!(
                    r#"{{"sessionId":"s{session}","timestamp":{timestamp},"sessionStartDateIso":"{}",
                        "startupTimeMs":800,"playTimeMs":{},"custom":"{}"}}"#,
                    jiff::Timestamp::from_millisecond(now).expect("a date"),
                    round * 15_000,
                    "x".repeat(400),
                )
                .replace('\n', " ")
            })
            .collect();
        // Few at a time, as the reports of different viewers come.
        for some in lines.chunks(5) {
            let answer = server.post_batch(format!("[{}]", some.join(","))).await;
            assert_eq!(answer.json()["accepted"], 5);
        }
    }
    let share =
        "SELECT sum(n_tup_hot_upd) * 100 / greatest(sum(n_tup_upd), 1) FROM pg_stat_user_tables
                 WHERE relname LIKE 'sessions\\_2%' AND n_tup_upd > 0";
    // Statistics arrive with a delay.
    for _ in 0..40 {
        let updates = "SELECT coalesce(sum(n_tup_upd), 0) FROM pg_stat_user_tables WHERE relname LIKE 'sessions\\_2%'";
        if server.database.number(updates).await >= 3_900 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    let share: f64 =
        server.database.value(share).await.expect("updates").parse().expect("a number");
    assert!(share >= 90.0, "only {share} % of updates are heap-only");
}

#[tokio::test]
async fn every_column_is_commented() {
    let server = Server::start().await;
    let bare = "SELECT c.relname || '.' || a.attname FROM pg_class c
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                WHERE c.relname IN ('sessions', 'timeline_chunks', 'session_timeline', 'session_times', 'rejected_reports')
                  AND col_description(c.oid, a.attnum) IS NULL";
    assert_eq!(server.database.lines(bare).await, Vec::<String>::new());
}
