//! Standard error that cannot be written, or that nobody reads: no response, no shutdown and no
//! command may notice.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Database, KEY, bin, client, now_ms, unused_port};

const PATIENCE: Duration = Duration::from_secs(30);

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").expect("a device of Linux").into()
}

/// A server that logs everything to `stderr`.
struct Logging {
    child: Child,
    port: u16,
}

impl Logging {
    async fn start(database: &Database, stdout: Stdio, stderr: Stdio) -> Self {
        let port = unused_port();
        let mut command = bin();
        command.envs([("HOST", "127.0.0.1"), ("LOG_LEVEL", "trace"), ("LOG_FORMAT", "json")]);
        command.env("PORT", port.to_string()).env("DATABASE_URL", &database.url);
        command.env("RATE_LIMIT_REQUESTS", "1000000").stdout(stdout).stderr(stderr);
        let server = Self { child: command.spawn().expect("runs"), port };
        let deadline = Instant::now() + PATIENCE;
        while server.get("/health/ready").await.is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < deadline, "no start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let response = client(PATIENCE).get(self.url(path)).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    async fn post_many(&self) {
        let client = client(PATIENCE);
        for number in 0..50 {
            let body = json!({"sessionId": format!("s{number}"), "timestamp": now_ms()});
            let request = client.post(self.url("/v1/sessions")).header("X-API-Key", KEY);
            let response = request.body(body.to_string()).send().await.expect("a response");
            assert_eq!(response.status(), 200);
        }
    }

    async fn lines_lost(&self) -> u64 {
        let (_, metrics) = self.get("/metrics").await.expect("a response");
        let line = metrics.lines().find_map(|line| line.strip_prefix("log_lines_lost_total "));
        line.expect("from the start").parse().expect("a number")
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("it runs");
    }

    /// Exit status, and how long the end took.
    async fn ended(&mut self) -> (Option<i32>, Duration) {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("ours") {
                return (status.code(), since.elapsed());
            }
            assert!(since.elapsed() < PATIENCE, "still running");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_full_disk_under_the_log_changes_nothing() {
    let database = Database::new().await;
    let mut server = Logging::start(&database, full(), full()).await;
    server.post_many().await;
    assert!(server.lines_lost().await > 50);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().await.0, Some(0));
}

/// As in `media3watch 2>&1 | tee log`, once Ctrl-C has ended tee.
#[tokio::test]
async fn a_log_whose_reader_is_gone_changes_nothing() {
    let database = Database::new().await;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let both = writer.try_clone().expect("a pipe");
    let mut server = Logging::start(&database, both.into(), writer.into()).await;
    let mut first = [0];
    reader.read_exact(&mut first).expect("a log");
    assert_eq!(first, *b"{");
    assert_eq!(server.lines_lost().await, 0);
    drop(reader);
    server.post_many().await;
    assert!(server.lines_lost().await > 50);
    server.signal(Signal::SIGINT);
    assert_eq!(server.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_log_that_nobody_reads_changes_nothing() {
    let database = Database::new().await;
    for signals in [1, 2] {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        // Full from the start.
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("ours");
        while writer.write(&[b'\n'; 4096]).is_ok() {}
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("ours");
        let both = writer.try_clone().expect("a pipe");
        let mut server = Logging::start(&database, both.into(), writer.into()).await;
        server.post_many().await;
        server.signal(Signal::SIGTERM);
        if signals == 2 {
            // Later than one signal that is delivered twice.
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.signal(Signal::SIGTERM);
            assert_eq!(server.ended().await.0, Some(1));
        } else {
            assert_eq!(server.ended().await.0, Some(0));
        }
        let mut log = Vec::new();
        reader.read_to_end(&mut log).expect("what was in the pipe");
        assert!(log.iter().all(|byte| *byte == b'\n'), "nothing was to fit");
    }
}

/// More than the queue takes: what is lost is said once somebody reads again.
#[tokio::test]
async fn lost_lines_are_said_when_the_log_can_be_written_again() {
    let database = Database::new().await;
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut server = Logging::start(&database, Stdio::null(), writer.into()).await;
    let deadline = Instant::now() + Duration::from_mins(2);
    let client = client(PATIENCE);
    while server.lines_lost().await == 0 {
        assert!(Instant::now() < deadline, "a queue without end");
        for _ in 0..200 {
            client.get(server.url("/health/live")).send().await.expect("a response");
        }
    }
    server.post_many().await;
    let lost = server.lines_lost().await;
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        reader.read_to_string(&mut log).expect("text");
        log
    });
    // The thread gets to it before the end, which waits for it.
    server.signal(Signal::SIGTERM);
    assert_eq!(server.ended().await.0, Some(0));
    let log = log.join().expect("read");
    let events: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("a whole line")).collect();
    let says = |text: &str| {
        let is_said = |event: &Value| event["message"].as_str().is_some_and(|m| m.contains(text));
        events.iter().filter(|event| is_said(event)).cloned().collect::<Vec<_>>()
    };
    let said = says("log lines were lost");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0]["lines"].as_u64() >= Some(lost), "{said:?}, {lost}");
    assert_eq!(says("stopped").len(), 1, "the last lines are not lost");
}

/// Commands end as they would with somebody who reads.
#[test]
fn commands_do_not_notice() {
    let dir = tempfile::tempdir().expect("a directory");
    let export = dir.path().join("grafana");
    let export = export.to_str().expect("text");
    for (arguments, code) in [
        (&["grafana", "export", export][..], 0),
        (&["grafana", "export", export, "--db", "mysql://h/d"], 2),
        (&["simulate", "--url", "http://127.0.0.1:1"], 1),
        (&["serve"], 2),
        (&["no-such-command"], 2),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        for stderr in [full(), writer.into()] {
            let mut command = bin();
            command.args(arguments).env("PORT", "many").stdout(Stdio::null()).stderr(stderr);
            assert_eq!(command.status().expect("it runs").code(), Some(code), "{arguments:?}");
        }
    }
}
