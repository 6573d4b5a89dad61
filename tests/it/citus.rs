//! Everything that must hold where the tables are distributed, on a real Citus.
//!
//! `M3W_TEST_CITUS_URL` is the URL of a coordinator's database with the extension and at least
//! one worker, for these tests alone: they work in its schema `media3watch_test`. Without the variable they
//! are skipped, and scripts/test says so.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _};

use crate::grafana::{macros, queries};
use crate::isolation::{assert_held, others_go_on};
use crate::retention::run_retention;
use crate::statements::STATEMENTS;
use crate::support::{Database, Server, ServerOptions, bin, now_ms};
use crate::upsert::{body, hot_sessions_are_right, statuses};

/// 2026-11-30T23:59:30Z: half a minute before a month ends.
const MONTH_END_MS: i64 = 1_796_083_170_000;
const HOUR_MS: i64 = 3_600_000;

/// The empty database of the coordinator; one test at a time has it.
async fn citus() -> Option<(Database, tokio::sync::MutexGuard<'static, ()>)> {
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let url = std::env::var("M3W_TEST_CITUS_URL").ok()?;
    let turn = ONE_AT_A_TIME.lock().await;
    let database = Database { url };
    // Statements of their own: Citus takes them to its other nodes.
    for sql in [
        "DROP SCHEMA IF EXISTS media3watch_test CASCADE",
        "CREATE SCHEMA media3watch_test",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = media3watch_test',
                                    current_database()); END $$",
    ] {
        database.execute(sql).await;
    }
    Some((database, turn))
}

fn options(now_ms: i64) -> ServerOptions {
    ServerOptions { now_ms: Some(now_ms), ..ServerOptions::default() }
}

