//! Faults: signals under load, Postgres away, frozen, killed, locked, and rows it refuses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use media3watch::ingest::Bounds;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{
    Binary, Cluster, Database, Load, Server, ServerOptions, acknowledged, assert_all_acknowledged,
    assert_stored, bin, now_ms,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_acknowledged() {
    let database = Database::new().await;
    let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
    let load = Load::start(&server.url(""), 16, Duration::ZERO);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    server.signal(Signal::SIGTERM);
    let waiting = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(30)));
    let (status, log) = waiting.await.expect("it ends");
    assert!(status.success(), "{status}\n{log}");
    let attempts = load.end().await;
    let stored = acknowledged(&attempts);
    assert!(stored.len() > 100, "only {} reports in 1.5 s", stored.len());
    assert_stored(&database, &stored).await;
    // Answered or cut, never an error: those under way were finished.
    assert!(attempts.iter().all(|a| matches!(a.status, 0 | 200)));
    // And what a client saw cut off was a connection, not an acknowledgement: no extra rows
    // of one session.
    let twice = "SELECT count(*) - count(DISTINCT session_id) FROM sessions";
    assert_eq!(database.number(twice).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let database = Database::new().await;
    let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
    // A lock keeps a report, and so the server, waiting.
    let mut locker = database.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE sessions").execute(&mut locker).await.expect("locks");
    let load = Load::start(&server.url(""), 1, Duration::from_millis(10));
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal(Signal::SIGINT);
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.signal(Signal::SIGINT);
    let waiting = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(3)));
    let (status, _) = waiting.await.expect("it ends");
    assert_eq!(status.code(), Some(1));
    drop(locker);
    assert!(acknowledged(&load.end().await).is_empty());
}

