//! `media3watch simulate` from outside: the program against a server that records what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::support::{self, Database, Server as RealServer, ServerOptions};

const KEY: &str = "m3w-test-key-that-nobody-prints";

/// One report, or one batch, as it came in.
#[derive(Debug, Clone)]
struct Seen {
    at: Instant,
    path: String,
    reports: Vec<Value>,
}

impl Seen {
    fn report(&self) -> &Value {
        &self.reports[0]
    }

    fn session_id(&self) -> String {
        self.report()["sessionId"].as_str().expect("a session id").to_owned()
    }

    fn timestamp(&self) -> u64 {
        self.report()["timestamp"].as_u64().expect("a timestamp")
    }

    fn is_generation_b(&self) -> bool {
        self.report()["schemaVersion"].is_null() && self.report()["sdkVersion"].is_null()
    }
}

type Answer = (u16, &'static [(&'static str, &'static str)], Value);
type Answering = dyn Fn(&Seen, &[Seen]) -> Answer + Send + Sync;

#[derive(Clone)]
struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    answering: Arc<Answering>,
    /// What reading a session with the key gives.
    probe_status: u16,
}

struct Server {
    address: SocketAddr,
    recorder: Recorder,
}

impl Server {
    /// A server that answers posts as `answering` says, which sees what came in before.
    async fn start(answering: impl Fn(&Seen, &[Seen]) -> Answer + Send + Sync + 'static) -> Self {
        Self::with_probe(404, answering).await
    }

    async fn with_probe(
        probe_status: u16,
        answering: impl Fn(&Seen, &[Seen]) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let recorder =
            Recorder { seen: Arc::default(), answering: Arc::new(answering), probe_status };
        let router = Router::new().fallback(handle).with_state(recorder.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    let connection = auto::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, recorder }
    }

    fn seen(&self) -> Vec<Seen> {
        self.recorder.seen.lock().expect("no panic").clone()
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        spawn(self.address, arguments)
    }

    async fn simulate(&self, arguments: &[&str]) -> Run {
        Run::of(self.spawn(arguments).wait_with_output().await.expect("it ran"))
    }
}

async fn handle(
    State(recorder): State<Recorder>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (status, more_headers, body) = match (method, uri.path()) {
        (Method::GET, "/health") => (200, &[][..], json!({"status": "healthy", "timestamp": 1})),
        (Method::GET, _) => (recorder.probe_status, &[][..], error("PROBE")),
        (_, path) => {
            assert_eq!(headers["x-api-key"], KEY);
            let seen = Seen {
                at: Instant::now(),
                path: path.to_owned(),
                reports: decode(&headers, &body),
            };
            let mut before = recorder.seen.lock().expect("no panic");
            let answer = (recorder.answering)(&seen, &before);
            before.push(seen);
            answer
        }
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in more_headers {
        response.headers_mut().insert(*name, value.parse().expect("a header"));
    }
    response
}

fn decode(headers: &HeaderMap, body: &Bytes) -> Vec<Value> {
    let mut text = String::new();
    if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).expect("gzip");
        assert_eq!(headers["content-type"], "application/x-ndjson");
        assert!(text.len() < 6 * 1024 * 1024);
    } else {
        text = String::from_utf8(body.to_vec()).expect("UTF-8");
        assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    }
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn spawn(address: SocketAddr, arguments: &[&str]) -> Child {
    spawn_with(KEY, address, arguments)
}

fn spawn_with(key: &str, address: SocketAddr, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_media3watch"))
        .args(["simulate", "--url", &format!("http://{address}"), "--key", key])
        .args(arguments)
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .env_remove("all_proxy")
        .env_remove("ALL_PROXY")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts")
}

#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    fn of(output: Output) -> Self {
        let out = String::from_utf8(output.stdout).expect("UTF-8");
        let err = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!out.contains(KEY) && !err.contains(KEY), "the key was printed");
        Self { code: output.status.code(), out, err }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("one JSON object")
    }
}

fn stored() -> Answer {
    (200, &[], json!({"status": "success", "sessionId": "any"}))
}

fn error(code: &str) -> Value {
    json!({"error": {"code": code, "message": "no", "timestamp": 1}})
}

fn by_session(seen: &[Seen]) -> BTreeMap<String, Vec<Seen>> {
    let mut sessions: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for seen in seen {
        sessions.entry(seen.session_id()).or_default().push(seen.clone());
    }
    sessions
}

