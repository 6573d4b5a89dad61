//! A Postgres cluster for tests: started once per run and shared, or one of its own for a
//! test that stops it. It ends with the test process, however that ends.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use media3watch::config::DatabaseUrl;
use media3watch::managed_pg::{MAVEN_CENTRAL, install};
use media3watch::store::Target;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};

/// A cluster that loses nothing but what a power cut would: tests stop and kill the server,
/// not the machine.
const SETTINGS: &str = "-c fsync=off -c max_connections=300 -c shared_buffers=64MB \
     -c unix_socket_directories= -c listen_addresses=127.0.0.1 -c logging_collector=off \
     -c log_min_messages=fatal";

pub struct Cluster {
    bin: PathBuf,
    data: PathBuf,
    port: u16,
    account: Option<(Uid, Gid)>,
    running: Mutex<Option<Running>>,
}

struct Running {
    // Held open: the watchdog stops Postgres when it closes.
    life: ChildStdin,
    watchdog: Child,
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub fn start() -> Self {
        let account = Uid::effective().is_root().then(unprivileged);
        let data = tempfile::Builder::new().prefix("m3w-test-pg-").tempdir().expect("a temp dir");
        let data = data.keep();
        if let Some((uid, gid)) = account {
            chown(&data, Some(uid.as_raw()), Some(gid.as_raw())).expect("root may");
        }
        let cluster = Self {
            bin: bin_dir().to_owned(),
            data,
            port: unused_port(),
            account,
            running: Mutex::new(None),
        };
        let mut initdb = cluster.command(&cluster.bin.join("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N", "-D"]);
        let done = initdb.arg(&cluster.data).output().expect("initdb runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        cluster.start_again();
        cluster
    }

    /// Starts a stopped cluster on the same port and waits until it answers.
    pub fn start_again(&self) {
        // The watchdog ends Postgres when our end of its standard input closes.
        let script = format!(
            "'{}' -D '{}' -p {} {SETTINGS} >/dev/null 2>'{}/log' </dev/null & pg=$!; \
             read -r how; kill -${{how:-INT}} $pg 2>/dev/null; wait $pg; \
             [ -n \"$how\" ] || rm -rf '{}'",
            self.bin.join("postgres").display(),
            self.data.display(),
            self.port,
            self.data.display(),
            self.data.display(),
        );
        let mut watchdog = self
            .command(Path::new("/bin/sh"))
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let life = watchdog.stdin.take().expect("piped");
        *self.running.lock().expect("not poisoned") = Some(Running { life, watchdog });
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "Postgres does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the cluster with a signal: `INT` for a fast shutdown, `QUIT` for a crash.
    pub fn stop(&self, signal: &str) {
        let running = self.running.lock().expect("not poisoned").take();
        let Running { mut life, mut watchdog } = running.expect("running");
        writeln!(life, "{signal}").expect("the watchdog reads");
        watchdog.wait().expect("it ends");
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).expect("running");
        text.lines().next().expect("a pid").trim().parse().expect("a pid")
    }

    /// The postmaster and its children.
    pub fn processes(&self) -> Vec<i32> {
        let parent = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(parent).chain(children).collect()
    }

    /// Lets a role in only with its password; all others are trusted.
    pub fn ask_password(&self, role: &str) {
        let path = self.data.join("pg_hba.conf");
        let rules = std::fs::read_to_string(&path).expect("a file");
        let line = format!("host all {role} 127.0.0.1/32 scram-sha-256\n");
        std::fs::write(&path, line + &rules).expect("root may");
    }

    /// Writes a file into the data directory that nobody but the server may read.
    pub fn write(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.data.join(name);
        std::fs::write(&path, text).expect("the data directory is ours");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        if let Some((uid, gid)) = self.account {
            chown(&path, Some(uid.as_raw()), Some(gid.as_raw())).expect("root may");
        }
        path
    }

    /// Makes the server read its configuration and certificates again.
    pub fn reload(&self) {
        kill(Pid::from_raw(self.pid()), Signal::SIGHUP).expect("it runs");
    }

    /// The port it listens on, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How to reach a database as superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// What Postgres has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("log")).unwrap_or_default()
    }

    fn is_ready(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(self.data.join("postmaster.pid")) else {
            return false;
        };
        text.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        if let Some((uid, gid)) = self.account {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Closing the watchdog's input ends Postgres and removes the data.
        if let Some(Running { life, mut watchdog }) = self.running.lock().expect("ours").take() {
            drop(life);
            let _ = watchdog.wait();
        }
    }
}

/// A port where nothing listens, below those that the system hands out: one of these could be
/// given to a connection of another test before its new owner binds it.
pub fn unused_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().expect("not poisoned");
    let ports = std::iter::repeat_with(|| rand::random_range(10_000..20_000));
    let mut free =
        |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok() && taken.insert(*port);
    ports.take(1_000).find(&mut free).expect("a free port")
}

/// The cluster that most tests share.
fn shared_cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

/// A database of its own for one test.
#[derive(Clone)]
pub struct Database {
    pub url: String,
}

impl Database {
    /// A new, empty database in the shared cluster.
    pub async fn new() -> Self {
        // Starting the cluster blocks.
        let cluster = tokio::task::spawn_blocking(shared_cluster).await.expect("a cluster");
        Self::within(cluster).await
    }

    /// A new, empty database in a cluster.
    pub async fn within(cluster: &Cluster) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = Self { url: cluster.url("postgres") };
        admin.execute(&format!("CREATE DATABASE {name}")).await;
        Self { url: cluster.url(&name) }
    }

    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().expect("a name")
    }

    pub fn target(&self) -> Target {
        DatabaseUrl::parse(&self.url).expect("valid").target()
    }

    pub fn options(&self) -> PgConnectOptions {
        DatabaseUrl::parse(&self.url).expect("valid").options()
    }

    pub async fn connect(&self) -> PgConnection {
        self.options().connect().await.expect("Postgres answers")
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect(sql);
    }

    /// The single value of a query, as text; `None` for NULL or no row.
    pub async fn value(&self, sql: &str) -> Option<String> {
        let sql = format!("SELECT (SELECT x FROM ({sql}) AS q (x))::text");
        let mut connection = self.connect().await;
        let value = sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&mut connection).await;
        value.expect(&sql)
    }

    /// The single number of a query.
    pub async fn number(&self, sql: &str) -> i64 {
        self.value(sql).await.expect("a value").parse().expect("a number")
    }

    /// The lines of a query with one text column.
    pub async fn lines(&self, sql: &str) -> Vec<String> {
        let mut connection = self.connect().await;
        let lines = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection);
        lines.await.expect(sql)
    }
}

fn unprivileged() -> (Uid, Gid) {
    let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok()?);
    let user = user.expect("a user for Postgres, which refuses root");
    (user.uid, user.gid)
}

fn bin_dir() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        if let Some(given) = std::env::var_os("M3W_TEST_PG_BIN") {
            return given.into();
        }
        let cache = crate::managed_pg::cache_dir();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let installing = install(&cache, MAVEN_CENTRAL, &|_| {});
        runtime.expect("a runtime").block_on(installing).expect("PostgreSQL can be fetched")
    })
}
