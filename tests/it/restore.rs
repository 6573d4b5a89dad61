//! The restore of docs/operations.md, into a cluster where the backend has never run.

use std::path::PathBuf;
use std::process::Command;

use media3watch::managed_pg::installed_bin_dirs;

use crate::support::{Cluster, Database, Server, ServerOptions};
use crate::upsert::body;

const GUIDE: &str = include_str!("../../docs/operations.md");

/// A program of PostgreSQL that is as new as the tests' server; the built-in one brings none.
fn program(name: &str, server_major: &str) -> Option<PathBuf> {
    let mut dirs: Vec<PathBuf> = installed_bin_dirs(std::env::var_os("PATH").as_deref());
    dirs.extend(std::env::var_os("M3W_TEST_PG_BIN").map(PathBuf::from));
    dirs.into_iter().map(|dir| dir.join(name)).find(|program| {
        let output = Command::new(program).arg("--version").output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).contains(&format!(" {server_major}."))
        })
    })
}

/// The arguments that the guide gives to a program, without those that say where the database is.
fn documented(program: &str) -> Vec<&'static str> {
    let call = format!("postgres {program} ");
    let line = GUIDE.lines().find_map(|line| Some(line.split_once(&call)?.1)).expect(program);
    let line = line.split(['<', '>']).next().expect("a command");
    let place = ["-U", "m3w", "--dbname", "media3watch"];
    line.split_whitespace().filter(|argument| !place.contains(argument)).collect()
}

#[tokio::test]
async fn a_dump_is_restored_where_the_backend_never_ran() {
    let database = Database::new().await;
    let major =
        database.value("SELECT split_part(current_setting('server_version'), '.', 1)").await;
    let major = major.expect("a version");
    let programs = [program("pg_dump", &major), program("pg_restore", &major)];
    let [Some(dump), Some(restore)] = programs else {
        eprintln!("skipped: no pg_dump of PostgreSQL {major} on this machine");
        return;
    };
    let with_reader = || ServerOptions {
        env: vec![
            ("GRAFANA_DB_USER", "restore_reader".to_owned()),
            ("GRAFANA_DB_PASSWORD", "for reading".to_owned()),
        ],
        now_ms: Some(1_795_000_100_000),
        ..ServerOptions::default()
    };
    let server = Server::with(with_reader(), &database).await;
    assert_eq!(server.post(body("s", 1_795_000_000_000, 7)).await.status, 200);
    server.stop().await;

    let dumped = Command::new(dump)
        .args(documented("pg_dump"))
        .args(["--dbname", &database.url])
        .output()
        .expect("it runs");
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), dumped.stdout).expect("written");

    // It has no role but its own.
    let cluster = tokio::task::spawn_blocking(Cluster::start).await.expect("a cluster");
    let restored = Database::within(&cluster).await;
    let output = Command::new(restore)
        .args(documented("pg_restore"))
        .args(["--dbname", &restored.url])
        .arg(file.path())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let server = Server::with(with_reader(), &restored).await;
    assert_eq!(server.get("/v1/sessions/s").await.status, 200);
    assert_eq!(server.post(body("s", 1_795_000_000_001, 8)).await.status, 200);
    let entries = "SELECT count(*) FROM session_timeline";
    assert_eq!(restored.number(entries).await, 3);
    let reader = "SELECT has_table_privilege('restore_reader', 'sessions', 'SELECT')::int";
    assert_eq!(restored.number(reader).await, 1);
    server.stop().await;
}