fn all_stored(reports: usize) -> Value {
    let results: Vec<_> = (0..reports)
        .map(|index| json!({"index": index, "sessionId": "any", "status": "stored"}))
        .collect();
    json!({"accepted": reports, "rejected": 0, "results": results})
}

#[tokio::test]
async fn live_viewers_report_as_the_sdk_does() {
    let server = Server::start(|_, _| stored()).await;
    let arguments = ["--viewers", "12", "--for", "8s", "--seed", "1", "--json"];
    let run = server.simulate(&arguments).await;
    assert_eq!(run.code, Some(0), "{run:?}");

    let seen = server.seen();
    let summary = run.json();
    assert_eq!(summary["reports"]["accepted"], seen.len());
    assert_eq!(summary["reports"]["sent"], seen.len());
    assert_eq!(summary["retried"], 0);
    assert!(summary["latency_ms"]["p99"].is_number());
    let sessions = by_session(&seen);
    assert_eq!(summary["sessions"], sessions.len());
    assert!(sessions.len() >= 12);
    for reports in sessions.values() {
        assert!(reports.iter().all(|report| report.path == "/v1/sessions"));
        assert!(reports.is_sorted_by(|a, b| a.timestamp() < b.timestamp()));
        // The detach report may follow an event at once; all others keep a second apart.
        let paced = &reports[..reports.len() - 1];
        assert!(paced.is_sorted_by(|a, b| b.timestamp() - a.timestamp() >= 1_000));
        let mut elapsed = BTreeSet::new();
        for event in
            reports.iter().filter_map(|r| r.report()["timelineEvents"].as_array()).flatten()
        {
            assert!(elapsed.insert(event["elapsedMs"].as_u64()), "no entry is sent twice");
        }
        if reports.len() > 1 {
            assert!(!reports[0].report()["sdkVersion"].is_null(), "only C reports while playing");
        }
    }
    assert!(sessions.values().any(|reports| reports.len() > 2));

    // The same seed brings the same first session of every viewer.
    let again = Server::start(|_, _| stored()).await;
    again.simulate(&arguments).await;
    let ids: BTreeSet<_> = sessions.into_keys().collect();
    let same = by_session(&again.seen()).into_keys().filter(|id| ids.contains(id)).count();
    assert!(same >= 12, "{same}");
}

/// The SDK does not read `Retry-After`: its next report goes out when it is built, and its queue
/// after the next success.
#[tokio::test]
async fn a_rate_limit_holds_nothing_back_and_the_hint_is_given() {
    let server = Server::start(|seen, before| {
        let is_first = before.iter().all(|other| other.session_id() != seen.session_id());
        if is_first {
            (429, &[("retry-after", "60")], error("RATE_LIMIT_EXCEEDED"))
        } else {
            stored()
        }
    })
    .await;
    let run = server.simulate(&["--viewers", "20", "--for", "6s", "--seed", "2"]).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("429 RATE_LIMIT_EXCEEDED") && run.out.contains("RATE_LIMIT_REQUESTS"));

    let (mut retried, mut lost) = (0, 0);
    for reports in by_session(&server.seen()).values() {
        if reports[0].is_generation_b() {
            assert_eq!(reports.len(), 1, "generation B never retries");
            lost += 1;
        } else if let Some(second) = reports.get(1) {
            assert!(second.at.duration_since(reports[0].at) < Duration::from_secs(20));
            retried += 1;
        }
    }
    assert!(retried >= 10 && lost >= 1, "{retried} retried, {lost} lost");
}

#[tokio::test]
async fn after_an_outage_the_newest_report_of_each_session_arrives() {
    let server = Server::start(|seen, before| {
        let began = before.first().map_or(seen.at, |first| first.at);
        if seen.at.duration_since(began) < Duration::from_secs(4) {
            (503, &[], error("DATABASE_ERROR"))
        } else {
            stored()
        }
    })
    .await;
    let run = server.simulate(&["--viewers", "20", "--for", "8s", "--seed", "3", "--json"]).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    let summary = run.json();
    assert!(summary["retried"].as_u64() > Some(0), "{summary}");
    assert!(summary["reports"]["superseded"].as_u64() > Some(0), "{summary}");
    assert_eq!(summary["not_accepted"][0]["code"], "DATABASE_ERROR");
    assert!(summary["hint"].is_null());

    let mut posts: BTreeMap<(String, u64), usize> = BTreeMap::new();
    let seen = server.seen();
    for seen in &seen {
        *posts.entry((seen.session_id(), seen.timestamp())).or_default() += 1;
    }
    assert!(posts.values().any(|count| *count > 1), "a report was sent again");
    // Everything that was built is accounted for: delivered, replaced, or given up.
    let number = |name: &str| summary["reports"][name].as_u64().unwrap_or_default();
    let distinct = posts.len() as u64;
    assert_eq!(number("sent"), distinct);
    assert!(number("accepted") + number("superseded") + number("undelivered") >= distinct);
}

