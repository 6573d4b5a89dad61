//! The built-in PostgreSQL dies under a serving server, as when the system kills it for want of
//! memory; and signals that end the program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use media3watch::managed_pg::{MAVEN_CENTRAL, install};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::managed_pg::{cache_dir, data_dir};
use crate::support::{Binary, Database, KEY, bin, client, now_ms};

/// Longer than the SDK waits for an answer would be too long.
const SDK_PATIENCE: Duration = Duration::from_secs(10);

async fn serve(dir: &Path) -> Binary {
    install(&cache_dir(), MAVEN_CENTRAL, &|_| ()).await.expect("installed");
    let cache = dir.join("postgresql");
    if !cache.exists() {
        symlink(cache_dir(), &cache).expect("ours");
    }
    let dir = dir.to_str().expect("text");
    Binary::serve(&[("M3W_DATA_DIR", dir), ("PATH", "/usr/bin:/bin")])
}

fn postmaster(dir: &Path) -> Pid {
    let file = fs::read_to_string(dir.join("pgdata/postmaster.pid")).expect("running");
    Pid::from_raw(file.lines().next().expect("a line").trim().parse().expect("a pid"))
}

/// Posts a report as an SDK that never tries again.
async fn post(server: &Binary, id: String) -> u16 {
    let body = json!({"sessionId": id, "timestamp": now_ms()}).to_string();
    let request =
        client(SDK_PATIENCE).post(server.url("/v1/sessions")).header("X-API-Key", KEY).body(body);
    request.send().await.expect("an answer").status().as_u16()
}

async fn ready(server: &Binary) -> u16 {
    let answer = client(SDK_PATIENCE).get(server.url("/health/ready")).send().await;
    answer.expect("an answer").status().as_u16()
}

async fn assert_stored(server: &Binary, id: &str) {
    let request = client(SDK_PATIENCE).get(server.url(&format!("/v1/sessions/{id}")));
    let answer = request.header("X-API-Key", KEY).send().await.expect("an answer");
    assert_eq!(answer.status(), 200, "{id}");
}

#[tokio::test]
async fn a_killed_postgres_is_started_again_and_nothing_is_lost() {
    let dir = data_dir();
    let mut server = serve(dir.path()).await;
    let mut posted = 0;
    for round in 0..4 {
        if round == 2 {
            // Now it has not started this PostgreSQL, but found it.
            server.signal(Signal::SIGKILL);
            drop(server);
            server = serve(dir.path()).await;
            assert!(server.log().contains("adopted a running postgres"), "{}", server.log());
        }
        assert_eq!(post(&server, format!("s{posted}")).await, 200);
        posted += 1;
        let pid = postmaster(dir.path());
        kill(pid, Signal::SIGKILL).expect("it ran");
        // Reports that come while it is away wait for it.
        let reports = (0..10).map(|n| post(&server, format!("s{}", posted + n)));
        let statuses = futures_util::future::join_all(reports).await;
        assert_eq!(statuses, [200; 10], "{}", server.log());
        posted += 10;
        assert_ne!(postmaster(dir.path()), pid);
    }
    for id in 0..posted {
        assert_stored(&server, &format!("s{id}")).await;
    }
    let log = server.log();
    assert!(log.contains("postgres ended unexpectedly"), "{log}");
    assert!(log.contains("postgres is running again"), "{log}");
    let pid = postmaster(dir.path());
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait(Duration::from_secs(30));
    assert!(status.success(), "{log}");
    assert!(kill(pid, None).is_err(), "PostgreSQL ends with the server");
}

/// A command works beside the server, and leaves its PostgreSQL running.
#[tokio::test]
async fn commands_use_the_postgres_of_a_running_server() {
    let dir = data_dir();
    let server = serve(dir.path()).await;
    let pid = postmaster(dir.path());
    let output = bin().env("M3W_DATA_DIR", dir.path()).arg("migrate").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("up to date"));
    assert_eq!(postmaster(dir.path()), pid);
    assert_eq!(post(&server, "s".to_owned()).await, 200);
    // Another server is none.
    let mut second = bin();
    second.envs([("PORT", "0"), ("HOST", "127.0.0.1")]).env("M3W_DATA_DIR", dir.path());
    let second = second.output().expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is in use by process"));
    server.signal(Signal::SIGTERM);
    assert!(server.wait(Duration::from_secs(30)).0.success());
}

