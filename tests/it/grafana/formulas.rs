//! Formulas, checked with a hundred sessions whose figures were computed by hand.
//!
//! | group | sessions | what |
//! |---|---|---|
//! | A | 60 | VOD, Alpha, app 1.0; startup 100, 200 … 6,000 ms, played 60 s; 20 start slower than 4 s |
//! | B | 20 | LIVE, Beta, app 2.0; startup 1 s, played 54 s, rebuffered 4 s, sought 1 s |
//! | C | 10 | Beta, app 2.0; startup 500 ms, played 30 s, one error |
//! | D | 6 | Alpha, app 2.0; never played, two errors |
//! | E | 4 | Alpha, app 1.0; never played, no error; clocks that are wrong |
//!
//! Trouble is with the 20 slow starts of A and with all others: 60. These have SDK 1.0.1, the
//! other 40 SDK 1.0.0. Watched: A 3,783 s, B 1,200 s, C 305 s, together 5,288 s. Bitrates: A
//! 4,000 kbit/s over 3,600 s of play, B 2,000 over 1,080 s. B rebuffered 40 times.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::macros::expand;
use super::queries;
use crate::qoe::fill_rollups;
use crate::support::{Database, Server, now_ms};

const SESSIONS: &str = r"
INSERT INTO sessions (session_key, tenant_id, session_id, timestamp, reported_at, received_at, created_at, report_count,
    content_id, stream_type, device_model, app_version, sdk_version, clock_skew_ms, player_startup_ms,
    play_time_ms, rebuffer_time_ms, rebuffer_count, seek_time_ms, error_count, last_error_code, payload)
SELECT session_key('default', grp || '-' || n), 'default', grp || '-' || n, t, t + interval '1 minute', t + interval '62 seconds', t, 2,
       'film', stream, device, app, CASE WHEN grp <> 'A' OR startup > 4000 THEN '1.0.1' ELSE '1.0.0' END,
       skew, startup, play, rebuffer, rebuffers, seek, errors, CASE WHEN errors > 0 THEN '2001' END, '{}'
FROM (SELECT now() - interval '30 minutes') AS moment (t), (
    SELECT 'A' AS grp, n, 'VOD' AS stream, 'Alpha' AS device, '1.0' AS app, NULL::bigint AS skew, n * 100 AS startup,
           60000 AS play, 0 AS rebuffer, 0 AS rebuffers, 0 AS seek, 0 AS errors FROM generate_series(1, 60) AS n
    UNION ALL SELECT 'B', n, 'LIVE', 'Beta', '2.0', NULL, 1000, 54000, 4000, 2, 1000, 0 FROM generate_series(1, 20) AS n
    UNION ALL SELECT 'C', n, NULL, 'Beta', '2.0', NULL, 500, 30000, 0, 0, 0, 1 FROM generate_series(1, 10) AS n
    UNION ALL SELECT 'D', n, NULL, 'Alpha', '2.0', NULL, NULL, NULL, NULL, NULL, NULL, 2 FROM generate_series(1, 6) AS n
    UNION ALL SELECT 'E', n, NULL, 'Alpha', '1.0', 86400000, NULL, 0, 0, 0, 0, 0 FROM generate_series(1, 4) AS n
) AS groups;
UPDATE sessions SET avg_bitrate_kbps = CASE stream_type WHEN 'VOD' THEN 4000 WHEN 'LIVE' THEN 2000 END";

/// Two instances, a row a day each: the database grows by 1 GB a day, to 10 GB.
const MINUTES: &str = r#"
TRUNCATE backend_minutes;
INSERT INTO backend_minutes
SELECT instance, now() - day * interval '1 day' - interval '1 minute', '0.1.0', now() - interval '9 days', 60,
       requests, 30, errors, 10, 20, 100, 40, 10, 0, 20, '{"INVALID_SCHEMA": 7, "INVALID_API_KEY": 3}',
       '{"OVERLOADED": 10}', 10, 150, 4, 8, 5, 500, 10, 2, 20, 100000000, 6, (10 - day) * 1000000000::bigint,
       '{"rebufferRatio": 3}', '{"session_full": 2}'
