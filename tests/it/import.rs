//! `media3watch import --from-media3watch`: every shape that the original backend's tables had,
//! read without a trace and stored once.

use serde_json::{Value, json};

use crate::support::{Database, Server, ServerOptions, bin, now_ms};

const DAY_MS: i64 = 86_400_000;

/// What the first version of the original backend had.
pub const VERSION_1: &str = r#"
    CREATE TABLE sessions (
        id bigserial PRIMARY KEY, session_id varchar(128) UNIQUE NOT NULL,
        "timestamp" timestamptz NOT NULL, content_id varchar(256), stream_type varchar(16),
        player_startup_ms int, rebuffer_time_ms int, rebuffer_count int, error_count int,
        payload jsonb, created_at timestamptz DEFAULT now() NOT NULL);"#;

/// The second, for SDK 0.x.
pub const VERSION_2: &str = r#"
    CREATE TABLE sessions (
        id bigserial PRIMARY KEY, session_id varchar(128) UNIQUE NOT NULL,
        "timestamp" bigint NOT NULL, session_start_date_iso varchar(64) NOT NULL,
        session_duration_ms bigint NOT NULL, startup_time_ms bigint, rebuffer_time_ms bigint,
        rebuffer_count int, play_time_ms bigint, rebuffer_ratio real, total_dropped_frames bigint,
        total_seek_count int, total_seek_time_ms bigint, mean_video_format_bitrate int,
        error_count int, created_at timestamptz DEFAULT now() NOT NULL);"#;

/// What the third added, for SDK 1.x.
const VERSION_3: &str = "
    ALTER TABLE sessions ADD device_model varchar(128), ADD os_version int,
        ADD sdk_version varchar(32), ADD connection_type varchar(16);";

/// And the fourth.
const VERSION_4: &str = "
    CREATE TABLE session_timeline (
        id bigserial PRIMARY KEY, session_id varchar(128) NOT NULL, timestamp_ms bigint NOT NULL,
        elapsed_ms bigint NOT NULL, playback_state varchar(16), current_bitrate int,
        network_type varchar(16), total_dropped_frames bigint, buffered_duration_ms bigint,
        rebuffer_count int, rebuffer_time_ms bigint, created_at timestamptz DEFAULT now() NOT NULL);
    CREATE INDEX ON session_timeline (session_id, timestamp_ms);";

/// What the command did.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("not JSON: {}", self.out))
    }
}

