//! The built-in PostgreSQL, for real: the binaries come from the network once and stay in the
//! target directory. What only root can try is skipped for others.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use media3watch::managed_pg::{
    Error, MAVEN_CENTRAL, ManagedPostgres, Progress, Settings, install, installed_bin_dirs,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection, Row};
use tempfile::TempDir;

use crate::support::bin;

/// Shared by all tests and kept between runs: the download is 15 MB.
pub fn cache_dir() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    if !is_root() {
        return target.join("postgresql");
    }
    // Root's tests run the server as somebody else, who may not get at the target directory.
    let dir = std::env::temp_dir().join("media3watch-test-postgresql");
    fs::create_dir_all(&dir).expect("root may");
    assert_eq!(fs::metadata(&dir).expect("there").uid(), 0, "somebody else's {}", dir.display());
    dir
}

pub fn data_dir() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("ours");
    dir
}

fn settings(data_dir: &Path) -> Settings {
    let mut settings = Settings::new(data_dir, None);
    settings.cache_dir = cache_dir();
    settings
}

pub fn is_root() -> bool {
    Uid::effective().is_root()
}

pub async fn start(data_dir: &Path) -> Result<ManagedPostgres, Error> {
    ManagedPostgres::start(settings(data_dir), &|_| ()).await
}

async fn connect(postgres: &ManagedPostgres) -> PgConnection {
    PgConnection::connect(postgres.url().expose_secret()).await.expect("it takes connections")
}

/// What the server says to `SHOW name`.
async fn show(connection: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query(sql).fetch_one(connection).await.expect("a row").get(0)
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
        && fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| !stat.contains(") Z "))
}

/// Serves the same answer to everyone, on a port of its own.
fn serve(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        }
    });
    url
}

#[tokio::test]
async fn the_first_start_makes_a_durable_cluster_and_data_survives() {
    let dir = data_dir();
    let root = dir.path().join("data");
    let steps = Mutex::new(Vec::new());
    let note = |progress| steps.lock().expect("no panic").push(progress);
    let postgres = ManagedPostgres::start(settings(&root), &note).await.expect("it starts");
    let steps = steps.into_inner().expect("no panic");
    assert!(steps.ends_with(&[Progress::Initialising, Progress::Starting]), "{steps:?}");

    let mut connection = connect(&postgres).await;
    for (sql, wanted) in [
        ("SHOW fsync", "on"),
        ("SHOW synchronous_commit", "on"),
        ("SHOW full_page_writes", "on"),
        ("SHOW data_checksums", "on"),
        ("SHOW server_encoding", "UTF8"),
        ("SHOW listen_addresses", "127.0.0.1"),
        ("SHOW password_encryption", "scram-sha-256"),
        ("SELECT datcollate FROM pg_database WHERE datname = current_database()", "C"),
        (
            "SELECT current_user::text || rolsuper FROM pg_roles WHERE rolname = current_user",
            "media3watchfalse",
        ),
    ] {
        assert_eq!(show(&mut connection, sql).await, wanted, "{sql}");
    }
    // What the application and its read-only role for Grafana need.
    for sql in [
        "CREATE TABLE t (id int, at int) PARTITION BY RANGE (at)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10)",
        "INSERT INTO t VALUES (42, 1)",
        "CREATE ROLE grafana LOGIN PASSWORD 'x'",
        "GRANT SELECT ON t TO grafana",
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
    }

    // What no role needs, and every role could fill the disk with.
    let large_object = sqlx::query("SELECT lo_create(0)").execute(&mut connection).await;
    assert!(large_object.expect_err("revoked").to_string().contains("permission denied"));

    let port = postgres.port();
    assert_eq!(postgres.data_dir(), root.canonicalize().expect("there"));
    let hint = postgres.psql_hint();
    let url = postgres.url().expose_secret().to_owned();
    let password = url.split([':', '@']).nth(2).expect("in the url").to_owned();
    assert!(!hint.contains(&password), "{hint}");
    for name in ["media3watch.pgpass", "postgres.pgpass", "postgres.log"] {
        let mode = fs::metadata(root.join(name)).expect(name).mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let log = fs::read_to_string(root.join("postgres.log")).expect("a log");
    assert!(!log.contains(&password), "{log}");
    let owner = fs::metadata(root.join("pgdata")).expect("there").uid();
    assert_ne!(owner, 0, "postgres never runs as root");
    // In a group of its own, or Ctrl-C at the terminal would stop it before we have drained.
    let group = nix::unistd::getpgid(Some(Pid::from_raw(postgres.pid()))).expect("it runs");
    assert_eq!(group.as_raw(), postgres.pid());

    postgres.stop().await.expect("it stops, connections or not");
    assert!(!root.join("pgdata/postmaster.pid").exists());
    let begin = Instant::now();
    let postgres = start(&root).await.expect("it starts again");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(postgres.port(), port, "the port stays");
    assert_eq!(postgres.url().expose_secret(), url, "so does the password");
    let mut connection = connect(&postgres).await;
    assert_eq!(show(&mut connection, "SELECT id::text FROM t").await, "42");
    postgres.stop().await.expect("it stops");
}

#[tokio::test]
async fn the_hint_works_as_it_stands() {
    if Command::new("psql").arg("--version").output().is_err() {
        return;
    }
    let dir = data_dir();
    let postgres = start(&dir.path().join("with a blank")).await.expect("it starts");
    let command = format!("{} -Atc 'SELECT 6 * 7'", postgres.psql_hint());
    let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "42\n", "{command}: {output:?}");
    postgres.stop().await.expect("it stops");
}