FROM (VALUES ('a:8080', 120, 9), ('b:8080', 60, 0)) AS instances (instance, requests, errors),
     generate_series(0, 4) AS day"#;

async fn database() -> Database {
    let server = Server::start().await;
    let database = server.database.clone();
    server.stop().await;
    database.execute(SESSIONS).await;
    fill_rollups(&database).await;
    database.execute(MINUTES).await;
    database
}

/// The rows of a panel over the last hours, with values of variables.
async fn rows(database: &Database, panel: &str, hours: i64, chosen: &[(&str, &str)]) -> Vec<Value> {
    let (uid, title) = panel.split_once(", ").expect("uid, title");
    let all = queries::all();
    let query = all.iter().find(|query| query.dashboard == uid && query.name == title);
    let query = query.unwrap_or_else(|| panic!("no panel {panel}"));
    let chosen: BTreeMap<String, Vec<String>> =
        chosen.iter().map(|(n, v)| ((*n).to_owned(), vec![(*v).to_owned()])).collect();
    // A moment later: the rows were written by the clock of the database.
    let context = query.context(now_ms() + 1_000, hours, &chosen);
    let sql = expand(&query.sql, &context).expect("fine");
    let sql = format!("SELECT to_jsonb(rows) FROM ({sql}) AS rows");
    let mut connection = database.connect().await;
    let rows = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
    rows.expect("rows")
}

/// Compares the named columns of a row; numbers to nine digits.
fn assert_row(row: &Value, expected: &Value) {
    for (name, expected) in expected.as_object().expect("columns") {
        let found = &row[name];
        let is_same = match (found.as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => (found - expected).abs() <= expected.abs() * 1e-9,
            _ => found == expected,
        };
        assert!(is_same, "{name} is {found}, not {expected}: {row}");
    }
}

/// Compares percentiles of a row with the values at their ranks: bins are 3 % wide.
fn assert_percentiles(row: &Value, expected: &[(&str, f64)]) {
    for (name, expected) in expected {
        let found = row[name].as_f64().expect("a number");
        assert!((found - expected).abs() <= expected * 0.01501, "{name} is {found}: {row}");
    }
}

#[tokio::test]
async fn the_overview_computes_what_a_person_does() {
    let database = database().await;
    let key = rows(&database, "m3w-overview, Sessions without trouble", 1, &[]).await;
    // Of the 90 starts, 40 take up to a second, then one each 1,100, 1,200 … 6,000 ms. The
    // median is the 45th, p95 the 85th.
    assert_row(
        &key[0],
        &json!({
            "sessions": 100, "good": 0.40,
            "rebuffering": 80.0 / 5288.0, "error_rate": 0.16, "start_failures": 0.06, "exits": 0.04,
            "bitrate": 1000.0 * (4000.0 * 3600.0 + 2000.0 * 1080.0) / 4680.0,
            "rebuffers_per_hour": 40.0 * 3600.0 / 5288.0,
        }),
    );
    let percentiles = [("startup_p50", 1500.0), ("startup_p95", 5500.0)];
    assert_percentiles(&key[0], &percentiles);
    let lines = rows(&database, "m3w-overview, Sessions by outcome", 24, &[]).await;
    assert_eq!(lines.len(), 1);
    let same = json!({
        "sessions": 100, "good": 40, "trouble": 50, "never_played": 10, "error_rate": 0.16,
        "rebuffering": 80.0 / 5288.0,
        "start_failures": 0.06, "exits": 0.04,
    });
    assert_row(&lines[0], &same);
    assert_percentiles(&lines[0], &percentiles);

    let bars = rows(&database, "m3w-overview, How long starts take", 1, &[]).await;
    assert_eq!(bars.len(), 41);
    // 1,000 (21 times), 1,100 and 1,200 ms.
    assert_row(&bars[4], &json!({"xMin": 1000, "xMax": 1250, "sessions": 23}));
    assert_row(&bars[24], &json!({"xMin": 6000, "sessions": 1}));
    assert_eq!(bars.iter().map(|bar| bar["sessions"].as_i64().expect("a count")).sum::<i64>(), 90);

    let types = rows(&database, "m3w-overview, VOD against LIVE", 1, &[]).await;
    // p95 of 100 … 6,000 is the 57th. The others have too few sessions for rates.
    assert_percentiles(&types[0], &[("startup_p95", 5700.0)]);
    let vod = json!({"stream_type": "VOD", "sessions": 60,
        "rebuffering": 0.0, "error_rate": 0.0, "never_started": 0.0});
    assert_row(&types[0], &vod);
    let live = json!({"sessions": 20, "startup_p95": null, "rebuffering": null});
    assert_row(types.iter().find(|row| row["stream_type"] == "LIVE").expect("LIVE"), &live);

    let content = rows(&database, "m3w-overview, Top content", 1, &[]).await;
    // Wilson for 16 of 100: 0.1010 and 0.2442. Played 3,600 + 1,080 + 300 s.
    assert_row(
        &content[0],
        &json!({"content_id": "film", "sessions": 100, "error_rate": 0.16,
            "error_interval": "10.1 – 24.4 %", "hours": 4980.0 / 3600.0}),
    );
}