/// What `fault` does to a cluster under load costs latency, never an answer.
async fn survive(fault: impl FnOnce(&Cluster) + Send + 'static, longest: Duration) {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let database = Database::within(&cluster).await;
    let server = Server::with(ServerOptions::default(), &database).await;
    let load = Load::start(&server.url(""), 8, Duration::from_millis(5));
    tokio::time::sleep(Duration::from_millis(700)).await;
    let cluster = tokio::task::spawn_blocking(move || {
        fault(&cluster);
        cluster
    });
    let _cluster = cluster.await.expect("the fault ends");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let attempts = load.end().await;
    assert_all_acknowledged(&attempts);
    assert_stored(&database, &acknowledged(&attempts)).await;
    let slowest = attempts.iter().map(|a| a.took).max().expect("attempts");
    assert!(slowest < longest, "a report took {slowest:?}");
    // It was felt, and it is over.
    assert!(attempts.last().expect("attempts").took < Duration::from_secs(2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stopped_for_four_seconds_costs_latency_only() {
    let fault = |cluster: &Cluster| {
        cluster.stop("INT");
        std::thread::sleep(Duration::from_secs(4));
        cluster.start_again();
    };
    survive(fault, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_costs_latency_only() {
    let fault = |cluster: &Cluster| {
        cluster.stop("KILL");
        cluster.start_again();
    };
    survive(fault, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_frozen_for_three_seconds_costs_latency_only() {
    let fault = |cluster: &Cluster| {
        // The postmaster and all of its children.
        let processes = cluster.processes();
        let signal = |signal| {
            for pid in &processes {
                // A backend may have ended meanwhile.
                let _ = kill(Pid::from_raw(*pid), signal);
            }
        };
        signal(Signal::SIGSTOP);
        std::thread::sleep(Duration::from_secs(3));
        signal(Signal::SIGCONT);
    };
    survive(fault, Duration::from_secs(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_backends_cost_latency_only() {
    let database = Database::new().await;
    let server = Server::with(ServerOptions::default(), &database).await;
    let load = Load::start(&server.url(""), 8, Duration::from_millis(2));
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()";
        database.execute(kill).await;
    }
    let attempts = load.end().await;
    assert!(attempts.len() > 100);
    assert_all_acknowledged(&attempts);
    assert_stored(&database, &acknowledged(&attempts)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_away_for_longer_is_said_and_then_over() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let database = Database::within(&cluster).await;
    let server = Server::with(ServerOptions::default(), &database).await;
    let body = || json!({"sessionId": "s", "timestamp": now_ms()}).to_string();
    assert_eq!(server.post(body()).await.status, 200);
    cluster.stop("INT");
    let began = Instant::now();
    let answer = server.post(body()).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "DATABASE_ERROR"));
    let retry: u64 = answer.header("retry-after").parse().expect("whole seconds");
    assert!((1..=10).contains(&retry));
    // Held, but answered while an SDK still listens.
    assert!(began.elapsed() > Duration::from_secs(5) && began.elapsed() < Duration::from_secs(10));
    // A refused body cannot be kept now, so it is not refused either.
    let refused = server.post("{}").await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "DATABASE_ERROR"));
    let health = server.get("/health").await;
    assert_eq!(
        (health.status.as_u16(), health.json()["status"].clone()),
        (503, json!("unhealthy"))
    );
    assert_eq!(server.get("/health/live").await.status, 200);
    // No reason to send reports elsewhere: they are held.
    assert_eq!(server.get("/health/ready").await.status, 200);
    let read = server.get("/v1/sessions/s").await;
    assert_eq!((read.status.as_u16(), read.code().as_str()), (503, "DATABASE_ERROR"));

    cluster.start_again();
    assert_eq!(server.post(body()).await.status, 200);
    assert_eq!(server.get("/health").await.status, 200);
    assert_eq!(server.post("{}").await.status, 400);
    assert!(server.metric("sessions_failed_total{code=\"DATABASE_ERROR\"}").await >= 2.0);
    server.stop().await;
}

/// A table that is locked for long: what waits is bounded, and the rest is 503 without a wait. Of
/// what waits, half may be set aside because it is locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_so_at_once() {
    let bounds = Bounds { queue_reports: 20, in_flight: 1, ..Bounds::default() };
    let database = Database::new().await;
    let options = ServerOptions { bounds, ..ServerOptions::default() };
    let server = Arc::new(Server::with(options, &database).await);
    let mut locker = database.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE sessions").execute(&mut locker).await.expect("locks");
    let posts: Vec<_> = (0..30)
        .map(|number| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let began = Instant::now();
                let body = json!({"sessionId": format!("q{number}"), "timestamp": now_ms()});
                let answer = server.post(body.to_string()).await;
                (answer, began.elapsed())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(server.metric("ingest_queue_reports").await <= 20.0);
    assert!(server.metric("ingest_set_aside_reports").await <= 10.0);
    sqlx::raw_sql("ROLLBACK").execute(&mut locker).await.expect("unlocks");
    let (mut stored, mut overloaded) = (0, 0);
    for post in posts {
        let (answer, took) = post.await.expect("answered");
        match (answer.status.as_u16(), answer.code().as_str()) {
            (200, _) => stored += 1,
            (503, "OVERLOADED") => {
                assert!(took < Duration::from_secs(4), "said after {took:?}");
                assert!(answer.header("retry-after").parse::<u64>().is_ok());
                overloaded += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((stored, overloaded), (10, 20));
    assert!(server.metric("ingest_queue_reports").await.abs() < 0.5);
    assert!(server.metric("ingest_queue_bytes").await.abs() < 0.5);
}

/// A batch that waits for a lock does not hold up those behind it.
#[tokio::test]
async fn a_stuck_batch_is_not_waited_for() {
    let server = Arc::new(Server::start().await);
    let report = |id: &str| json!({"sessionId": id, "timestamp": now_ms()}).to_string();
    assert_eq!(server.post(report("stuck")).await.status, 200);
    let mut locker = server.database.connect().await;
    let lock = "BEGIN; SELECT FROM sessions WHERE session_id = 'stuck' FOR UPDATE";
    sqlx::raw_sql(lock).execute(&mut locker).await.expect("locks");
    let stuck = tokio::spawn({
        let (server, report) = (Arc::clone(&server), report("stuck"));
        async move { server.post(report).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    for number in 0..20 {
        let answer = server.post(report(&format!("free{number}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert!(!stuck.is_finished(), "it waits for the lock");
    sqlx::raw_sql("ROLLBACK").execute(&mut locker).await.expect("unlocks");
    assert_eq!(stuck.await.expect("answered").status, 200);
}

/// What validation lets through and Postgres refuses fails alone, and is kept.
#[tokio::test]
async fn a_poison_row_fails_alone() {
    let server = Server::start().await;
    let poison = "ALTER TABLE sessions ADD CHECK (content_id <> 'poison')";
    server.database.execute(poison).await;
    let report = |number: i64| {
        let content = if number == 137 || number == 400 { "poison" } else { "fine" };
        json!({"sessionId": format!("p{number}"), "timestamp": now_ms(), "contentId": content})
    };
    let batch: Vec<_> = (0..500).map(report).collect();
    let answer = server.post_batch(json!(batch).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(498), &json!(2)));
    assert_eq!(answer["results"][137]["status"], "rejected");
    assert_eq!(answer["results"][400]["error"]["code"], "INVALID_SCHEMA");
    assert_eq!(server.database.number("SELECT count(*) FROM sessions").await, 498);
    let kept = "SELECT count(*) FROM rejected_reports WHERE position('poison' IN convert_from(body, 'UTF8')) > 0";
    assert_eq!(server.database.number(kept).await, 2);
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_refused() {
    let server = Server::start().await;
    server.database.execute("ALTER TABLE rejected_reports RENAME TO elsewhere").await;
    let answer = server.post(r#"{"sessionId":""}"#).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "DATABASE_ERROR"));
    server.database.execute("ALTER TABLE elsewhere RENAME TO rejected_reports").await;
    assert_eq!(server.post(r#"{"sessionId":""}"#).await.status, 400);
}

#[tokio::test]
async fn a_schema_that_is_broken_is_our_fault_and_says_no_more() {
    let server = Server::start().await;
    server.database.execute("ALTER TABLE session_times RENAME TO elsewhere").await;
    let body = json!({"sessionId": "s", "timestamp": now_ms()}).to_string();
    let answer = server.post(body).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (500, "INTERNAL_ERROR"));
    assert!(answer.message().contains(answer.header("x-request-id")));
    assert!(!answer.text.contains("session_times"));
}

/// Readiness goes off, requests under way are answered, keep-alive connections are told, and
/// who comes while the listener lingers is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_finishes_what_is_under_way() {
    let database = Database::new().await;
    let server = Server::with(ServerOptions::default(), &database).await;
    let mut locker = database.connect().await;
    let lock = "BEGIN; LOCK TABLE sessions";
    sqlx::raw_sql(lock).execute(&mut locker).await.expect("locks");
    let body = json!({"sessionId": "s", "timestamp": now_ms()}).to_string();
    let post = server.post(body);
    let stop = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.begin_stop();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let ready = server.get("/health/ready").await;
        assert_eq!(ready.status, 503);
        assert_eq!(ready.header("connection"), "close");
        assert_eq!(server.get("/health/live").await.status, 200);
        sqlx::raw_sql("ROLLBACK").execute(&mut locker).await.expect("unlocks");
    };
    let (answer, ()) = tokio::join!(post, stop);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("connection"), "close");
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 1);
    server.stop().await;
}

/// A frozen Postgres keeps neither health probes' connections nor the stopping server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_backends_take_no_connection_along_and_do_not_hold_up_the_end() {
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let database = Database::within(&cluster).await;
    let env = vec![("HIKARI_MAX_POOL_SIZE", "4".to_owned())];
    let options = ServerOptions { env, ..ServerOptions::default() };
    let server = Server::with(options, &database).await;
    let body = || json!({"sessionId": "s", "timestamp": now_ms()}).to_string();
    assert_eq!(server.post(body()).await.status, 200);
    // The backends of the pool stand still; the postmaster makes new ones.
    let pool = "SELECT pid::text FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let frozen = database.lines(pool).await;
    let frozen: Vec<i32> = frozen.iter().map(|pid| pid.parse().expect("a pid")).collect();
    let signal = |signal| {
        for pid in &frozen {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    };
    signal(Signal::SIGSTOP);
    let probes = (0..6).map(|_| server.get("/health"));
    futures_util::future::join_all(probes).await;
    let began = Instant::now();
    assert_eq!(server.post(body()).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(8));

    // With all of Postgres frozen, a refused body waits to be kept; the end does not.
    let everything = cluster.processes();
    let signal_all = |signal| {
        for pid in &everything {
            let _ = kill(Pid::from_raw(*pid), signal);
        }
    };
    signal_all(Signal::SIGSTOP);
    let refused = server.request(reqwest::Method::POST, "/v1/sessions").body("{").send();
    let refused = tokio::spawn(refused);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    server.stop().await;
    assert!(began.elapsed() < Duration::from_secs(30), "took {:?}", began.elapsed());
    refused.abort();
    signal_all(Signal::SIGCONT);
    signal(Signal::SIGCONT);
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let database = Database::new().await;
    let name = database.url.rsplit('/').next().expect("a name").to_owned();
    let ascii = format!("{name}_ascii");
    database
        .execute(&format!("CREATE DATABASE {ascii} ENCODING 'SQL_ASCII' TEMPLATE template0"))
        .await;
    let url = database.url.replace(&name, &ascii);
    let run = bin().arg("migrate").env("DATABASE_URL", url).output().expect("runs");
    assert_eq!(run.status.code(), Some(1));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("SQL_ASCII") && said.contains("UTF8"), "{said}");
}
