//! Rules against troubles: each fires on its own, and stays silent otherwise.

use std::collections::BTreeSet;

use super::evaluate::{State, evaluate, rule, rules};
use crate::support::{Database, KEY, Server, bin, now_ms};

/// 2026-11-18T20:08:20Z, a Wednesday evening.
pub const NOW_MS: i64 = 1_795_032_500_000;
pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;

/// The rules that fire at a moment.
pub async fn firing(database: &Database, at_ms: i64) -> BTreeSet<String> {
    let mut firing = BTreeSet::new();
    for rule in rules() {
        let uid = rule["uid"].as_str().expect("a uid").to_owned();
        let evaluation = evaluate(&rule, database, at_ms).await;
        assert_eq!(evaluation.error, None, "{uid}");
        if evaluation.state == State::Firing {
            // The text of an alert has all its numbers.
            assert!(evaluation.numbers.iter().all(Option::is_some), "{uid}: {evaluation:?}");
            firing.insert(uid);
        }
    }
    firing
}

pub fn set<const N: usize>(uids: [&str; N]) -> BTreeSet<String> {
    uids.into_iter().map(str::to_owned).collect()
}

pub async fn fires(uid: &str, database: &Database, at_ms: i64) -> bool {
    let evaluation = evaluate(&rule(uid), database, at_ms).await;
    assert_eq!(evaluation.error, None, "{uid}");
    evaluation.state == State::Firing
}