#[tokio::test]
async fn few_sessions_say_that_they_are_few() {
    let database = database().await;
    let live = [("stream_type", "LIVE")];
    let key = rows(&database, "m3w-overview, Sessions without trouble", 1, &live).await;
    let expected = json!({"sessions": 20, "good": null, "startup_p50": null, "startup_p95": null,
        "rebuffering": null, "error_rate": null, "start_failures": null, "exits": null,
        "bitrate": null, "rebuffers_per_hour": null});
    assert_row(&key[0], &expected);
    // What was not reported can be chosen too: C, D and E.
    let none = [("stream_type", "not reported")];
    let key = rows(&database, "m3w-overview, Sessions without trouble", 1, &none).await;
    assert_row(&key[0], &json!({"sessions": 20}));
}

#[tokio::test]
async fn the_breakdown_finds_what_is_over_represented() {
    let database = database().await;
    let over =
        rows(&database, "m3w-breakdown, Over-represented among sessions with trouble", 1, &[])
            .await;
    // SDK 1.0.1: 60 of the 60 with trouble, 60 of all 100.
    let worst = json!({"dimension": "SDK version", "value": "1.0.1", "times": 1.0 / 0.6,
        "of_bad": 1.0, "of_all": 0.6, "sessions": 60});
    assert_row(&over[0], &worst);
    let find = |value: &str| over.iter().find(|row| row["value"] == value);
    // Alpha: 20 + 6 + 4 of the 60, 70 of all. App 1.0: 24 and 64.
    assert_row(find("Alpha").expect("there"), &json!({"times": 0.5 / 0.7}));
    assert_row(find("1.0").expect("there"), &json!({"times": 0.4 / 0.64}));
    // Beta has 30 sessions, too few; "film" is all of them.
    assert!(find("Beta").is_none() && find("film").is_none());

    let by = [("dimension", "SDK version")];
    let table = rows(&database, "m3w-breakdown, Worst first, by ${dimension}", 1, &by).await;
    assert_row(
        &table[0],
        &json!({"value": "1.0.1", "sessions": 60, "trouble": 1.0,
        "error_rate": 16.0 / 60.0, "never_started": 10.0 / 60.0,
        // The slow 20 of A watched 1,301 s.
        "bitrate": 1000.0 * (4000.0 * 1200.0 + 2000.0 * 1080.0) / 2280.0,
        "rebuffers_per_hour": 40.0 * 3600.0 / 2806.0}),
    );
    assert_row(
        &table[1],
        &json!({"value": "1.0.0", "sessions": 40, "trouble": null,
        "trouble_interval": "0.0 – 8.8 %"}),
    );
    let codes = rows(&database, "m3w-breakdown, Errors by code", 1, &[]).await;
    assert_row(
        &codes[0],
        &json!({"code": "2001", "sessions": 16, "share": 1.0, "never_played": 6}),
    );
}

