//! What keeps single reports from being written delays them alone, and each report has its own
//! time: locks of others, partitions that cannot be made, poison, Postgres away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::ToSpan;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::retention::run_retention;
use crate::support::{
    Answer, Cluster, Database, Load, Server, ServerOptions, acknowledged, assert_all_acknowledged,
    assert_stored, now_ms,
};

/// What the clients of others may see at most, on a busy machine: less than any of the time-outs
/// that they would run into if they waited for the lock.
const SLOW: Duration = Duration::from_millis(3_500);

fn report(id: &str) -> String {
    json!({"sessionId": id, "timestamp": now_ms(), "playTimeMs": 1}).to_string()
}

/// A report of a session that began in the middle of a month, so many months ago.
fn old_report(id: &str, months_ago: i32) -> String {
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date();
    let start = today.first_of_month().saturating_sub(months_ago.months());
    let start = format!("{start}T12:00:00Z");
    json!({"sessionId": id, "timestamp": now_ms(), "sessionStartDateIso": start}).to_string()
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.expect(sql);
}

/// Keeps `lock` for longer than a report is held, while `stuck` reports and others are posted: the
/// others do not notice. Returns what became of the stuck ones.
pub async fn others_go_on(server: &Arc<Server>, lock: &str, stuck: Vec<String>) -> Vec<Answer> {
    let mut locker = server.database.connect().await;
    run(&mut locker, &format!("BEGIN; {lock}")).await;
    let load = Load::start(&server.url(""), 6, Duration::from_millis(10));
    let began = Instant::now();
    let mut posts = Vec::new();
    // Once a second, as an SDK does.
    while began.elapsed() < Duration::from_secs(9) {
        for body in &stuck {
            let (server, body) = (Arc::clone(server), body.clone());
            posts.push(tokio::spawn(async move { server.post(body).await }));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let attempts = load.end().await;
    assert!(attempts.len() > 100, "{}", attempts.len());
    assert_all_acknowledged(&attempts);
    let slowest = attempts.iter().map(|attempt| attempt.took).max().expect("attempts");
    assert!(slowest < SLOW, "a report of another session took {slowest:?}");
    run(&mut locker, "ROLLBACK").await;
    assert_stored(&server.database, &acknowledged(&attempts)).await;
    let mut answers = Vec::new();
    for post in posts {
        answers.push(post.await.expect("a response"));
    }
    answers
}

/// The first ones were given up after their 8 s; the last ones waited, and are stored.
pub fn assert_held(answers: &[Answer], kinds: usize) {
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    let (first, last) = (&statuses[..kinds], &statuses[statuses.len() - kinds..]);
    assert!(first.iter().all(|status| *status == 503), "{statuses:?}");
    assert!(last.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(answers[0].code(), "DATABASE_ERROR");
}

const LOCKED: &str = "ingest_set_aside_total{reason=\"locked\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locked_sessions_delay_themselves_alone() {
    let server = Arc::new(Server::start().await);
    let ids: Vec<String> = (0..20).map(|number| format!("stuck{number}")).collect();
    for id in &ids {
        assert_eq!(server.post(report(id)).await.status, 200);
    }
    let stuck: Vec<String> = ids.iter().map(|id| report(id)).collect();
    let lock = "DELETE FROM sessions WHERE session_id LIKE 'stuck%'";
    let answers = others_go_on(&server, lock, stuck).await;
    assert_held(&answers, ids.len());
    assert!(server.metric(LOCKED).await >= 20.0);
    assert!(server.metric("ingest_set_aside_reports").await.abs() < 0.5);
    // What is free again is not set aside again, once that is known.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = server.metric(LOCKED).await;
    for id in &ids {
        assert_eq!(server.post(report(id)).await.status, 200);
    }
    assert!((server.metric(LOCKED).await - before).abs() < 0.5);
}

/// A lock that cannot be seen: of a row that another transaction is inserting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_being_inserted_delays_itself_alone() {
    let server = Arc::new(Server::start().await);
    let lock = "INSERT INTO session_times VALUES (session_key('default', 'stuck'), now())";
    let answers = others_go_on(&server, lock, vec![report("stuck")]).await;
    assert_held(&answers, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_partition_delays_its_sessions_alone() {
    let server = Arc::new(Server::start().await);
    assert_eq!(server.post(old_report("stuck", 1)).await.status, 200);
    let partition = "SELECT tableoid::regclass::text FROM sessions WHERE session_id = 'stuck'";
    let partition = server.database.value(partition).await.expect("it is there");
    // Reports with entries need both tables.
    let with_entry = |id: &str| {
        let mut report: Value = serde_json::from_str(&old_report(id, 1)).expect("JSON");
        report["timelineEvents"] = json!([{"timestampMs": now_ms(), "elapsedMs": now_ms() % 100_000, "playbackState": "PLAYING"}]);
        report.to_string()
    };
    let stuck = vec![with_entry("stuck"), with_entry("new")];
    // As CREATE INDEX locks it: reading goes on.
    let lock = format!("LOCK TABLE {partition} IN SHARE MODE");
    let others = tokio::spawn(known_session_goes_on(Arc::clone(&server)));
    let answers = others_go_on(&server, &lock, stuck.clone()).await;
    assert_held(&answers, 2);
    others.await.expect("reports of another month are acknowledged");
    // As VACUUM FULL and ALTER TABLE do, one table or the other.
    for lock in [format!("LOCK TABLE {partition}"), format!("LOCK TABLE {}", chunks(&partition))] {
        let others = tokio::spawn(known_session_goes_on(Arc::clone(&server)));
        let answers = others_go_on(&server, &lock, stuck.clone()).await;
        assert_held(&answers, 2);
        others.await.expect("reports of another month are acknowledged");
    }
}

/// The partition of `timeline_chunks` beside one of `sessions`.
fn chunks(partition: &str) -> String {
    partition.replace("sessions", "timeline_chunks")
}

/// Posts, of one session of this month, duplicates, and reports whose entries have to be compared
/// with those that are stored.
async fn known_session_goes_on(server: Arc<Server>) {
    let began = Instant::now();
    let first = now_ms();
    let mut number = 0;
    while began.elapsed() < Duration::from_secs(8) {
        let entry = |elapsed: i64| json!({"timestampMs": first, "elapsedMs": elapsed, "playbackState": "PLAYING"});
        let entries = [entry(0), entry(20_000 - number), entry(30_000)];
        let report =
            json!({"sessionId": "known", "timestamp": first + number, "timelineEvents": entries});
        for _ in 0..2 {
            let sent = Instant::now();
            assert_eq!(server.post(report.to_string()).await.status, 200);
            assert!(sent.elapsed() < SLOW, "took {:?}", sent.elapsed());
            assert_eq!(server.get("/v1/sessions/known").await.status, 200);
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_cannot_be_made_delays_its_sessions_alone() {
    let env = vec![("RETENTION_DAYS", "0".to_owned())];
    let options = ServerOptions { env, ..ServerOptions::default() };
    let server = Arc::new(Server::with(options, &Database::new().await).await);
    // As VACUUM and ANALYZE of the whole table do.
    let lock = "LOCK TABLE sessions IN SHARE UPDATE EXCLUSIVE MODE";
    let stuck = vec![old_report("old", 7), old_report("older", 9)];
    let answers = others_go_on(&server, lock, stuck).await;
    assert_held(&answers, 2);
    let reason = "ingest_set_aside_total{reason=\"partition\"}";
    assert!(server.metric(reason).await >= 2.0);
    let partitions = "SELECT count(DISTINCT tableoid) FROM sessions WHERE session_id LIKE 'old%'";
    assert_eq!(server.database.number(partitions).await, 2);
}

/// A month that another instance, or an operator, has dropped.
#[tokio::test]
async fn a_partition_that_was_dropped_is_made_again() {
    let server = Server::start().await;
    assert_eq!(server.post(old_report("first", 1)).await.status, 200);
    let partition = "SELECT tableoid::regclass::text FROM sessions WHERE session_id = 'first'";
    let partition = server.database.value(partition).await.expect("it is there");
    server.database.execute(&format!("DROP TABLE {partition}")).await;
    // A session whose time is settled there, a new one, and one of another month.
    let batch = [old_report("first", 1), old_report("second", 1), report("third")].join("\n");
    let answer = server.post_ndjson(batch).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["accepted"], 3, "{}", answer.text);
    assert_eq!(server.database.number("SELECT count(*) FROM sessions").await, 3);
}

/// A report that comes while Postgres has been away for long is not given up with those that
/// came before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_report_has_its_own_time() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let database = Database::within(&cluster).await;
    let server = Arc::new(Server::with(ServerOptions::default(), &database).await);
    assert_eq!(server.post(report("before")).await.status, 200);
    cluster.stop("INT");
    let began = Instant::now();
    let mut posts = Vec::new();
    while began.elapsed() < Duration::from_millis(8_500) {
        let (server, at) = (Arc::clone(&server), began.elapsed());
        posts.push(tokio::spawn(async move {
            let posts = [report(&format!("s{}", at.as_millis())), "{".to_owned()];
            let answers = posts.map(|body| server.post(body));
            let [valid, rejected] = answers;
            let (valid, rejected) = tokio::join!(valid, rejected);
            (at, valid.status.as_u16(), rejected.status.as_u16())
        }));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.start_again();
        cluster
    });
    let _cluster = cluster.await.expect("it starts");
    let back = began.elapsed();
    for post in posts {
        let (at, valid, rejected) = post.await.expect("a response");
        if back < at + Duration::from_millis(6_500) {
            assert_eq!((valid, rejected), (200, 400), "arrived at {at:?}, back at {back:?}");
        } else if at + Duration::from_millis(8_500) < back {
            assert_eq!(valid, 503, "arrived at {at:?}, back at {back:?}");
        }
    }
}

/// Finding many rows that cannot be stored takes long; nobody waits for longer than a report is
/// held.
#[tokio::test]
async fn the_search_for_poison_ends_in_time() {
    let server = Server::start().await;
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          PERFORM pg_sleep(0.02); RETURN new; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION slow();
        ALTER TABLE sessions ADD CHECK (content_id <> 'poison')";
    server.database.execute(slow).await;
    let batch: Vec<_> = (0..500)
        .map(|number| {
            let content = if number % 2 == 0 { "poison" } else { "fine" };
            json!({"sessionId": format!("p{number}"), "timestamp": now_ms(), "contentId": content})
        })
        .collect();
    let began = Instant::now();
    let answer = server.post_batch(json!(batch).to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "DATABASE_ERROR"));
    assert!(began.elapsed() < Duration::from_secs(11), "took {:?}", began.elapsed());
}

/// Whatever the server, the database or the role are set to, and whenever: a report is
/// acknowledged once it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_write_is_durable_whatever_is_set_meanwhile() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let database = Database::within(&cluster).await;
    let server = Server::with(ServerOptions::default(), &database).await;
    let spy = "CREATE TABLE seen (setting text);
        CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN new; END $$;
        CREATE TRIGGER spy BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION spy();
        CREATE TRIGGER spy BEFORE INSERT ON rejected_reports FOR EACH ROW EXECUTE FUNCTION spy()";
    database.execute(spy).await;
    for setting in ["off", "local", "remote_write"] {
        // The connections are open by then.
        assert_eq!(server.post(report(&format!("before-{setting}"))).await.status, 200);
        database.execute(&format!("ALTER SYSTEM SET synchronous_commit = {setting}")).await;
        cluster.reload();
        let now = "SELECT current_setting('synchronous_commit')";
        while database.value(now).await.as_deref() != Some(setting) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(server.post(report(&format!("after-{setting}"))).await.status, 200);
        assert_eq!(server.post("{").await.status, 400);
    }
    let seen = database.lines("SELECT DISTINCT setting FROM seen").await;
    assert_eq!(seen, ["on"]);
}

/// A board without a battery, whose clock is months behind that of the database.
#[tokio::test]
async fn the_clock_of_the_database_counts() {
    const DAY_MS: i64 = 86_400_000;
    let database = Database::new().await;
    let options = ServerOptions { machine_ahead_ms: -120 * DAY_MS, ..ServerOptions::default() };
    let server = Server::with(options, &database).await;
    assert_eq!(server.post(report("s")).await.status, 200);
    assert_eq!(server.post("{").await.status, 400);
    let off = "SELECT count(*) FROM sessions WHERE clock_skew_ms IS NOT NULL
               OR abs(extract(epoch FROM now() - \"timestamp\")) > 60
               OR abs(extract(epoch FROM now() - received_at)) > 60";
    assert_eq!(database.number(off).await, 0);
    assert!(run_retention(&server.app).await);
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 1);
    assert_eq!(database.number("SELECT count(*) FROM rejected_reports").await, 1);
    let health = server.get("/health").await;
    let warning = health.json()["warnings"][0].as_str().expect("said").to_owned();
    assert!(warning.contains("120 days and 0 minutes behind"), "{warning}");
    let difference = server.metric("database_clock_difference_seconds").await;
    assert!((difference - 120.0 * 86_400.0).abs() < 60.0, "{difference}");
    // Where the clocks agree, nothing is said.
    let sound = Server::with(ServerOptions::default(), &database).await;
    assert!(sound.get("/health").await.json().get("warnings").is_none());
}