/// A server whose clock stands at `NOW_MS`, with nine days of simulated sessions.
async fn simulated(incident: Option<&str>) -> Server {
    let server = Server::at(NOW_MS).await;
    let until = jiff::Timestamp::from_millisecond(NOW_MS).expect("a time").to_string();
    let mut command = bin();
    command.args(["simulate", "--url", &server.url("/"), "--key", KEY, "--json", "--seed", "11"]);
    command.args(["--history", "9d", "--sessions", "9000", "--until", &until]);
    command.args(incident.into_iter().flat_map(|kind| ["--incident", kind]));
    let run = tokio::task::spawn_blocking(move || command.output().expect("it runs")).await;
    let run = run.expect("it ran");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_days_are_silent() {
    let server = simulated(None).await;
    for hours in (0..48).step_by(3) {
        let at = NOW_MS - hours * HOUR_MS;
        assert_eq!(firing(&server.database, at).await, set([]), "{hours} hours ago");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_spike_fires() {
    let server = simulated(Some("error-spike")).await;
    let found = firing(&server.database, NOW_MS).await;
    assert_eq!(found, set(["m3w-error-rate", "m3w-error-spike"]));
    let before = firing(&server.database, NOW_MS - 4 * HOUR_MS).await;
    assert_eq!(before, set([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_starts_fire() {
    let server = simulated(Some("slow-start")).await;
    assert_eq!(firing(&server.database, NOW_MS).await, set(["m3w-startup-slow"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuffering_fires() {
    let server = simulated(Some("rebuffering")).await;
    assert_eq!(firing(&server.database, NOW_MS).await, set(["m3w-rebuffering"]));
}

/// An empty database with our tables, and no server that would write a heartbeat.
pub async fn migrated() -> Database {
    let database = Database::new().await;
    let url = database.url.clone();
    let run = move || bin().arg("migrate").env("DATABASE_URL", url).output().expect("it runs");
    let output = tokio::task::spawn_blocking(run).await.expect("it ran");
    assert!(output.status.success(), "{output:?}");
    database
}

#[tokio::test]
async fn an_empty_database_is_silent() {
    assert_eq!(firing(&migrated().await, now_ms()).await, set([]));
    let server = Server::start().await;
    assert_eq!(firing(&server.database, now_ms()).await, set([]));
}

#[tokio::test]
async fn a_dead_database_makes_one_alert() {
    let nobody = Database { url: "postgresql://postgres@127.0.0.1:1/none".to_owned() };
    for rule in rules() {
        let evaluation = evaluate(&rule, &nobody, now_ms()).await;
        let expected = if rule["uid"] == "m3w-database" { State::Firing } else { State::Held };
        assert_eq!(evaluation.state, expected, "{}", rule["uid"]);
        assert!(evaluation.error.is_some());
    }
}

/// Sessions made by hand: `of` of them, of which the first `bad` have `trouble` (columns set).
pub struct Made<'a> {
    pub of: u32,
    pub bad: u32,
    pub trouble: &'a str,
    /// When they were heard of and received, and when that was by the server's clock.
    pub heard_ms: i64,
    pub received_ms: i64,
}

impl Made<'_> {
    /// Sessions heard of half an hour before `NOW_MS`.
    fn now(of: u32, bad: u32, trouble: &str) -> Made<'_> {
        let at = NOW_MS - 30 * MINUTE_MS;
        Made { of, bad, trouble, heard_ms: at, received_ms: at }
    }

    pub async fn insert(&self, database: &Database) {
        let Made { of, bad, trouble, heard_ms, received_ms } = self;
        let time = |ms: &i64| format!("to_timestamp({ms} / 1000.0)");
        let (heard, received) = (time(heard_ms), time(received_ms));
        let name = rand::random::<u64>();
        database
            .execute(&format!(
                "INSERT INTO sessions (session_key, tenant_id, session_id, \"timestamp\", reported_at,
                   received_at, created_at, report_count, player_startup_ms, play_time_ms,
                   rebuffer_time_ms, rebuffer_count, error_count, payload)
                 SELECT session_key('default', '{name}-' || n), 'default', '{name}-' || n, {heard} - interval '20 minutes', {heard},
                        {received}, {received}, 1, 0, 100000, 0, 0, 0, '{{}}'
                 FROM generate_series(1, {of}) AS n;
                 UPDATE sessions SET {trouble}
                 WHERE session_id IN (SELECT '{name}-' || n FROM generate_series(1, {bad}) AS n)"
            ))
            .await;
    }
}

pub const ERROR: &str = "error_count = 1";

/// A fresh server's database with these sessions.
async fn with(made: &[Made<'_>]) -> Server {
    let server = Server::at(NOW_MS).await;
    for sessions in made {
        sessions.insert(&server.database).await;
    }
    server
}

#[tokio::test]
async fn ten_sessions_are_silent_whatever_they_suffered() {
    let all = "error_count = 3, player_startup_ms = 60000, rebuffer_time_ms = 90000,
               rebuffer_count = 9";
    let server = with(&[Made::now(10, 10, all)]).await;
    assert_eq!(firing(&server.database, NOW_MS).await, set([]));
}

#[tokio::test]
async fn error_rates_fire_from_their_edge_on() {
    // Lower ends of the interval: 4.8 %, 5.5 %; too few failed; too few at all; a small sample.
    for (of, bad, expected) in
        [(100, 9, false), (100, 10, true), (30, 4, false), (19, 19, false), (20, 5, true)]
    {
        let server = with(&[Made::now(of, bad, ERROR)]).await;
        let found = fires("m3w-error-rate", &server.database, NOW_MS).await;
        assert_eq!(found, expected, "{bad} of {of}");
    }
}

#[tokio::test]
async fn startup_and_rebuffering_fire_above_their_thresholds_only() {
    for (uid, trouble, expected) in [
        ("m3w-startup-slow", "player_startup_ms = 5000", false),
        ("m3w-startup-slow", "player_startup_ms = 5001", true),
        ("m3w-rebuffering", "rebuffer_time_ms = 2000, play_time_ms = 98000", false),
        (
            "m3w-rebuffering",
            "rebuffer_time_ms = 2001, play_time_ms = 97999, rebuffer_count = 1",
            true,
        ),
    ] {
        let server = with(&[Made::now(60, 60, trouble)]).await;
        assert_eq!(fires(uid, &server.database, NOW_MS).await, expected, "{trouble}");
    }
}

/// 25 sessions a day: the sample reaches back a day, and no further.
#[tokio::test]
async fn small_apps_are_watched_too() {
    let server = Server::at(NOW_MS).await;
    for hours in 0..25 {
        let at = NOW_MS - hours * 57 * MINUTE_MS;
        let bad = u32::from(hours % 4 == 0);
        let made = Made { of: 1, bad, trouble: ERROR, heard_ms: at, received_ms: at };
        made.insert(&server.database).await;
    }
    assert!(fires("m3w-error-rate", &server.database, NOW_MS).await);
    assert!(!fires("m3w-error-rate", &server.database, NOW_MS + 20 * HOUR_MS).await);
}

#[tokio::test]
async fn what_is_no_news_is_silent() {
    let old = NOW_MS - 2 * 24 * HOUR_MS;
    let imported = Made { heard_ms: old, received_ms: NOW_MS, ..Made::now(500, 500, ERROR) };
    // Delivered from a device's queue after five hours, beside sessions that are fine.
    let queued =
        Made { heard_ms: NOW_MS - 5 * HOUR_MS, received_ms: NOW_MS, ..Made::now(100, 100, ERROR) };
    let fine = Made::now(60, 0, ERROR);
    // Playing, or not yet: no play time, no error, a report a moment ago.
    let begun = Made {
        heard_ms: NOW_MS,
        received_ms: NOW_MS,
        ..Made::now(60, 60, "play_time_ms = NULL, player_startup_ms = NULL")
    };
    let server = with(&[imported, queued, fine, begun]).await;
    assert_eq!(firing(&server.database, NOW_MS).await, set([]));
}

#[tokio::test]
async fn a_clock_that_is_ahead_does_not_hide_trouble() {
    let ahead = Made { heard_ms: NOW_MS + 300 * 24 * HOUR_MS, ..Made::now(0, 0, ERROR) };
    let server = with(&[Made::now(100, 100, ERROR)]).await;
    let time = format!("to_timestamp({} / 1000.0)", ahead.heard_ms);
    server.database.execute(&format!("UPDATE sessions SET reported_at = {time}")).await;
    assert!(fires("m3w-error-rate", &server.database, NOW_MS).await);
}

/// `of` sessions and `bad` failed ones in the last hour, and 40 in the same hour of each of
/// 7 days, `usual` of them failed.
async fn spike(of: u32, bad: u32, usual: u32) -> bool {
    let mut made = vec![Made::now(of, bad, ERROR)];
    for day in 1..=7 {
        let at = NOW_MS - day * 24 * HOUR_MS - 30 * MINUTE_MS;
        made.push(Made { of: 40, bad: usual, trouble: ERROR, heard_ms: at, received_ms: at });
    }
    let server = with(&made).await;
    fires("m3w-error-spike", &server.database, NOW_MS).await
}

#[tokio::test]
async fn spikes_are_measured_against_the_usual() {
    assert!(spike(200, 14, 0).await, "7 % where nothing used to fail");
    assert!(!spike(200, 4, 0).await, "2 % is nothing to be woken for");
    assert!(!spike(200, 20, 4).await, "10 % as every day");
    assert!(spike(200, 60, 4).await, "30 % instead of 10 %");
}

/// A heartbeat `hours` ago, and one now.
async fn living_for(database: &Database, hours: u32) {
    let series = format!(
        "generate_series(now() - interval '{hours} hours', now(), interval '{hours} hours')"
    );
    super::silence::minutes(database, &series, 0, 0).await;
}

async fn ran(database: &Database, job: &str, result: &str, hours: u32) {
    let at = format!("now() - interval '{hours} hours'");
    let sql = format!(
        "INSERT INTO job_runs (job, instance, started_at, finished_at, result, detail)
         VALUES ('{job}', 'host', {at}, {at}, '{result}', '')"
    );
    database.execute(&sql).await;
}

#[tokio::test]
async fn a_job_that_has_not_succeeded_for_a_day_fires() {
    let uid = "m3w-jobs";
    let database = migrated().await;
    // New: nothing can have run for a day.
    living_for(&database, 25).await;
    assert_eq!(firing(&database, now_ms()).await, set([]));
    ran(&database, "partitions", "ok", 0).await;
    assert!(!fires(uid, &database, now_ms()).await);
    // From here on, retention never ran; then it failed, or another instance was to do it.
    living_for(&database, 27).await;
    assert_eq!(firing(&database, now_ms()).await, set([uid]));
    ran(&database, "retention", "failed", 1).await;
    ran(&database, "retention", "skipped", 1).await;
    assert!(fires(uid, &database, now_ms()).await);
    ran(&database, "retention", "ok", 27).await;
    assert!(fires(uid, &database, now_ms()).await);
    ran(&database, "retention", "ok", 25).await;
    assert_eq!(firing(&database, now_ms()).await, set([]));
    // The other job.
    database.execute("DELETE FROM job_runs WHERE job = 'partitions'").await;
    assert!(fires(uid, &database, now_ms()).await);
    // A backend that is away has an alert of its own.
    database.execute("UPDATE backend_minutes SET \"time\" = \"time\" - interval '1 hour'").await;
    assert_eq!(firing(&database, now_ms()).await, set(["m3w-backend-silent"]));
}

#[tokio::test]
async fn rollups_that_are_behind_fire() {
    let uid = "m3w-rollups";
    let database = migrated().await;
    living_for(&database, 1).await;
    let touch = |minutes: u32| {
        format!(
            "INSERT INTO rollup_touches SELECT date_trunc('hour', now()), t, t
             FROM (SELECT now() - interval '{minutes} minutes' AS t) AS t"
        )
    };
    database.execute(&touch(9)).await;
    // One that waits for a rebuild is no report.
    database
        .execute(
            "INSERT INTO rollup_touches
             VALUES (date_trunc('hour', now()), NULL, now() - interval '1 hour')",
        )
        .await;
    assert_eq!(firing(&database, now_ms()).await, set([]));
    database.execute(&touch(11)).await;
    assert_eq!(firing(&database, now_ms()).await, set([uid]));
    // A backend that is away has an alert of its own.
    database.execute("UPDATE backend_minutes SET \"time\" = \"time\" - interval '1 hour'").await;
    assert_eq!(firing(&database, now_ms()).await, set(["m3w-backend-silent"]));
}