#[tokio::test]
async fn the_explorer_finds_sessions_by_outcome_and_text() {
    let database = database().await;
    for (outcome, search, found) in [
        ("all", "", 100),
        ("trouble", "", 60),
        ("failed", "", 16),
        ("rebuffered", "", 20),
        ("slow start", "", 20),
        ("never started", "", 10),
        ("all", "B-1", 11),
        ("all", "FIL", 100),
        ("all", "Beta", 30),
        ("failed", "Beta", 10),
        ("all", "%", 0),
    ] {
        let chosen = [("outcome", outcome), ("search", search)];
        let panel = "m3w-explorer, Sessions found";
        let row = &rows(&database, panel, 1, &chosen).await[0];
        assert_row(row, &json!({"found": found, "share": f64::from(found) / 100.0}));
        let listed = rows(&database, "m3w-explorer, Sessions", 1, &chosen).await;
        assert_eq!(listed.len(), usize::try_from(found).expect("positive"), "{outcome} {search}");
    }
    let slowest = [("sort", "startup")];
    let listed = rows(&database, "m3w-explorer, Sessions", 1, &slowest).await;
    assert_row(
        &listed[0],
        &json!({"session_id": "A-60", "startup": 6000, "outcome": "slow start"}),
    );
    let (from, to) = (&listed[0]["from_ms"], &listed[0]["to_ms"]);
    // The session's 66 s, and a minute on both sides; rounded outwards.
    let span = to.as_i64().expect("ms") - from.as_i64().expect("ms");
    assert!((186_000..=186_001).contains(&span), "{span}");
}

#[tokio::test]
async fn data_quality_counts_what_is_missing() {
    let database = database().await;
    let key = rows(&database, "m3w-quality, Never started", 1, &[]).await;
    assert_row(
        &key[0],
        &json!({"never_started": 0.10, "clocks": 0.04, "no_startup": 0.0, "no_content": 0.0, "no_device": 0.0}),
    );
    assert_percentiles(&key[0], &[("delay_p50", 2000.0), ("delay_p95", 2000.0)]);
    // Of each of two rows: 150 acknowledged, 10 of them repeated; 10 refused; 10 + 20 turned away.
    let reports = rows(&database, "m3w-quality, Reports refused", 1, &[]).await;
    assert_row(
        &reports[0],
        &json!({"refused": 10.0 / 160.0, "turned_away": 30.0 / 190.0,
        "repeated": 10.0 / 150.0}),
    );
    let rates = rows(&database, "m3w-quality, Reports per second", 1, &[]).await;
    assert_row(
        &rates[0],
        &json!({"first": 200.0 / 60.0, "newer": 80.0 / 60.0,
        "repeated": 20.0 / 60.0, "refused": 20.0 / 60.0}),
    );
    let dropped = rows(&database, "m3w-quality, Dropped values, by field", 1, &[]).await;
    assert_row(&dropped[0], &json!({"field": "rebufferRatio", "dropped": 6}));
    assert_row(&dropped[1], &json!({"field": "timeline entries: session full", "dropped": 4}));
    let codes = rows(&database, "m3w-quality, Refused and turned away, by code", 1, &[]).await;
    let counts: Vec<_> = codes.iter().map(|row| (&row["metric"], &row["reports"])).collect();
    assert_eq!(
        json!(counts),
        json!([
            ["INVALID_API_KEY", 6],
            ["INVALID_SCHEMA", 14],
            ["OVERLOADED", 20],
            ["RATE_LIMIT_EXCEEDED", 40]
        ])
    );
}

#[tokio::test]
async fn backend_health_says_when_the_disk_is_full() {
    let database = database().await;
    let key = rows(&database, "m3w-backend, Requests", 1, &[]).await;
    assert_row(
        &key[0],
        &json!({"requests": 3.0, "server_errors": 9.0 / 180.0, "answer_p95": 20.0,
        "commit_p95": 8.0, "queue": 5, "pool": 0.5}),
    );
    for (disk_gb, days) in [("50", 40.0), ("20", 10.0), ("12.5", 2.5), ("plenty", 40.0), ("1", 0.0)]
    {
        let panel = "m3w-backend, Database, and when ${disk_gb} GB are full";
        let row = &rows(&database, panel, 1, &[("disk_gb", disk_gb)]).await[0];
        assert_eq!(row["size"], 10_000_000_000_i64);
        assert!((row["per_day"].as_f64().expect("a rate") - 1e9).abs() < 1.0, "{row}");
        let full = row["full"].as_f64().expect("a date");
        let expected = now_ms() as f64 + days * 86_400_000.0;
        assert!((full - expected).abs() < 60_000.0, "{disk_gb}: {full} {expected}");
    }
    let lines = rows(&database, "m3w-backend, Reports per second", 1, &[]).await;
    assert_row(
        &lines[0],
        &json!({"acknowledged": 5.0, "answer_mean": 10.0, "answer_p95": 20.0,
        "commit_mean": 4.0, "batch": 15.0, "queue": 10, "memory": 200_000_000, "cpu": 0.2}),
    );
    let one = rows(&database, "m3w-backend, Requests", 1, &[("instance", "b:8080")]).await;
    assert_row(&one[0], &json!({"requests": 1.0, "server_errors": 0.0}));
}

