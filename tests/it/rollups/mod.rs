//! Rollups: what they say is what the sessions say, whatever happens.

mod functions;
mod own;
mod sealed;

use std::time::Duration;

use media3watch::app::App;
use media3watch::jobs::run_rollups;
use media3watch::report::UnixMs;
use serde_json::{Value, json};

use crate::support::{Database, KEY, Load, Server, ServerOptions, assert_stored, bin, now_ms};

/// A row as JSON without what is 0 or null, which the table does not tell apart.
const AS_JSON: &str = "(SELECT jsonb_object_agg(key, value) FROM jsonb_each(to_jsonb(r) - 'part')
                        WHERE value NOT IN ('0', 'null'))";

/// Runs until nothing is left to do.
pub async fn settle(app: &App) {
    loop {
        run_rollups(app).await.expect("the database answers");
        let status = app.store.rollup_status().await.expect("the database answers");
        if status.waiting_hours == 0 {
            assert!(status.lag_seconds < f64::EPSILON, "{status:?}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Compares the rows of `rollups` with what the sessions come to, computed from scratch.
pub async fn assert_exact(database: &Database) {
    let expected = include_str!("recomputed.sql");
    let stored = "SELECT * FROM rollups WHERE minutes IN (30, 60)";
    for (what, one, other) in
        [("missing or wrong", expected, stored), ("too many", stored, expected)]
    {
        let sql = format!(
            "SELECT row::text FROM (
               SELECT {AS_JSON} AS row FROM ({one}) AS r
               EXCEPT ALL SELECT {AS_JSON} FROM ({other}) AS r) AS difference LIMIT 3"
        );
        let difference = database.lines(&sql).await;
        assert!(difference.is_empty(), "{what}: {difference:#?}");
    }
}

async fn simulate(server: &Server, arguments: &[&str]) {
    let mut command = tokio::process::Command::from(bin());
    command.args(["simulate", "--url", &server.url(""), "--key", KEY, "--seed", "7"]);
    let output = command.args(arguments).output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn rollups(database: &Database, arguments: &[&str]) -> Value {
    let mut command = tokio::process::Command::from(bin());
    command.env("DATABASE_URL", &database.url).arg("rollups").args(arguments).arg("--json");
    let output = command.output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn post(server: &Server, report: Value) {
    let response = server.post(report.to_string()).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

/// Sessions that push at the edges of what a report may say.
async fn post_odd_ones(server: &Server) {
    let now = now_ms();
    let start = |hours: i64| {
        jiff::Timestamp::from_millisecond(now - hours * 3_600_000).expect("a date").to_string()
    };
    for (number, fields) in [
        json!({}),
        json!({"droppedFrames": i64::MAX, "avgBitrateKbps": i32::MAX, "playTimeMs": 2_678_400_000_i64}),
        json!({"totalDroppedFrames": i64::MAX, "playTimeMs": 1, "startupTimeMs": 0}),
        json!({"errorCount": 3, "lastErrorCode": "a\tb\\c\n", "lastErrorCategory": "NETWORK"}),
        json!({"errorCount": 1, "playTimeMs": 60_000, "rebufferTimeMs": 60_000, "rebufferCount": 9}),
        json!({"contentId": "(other)", "streamType": "LIVE", "startupTimeMs": 4_001, "playTimeMs": 9}),
        json!({"contentId": "Ü \"x\" 'y'", "app": {"version": "\\N"}, "playTimeMs": 10_000}),
        json!({"rebufferTimeMs": 2_000, "playTimeMs": 98_000, "startupTimeMs": 100_000_000}),
        // Device clocks.
        json!({"timestamp": 1, "playTimeMs": 5}),
        json!({"timestamp": now + 90_000, "playTimeMs": 5}),
    ]
    .into_iter()
    .enumerate()
    {
        let hours = i64::try_from(number).expect("few");
        let mut report = json!({
            "sessionId": format!("odd-{number}"), "timestamp": now, "sessionStartDateIso": start(hours),
        });
        for (name, value) in fields.as_object().expect("an object") {
            report[name] = value.clone();
        }
        post(server, report).await;
    }
}

#[tokio::test]
async fn rows_are_what_the_sessions_come_to() {
    let server = Server::start().await;
    simulate(&server, &["--history", "3d", "--sessions", "1500"]).await;
    post_odd_ones(&server).await;
    settle(&server.app).await;
    assert_exact(&server.database).await;
    let rows = server.database.number("SELECT count(*) FROM rollups").await;
    assert!(rows > 1_000, "{rows}");

    // Running sessions, corrections, and what changes nothing.
    simulate(&server, &["--viewers", "10", "--for", "3s"]).await;
    let report = |at: i64, play_time_ms: i64| {
        json!({"sessionId": "grows", "timestamp": at, "sessionDurationMs": play_time_ms,
               "playTimeMs": play_time_ms, "contentId": format!("film-{play_time_ms}")})
    };
    let now = now_ms();
    for (at, play_time_ms) in [(now, 20_000), (now - 9, 5_000), (now + 9, 35_000), (now, 20_000)] {
        post(&server, report(at, play_time_ms)).await;
        settle(&server.app).await;
        assert_exact(&server.database).await;
    }
    let of_grows = "SELECT string_agg(value || ' ' || play_time_ms, ', ') FROM rollups
                    WHERE dimension = 'content_id' AND minutes = 60 AND value LIKE 'film-%000'";
    assert_eq!(server.database.value(of_grows).await.as_deref(), Some("film-35000 35000"));
}

#[tokio::test]
async fn what_changes_nothing_leaves_no_work() {
    let server = Server::start().await;
    let report = json!({"sessionId": "s", "timestamp": now_ms(), "playTimeMs": 1});
    post(&server, report.clone()).await;
    settle(&server.app).await;
    post(&server, report.clone()).await;
    let mut older = report;
    older["timestamp"] = (now_ms() - 10_000).into();
    post(&server, older).await;
    assert_eq!(server.database.number("SELECT count(*) FROM rollup_touches").await, 0);
}

#[tokio::test]
async fn longer_buckets_are_what_the_shorter_ones_add_up_to() {
    let server = Server::start().await;
    simulate(&server, &["--history", "4d", "--sessions", "1500"]).await;
    settle(&server.app).await;
    // They are added up once nothing has changed for two minutes.
    let quiet = "UPDATE rollup_blocks SET changed_at = changed_at - interval '5 minutes'";
    server.database.execute(quiet).await;
    settle(&server.app).await;
    let merged = "SELECT count(*) FROM rollup_blocks WHERE is_merged";
    let merged = server.database.number(merged).await;
    assert!(merged >= 15, "{merged}");

    let sums = "sum(sessions), sum(bad), sum(watched_ms), sum(dropped_frames), sum(rated_kbits),
                sum(rebuffer_watched), min(first_at), max(last_at),
                sum((SELECT sum(n) FROM unnest(startup_counts) AS n)),
                sum((SELECT sum(bin * n) FROM unnest(startup_bins, startup_watched_ms) AS b (bin, n))),
                sum((SELECT sum(bin * n) FROM unnest(rebuffering_bins, rebuffering_counts) AS b (bin, n))),
                sum((SELECT sum(bin * n) FROM unnest(delay_bins, delay_counts) AS b (bin, n)))";
    for minutes in [360, 1440] {
        let of = |rows: &str| {
            format!(
                "SELECT dimension, block, tenant_id, stream_type, value, {sums} FROM (
                   SELECT *, date_bin(interval '{minutes} minutes', bucket, 'epoch') AS block
                   FROM rollups WHERE {rows}) AS r
                 WHERE (block IN (SELECT bucket FROM rollup_blocks WHERE is_merged AND minutes = {minutes}))
                 GROUP BY 1, 2, 3, 4, 5"
            )
        };
        let (long, short) = (of(&format!("minutes = {minutes}")), of("minutes IN (30, 60)"));
        let count = server.database.number(&format!("SELECT count(*) FROM ({long}) AS l")).await;
        assert!(count > 100, "{count}");
        for (one, other) in [(&long, &short), (&short, &long)] {
            let difference = format!("SELECT d::text FROM ({one} EXCEPT ALL {other}) AS d LIMIT 3");
            assert_eq!(server.database.lines(&difference).await, Vec::<String>::new());
        }
    }
    // A late report: the buckets around it are read hour by hour until they are added up again.
    let old = UnixMs(now_ms() - 3 * 86_400_000);
    let start = jiff::Timestamp::from_millisecond(old.0).expect("a date").to_string();
    post(
        &server,
        json!({"sessionId": "late", "timestamp": now_ms(), "sessionStartDateIso": start}),
    )
    .await;
    settle(&server.app).await;
    let unmerged = "SELECT count(*) FROM rollup_blocks
                    WHERE NOT is_merged AND bucket + minutes * interval '1 minute' <= now() - interval '1 day'";
    assert_eq!(server.database.number(unmerged).await, 2);
    assert_exact(&server.database).await;
}

/// No report says that a viewer has left: time does.
#[tokio::test]
async fn a_session_that_never_plays_turns_into_an_exit() {
    let database = Database::new().await;
    let received = now_ms() - 55_000;
    let options = ServerOptions { now_ms: Some(received), ..ServerOptions::default() };
    let server = Server::with(options, &database).await;
    post(&server, json!({"sessionId": "s", "timestamp": received})).await;
    settle(&server.app).await;
    let exits = "SELECT coalesce(sum(exited_before_start), 0) FROM rollups WHERE dimension = ''";
    assert_eq!(database.number(exits).await, 0);
    tokio::time::sleep(Duration::from_secs(7)).await;
    settle(&server.app).await;
    assert_eq!(database.number(exits).await, 1);
    assert_exact(&database).await;
}

#[tokio::test]
async fn rebuilding_finds_what_was_changed_by_hand() {
    let server = Server::start().await;
    let database = &server.database;
    simulate(&server, &["--history", "2d", "--sessions", "300"]).await;
    settle(&server.app).await;
    database
        .execute(
            r#"DELETE FROM sessions WHERE "timestamp" > now() - interval '6 hours';
               UPDATE sessions SET app_version = '9' WHERE "timestamp" < now() - interval '1 day'"#,
        )
        .await;
    // Only the last 12 hours.
    let rebuilt = rollups(database, &["rebuild", "--from", "12h"]).await;
    assert!(rebuilt["hours"].as_i64().is_some_and(|hours| (6..=13).contains(&hours)), "{rebuilt}");
    let nines = "SELECT count(*) FROM rollups WHERE dimension = 'app_version' AND value = '9'";
    assert_eq!(database.number(nines).await, 0);
    let rebuilt = rollups(database, &["rebuild"]).await;
    assert!(rebuilt["hours"].as_i64() > Some(24), "{rebuilt}");
    assert_exact(database).await;
    assert!(database.number(nines).await > 10);

    let status = rollups(database, &["status"]).await;
    assert_eq!(status["lag_seconds"], json!(0.0), "{status}");
    assert_eq!(status["waiting_hours"], json!(0), "{status}");
    let mut backwards = tokio::process::Command::from(bin());
    backwards.env("DATABASE_URL", &database.url);
    backwards.args(["rollups", "rebuild", "--from", "2026-02-02", "--to", "2026-02-01"]);
    let output = backwards.output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--from must be before --to"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_and_a_rebuild_while_reports_arrive() {
    let database = Database::new().await;
    let one = Server::with(ServerOptions::default(), &database).await;
    let two = Server::with(ServerOptions::default(), &database).await;
    simulate(&one, &["--history", "2d", "--sessions", "400"]).await;
    let loads =
        [&one, &two].map(|server| Load::start(&server.url(""), 4, Duration::from_millis(5)));
    for _ in 0..3 {
        let rebuild = rollups(&database, &["rebuild"]);
        let (first, second, _) =
            tokio::join!(run_rollups(&one.app), run_rollups(&two.app), rebuild);
        first.and(second).expect("both work");
    }
    for load in loads {
        let attempts = load.end().await;
        let stored = crate::support::acknowledged(&attempts);
        assert!(!stored.is_empty());
        assert_stored(&database, &stored).await;
    }
    settle(&one.app).await;
    assert_exact(&database).await;
}

/// A run that is cut off has changed nothing, and the next one does all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_run_that_is_cut_off_is_done_again() {
    let server = Server::start().await;
    let database = &server.database;
    simulate(&server, &["--history", "1d", "--sessions", "200"]).await;
    settle(&server.app).await;
    database.execute("UPDATE sessions SET app_version = '9'").await;
    let before = database.number("SELECT count(*) FROM rollups").await;
    // The run takes what is touched, and then cannot write.
    let mut reader = database.connect().await;
    let hold = "BEGIN; LOCK TABLE rollups IN SHARE MODE";
    sqlx::raw_sql(hold).execute(&mut reader).await.expect("locked");
    server.app.store.touch_rollups(None, None).await.expect("touched");
    let waiting = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM rollups%'
                     AND datname = current_database()";
    let cut = async {
        while database.number(waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (run, ()) = tokio::join!(run_rollups(&server.app), cut);
    run.expect_err("its connection was cut");
    assert_eq!(database.number("SELECT count(*) FROM rollups").await, before);
    sqlx::raw_sql("ROLLBACK").execute(&mut reader).await.expect("unlocked");
    settle(&server.app).await;
    assert_exact(database).await;
}
