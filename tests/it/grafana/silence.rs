//! Rules about what is missing: a backend's heartbeat, sessions, reports that were refused.

use super::troubles::{ERROR, HOUR_MS, MINUTE_MS, Made, NOW_MS, fires, firing, migrated, set};
use crate::support::{Database, Server, now_ms};

const MINUTE: &str =
    "INSERT INTO backend_minutes (instance, \"time\", version, started_at, seconds,
    requests, client_errors, server_errors, stored, updated, duplicate, stale, limited, rejected,
    failed, batches, batch_reports, queue_reports, queue_bytes, pool_active, pool_idle, pool_max,
    database_bytes)";

/// Rows of the backend: every `step` from `from` to `to` (SQL), each with reports taken and
/// refused.
pub async fn minutes(database: &Database, series: &str, taken: u32, refused: u32) {
    let name = rand::random::<u32>();
    database
        .execute(&format!(
            "{MINUTE} SELECT 'host-{name}', t, '0.1.0', t, 60, {taken}, 0, 0, {taken}, 0, 0, 0, 0,
               jsonb_build_object('INVALID_SCHEMA', {refused}), '{{}}', 1, {taken}, 0, 0, 0, 1,
               20, 1000000 FROM {series} AS t"
        ))
        .await;
}

#[tokio::test]
async fn a_silent_backend_fires_and_a_second_one_that_lives_does_not() {
    let database = migrated().await;
    let series = "generate_series(now() - interval '280 s', now() - interval '280 s', '1 s')";
    minutes(&database, series, 1, 0).await;
    assert!(!fires("m3w-backend-silent", &database, now_ms()).await);
    database.execute("UPDATE backend_minutes SET \"time\" = now() - interval '310 s'").await;
    assert_eq!(firing(&database, now_ms()).await, set(["m3w-backend-silent"]));
    minutes(&database, "generate_series(now(), now(), '1 s')", 1, 0).await;
    assert_eq!(firing(&database, now_ms()).await, set([]));
}

#[tokio::test]
async fn refused_reports_fire_above_the_usual() {
    let week =
        "generate_series(now() - interval '7 days', now() - interval '61 minutes', '10 minutes')";
    let hour = "generate_series(now() - interval '50 minutes', now(), '1 minute')";
    for (usual, refused, expected) in [(1, 1, false), (1, 10, true), (20, 20, false), (0, 0, false)]
    {
        let database = migrated().await;
        minutes(&database, week, 100, usual).await;
        minutes(&database, hour, 100, refused).await;
        let found = fires("m3w-refused", &database, now_ms()).await;
        assert_eq!(found, expected, "{usual} % usual, {refused} % now");
    }
    // The first day of an app that sends something wrong.
    let database = migrated().await;
    minutes(&database, hour, 0, 1).await;
    assert_eq!(firing(&database, now_ms()).await, set(["m3w-refused"]));
}

/// So many sessions in each hour of the last `days`, but none in the last `silent` hours.
async fn hourly(server: &Server, per_day: u32, days: i64, silent: i64) {
    for hour in silent.max(0)..days * 24 {
        // Spread over the day as evenly as whole sessions can be.
        let of_day = u32::try_from(hour % 24).expect("small");
        let of = per_day * (of_day + 1) / 24 - per_day * of_day / 24;
        if of > 0 {
            let at = NOW_MS - hour * HOUR_MS - 30 * MINUTE_MS;
            let made = Made { of, bad: 0, trouble: ERROR, heard_ms: at, received_ms: at };
            made.insert(&server.database).await;
        }
    }
}

#[tokio::test]
async fn silence_fires_where_there_usually_are_sessions() {
    for (per_day, days, silent, expected) in [
        (480, 8, 0, false),
        (480, 8, 1, true),
        // 25 a day: about one an hour, so that a quiet morning is nothing.
        (25, 8, 6, false),
        (25, 8, 24, true),
        // Four days are no habit.
        (480, 4, 1, false),
    ] {
        let server = Server::at(NOW_MS).await;
        hourly(&server, per_day, days, silent).await;
        minutes(&server.database, "generate_series(now(), now(), '1 s')", 1, 0).await;
        let found = fires("m3w-no-sessions", &server.database, NOW_MS).await;
        assert_eq!(found, expected, "{per_day} a day for {days} days, silent for {silent} hours");
    }
}

#[tokio::test]
async fn silence_of_a_dead_backend_is_one_alert() {
    let server = Server::at(NOW_MS).await;
    hourly(&server, 480, 8, 1).await;
    let database = server.database.clone();
    server.stop().await;
    database.execute("UPDATE backend_minutes SET \"time\" = \"time\" - interval '1 hour'").await;
    assert_eq!(firing(&database, NOW_MS).await, set(["m3w-backend-silent"]));
}

/// An app for working days, and one with one great evening: nobody expects sessions on Saturday,
/// or every night.
#[tokio::test]
async fn a_free_day_and_the_day_after_an_event_are_no_silence() {
    const DAY_MS: i64 = 24 * HOUR_MS;
    // 2026-11-21T00:00:00Z, a Saturday.
    let saturday = NOW_MS - NOW_MS.rem_euclid(DAY_MS) + 3 * DAY_MS;
    let put = async |server: &Server, of: u32, at: i64| {
        let made = Made { of, bad: 0, trouble: ERROR, heard_ms: at, received_ms: at };
        made.insert(&server.database).await;
    };
    let living = "generate_series(now(), now(), '1 s')";

    let office = Server::at(NOW_MS).await;
    for day in (-9..0).filter(|day| !matches!(day, -7 | -6)) {
        for hour in 8..18 {
            put(&office, 20, saturday + day * DAY_MS + hour * HOUR_MS + MINUTE_MS).await;
        }
    }
    minutes(&office.database, living, 1, 0).await;
    for (day, hour, expected) in [(0, 9, false), (0, 14, false), (1, 11, false), (2, 17, true)] {
        let now = saturday + day * DAY_MS + hour * HOUR_MS + 30 * MINUTE_MS;
        let found = fires("m3w-no-sessions", &office.database, now).await;
        assert_eq!(found, expected, "day {day}, {hour}:30");
    }

    let event = Server::at(NOW_MS).await;
    for day in -9..6 {
        put(&event, 1, saturday + day * DAY_MS + 9 * HOUR_MS).await;
    }
    put(&event, 300, saturday + 20 * HOUR_MS).await;
    minutes(&event.database, living, 1, 0).await;
    for day in 1..6 {
        let now = saturday + day * DAY_MS + 21 * HOUR_MS;
        assert!(!fires("m3w-no-sessions", &event.database, now).await, "{day} days after");
    }
}

#[tokio::test]
async fn an_imported_past_is_no_habit() {
    let server = Server::at(NOW_MS).await;
    hourly(&server, 480, 8, 1).await;
    minutes(&server.database, "generate_series(now(), now(), '1 s')", 1, 0).await;
    let now = format!("to_timestamp({NOW_MS} / 1000.0)");
    server
        .database
        .execute(&format!("UPDATE sessions SET created_at = {now}, received_at = {now}"))
        .await;
    assert!(!fires("m3w-no-sessions", &server.database, NOW_MS).await);
}
