//! One correct row per session, whatever the order, the retries, the month or the instance.

use std::sync::Arc;
use std::time::Duration;

use media3watch::auth::Tenant;
use media3watch::report::{self, UnixMs};
use media3watch::store::{Applied, Kept, Received, TimelinePage, TimelinePosition};
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

use crate::support::{Database, Server, ServerOptions};

/// 2026-11-30T23:59:30Z: half a minute before a month ends.
const MONTH_END_MS: i64 = 1_796_083_170_000;
pub const NOW_MS: i64 = 1_795_000_100_000;

pub fn body(id: &str, timestamp: i64, play_time: i64) -> String {
    json!({
        "sessionId": id, "timestamp": timestamp, "playTimeMs": play_time,
        "timelineEvents": [
            {"timestampMs": timestamp, "elapsedMs": play_time, "playbackState": "PLAYING"},
            {"timestampMs": NOW_MS, "elapsedMs": 7, "playbackState": "BUFFERING"},
        ],
    })
    .to_string()
}

pub fn statuses(answer: &Value) -> Vec<&str> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|result| result["status"].as_str().expect("a status")).collect()
}

async fn row(database: &Database, id: &str) -> String {
    let sql = format!(
        "SELECT count(*) || ' rows, ' || max(report_count) || ' reports, played ' || max(play_time_ms)
         FROM sessions WHERE session_id = '{id}'"
    );
    database.value(&sql).await.expect("a row")
}