#[tokio::test]
async fn the_second_start_is_refused_by_name() {
    let dir = data_dir();
    let first = start(dir.path()).await.expect("it starts");
    let error = start(dir.path()).await.expect_err("taken");
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(matches!(error, Error::Locked { .. }));
    connect(&first).await;
    first.stop().await.expect("it stops");
}

/// Runs the program itself on a data directory, as another user if one is given, until it is
/// ready: its process, and pid and port of its server.
pub fn run_owner(dir: &Path, user: Option<&User>) -> (Child, i32, i32) {
    fs::create_dir_all(dir).expect("ours");
    // The binaries are there already.
    let cache = dir.join("postgresql");
    if !cache.exists() {
        symlink(cache_dir(), &cache).expect("ours");
    }
    let mut command = bin();
    command.envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("PATH", "/usr/bin:/bin")]);
    command.env("M3W_DATA_DIR", dir).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(user) = user {
        chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may");
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
    }
    let mut child = command.spawn().expect("the program starts");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = stdout.lines().map_while(Result::ok);
    lines.find(|line| line.contains("is ready")).expect("it gets ready");
    // It has more to say, and nobody listening would be an error.
    std::thread::spawn(move || lines.for_each(drop));
    let pid_file = fs::read_to_string(dir.join("pgdata/postmaster.pid")).expect("running");
    let line = |nth: usize| -> i32 {
        pid_file.lines().nth(nth).expect("a line").trim().parse().expect("a number")
    };
    (child, line(0), line(3))
}

/// Ends the program in order.
pub fn end_owner(mut child: Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("ours");
    assert!(child.wait().expect("ours").success());
}