async fn run(target: &str, arguments: &[&str]) -> Ran {
    let mut command = tokio::process::Command::from(bin());
    command.env("DATABASE_URL", target).arg("import").args(arguments);
    let output = command.output().await.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

async fn import(source: &Database, target: &Database) -> Ran {
    run(&target.url, &["--json", "--from-media3watch", &source.url]).await
}

fn counts(stored: u64, duplicate: u64, past_retention: u64, rejected: u64) -> Value {
    json!({
        "read": stored + duplicate + past_retention + rejected, "stored": stored,
        "duplicate": duplicate, "stale": 0, "past_retention": past_retention, "rejected": rejected,
    })
}

async fn source_of(sql: &[&str]) -> Database {
    let database = Database::new().await;
    database.execute(&sql.concat()).await;
    database
}

/// Everything in a source: what there is, and its rows.
async fn contents(database: &Database) -> Vec<String> {
    let relations = "SELECT relname || ' ' || relkind::text FROM pg_class
                     WHERE relnamespace = 'public'::regnamespace ORDER BY 1";
    let mut contents = database.lines(relations).await;
    for table in ["sessions", "session_timeline"] {
        if contents.iter().any(|relation| *relation == format!("{table} r")) {
            let rows = format!("SELECT t::text FROM {table} t ORDER BY id");
            contents.extend(database.lines(&rows).await);
        }
    }
    contents
}

/// Imports twice: the first time as said, the second time to no effect.
async fn import_twice(source: &Database, target: &Database, expected: Value) -> Ran {
    let before = contents(source).await;
    let ran = import(source, target).await;
    assert_eq!(ran.json(), expected, "{}", ran.err);
    assert_eq!(contents(source).await, before);
    let everything = "SELECT s::text FROM sessions s UNION ALL SELECT t::text FROM session_timeline t ORDER BY 1";
    let stored = target.lines(everything).await;
    let again = import(source, target).await;
    let number = |name: &str| expected[name].as_u64().expect("a number");
    let nothing = counts(0, number("stored"), number("past_retention"), number("rejected"));
    assert_eq!(again.json(), nothing, "{}", again.err);
    assert_eq!(target.lines(everything).await, stored);
    ran
}

#[tokio::test]
async fn the_first_version_has_a_payload_and_timestamptz() {
    let source = source_of(&[
        VERSION_1,
        r#"
        INSERT INTO sessions (session_id, "timestamp", content_id, stream_type, player_startup_ms,
            rebuffer_time_ms, rebuffer_count, error_count, payload) VALUES
          ('whole', date_trunc('day', now()) - interval '2 days', 'film-1', 'VOD', 850, 120, 1, 0,
            jsonb_build_object('schemaVersion', '1.0.0', 'sessionId', 'whole', 'playTimeMs', 60000,
              'timestamp', (extract(epoch FROM date_trunc('day', now()) - interval '2 days') * 1000)::bigint,
              'startupTimeMs', 850, 'avgBitrateKbps', 4200, 'lastErrorCode', 2001,
              'device', '{"model": "Pixel 8", "os": "Android", "osVersion": "14"}'::jsonb,
              'app', '{"name": "Rivulet", "version": "3.4.1"}'::jsonb,
              'custom', '{"cdn": "edge-eu"}'::jsonb)),
          ('columns', now() - interval '1 day', 'film-2', 'LIVE', 900, 0, 0, 3, '{}'),
          ('custom', now() - interval '1 day', 'film-3', 'OTHER', 901, 0, 0, 1,
            '{"custom_event": "started", "errorCount": "many", "playerStartupMs": 901}'),
          ('array', now() - interval '1 day', NULL, NULL, NULL, NULL, NULL, NULL, '[1, "two"]'),
          ('nothing', now() - interval '1 day', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
          ('old', now() - interval '200 days', 'film-1', 'VOD', 1, 0, 0, 0, '{}'),
          ('endless', 'infinity', NULL, NULL, NULL, NULL, NULL, NULL, '{}'),
          (' ', now(), NULL, NULL, NULL, NULL, NULL, NULL, '{}');
        INSERT INTO sessions (session_id, "timestamp", created_at) VALUES
          ('television', '1970-01-02', now() - interval '3 days'),
          ('long ago', '1970-01-02', now() - interval '200 days')"#,
    ])
    .await;
    let target = Database::new().await;
    let ran = import_twice(&source, &target, counts(6, 0, 2, 2)).await;
    assert!(ran.err.contains(r#"session "endless" cannot be imported: $.timestamp: is required"#));
    assert!(ran.err.contains("2 sessions cannot be imported: $.sessionId 1, $.timestamp 1"));
    assert!(ran.err.contains("2 sessions are older than RETENTION_DAYS (90)"), "{}", ran.err);

    let row = "SELECT concat_ws(' ', tenant_id, content_id, stream_type, player_startup_ms, play_time_ms,
                  error_count, avg_bitrate_kbps, device_model, os_name, os_version, app_name, app_version,
                  last_error_code, payload->'custom'->>'cdn', clock_skew_ms)
               FROM sessions WHERE session_id = ";
    for (id, expected) in [
        (
            "whole",
            "default film-1 VOD 850 60000 0 4200 Pixel 8 Android 14 Rivulet 3.4.1 2001 edge-eu",
        ),
        ("columns", "default film-2 LIVE 900 3"),
        ("custom", "default film-3 UNKNOWN 901 1"),
        ("array", "default"),
        ("nothing", "default"),
    ] {
        let found = target.value(&format!("{row}'{id}'")).await;
        assert_eq!(found.as_deref(), Some(expected), "{id}");
    }
    let payload = "SELECT payload->>'custom_event' FROM sessions WHERE session_id = 'custom'";
    assert_eq!(target.value(payload).await.as_deref(), Some("started"));
    let array = "SELECT payload->'payload' FROM sessions WHERE session_id = 'array'";
    assert_eq!(target.value(array).await.as_deref(), Some(r#"[1, "two"]"#));
    // A session is where the original backend had it, but for a clock that cannot be right.
    let time = r#"SELECT string_agg(session_id || ' ' || extract(epoch FROM "timestamp")::bigint, ',' ORDER BY session_id)
                  FROM sessions WHERE session_id IN ('whole', 'columns')"#;
    assert_eq!(target.value(time).await, source.value(time).await);
    let is_received = r#"SELECT count(*) FROM sessions WHERE session_id = 'television'
        AND clock_skew_ms > 0 AND "timestamp" BETWEEN now() - interval '73 hours' AND now() - interval '71 hours'"#;
    assert_eq!(target.number(is_received).await, 1);
}

/// Rows that all later versions can hold.
fn rows_of_sdk_0() -> String {
    let now = now_ms();
    let columns = r#"INSERT INTO sessions (session_id, "timestamp", session_start_date_iso,
        session_duration_ms, startup_time_ms, rebuffer_time_ms, rebuffer_count, play_time_ms,
        rebuffer_ratio, total_dropped_frames, total_seek_count, total_seek_time_ms,
        mean_video_format_bitrate, error_count) VALUES "#;
    let (yesterday, old, future) = (now - DAY_MS, now - 200 * DAY_MS, now + 400 * DAY_MS);
    format!(
        "{columns}
        ('full', {now}, to_char(to_timestamp({yesterday} / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.000\"Z\"'),
          65000, 850, 1200, 2, 60000, 0.0193, 7, 3, 900, 4200000, 1),
        ('nulls', {yesterday}, 'null', 65000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        ('unset', {yesterday}, 'null', 1, 0, 0, 0, 0, 'NaN', -1, -1, -1, -1, 0),
        ('future', {future}, 'null', 65000, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9),
        ('old', {old}, to_char(to_timestamp({old} / 1000), 'YYYY-MM-DD\"T\"HH24:MI:SSOF'),
          65000, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9),
        ('timeless', 0, 'null', 65000, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9),
        ('dateless', {yesterday}, 'some day', 65000, 1, 2, 3, 4, 0, 5, 6, 7, 8, 9);"
    )
}

async fn check_rows_of_sdk_0(target: &Database) {
    let row = "SELECT concat_ws(' ', session_duration_ms, player_startup_ms, rebuffer_time_ms,
                  rebuffer_count, play_time_ms, rebuffer_ratio, dropped_frames, seek_count, seek_time_ms,
                  avg_bitrate_kbps, error_count) FROM sessions WHERE session_id = ";
    for (id, expected) in [
        ("full", "65000 850 1200 2 60000 0.0193 7 3 900 4200 1"),
        ("nulls", "65000"),
        ("unset", "1 0 0 0 0 0"),
        ("future", "65000 1 2 3 4 0 5 6 7 0 9"),
    ] {
        assert_eq!(target.value(&format!("{row}'{id}'")).await.as_deref(), Some(expected), "{id}");
    }
    // The start decides where a session is, and the report's own time is kept.
    let full = r#"SELECT round(extract(epoch FROM reported_at - "timestamp") / 3600) FROM sessions
                  WHERE session_id = 'full' AND clock_skew_ms IS NULL"#;
    assert_eq!(target.number(full).await, 24);
    let future = r#"SELECT count(*) FROM sessions WHERE session_id = 'future' AND clock_skew_ms < 0
                    AND "timestamp" BETWEEN now() - interval '10 minutes' AND now()"#;
    assert_eq!(target.number(future).await, 1);
}

#[tokio::test]
async fn the_second_and_third_versions_have_columns_and_unix_milliseconds() {
    for migrations in [&[VERSION_2][..], &[VERSION_2, VERSION_3]] {
        let source = source_of(migrations).await;
        source.execute(&rows_of_sdk_0()).await;
        let target = Database::new().await;
        let ran = import_twice(&source, &target, counts(4, 0, 1, 2)).await;
        assert!(ran.err.contains(r#"session "timeless" cannot be imported: $.timestamp: "#));
        assert!(
            ran.err.contains(r#"session "dateless" cannot be imported: $.sessionStartDateIso: "#)
        );
        check_rows_of_sdk_0(&target).await;
        let device =
            "SELECT count(*) FROM sessions WHERE device_model IS NOT NULL OR timeline_entries > 0";
        assert_eq!(target.number(device).await, 0);
        // As SDK 0.x writes it: nulls are there.
        let payload = "SELECT payload->'startupTimeMs' FROM sessions WHERE session_id = 'nulls'";
        assert_eq!(target.value(payload).await.as_deref(), Some("null"));
    }
}

#[tokio::test]
async fn the_fourth_version_has_devices_and_timelines() {
    let source = source_of(&[VERSION_2, VERSION_3, VERSION_4, &rows_of_sdk_0()]).await;
    let now = now_ms();
    source
        .execute(&format!(
            "UPDATE sessions SET device_model = 'Pixel 8', os_version = 34, sdk_version = '1.2.0',
               connection_type = 'Wi-Fi' WHERE session_id = 'full';
             INSERT INTO session_timeline (session_id, timestamp_ms, elapsed_ms, playback_state,
               current_bitrate, network_type, total_dropped_frames, buffered_duration_ms, rebuffer_count, rebuffer_time_ms)
             VALUES ('full', {now}, 2000, 'PLAYING', 4200000, 'Wi-Fi', 7, 30000, 2, 1200),
               ('full', {now}, 1000, 'BUFFERING', NULL, NULL, 0, NULL, 0, 0),
               -- Sent again after a lost answer.
               ('full', {now}, 1000, 'BUFFERING', NULL, NULL, 0, NULL, 0, 0),
               ('full', {now}, 1000, 'PAUSED', NULL, NULL, 0, NULL, 0, 0),
               -- No entries that a report can have.
               ('full', {now}, 3000, NULL, NULL, NULL, 0, NULL, 0, 0),
               ('full', 0, 3000, 'PLAYING', NULL, NULL, 0, NULL, 0, 0),
               ('old', {now}, 1000, 'PLAYING', NULL, NULL, 0, NULL, 0, 0),
               ('nobody', {now}, 1000, 'PLAYING', NULL, NULL, 0, NULL, 0, 0);
             INSERT INTO session_timeline (session_id, timestamp_ms, elapsed_ms, playback_state)
             SELECT 'nulls', {now} + n, n * 10, 'PLAYING' FROM generate_series(1, 1203) n"
        ))
        .await;
    let target = Database::new().await;
    import_twice(&source, &target, counts(4, 0, 1, 2)).await;
    check_rows_of_sdk_0(&target).await;
    let entries = "SELECT session_id || ' ' || count(*) || ' ' || count(DISTINCT elapsed_ms)
                   FROM session_timeline GROUP BY session_id ORDER BY 1";
    assert_eq!(target.lines(entries).await, ["full 3 2", "nulls 1203 1203"]);
    let reports = "SELECT DISTINCT report_count::text FROM sessions";
    assert_eq!(target.lines(reports).await, ["1"]);

    // For another tenant too, beside a running server.
    let server = Server::with(ServerOptions::default(), &target).await;
    let films = ["--json", "--tenant", "films", "--from-media3watch", &source.url];
    assert_eq!(run(&target.url, &films).await.json(), counts(4, 0, 1, 2));
    let per_tenant =
        "SELECT tenant_id || ' ' || count(*) FROM sessions GROUP BY tenant_id ORDER BY 1";
    assert_eq!(target.lines(per_tenant).await, ["default 4", "films 4"]);
    let session = server.get("/v1/sessions/full").await.json();
    let expected = json!({"device_model": "Pixel 8", "os_version": "34", "sdk_version": "1.2.0",
                          "connection_type": "Wi-Fi", "player_startup_ms": 850});
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(session[column], *value, "{column} in {session}");
    }
    assert_eq!(session["timeline"].as_array().expect("entries").len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn a_newer_report_stays_and_an_older_one_is_replaced() {
    let source = source_of(&[VERSION_2, &rows_of_sdk_0()]).await;
    let target = Database::new().await;
    let server = Server::with(ServerOptions::default(), &target).await;
    for (id, duration) in [("full", 70_000), ("nulls", 60_000)] {
        let report = json!({"sessionId": id, "timestamp": now_ms(), "sessionDurationMs": duration});
        assert_eq!(server.post(report.to_string()).await.status, 200);
    }
    let ran = import(&source, &target).await.json();
    assert_eq!(
        (&ran["stored"], &ran["stale"], &ran["duplicate"]),
        (&json!(3), &json!(1), &json!(0))
    );
    server.stop().await;
}

#[tokio::test]
async fn many_sessions_are_told_about_while_they_are_copied() {
    let source = source_of(&[VERSION_1]).await;
    source
        .execute(
            r#"INSERT INTO sessions (session_id, "timestamp", player_startup_ms, payload)
               SELECT 'session ' || n, now() - n * interval '1 minute', n, '{}' FROM generate_series(1, 1500) n"#,
        )
        .await;
    let target = Database::new().await;
    assert_eq!(run(&target.url, &["--from-media3watch", &source.url]).await.code, Some(0));
    target.execute("DELETE FROM sessions; DELETE FROM session_times").await;
    // Somebody holds the target up.
    let mut holder = target.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE session_times").execute(&mut holder).await.expect("locked");
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
        sqlx::raw_sql("COMMIT").execute(&mut holder).await.expect("released");
    };
    let arguments = ["--from-media3watch", &source.url];
    let (ran, ()) = tokio::join!(run(&target.url, &arguments), release);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(
        ran.out,
        "1500 sessions read: 1500 stored, 0 duplicate, 0 stale, 0 past retention, 0 rejected\n"
    );
    assert!(ran.err.contains(" of about 1500 sessions"), "{}", ran.err);
    assert_eq!(target.number("SELECT count(*) FROM sessions").await, 1500);
}

#[tokio::test]
async fn what_cannot_be_imported_from_is_said_and_changes_nothing() {
    let source = source_of(&[VERSION_2, &rows_of_sdk_0()]).await;
    let before = contents(&source).await;
    let empty = Database::new().await;
    let ours = Database::new().await;
    let wrong_port = crate::support::unused_port();
    let away = format!("postgresql://ada:canary@127.0.0.1:{wrong_port}/films");
    let same = "in the same schema; nothing was changed. Set DATABASE_URL";
    // The same server by another name.
    let alias =
        source.url.replace("postgresql://postgres@127.0.0.1", "jdbc:postgresql://localhost");
    let alias = format!("{alias}?user=postgres&currentSchema=public");
    assert_eq!(run(&ours.url, &["--from-media3watch", &source.url]).await.code, Some(0));
    for (target, from, code, said) in [
        (&source.url, source.url.as_str(), 1, same),
        (&source.url, &alias, 1, same),
        (&empty.url, &ours.url, 1, "not one of the original Media3Watch backend"),
        (&ours.url, &empty.url, 1, "holds no table sessions"),
        (&empty.url, &format!("{}_missing", source.url), 1, "does not exist"),
        (&empty.url, &away, 1, "Connection refused"),
        (&empty.url, "postgresql://ada:canary@host:port/films", 2, "expected postgresql://"),
        (&empty.url, "canary", 2, "expected postgresql://user:password@host:port/database"),
        (&empty.url, "postgresql://127.0.0.1/films", 2, "expected a user in it"),
    ] {
        let ran = run(target, &["--from-media3watch", from]).await;
        assert_eq!((ran.code, ran.out.as_str()), (Some(code), ""), "{from}: {}", ran.err);
        assert!(ran.err.contains(said), "{from}: {}", ran.err);
        assert!(!ran.err.contains("canary"), "{}", ran.err);
    }
    for arguments in [&[][..], &["--from-media3watch", &source.url, "--tenant", "Not a name"]] {
        assert_eq!(run(&empty.url, arguments).await.code, Some(2), "{arguments:?}");
    }
    // A source is only read, and a target is left alone until there is something to copy.
    assert_eq!(contents(&source).await, before);
    assert_eq!(contents(&empty).await, Vec::<String>::new());
    // What is the original backend's is not written to: its own message says where to go.
    let ran = run(&source.url, &["--from-media3watch", &ours.url]).await;
    assert!(ran.err.contains("not one of the original"), "{}", ran.err);
    assert_eq!(contents(&source).await, before);
}

#[tokio::test]
async fn another_schema_of_the_same_database_will_do() {
    let database = source_of(&[VERSION_2, &rows_of_sdk_0(), "CREATE SCHEMA m3w"]).await;
    let before = contents(&database).await;
    let target = format!("{}?currentSchema=m3w", database.url);
    let ran = run(&target, &["--json", "--from-media3watch", &database.url]).await;
    assert_eq!(ran.json(), counts(4, 0, 1, 2), "{}", ran.err);
    assert_eq!(database.number("SELECT count(*) FROM m3w.sessions").await, 4);
    assert_eq!(contents(&database).await, before);
}