#[tokio::test]
async fn a_postgres_that_cannot_stay_up_ends_the_server() {
    let dir = data_dir();
    let server = serve(dir.path()).await;
    let conf = dir.path().join("pgdata/postgresql.conf");
    let text = fs::read_to_string(&conf).expect("there");
    fs::write(&conf, format!("{text}\nshared_buffers = 'plenty'\n")).expect("written");
    kill(postmaster(dir.path()), Signal::SIGKILL).expect("it ran");
    let (status, log) = server.wait(Duration::from_mins(1));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("PostgreSQL ended 5 times in a row"), "{log}");
    assert!(log.contains("shared_buffers"), "{log}");
}

/// Needs the right to mount, which containers do not always have.
#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let dir = data_dir();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs"])
        .arg(dir.path())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    }
    let server = serve(dir.path()).await;
    assert_eq!(post(&server, "before".to_owned()).await, 200);
    let filler = dir.path().join("filler");
    // As much as there is.
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k", &format!("of={}", filler.display())])
        .output();
    kill(postmaster(dir.path()), Signal::SIGKILL).expect("it ran");
    server.logs("the disk is full", Duration::from_secs(20));
    // Longer than a crash loop would take.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(ready(&server).await, 503, "it takes no traffic that it cannot keep");
    fs::remove_file(filler).expect("there");
    let begin = Instant::now();
    while post(&server, "after".to_owned()).await != 200 {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", server.log());
    }
    assert_eq!(ready(&server).await, 200);
    assert_stored(&server, "before").await;
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait(Duration::from_secs(30));
    let unmounted = Command::new("umount").arg(dir.path()).status().expect("it runs");
    assert!(status.success() && unmounted.success(), "{log}");
}

#[tokio::test]
async fn each_ending_signal_is_an_orderly_end() {
    let database = Database::new().await;
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGXCPU,
    ] {
        let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
        assert_eq!(post(&server, signal.to_string()).await, 200);
        server.signal(signal);
        let (status, log) = server.wait(Duration::from_secs(30));
        assert!(status.success(), "{signal}: {status} {log}");
        assert!(log.contains(signal.as_str()) && log.contains("stopped"), "{log}");
    }
}

/// As `nohup` starts it.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_signal_that_was_ignored_stays_ignored() {
    let database = Database::new().await;
    let mut command = Command::new("sh");
    let script = format!("trap '' HUP; exec {}", env!("CARGO_BIN_EXE_media3watch"));
    command.env_clear().args(["-c", &script]);
    let server = Binary::run(command, &[("DATABASE_URL", &database.url)]);
    server.signal(Signal::SIGHUP);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(post(&server, "s".to_owned()).await, 200);
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait(Duration::from_secs(30));
    assert!(status.success(), "{log}");
}

/// One line says it, with the number that would do.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn too_few_file_descriptors_are_logged_once() {
    let database = Database::new().await;
    let mut command = Command::new("sh");
    let script = format!("ulimit -n 60; exec {}", env!("CARGO_BIN_EXE_media3watch"));
    command.env_clear().args(["-c", &script]);
    let env = [("DATABASE_URL", &*database.url), ("HIKARI_MAX_POOL_SIZE", "8")];
    let server = Binary::run(command, &env);
    let clients: Vec<_> =
        (0..100).filter_map(|_| std::net::TcpStream::connect(server.address).ok()).collect();
    server.logs("out of file descriptors", Duration::from_secs(10));
    // Twenty attempts and more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let log = server.log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("out of file descriptors")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("ulimit -n 8512"), "{log}");
    drop(clients);
    assert_eq!(post(&server, "s".to_owned()).await, 200);
    server.signal(Signal::SIGTERM);
    assert!(server.wait(Duration::from_secs(30)).0.success());
}

/// The SDK does not wait when it is told to.
#[tokio::test]
async fn requests_over_the_limit_do_not_flood_the_log() {
    let database = Database::new().await;
    let env = [("DATABASE_URL", &*database.url), ("RATE_LIMIT_REQUESTS", "1")];
    let server = Binary::serve(&env);
    let mut limited = 0;
    for number in 0..60 {
        limited += u32::from(post(&server, format!("s{number}")).await == 429);
    }
    assert!(limited >= 50, "{limited}");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait(Duration::from_secs(30));
    assert!(status.success(), "{log}");
    let lines = log.lines().filter(|line| line.contains("429") || line.contains("rate limit"));
    assert_eq!(lines.count(), 1, "{log}");
}
