//! What retention takes stays in the rollups.

use serde_json::json;

use super::{assert_exact, post, settle};
use crate::retention::run_retention;
use crate::support::{Database, Server, ServerOptions, now_ms};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

async fn post_session(server: &Server, id: &str, started: i64) {
    let start = jiff::Timestamp::from_millisecond(started).expect("a date").to_string();
    let report = json!({
        "sessionId": id, "timestamp": now_ms(), "sessionStartDateIso": start,
        "sessionDurationMs": 60_000, "playTimeMs": 50_000, "contentId": "film",
    });
    post(server, report).await;
}

/// Sums of all sessions there ever were, by day.
async fn by_day(database: &Database) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', dimension, date_trunc('day', bucket, 'UTC'), value,
                                sum(sessions), sum(play_time_ms))
               FROM rollups WHERE minutes IN (30, 60)
               GROUP BY dimension, date_trunc('day', bucket, 'UTC'), value ORDER BY 1";
    database.lines(sql).await
}

#[tokio::test]
async fn the_numbers_of_sessions_that_are_gone_stay() {
    let database = Database::new().await;
    let kept = vec![("RETENTION_DAYS", "0".to_owned())];
    let for_ever =
        Server::with(ServerOptions { env: kept, ..ServerOptions::default() }, &database).await;
    // The cutoff is in the middle of an hour, with sessions at both sides; the days before it fill
    // whole months.
    let half_past = now_ms() - now_ms() % HOUR_MS + HOUR_MS / 2;
    let now = half_past.min(now_ms());
    let options = |days: &str| ServerOptions {
        env: vec![("RETENTION_DAYS", days.to_owned())],
        now_ms: Some(now),
        ..ServerOptions::default()
    };
    let cutoff = now - 10 * DAY_MS;
    for day in 0..80 {
        post_session(&for_ever, &format!("day-{day}"), now_ms() - day * DAY_MS - 60_000).await;
    }
    post_session(&for_ever, "before", cutoff - 10).await;
    post_session(&for_ever, "after", cutoff + 10).await;
    settle(&for_ever.app).await;
    // Retention finds reports that no run has seen yet.
    post_session(&for_ever, "unseen", cutoff - 20).await;
    post_session(&for_ever, "unseen-long-ago", cutoff - 60 * DAY_MS).await;

    let pruning = Server::with(options("10"), &database).await;
    assert!(run_retention(&pruning.app).await);
    settle(&pruning.app).await;
    let sessions = "SELECT count(*) FROM sessions";
    let left = database.number(sessions).await;
    assert!((11..=13).contains(&left), "{left}");
    let total = "SELECT sum(sessions) FROM rollups WHERE dimension = '' AND minutes = 30";
    assert_eq!(database.number(total).await, 84);
    let before = by_day(&database).await;
    assert_eq!(
        database.number("SELECT count(*) FROM rollup_sealed WHERE until IS NOT NULL").await,
        0
    );

    // Making them anew changes nothing, nor does another run of retention.
    pruning.app.store.touch_rollups(None, None).await.expect("touched");
    settle(&pruning.app).await;
    assert_eq!(by_day(&database).await, before);
    assert!(run_retention(&pruning.app).await);
    settle(&pruning.app).await;
    assert_eq!(by_day(&database).await, before);

    // What comes later is added, into whole hours and into the one that was cut; and is corrected.
    let late = [cutoff - 30, cutoff - 40, cutoff - 30 * DAY_MS];
    for (number, started) in late.into_iter().enumerate() {
        post_session(&for_ever, &format!("late-{number}"), started).await;
    }
    settle(&pruning.app).await;
    assert_eq!(database.number(total).await, 84 + 3);
    let correction = json!({
        "sessionId": "late-0", "timestamp": now_ms(), "sessionDurationMs": 90_000,
        "playTimeMs": 80_000, "contentId": "film",
    });
    post(&for_ever, correction).await;
    settle(&pruning.app).await;
    let played = "SELECT sum(play_time_ms) FROM rollups WHERE dimension = '' AND minutes = 30";
    assert_eq!(database.number(played).await, 87 * 50_000 + 30_000);

    // Retention takes these too, and their numbers stay as well.
    let before = by_day(&database).await;
    assert!(run_retention(&pruning.app).await);
    settle(&pruning.app).await;
    assert_eq!(by_day(&database).await, before);
    assert_eq!(database.number(sessions).await, left);
}

#[tokio::test]
async fn retention_that_was_cut_off_counts_nothing_twice() {
    let database = Database::new().await;
    let env = vec![("RETENTION_DAYS", "0".to_owned())];
    let server = Server::with(ServerOptions { env, ..ServerOptions::default() }, &database).await;
    for hour in 0..6 {
        post_session(&server, &format!("s{hour}"), now_ms() - 20 * DAY_MS - hour * HOUR_MS).await;
    }
    settle(&server.app).await;
    assert_exact(&database).await;
    // As it is when a run ends between settling an hour and deleting its sessions.
    let env = vec![("RETENTION_DAYS", "10".to_owned())];
    let pruning = Server::with(ServerOptions { env, ..ServerOptions::default() }, &database).await;
    database
        .execute(
            r"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN RAISE 'not now'; END $$;
              CREATE TRIGGER refuse BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let total = "SELECT sum(sessions) FROM rollups WHERE dimension = '' AND minutes = 30";
    let _ = run_retention(&pruning.app).await;
    settle(&server.app).await;
    assert_eq!(database.number(total).await, 6);
    server.app.store.touch_rollups(None, None).await.expect("touched");
    settle(&server.app).await;
    assert_eq!(database.number(total).await, 6);
    database.execute("DROP TRIGGER refuse ON sessions").await;
    assert!(run_retention(&pruning.app).await);
    settle(&server.app).await;
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 0);
    assert_eq!(database.number(total).await, 6);
}