async fn distribute(database: &Database, arguments: &[&str]) -> std::process::Output {
    let mut command = tokio::process::Command::from(bin());
    command.env("DATABASE_URL", &database.url).args(["db", "distribute"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.expect("it runs")
}

async fn distributed(now_ms: i64) -> Option<(Server, tokio::sync::MutexGuard<'static, ()>)> {
    let (database, turn) = citus().await?;
    let output = distribute(&database, &["--yes", "--shards", "4"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some((Server::with(options(now_ms), &database).await, turn))
}

#[tokio::test]
async fn a_database_without_citus_says_what_is_missing() {
    let database = Database::new().await;
    let output = distribute(&database, &["--yes"]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("CREATE EXTENSION citus"), "{error}");
    assert!(output.stdout.is_empty());
}

/// A database with sessions becomes a distributed one under a running server.
#[tokio::test]
async fn a_filled_database_is_distributed_under_a_running_server() {
    let Some((database, _turn)) = citus().await else { return };
    let server = Server::with(options(MONTH_END_MS), &database).await;
    for session in 0..20 {
        assert_eq!(server.post(body(&format!("s{session}"), MONTH_END_MS, 1)).await.status, 200);
    }
    // Nobody is asked without a terminal, and nothing is changed.
    database.execute("ANALYZE session_times").await;
    let output = distribute(&database, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--yes"), "{error}");
    assert!(error.contains("session_times    about 20 rows"), "{error}");
    let tables = "SELECT count(*) FROM pg_dist_partition";
    assert_eq!(database.number(tables).await, 0);
    // As if a run had failed half way.
    database
        .execute(
            "SELECT create_distributed_table('session_times', 'session_key', shard_count := 4)",
        )
        .await;
    assert_eq!(server.post(body("s0", MONTH_END_MS + 1, 2)).await.status, 200);
    let output = distribute(&database, &["--yes", "--json"]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).expect("one JSON value");
    let names: Vec<_> = result["tables"].as_array().expect("tables").iter().collect();
    assert_eq!(names.len(), 2, "{result}");
    assert_eq!(names[0]["table"], "sessions");
    let again = distribute(&database, &["--yes"]).await;
    assert_eq!(String::from_utf8_lossy(&again.stdout), "the tables are distributed already\n");

    for session in 0..21 {
        let answer = server.post(body(&format!("s{session}"), MONTH_END_MS + 2, 3)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 21);
    assert_eq!(database.number("SELECT sum(report_count)::bigint FROM sessions").await, 42);
    assert_eq!(database.number("SELECT count(*) FROM session_timeline").await, 3 + 19 * 3 + 3);
    let together = "SELECT count(DISTINCT colocationid) FROM pg_dist_partition";
    assert_eq!(database.number(together).await, 1);
    // A partition that is made later is distributed too.
    let old = MONTH_END_MS - 80 * 24 * HOUR_MS;
    assert_eq!(server.post(body("old", old, 1)).await.status, 200);
    let partition = "SELECT count(*) FROM pg_dist_partition
                     WHERE logicalrelid = 'sessions_2026_09'::regclass";
    assert_eq!(database.number(partition).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn promises_hold_on_shards() {
    let Some((server, _turn)) = distributed(MONTH_END_MS).await else { return };
    let database = &server.database;
    // Newer wins, older and equal change nothing, timelines add up.
    for (timestamp, play_time) in [(0, 100), (2, 300), (1, 200), (2, 300), (3, 50)] {
        let answer = server.post(body("s", MONTH_END_MS + timestamp, play_time)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let row = "SELECT report_count || ' ' || play_time_ms FROM sessions WHERE session_id = 's'";
    assert_eq!(database.value(row).await.expect("a row"), "3 50");
    let entries = "SELECT count(*) FROM session_timeline WHERE session_id = 's'";
    assert_eq!(database.number(entries).await, 5);
    let read = server.get("/v1/sessions/s").await;
    assert_eq!(read.status, 200, "{}", read.text);
    assert_eq!(read.json()["timeline"].as_array().expect("a timeline").len(), 5);

    // Several reports of a session in one batch, and a neighbour that is refused.
    let reports = [10, 30, 20, 30, 40].map(|t| body("b", MONTH_END_MS + t, t));
    let batch = format!("[{},{}]", reports.join(","), r#"{"sessionId":"bad"}"#);
    let answer = server.post_batch(batch).await.json();
    let expected = ["stored", "stored", "stale", "duplicate", "stored", "rejected"];
    assert_eq!(statuses(&answer), expected);

    // Batches of new sessions only, then one that is not.
    for round in 0..12 {
        let lines: Vec<String> =
            (0..30).map(|n| body(&format!("new {round} {n}"), MONTH_END_MS, 1)).collect();
        let answer = server.post_batch(format!("[{}]", lines.join(","))).await;
        assert_eq!(answer.json()["accepted"], 30, "{}", answer.text);
    }
    let mixed = [body("s", MONTH_END_MS + 9, 9), body("new last", MONTH_END_MS, 1)].join(",");
    let answer = server.post_batch(format!("[{mixed}]")).await.json();
    assert_eq!(statuses(&answer), ["stored", "stored"]);
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 2 + 360 + 1);
    let chunks = "SELECT count(*) FROM session_timeline WHERE session_id LIKE 'new%'";
    assert_eq!(database.number(chunks).await, 361 * 2);

    // A session keeps its month.
    server.clock_ms.fetch_add(60_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(server.post(body("s", MONTH_END_MS + 60_000, 10)).await.status, 200);
    let months = "SELECT count(DISTINCT tableoid) FROM sessions WHERE session_id = 's'";
    assert_eq!(database.number(months).await, 1);

    // Rows and session times that somebody deleted come back.
    database.execute("DELETE FROM sessions WHERE session_id = 's'").await;
    assert_eq!(server.post(body("s", MONTH_END_MS + 60_001, 11)).await.status, 200);
    assert_eq!(database.value(row).await.expect("a row"), "1 11");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_write_the_same_hot_sessions_on_shards() {
    let Some((server, _turn)) = distributed(MONTH_END_MS).await else { return };
    let database = server.database.clone();
    server.stop().await;
    hot_sessions_are_right((&database, &database), 20, 8, 8).await;
}

#[tokio::test]
async fn retention_removes_shards_too() {
    let now = now_ms();
    let Some((server, _turn)) = distributed(now).await else { return };
    let database = &server.database;
    let day = 24 * HOUR_MS;
    for age in [1, 40, 80, 89] {
        assert_eq!(server.post(body(&format!("{age}"), now - age * day, 1)).await.status, 200);
    }
    assert!(run_retention(&server.app).await);
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 4);
    // Months of partitions go at once, and the edge of another row by row.
    let short = ServerOptions { env: vec![("RETENTION_DAYS", "20".to_owned())], ..options(now) };
    let other = Server::with(short, database).await;
    assert!(run_retention(&other.app).await);
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sessions'::regclass";
    // The month before, this one and three ahead, at most.
    assert!(database.number(months).await <= 5);
    for table in ["sessions", "session_times"] {
        assert_eq!(database.number(&format!("SELECT count(*) FROM {table}")).await, 1, "{table}");
    }
    assert_eq!(database.number("SELECT count(*) FROM timeline_chunks").await, 1);
    other.stop().await;
    server.stop().await;
}

/// Every query of every dashboard, and what users have in theirs.
#[tokio::test]
async fn dashboards_and_documented_statements_run_on_shards() {
    let now = now_ms();
    let Some((server, _turn)) = distributed(now).await else { return };
    let database = server.database.clone();
    server.stop().await;
    let env = vec![
        ("GRAFANA_DB_USER", "media3watch_test_reader".to_owned()),
        ("GRAFANA_DB_PASSWORD", "for reading".to_owned()),
    ];
    let server = Server::with(ServerOptions { env, ..options(now) }, &database).await;
    let lines: Vec<String> =
        (0..300).map(|n| body(&format!("s{n}"), now - n * HOUR_MS, n * 1_000)).collect();
    let answer = server.post_batch(format!("[{}]", lines.join(","))).await;
    assert_eq!(answer.json()["accepted"], 300);
    // As Grafana reads: Citus asks its nodes with the rights of this role.
    let reader = database.options().username("media3watch_test_reader").password("for reading");
    let mut connection = reader.connect().await.expect("the role may log in");
    for sql in STATEMENTS {
        sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.expect(sql);
    }
    let mut refused = Vec::new();
    let mut slowest = BTreeMap::new();
    for query in queries::all() {
        let chosen = [("session_id".to_owned(), vec!["s3".to_owned()])].into();
        for hours in queries::RANGES {
            let context = query.context(now, hours, &chosen);
            let sql = macros::expand(&query.sql, &context).expect("expands");
            let started = Instant::now();
            let run = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
            if let Err(error) = run {
                refused.push(format!("{}: {error}", query.place()));
                break;
            }
            slowest.insert(started.elapsed(), query.place());
        }
    }
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
    let (took, place) = slowest.pop_last().expect("queries ran");
    assert!(took.as_secs() < 15, "{place} took {took:?}, longer than Grafana's role may");
    server.stop().await;
}

/// Rows are locked on the nodes, and waited for there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_session_delays_itself_alone_on_shards() {
    let Some((server, _turn)) = distributed(now_ms()).await else { return };
    let server = Arc::new(server);
    for id in ["stuck", "free"] {
        assert_eq!(server.post(body(id, now_ms(), 1)).await.status, 200);
    }
    let lock = "DELETE FROM sessions WHERE session_id = 'stuck'";
    let answers = others_go_on(&server, lock, vec![body("stuck", now_ms() + 1, 2)]).await;
    assert_held(&answers, 1);
}