/// After some batches of nothing but new sessions, the server expects the next to be another.
async fn expect_new(server: &Server, name: &str) {
    for number in 0..10 {
        let answer = server.post(body(&format!("{name} {number}"), NOW_MS, 1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn newer_replaces_older_changes_nothing_and_timelines_add_up() {
    let server = Server::at(NOW_MS).await;
    for (timestamp, play_time, outcome) in [
        (NOW_MS, 100, "stored"),
        (NOW_MS + 2, 300, "updated"),
        (NOW_MS + 1, 200, "stale"),
        (NOW_MS + 2, 999, "duplicate"),
        (NOW_MS + 3, 50, "updated"),
    ] {
        assert_eq!(server.post(body("s", timestamp, play_time)).await.status, 200);
        let series = format!("sessions_ingested_total{{outcome=\"{outcome}\",tenant=\"default\"}}");
        assert!(server.metric(&series).await >= 1.0, "{outcome}");
    }
    assert_eq!(row(&server.database, "s").await, "1 rows, 3 reports, played 50");
    // 100, 300, 200, 999, 50, and the one that all of them repeat.
    let entries = "SELECT count(*) FROM session_timeline WHERE session_id = 's'";
    assert_eq!(server.database.number(entries).await, 6);
}

#[tokio::test]
async fn a_batch_is_as_good_as_one_by_one() {
    let server = Server::at(NOW_MS).await;
    let reports: Vec<String> = [10, 30, 20, 30, 40].map(|t| body("s", NOW_MS + t, t)).into();
    let answer = server.post_batch(format!("[{}]", reports.join(","))).await.json();
    assert_eq!(statuses(&answer), ["stored", "stored", "stale", "duplicate", "stored"]);
    assert_eq!(answer["accepted"], 5);
    assert_eq!(row(&server.database, "s").await, "1 rows, 3 reports, played 40");
    let again = server.post_batch(format!("[{}]", reports.join(","))).await.json();
    assert_eq!(statuses(&again), ["stale", "stale", "stale", "stale", "duplicate"]);
    assert_eq!(row(&server.database, "s").await, "1 rows, 3 reports, played 40");
}

#[tokio::test]
async fn any_order_ends_in_the_same_row() {
    let server = Server::at(NOW_MS).await;
    let mut rng = rand::rng();
    for session in 0..20 {
        let id = format!("s{session}");
        let mut reports: Vec<i64> = (1..=8).chain(3..=5).collect();
        reports.shuffle(&mut rng);
        for chunk in reports.chunks(rng.random_range(1..=4)) {
            let lines: Vec<String> = chunk.iter().map(|t| body(&id, NOW_MS + t, t * 10)).collect();
            let answer = server.post_batch(format!("[{}]", lines.join(","))).await;
            assert_eq!(answer.status, 200, "{reports:?}");
        }
        let newest = format!(
            "SELECT count(*) || ' ' || max(play_time_ms) FROM sessions WHERE session_id = '{id}'"
        );
        assert_eq!(server.database.value(&newest).await.expect("a row"), "1 80", "{reports:?}");
        let entries = format!("SELECT count(*) FROM session_timeline WHERE session_id = '{id}'");
        assert_eq!(server.database.number(&entries).await, 9, "{reports:?}");
    }
}

#[tokio::test]
async fn a_session_that_crosses_midnight_of_the_first_keeps_its_month() {
    let server = Server::at(MONTH_END_MS).await;
    for minute in 0..3 {
        let time = MONTH_END_MS + minute * 60_000;
        server.clock_ms.store(time, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(server.post(body("s", time, minute + 1)).await.status, 200);
        // A session that begins then gets its own month.
        assert_eq!(server.post(body(&format!("new{minute}"), time, 1)).await.status, 200);
    }
    let months =
        "SELECT tableoid::regclass::text || ' ' || session_id FROM sessions ORDER BY session_id";
    let expected = [
        "sessions_2026_11 new0",
        "sessions_2026_12 new1",
        "sessions_2026_12 new2",
        "sessions_2026_11 s",
    ];
    assert_eq!(server.database.lines(months).await, expected);
    let timeline = "SELECT DISTINCT tableoid::regclass::text FROM timeline_chunks
         WHERE session_key = session_key('default', 's')";
    assert_eq!(server.database.lines(timeline).await, ["timeline_chunks_2026_11"]);
}

#[tokio::test]
async fn partitions_are_there_ahead_of_time_and_on_demand() {
    let server = Server::at(MONTH_END_MS).await;
    let partitions = "SELECT inhrelid::regclass::text FROM pg_inherits
                      WHERE inhparent = 'sessions'::regclass ORDER BY 1";
    let ahead = [
        "sessions_2026_10",
        "sessions_2026_11",
        "sessions_2026_12",
        "sessions_2027_01",
        "sessions_2027_02",
    ];
    assert_eq!(server.database.lines(partitions).await, ahead);
    let compression =
        "SELECT DISTINCT a.attcompression::text FROM pg_inherits i JOIN pg_attribute a
                       ON a.attrelid = i.inhrelid AND a.attname = 'payload'
                       WHERE i.inhparent = 'sessions'::regclass";
    let has_lz4 = "SELECT ('lz4' = ANY (enumvals))::int::bigint FROM pg_settings
                   WHERE name = 'default_toast_compression'";
    let expected = if server.database.number(has_lz4).await == 1 { "l" } else { "" };
    assert_eq!(server.database.lines(compression).await, [expected]);
    // 80 days back, within the 90 that are kept.
    assert_eq!(server.post(body("old", MONTH_END_MS - 80 * 86_400_000, 1)).await.status, 200);
    let on_demand = "SELECT tableoid::regclass::text FROM sessions WHERE session_id = 'old'";
    assert_eq!(server.database.lines(on_demand).await, ["sessions_2026_09"]);
    // Somebody drops a partition that this instance knows: it is made again.
    server.database.execute("DROP TABLE sessions_2026_12, timeline_chunks_2026_12").await;
    server.clock_ms.fetch_add(60_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(server.post(body("next", MONTH_END_MS + 60_000, 1)).await.status, 200);
    // The same, for a session that is placed in it and goes on; no report of now is.
    server.database.execute("DROP TABLE sessions_2026_09, timeline_chunks_2026_09").await;
    assert_eq!(server.post(body("old", MONTH_END_MS + 60_000, 2)).await.status, 200);
    assert_eq!(server.database.lines(on_demand).await, ["sessions_2026_09"]);
}

/// What pruning removes together, somebody removes apart.
#[tokio::test]
async fn rows_and_places_that_were_deleted_by_hand_come_back() {
    let server = Server::at(NOW_MS).await;
    for id in ["no row", "no place", "both"] {
        assert_eq!(server.post(body(id, NOW_MS, 1)).await.status, 200);
    }
    server.database.execute("DELETE FROM sessions WHERE session_id = 'no row'").await;
    let place = "DELETE FROM session_times WHERE session_key = session_key('default', 'no place')";
    server.database.execute(place).await;
    // Newer, but from a clock so far ahead that it is placed at its receipt, like the first one.
    let next = |id| body(id, NOW_MS, 1).replace(r#""timestamp":"#, r#""note":1,"timestamp":1"#);
    let batch: Vec<String> = ["no row", "no place", "both", "new"].map(next).into();
    let answer = server.post_batch(format!("[{}]", batch.join(","))).await;
    assert_eq!(answer.json()["accepted"], 4, "{}", answer.text);
    for (id, reports) in [("no row", 1), ("no place", 2), ("both", 2), ("new", 1)] {
        let expected = format!("1 rows, {reports} reports, played 1");
        assert_eq!(row(&server.database, id).await, expected, "{id}");
    }
    let places = "SELECT count(*) FROM session_times t JOIN sessions s ON t.session_key = s.session_key
                  AND t.session_key = session_key(s.tenant_id, s.session_id) AND t.\"timestamp\" = s.\"timestamp\"";
    assert_eq!(server.database.number(places).await, 4);
}

/// A batch that was expected to hold new sessions only is looked at again where it does not.
#[tokio::test]
async fn what_was_expected_to_be_new_may_be_known() {
    let database = Database::new().await;
    let count = format!("ALTER DATABASE {} SET track_functions = 'pl'", database.name());
    database.execute(&count).await;
    let options = ServerOptions { now_ms: Some(NOW_MS), ..ServerOptions::default() };
    let server = Server::with(options, &database).await;
    assert_eq!(server.post(body("known", NOW_MS, 1)).await.status, 200);
    for round in 0..3 {
        expect_new(&server, &format!("round {round}")).await;
        let reports = [
            body("known", NOW_MS + 10 + round, 2),
            body("known", NOW_MS + 10 + round, 2),
            body(&format!("new {round}"), NOW_MS, 3),
            body(&format!("new {round}"), NOW_MS + 1, 4),
            body("round 0 0", NOW_MS - 1, 5),
        ];
        let answer = server.post_batch(format!("[{}]", reports.join(","))).await.json();
        let expected = ["stored", "duplicate", "stored", "stored", "stale"];
        assert_eq!(statuses(&answer), expected, "round {round}");
        assert_eq!(row(&database, &format!("new {round}")).await, "1 rows, 2 reports, played 4");
    }
    // Of ten new sessions the last two were expected to be new, of the first ten three, and so
    // was, in vain, each of the batches above.
    let calls = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_user_functions
                 WHERE funcname LIKE 'insert\\_reports\\_%'";
    let mut seen = 0;
    for _ in 0..60 {
        seen = database.number(calls).await;
        if seen >= 10 {
            break;
        }
        // Statistics arrive with a delay, and with the end of a transaction.
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(server.post(body("known", NOW_MS, 1)).await.status, 200);
    }
    assert_eq!(seen, 10);

    // A month that is gone, and all entries of a batch with one report of each session.
    expect_new(&server, "last").await;
    database.execute("DROP TABLE sessions_2026_11, timeline_chunks_2026_11 CASCADE").await;
    database.execute("TRUNCATE session_times").await;
    expect_new(&server, "next").await;
    assert_eq!(row(&database, "next 9").await, "1 rows, 1 reports, played 1");
    let twice = ["next 9", "newest"].map(|id| body(id, NOW_MS, 1)).join(",");
    let answer = server.post_batch(format!("[{twice}]")).await.json();
    assert_eq!(statuses(&answer), ["duplicate", "stored"]);
    let entries = "SELECT count(*) FROM session_timeline WHERE session_id IN ('next 9', 'newest')";
    assert_eq!(database.number(entries).await, 4);
}

/// Two instances hear of the same sessions for the first time, in the same moment: the one that
/// comes second finds rows where it looked and saw none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_begin_the_same_sessions_at_once() {
    const SESSIONS: usize = 100;
    const ROUNDS: usize = 32;
    let database = Database::new().await;
    let options = || ServerOptions { now_ms: Some(NOW_MS), ..ServerOptions::default() };
    let servers =
        [Server::with(options(), &database).await, Server::with(options(), &database).await];
    let mut stored = [0, 0];
    let mut others = 0;
    for round in 0..ROUNDS {
        // Neither, one, or both expect that all are new.
        for (server, bit) in servers.iter().zip([1, 2]) {
            if round & bit == 0 {
                assert_eq!(server.post(body("known", NOW_MS, 1)).await.status, 200);
            } else {
                expect_new(server, &format!("{round} of {bit}")).await;
                others += 10;
            }
        }
        let lines: Vec<String> =
            (0..SESSIONS).map(|session| body(&format!("{round}-{session}"), NOW_MS, 1)).collect();
        let batch = format!("[{}]", lines.join(","));
        let (one, two) =
            tokio::join!(servers[0].post_batch(batch.clone()), servers[1].post_batch(batch));
        for (stored, answer) in stored.iter_mut().zip([one, two]) {
            assert_eq!(answer.status, 200, "{}", answer.text);
            *stored +=
                statuses(&answer.json()).iter().filter(|status| **status == "stored").count();
        }
    }
    // One of the two stored a session, the other saw its duplicate.
    assert_eq!(stored[0] + stored[1], SESSIONS * ROUNDS, "{stored:?}");
    let all = i64::try_from(SESSIONS * ROUNDS).expect("small");
    // One more is the one that was known.
    let once = "SELECT count(*) FROM sessions WHERE report_count = 1";
    assert_eq!(database.number(once).await, all + others + 1);
    let entries = "SELECT count(*) FROM session_timeline";
    assert_eq!(database.number(entries).await, 2 * (all + others + 1));
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(database.number(deadlocks).await, 0);
}

#[tokio::test]
async fn the_same_id_in_two_tenants_is_two_sessions() {
    let server = Server::at(NOW_MS).await;
    let received = |tenant: &str, play_time: i64| {
        let report = report::parse(body("s", NOW_MS, play_time).as_bytes(), &report::Paths::NONE)
            .expect("valid");
        Received::new(Tenant::new(tenant), report, UnixMs(NOW_MS))
    };
    let store = &server.app.store;
    let applied = store
        .upsert(
            &mut Kept::default(),
            &[&received("a", 1), &received("b", 2)],
            Duration::from_secs(5),
        )
        .await
        .expect("stored");
    assert_eq!(applied, [Applied::Stored, Applied::Stored]);
    let rows = "SELECT tenant_id || ' ' || play_time_ms FROM sessions ORDER BY 1";
    assert_eq!(server.database.lines(rows).await, ["a 1", "b 2"]);
    // Neither is the default tenant's to see.
    assert_eq!(server.get("/v1/sessions/s").await.status, 404);
    let page = TimelinePage { limit: 10, after: TimelinePosition::START };
    let of_a = store.session(&Tenant::new("a"), "s", page).await.expect("read").expect("there");
    assert!(of_a.contains(r#""play_time_ms": 1,"#), "{of_a}");
    let places = "SELECT count(*) FROM session_times t JOIN sessions s USING (session_key)";
    assert_eq!(server.database.number(places).await, 2);
}

/// Two instances, many clients, few sessions: every report is acknowledged, no deadlock is
/// seen, and each session has one row with its newest report. `through` is how the instances
/// reach the database.
pub async fn hot_sessions_are_right(
    (through, database): (&Database, &Database),
    sessions: i64,
    clients: i64,
    rounds: i64,
) {
    let options = || ServerOptions { now_ms: Some(NOW_MS), ..ServerOptions::default() };
    let one = Server::with(options(), through).await;
    let two = Server::with(options(), through).await;
    let servers = Arc::new([one, two]);
    let running: Vec<_> = (0..clients)
        .map(|client| {
            let servers = Arc::clone(&servers);
            tokio::spawn(async move {
                for round in 0..rounds {
                    let server = &servers[usize::try_from((client + round) % 2).expect("0 or 1")];
                    let mut order: Vec<i64> = (0..sessions).collect();
                    order.shuffle(&mut rand::rng());
                    let version = round * clients + client;
                    let lines: Vec<String> = order
                        .iter()
                        .map(|session| body(&format!("hot{session}"), NOW_MS + version, version))
                        .collect();
                    let answer = server.post_batch(format!("[{}]", lines.join(","))).await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    assert_eq!(answer.json()["accepted"], sessions);
                }
            })
        })
        .collect();
    for client in running {
        client.await.expect("no client failed");
    }
    let newest = rounds * clients - 1;
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, sessions);
    let right = format!("SELECT count(*) FROM sessions WHERE play_time_ms = {newest}");
    assert_eq!(database.number(&right).await, sessions);
    // Of each version one entry, and the one that all repeat.
    let entries = "SELECT count(*) FROM session_timeline";
    assert_eq!(database.number(entries).await, sessions * (rounds * clients + 1));
    let counted = "SELECT sum(timeline_entries)::bigint FROM sessions";
    assert_eq!(database.number(counted).await, sessions * (rounds * clients + 1));
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(database.number(deadlocks).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_write_the_same_hot_sessions() {
    let database = Database::new().await;
    hot_sessions_are_right((&database, &database), 40, 16, 25).await;
}

/// Reports that come again, late, or with some entries that are known and some that are not.
#[tokio::test]
async fn known_entries_are_found_whatever_else_a_batch_holds() {
    let server = Server::at(NOW_MS).await;
    let report = |id: &str, time: i64, elapsed: &[i64]| {
        let entries: Vec<Value> = elapsed
            .iter()
            .map(|ms| json!({"timestampMs": NOW_MS, "elapsedMs": ms, "playbackState": "PLAYING"}))
            .collect();
        json!({"sessionId": id, "timestamp": NOW_MS + time, "timelineEvents": entries}).to_string()
    };
    let post = async |reports: Vec<String>| {
        let answer = server.post_batch(format!("[{}]", reports.join(","))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        statuses(&answer.json()).join(" ")
    };
    let ids: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
    let of_all = |time, elapsed: &[i64]| -> Vec<String> {
        ids.iter().map(|id| report(id, time, elapsed)).collect()
    };
    post(of_all(10, &[1_000, 2_000])).await;
    // Newer, and what it brings begins after all, before all, or in the middle.
    post(of_all(20, &[3_000, 4_000])).await;
    post(of_all(30, &[2_000, 3_500, 4_000, 5_000])).await;
    // Older, with an entry that only it brings; and again.
    assert!(post(of_all(15, &[500, 1_000])).await.starts_with("stale stale"));
    assert!(post(of_all(30, &[2_000, 3_500, 4_000, 5_000])).await.starts_with("duplicate"));
    // One that is far on makes no other session read everything.
    let mut mixed = of_all(16, &[600]);
    mixed.push(report("far", 1, &[0, 2_678_400_000]));
    mixed.push(report("far", 1, &[0, 2_678_400_000]));
    post(mixed).await;
    let expected = "500,600,1000,2000,3000,3500,4000,5000";
    let timelines = "SELECT DISTINCT string_agg(elapsed_ms::text, ',' ORDER BY elapsed_ms)
                     FROM session_timeline WHERE session_id <> 'far' GROUP BY session_id";
    assert_eq!(server.database.lines(timelines).await, [expected]);
    let kept = "SELECT DISTINCT timeline_entries || ' ' || timeline_until_ms FROM sessions
                WHERE session_id <> 'far'";
    assert_eq!(server.database.lines(kept).await, ["8 5000"]);
    let far = "SELECT timeline_entries::bigint FROM sessions WHERE session_id = 'far'";
    assert_eq!(server.database.number(far).await, 2);
}

#[tokio::test]
async fn a_session_that_is_full_takes_no_more_entries_and_goes_on() {
    let server = Server::at(NOW_MS).await;
    for id in ["many", "long"] {
        assert_eq!(server.post(body(id, NOW_MS, 10)).await.status, 200);
    }
    let fill = "UPDATE sessions SET timeline_entries = 50000 WHERE session_id = 'many';
                UPDATE sessions SET timeline_bytes = 8388608 WHERE session_id = 'long'";
    server.database.execute(fill).await;
    for id in ["many", "long"] {
        assert_eq!(server.post(body(id, NOW_MS + 1, 20)).await.status, 200);
        assert_eq!(row(&server.database, id).await, "1 rows, 2 reports, played 20");
    }
    let entries = "SELECT count(*) FROM session_timeline";
    assert_eq!(server.database.number(entries).await, 4);
    // Both entries of each: whether they are known is not looked up any more.
    let dropped = "timeline_entries_dropped_total{reason=\"session_full\"}";
    assert!((server.metric(dropped).await - 4.0).abs() < 0.1);
}

/// However the entries come: the bound of a session's timeline holds, and what does not fit is
/// thinned and counted.
#[tokio::test]
async fn a_timeline_holds_no_more_than_its_bound() {
    let server = Server::at(NOW_MS).await;
    let report = |part: i64| {
        let entries: Vec<_> = (0..2_000)
            .map(|number| json!({"timestampMs": NOW_MS, "elapsedMs": part * 2_000 + number, "playbackState": "PLAYING"}))
            .collect();
        json!({"sessionId": "s", "timestamp": NOW_MS + part, "timelineEvents": entries})
    };
    let post = async |parts: std::ops::Range<i64>| {
        let batch: Vec<_> = parts.map(report).collect();
        let answer = server.post_batch(json!(batch).to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    post(0..20).await;
    post(20..30).await;
    let stored =
        "SELECT count(*) || ' ' || min(elapsed_ms) || ' ' || max(elapsed_ms) FROM session_timeline";
    assert_eq!(server.database.value(stored).await.as_deref(), Some("50000 0 59999"));
    let kept = "SELECT timeline_entries::bigint FROM sessions";
    assert_eq!(server.database.number(kept).await, 50_000);
    let dropped = "timeline_entries_dropped_total{reason=\"session_full\"}";
    assert!((server.metric(dropped).await - 10_000.0).abs() < 0.5);
    // Those that came last have lost about every other one.
    let late = "SELECT count(*) FROM session_timeline WHERE elapsed_ms >= 58000";
    assert!((800..=1_000).contains(&server.database.number(late).await));
}

/// A screen that plays for weeks: the column cannot hold the length, the order follows it.
#[tokio::test]
async fn sessions_of_more_than_31_days_go_on() {
    let server = Server::at(NOW_MS).await;
    let report = |duration: i64, time: i64, played: i64| {
        json!({"sessionId": "s", "timestamp": time, "sessionDurationMs": duration, "playTimeMs": played})
            .to_string()
    };
    let most = 31 * 86_400_000;
    let reports = [
        report(most - 1, NOW_MS, 1),
        report(most + 15_000, NOW_MS, 2),
        // Late, and with a wall clock that was set forward; then newer, with one that was set back.
        report(most, NOW_MS + 9_000, 3),
        report(most + 30_000, NOW_MS - 9_000, 4),
    ];
    let mut outcomes = Vec::new();
    for report in &reports {
        let answer = server.post_batch(format!("[{report}]")).await;
        outcomes.push(statuses(&answer.json()).join(" "));
    }
    assert_eq!(outcomes, ["stored", "stored", "stale", "stored"]);
    assert_eq!(row(&server.database, "s").await, "1 rows, 3 reports, played 4");
    let length = "SELECT count(session_duration_ms) FROM sessions";
    assert_eq!(server.database.number(length).await, 0);
    // In one batch too, in any order.
    let again = Server::at(NOW_MS).await;
    let batch = [3, 0, 2, 1].map(|index: usize| reports[index].as_str()).join(",");
    assert_eq!(again.post_batch(format!("[{batch}]")).await.json()["accepted"], 4);
    assert_eq!(row(&again.database, "s").await, "1 rows, 1 reports, played 4");
}

/// Somebody restores a database without them, or tidies up.
#[tokio::test]
async fn functions_that_vanish_are_made_again() {
    let server = Server::at(NOW_MS).await;
    assert_eq!(server.post(body("s", NOW_MS, 1)).await.status, 200);
    let drop = "DO $$ DECLARE type text; BEGIN
                  FOR type IN SELECT typname FROM pg_type WHERE typname LIKE 'session\\_report\\_%' LOOP
                    EXECUTE format('DROP TYPE %I CASCADE', type);
                  END LOOP;
                END $$";
    server.database.execute(drop).await;
    let answer = server.post(body("s", NOW_MS + 1, 2)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(row(&server.database, "s").await, "1 rows, 2 reports, played 2");
}