#[tokio::test]
async fn a_refused_report_is_dropped_for_good() {
    let server = Server::start(|_, _| (400, &[], error("INVALID_SCHEMA"))).await;
    let run = server.simulate(&["--viewers", "6", "--for", "4s", "--json"]).await;
    assert_eq!(run.code, Some(1), "nothing was accepted");
    let seen = server.seen();
    let distinct: BTreeSet<_> = seen.iter().map(|s| (s.session_id(), s.timestamp())).collect();
    assert_eq!(distinct.len(), seen.len(), "nothing was sent twice");
    let reason = &run.json()["not_accepted"][0];
    assert_eq!(reason, &json!({"status": 400, "code": "INVALID_SCHEMA", "count": seen.len()}));
}

#[tokio::test]
async fn a_wrong_key_ends_the_run_at_once() {
    let server = Server::with_probe(401, |_, _| stored()).await;
    let began = Instant::now();
    for arguments in [&["--for", "60s"][..], &["--history", "30d", "--sessions", "100000"][..]] {
        let run = server.simulate(arguments).await;
        assert_eq!(run.code, Some(1));
        assert!(run.err.contains("does not know this key") && run.out.is_empty(), "{run:?}");
    }
    assert!(server.seen().is_empty());

    // Some servers show it only when something is sent.
    for (status, says) in [(401, "does not know this key"), (403, "does not let this key")] {
        let server = Server::start(move |_, _| (status, &[], error("NO"))).await;
        for arguments in [&["--for", "60s"][..], &["--history", "30d"][..]] {
            let run = server.simulate(arguments).await;
            assert_eq!(run.code, Some(1));
            assert!(run.err.contains(says), "{run:?}");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(40));
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let output = spawn(address, &["--for", "60s"]).wait_with_output().await.expect("it ran");
    let run = Run::of(output);
    assert_eq!(run.code, Some(1));
    let says = format!("no Media3Watch server answers at URL: http://{address}");
    assert!(run.err.contains(&says), "{run:?}");
}

/// Clients of any kind would take the mistake for a server that is away.
#[tokio::test]
async fn a_key_that_no_header_can_carry_is_said() {
    let server = Server::start(|_, _| stored()).await;
    for wrong in ["one\ntwo", "one\n", "with blank", "schlüssel"] {
        let child = spawn_with(wrong, server.address, &[]);
        let run = Run::of(child.wait_with_output().await.expect("it ran"));
        assert_eq!((run.code, run.out.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.err.contains("--key: expected visible ASCII characters"), "{run:?}");
        assert!(!run.err.contains(wrong), "{run:?}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_history_that_is_longer_than_retention_is_warned_about() {
    for (days, warned) in [("90", true), ("0", false), ("400", false)] {
        let env = vec![("RETENTION_DAYS", days.to_owned())];
        let options = ServerOptions { env, ..ServerOptions::default() };
        let server = RealServer::with(options, &Database::new().await).await;
        let child =
            spawn_with(support::KEY, server.address, &["--history", "399d", "--sessions", "200"]);
        let run = Run::of(child.wait_with_output().await.expect("it ran"));
        assert_eq!(run.code, Some(0), "{run:?}");
        let says = "places the oldest sessions at the time of receipt";
        assert_eq!(run.err.matches(says).count(), usize::from(warned), "{run:?}");
        assert_eq!(run.err.contains("start the server with RETENTION_DAYS="), warned, "{run:?}");
        let placed = "SELECT count(*) FROM sessions WHERE clock_skew_ms IS NOT NULL";
        assert_eq!(server.database.number(placed).await > 100, warned);
        server.stop().await;
    }
}

#[tokio::test]
async fn history_goes_in_batches_and_repeats_itself() {
    // The second request is turned away once.
    let server = Server::start(|seen, before| {
        if before.len() == 1 {
            (503, &[("retry-after", "1")], error("OVERLOADED"))
        } else {
            (200, &[], all_stored(seen.reports.len()))
        }
    })
    .await;
    let arguments = [
        "--history",
        "7d",
        "--sessions",
        "600",
        "--seed",
        "9",
        "--until",
        "2026-02-14T10:30:00Z",
        "--json",
    ];
    let run = server.simulate(&arguments).await;
    assert_eq!(run.code, Some(0), "{run:?}");
    let summary = run.json();
    assert_eq!((&summary["sessions"], &summary["retried"]), (&json!(600), &json!(1)));
    assert_eq!(summary["requests"], server.seen().len());
    assert_eq!(summary["until"], "2026-02-14T10:30:00.000Z");

    // By session and time; the batch that was turned away came twice.
    let sent = |server: &Server| -> BTreeMap<(String, u64), String> {
        let seen = server.seen();
        assert!(seen.iter().all(|batch| batch.path == "/v1/sessions/batch"));
        assert!(seen.iter().all(|batch| batch.reports.len() <= 1_000));
        let reports = seen.iter().flat_map(|batch| &batch.reports);
        reports
            .map(|report| {
                let at = report["timestamp"].as_u64().expect("a time");
                ((report["sessionId"].to_string(), at), report.to_string())
            })
            .collect()
    };
    let first = sent(&server);
    let ids = |sent: &BTreeMap<(String, u64), String>| -> BTreeSet<String> {
        sent.keys().map(|(id, _)| id.clone()).collect()
    };
    assert_eq!(ids(&first).len(), 600);
    assert_eq!(summary["reports"]["accepted"], first.len());
    assert_eq!(summary["reports"]["sent"], first.len());
    assert_eq!(summary["outcomes"]["stored"], first.len());

    // Another number of requests in flight changes nothing.
    let again = Server::start(|seen, _| (200, &[], all_stored(seen.reports.len()))).await;
    again.simulate(&[&arguments[..], &["--concurrency", "1"]].concat()).await;
    assert_eq!(sent(&again), first);

    // Every report: the same sessions, each ending with the same report.
    let every = Server::start(|seen, _| (200, &[], all_stored(seen.reports.len()))).await;
    let run = every.simulate(&[&arguments[..], &["--every-report"]].concat()).await;
    assert_eq!(run.json()["sessions"], 600);
    let all = sent(&every);
    assert!(all.len() > 20 * first.len(), "{} and {}", all.len(), first.len());
    assert_eq!(ids(&all), ids(&first));
    assert!(first.iter().filter(|report| all.get(report.0) == Some(report.1)).count() >= 600);
}

#[tokio::test]
async fn rejected_neighbours_in_a_batch_are_counted() {
    let server = Server::start(|seen, _| {
        let mut answer = all_stored(seen.reports.len());
        answer["accepted"] = json!(seen.reports.len() - 1);
        answer["rejected"] = json!(1);
        answer["results"][0] = json!({
            "index": 0,
            "status": "rejected",
            "error": {"code": "INVALID_SCHEMA", "message": "timestamp: no"},
        });
        (200, &[], answer)
    })
    .await;
    let run = server.simulate(&["--history", "1d", "--sessions", "50", "--json"]).await;
    let summary = run.json();
    assert_eq!(run.code, Some(0));
    // One of each request.
    let requests = server.seen().len();
    let reports: usize = server.seen().iter().map(|batch| batch.reports.len()).sum();
    assert_eq!(summary["reports"]["refused"], requests);
    assert_eq!(summary["not_accepted"][0]["code"], "INVALID_SCHEMA");
    let outcomes = json!({"rejected": requests, "stored": reports - requests});
    assert_eq!(summary["outcomes"], outcomes);
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_ends_the_run_with_its_summary() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let server = Server::start(|_, _| stored()).await;
    let child = server.spawn(&["--viewers", "30", "--for", "10m", "--seed", "4", "--json"]);
    let pid = Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("a pid"));
    // Arrivals are spread over half a minute; some are there after a few seconds.
    while server.seen().len() < 5 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    kill(pid, Signal::SIGINT).expect("it still runs");
    let run = Run::of(child.wait_with_output().await.expect("it ran"));
    assert!(began.elapsed() < Duration::from_secs(8));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.json()["reports"]["accepted"], server.seen().len());
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    let server = Server::start(|_, _| stored()).await;
    for arguments in [
        &["--sessions", "5"][..],
        &["--history", "1d", "--viewers", "5"],
        &["--history", "1d", "--for", "5s"],
        &["--until", "2026-02-14T10:30:00Z"],
        &["--for", "60"],
        &["--incident", "flood"],
        &["--viewers", "0"],
        &["--history", "1d", "--until", "yesterday"],
        &["--every-report"],
    ] {
        let run = server.simulate(arguments).await;
        assert_eq!(run.code, Some(2), "{arguments:?}: {run:?}");
    }
    assert!(server.seen().is_empty());
}