#[tokio::test]
async fn the_server_of_a_killed_owner_is_adopted() {
    let dir = data_dir();
    install(&cache_dir(), MAVEN_CENTRAL, &|_| ()).await.expect("installed");
    let (mut child, pid, port) = run_owner(dir.path(), None);
    let refused = start(dir.path()).await.expect_err("taken").to_string();
    assert!(refused.contains(&format!("process {}", child.id())), "{refused}");
    child.kill().expect("ours");
    child.wait().expect("ours");
    assert!(is_alive(pid), "the server lives on");

    let begin = Instant::now();
    let postgres = start(dir.path()).await.expect("adopted");
    let took = begin.elapsed();
    assert_eq!(postgres.pid(), pid);
    assert_eq!(i32::from(postgres.port()), port);
    assert!(took < Duration::from_secs(2), "{took:?}");
    connect(&postgres).await;
    postgres.stop().await.expect("it stops");
    let gone = Instant::now() + Duration::from_secs(5);
    while is_alive(pid) {
        assert!(Instant::now() < gone, "still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_killed_server_and_stale_files_are_no_obstacle() {
    let dir = data_dir();
    let postgres = start(dir.path()).await.expect("it starts");
    let mut connection = connect(&postgres).await;
    sqlx::raw_sql("CREATE TABLE t AS SELECT 7 AS id").execute(&mut connection).await.expect("made");
    kill(Pid::from_raw(postgres.pid()), Signal::SIGKILL).expect("it ran");
    drop(postgres);
    // As after a reboot: the number has gone to another process, of the server's own user.
    let pgdata = dir.path().join("pgdata");
    let mut other = Command::new("sleep");
    let owner = fs::metadata(&pgdata).expect("there");
    if is_root() {
        other.uid(owner.uid()).gid(owner.gid());
    }
    let mut other = other.arg("600").spawn().expect("it runs");
    let path = pgdata.join("postmaster.pid");
    let text = fs::read_to_string(&path).expect("left behind");
    let (_, rest) = text.split_once('\n').expect("lines");
    fs::write(&path, format!("{}\n{rest}", other.id())).expect("written");

    let postgres = start(dir.path()).await.expect("it recovers");
    let mut connection = connect(&postgres).await;
    assert_eq!(show(&mut connection, "SELECT id::text FROM t").await, "7");
    postgres.stop().await.expect("it stops");
    other.kill().expect("ours");
    other.wait().expect("ours");
}

#[tokio::test]
async fn half_made_clusters_and_lost_passwords_are_mended() {
    let dir = data_dir();
    // Killed during initdb.
    fs::create_dir(dir.path().join("pgdata.new")).expect("created");
    fs::write(dir.path().join("pgdata.new/PG_VERSION"), "18\n").expect("written");
    let postgres = start(dir.path()).await.expect("it starts");
    let mut connection = connect(&postgres).await;
    assert_eq!(show(&mut connection, "SELECT 1::text").await, "1");
    postgres.stop().await.expect("it stops");
    assert!(!dir.path().join("pgdata.new").exists());
    assert!(!dir.path().join("initdb.password").exists());

    fs::remove_file(dir.path().join("media3watch.pgpass")).expect("there");
    let postgres = start(dir.path()).await.expect("it sets a new password");
    connect(&postgres).await;
    postgres.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_failed_start_shows_the_log() {
    let dir = data_dir();
    start(dir.path()).await.expect("it starts").stop().await.expect("it stops");
    let conf = dir.path().join("pgdata/postgresql.conf");
    let text = fs::read_to_string(&conf).expect("there");
    fs::write(&conf, format!("{text}\nshared_buffers = 'plenty'\n")).expect("written");
    let error = start(dir.path()).await.expect_err("a wrong setting").to_string();
    assert!(error.contains("shared_buffers"), "{error}");
    assert!(error.contains("postgres.log"), "{error}");
    fs::write(&conf, text).expect("written");
    start(dir.path()).await.expect("it starts").stop().await.expect("it stops");
}

#[tokio::test]
async fn a_wrong_archive_is_refused() {
    let dir = data_dir();
    let mut settings = Settings::new(dir.path(), None);
    settings.installed.clear();
    settings.repository =
        serve(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
    let error = ManagedPostgres::start(settings, &|_| ()).await.expect_err("refused");
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    let left: Vec<_> = fs::read_dir(dir.path().join("postgresql"))
        .expect("there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["install.lock"]);
}

#[tokio::test]
async fn a_broken_download_is_tried_again_and_then_says_what_to_do() {
    let dir = data_dir();
    let tries = Mutex::new(0);
    let count = |progress| {
        if let Progress::Downloading { received: 0, total } = progress {
            assert_eq!(total, Some(500));
            *tries.lock().expect("no panic") += 1;
        }
    };
    // Ends before all of it has come.
    let repository =
        serve(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\nconnection: close\r\n\r\nhello");
    let error = install(dir.path(), &repository, &count).await.expect_err("cut off");
    assert!(matches!(error, Error::Download { .. }), "{error}");
    assert_eq!(*tries.lock().expect("no panic"), 3);

    let error = install(dir.path(), "http://127.0.0.1:9", &|_| ()).await.expect_err("offline");
    let text = error.to_string();
    for wanted in
        ["http://127.0.0.1:9/io/zonky", "DATABASE_URL", "install PostgreSQL", "HTTPS_PROXY"]
    {
        assert!(text.contains(wanted), "{wanted} is not in: {text}");
    }
}

#[tokio::test]
async fn without_a_download_the_server_of_this_machine_serves() {
    let path = std::env::var_os("PATH");
    let installed = installed_bin_dirs(path.as_deref());
    if installed.is_empty() {
        return;
    }
    let dir = data_dir();
    let offline = |data: &str| Settings {
        repository: "http://127.0.0.1:9".to_owned(),
        ..Settings::new(dir.path().join(data), path.as_deref())
    };
    let postgres = ManagedPostgres::start(offline("a"), &|_| ()).await.expect("it starts");
    connect(&postgres).await;
    postgres.stop().await.expect("it stops");
    let version = fs::read_to_string(dir.path().join("a/pgdata/PG_VERSION")).expect("there");

    // From then on the data belongs to that major version, and nothing is downloaded any more.
    let begin = Instant::now();
    let postgres = ManagedPostgres::start(offline("a"), &|_| ()).await.expect("it starts");
    assert!(begin.elapsed() < Duration::from_secs(3), "no attempt to download");
    postgres.stop().await.expect("it stops");
    if version.trim() != "18" {
        let mut settings = settings(&dir.path().join("a"));
        settings.installed.clear();
        let error = ManagedPostgres::start(settings, &|_| ()).await.expect_err("wrong version");
        assert!(matches!(error, Error::Version { .. }), "{error}");
        assert!(error.to_string().contains(version.trim()), "{error}");
    }
}

#[tokio::test]
async fn root_is_told_which_directory_is_closed() {
    if !is_root() {
        return;
    }
    let dir = data_dir();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).expect("created");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("ours");
    let error = start(&closed.join("data")).await.expect_err("out of reach").to_string();
    assert!(error.contains(&format!("cannot enter {} (mode 700)", closed.display())), "{error}");
    assert!(error.contains("M3W_DATA_DIR"), "{error}");
}

#[tokio::test]
async fn an_ordinary_user_has_a_server_of_its_own_that_root_can_take_over() {
    if !is_root() {
        return;
    }
    let Some(user) = User::from_name("nobody").expect("a user database") else {
        return;
    };
    install(&cache_dir(), MAVEN_CENTRAL, &|_| ()).await.expect("installed");
    let dir = data_dir();
    chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may");
    let (mut child, pid, _) = run_owner(&dir.path().join("data"), Some(&user));
    let owner = |name: &str| fs::metadata(dir.path().join("data").join(name)).expect(name).uid();
    assert_eq!(owner("pgdata"), user.uid.as_raw());
    assert_eq!(owner("media3watch.pgpass"), user.uid.as_raw());
    let process = fs::metadata(format!("/proc/{pid}"));
    assert!(process.map_or(true, |process| process.uid() == user.uid.as_raw()));
    child.kill().expect("ours");
    child.wait().expect("ours");

    let postgres = start(&dir.path().join("data")).await.expect("root adopts it");
    assert_eq!(postgres.pid(), pid);
    postgres.stop().await.expect("it stops");
    let postgres = start(&dir.path().join("data")).await.expect("root starts it");
    postgres.stop().await.expect("it stops");
    assert_eq!(owner("pgdata"), user.uid.as_raw(), "it stays that user's");
    // The user has it back, and stopping the program stops the server.
    let (child, pid, _) = run_owner(&dir.path().join("data"), Some(&user));
    end_owner(child);
    assert!(!is_alive(pid));
}