#[tokio::test]
async fn a_session_without_a_timeline_says_so() {
    let database = database().await;
    let chosen = [("session_id", "B-1")];
    let state = rows(&database, "m3w-session, State", 1, &chosen).await;
    let states: Vec<_> = state.iter().map(|row| &row["state"]).collect();
    assert_eq!(json!(states), json!([5, 5]), "from its beginning to its end");
    let line = rows(&database, "m3w-session, Buffer", 1, &chosen).await;
    assert_eq!(line.len(), 1);
    assert_row(&line[0], &json!({"elapsed": 0.0, "buffered": null, "bitrate": null}));
    let facts = rows(&database, "m3w-session, Facts", 1, &chosen).await;
    let fact = |name: &str| facts.iter().find(|row| row["fact"] == name).map(|row| &row["value"]);
    assert_eq!(fact("Outcome").expect("a fact"), "rebuffered");
    assert_eq!(fact("Watched").expect("a fact"), "60 s");
    assert!(fact("Timeline").expect("a fact").as_str().expect("text").starts_with("none"));
    assert!(fact("Last error").is_none(), "what is not known is left out");

    let entries = r"
        INSERT INTO timeline_chunks
        SELECT session_key, timestamp, n * 5000, n * 5000, json_build_array(json_build_array(
                 n * 5000, 0, (ARRAY['BUFFERING', 'PLAYING', 'ENDED'])[n + 1], 3000000, NULL, NULL, 1000 * n))
        FROM sessions, generate_series(0, 2) AS n WHERE session_id = 'B-1'";
    database.execute(entries).await;
    let state = rows(&database, "m3w-session, State", 1, &chosen).await;
    let states: Vec<_> = state.iter().map(|row| &row["state"]).collect();
    assert_eq!(json!(states), json!([1, 2, 4]));
    let line = rows(&database, "m3w-session, Buffer", 1, &chosen).await;
    assert_row(&line[2], &json!({"elapsed": 10.0, "buffered": 2000, "bitrate": 3_000_000}));
    let key = rows(&database, "m3w-session, Startup", 1, &chosen).await;
    assert_row(
        &key[0],
        &json!({"startup": 1000, "played": 54000, "rebuffering": 4.0 / 60.0,
        "rebuffers": 2, "errors": 0}),
    );
    assert!(rows(&database, "m3w-session, State", 1, &[("session_id", "C")]).await.is_empty());
}

/// A click on a value, also on one that was not reported, opens just the sessions that were
/// counted for it.
#[tokio::test]
async fn what_is_clicked_is_what_was_counted() {
    let database = database().await;
    let mut clicked = 0;
    for dimension in ["stream type", "SDK version", "content", "connection", "error category"] {
        let worst = "m3w-breakdown, Worst first, by ${dimension}";
        for row in rows(&database, worst, 1, &[("dimension", dimension)]).await {
            let search = format!("{dimension} = {}", row["value"].as_str().expect("text"));
            let chosen = [("outcome", "all"), ("search", search.as_str())];
            let found = rows(&database, "m3w-explorer, Sessions found", 1, &chosen).await;
            assert_eq!(found[0]["found"], row["sessions"], "{search}");
            clicked += 1;
        }
    }
    // VOD, LIVE, none; two SDKs; one content; no connection; no error, and one of no category.
    assert_eq!(clicked, 3 + 2 + 1 + 1 + 2);
}
