//! A real PgBouncer in front of PostgreSQL, with its default settings and in each of its modes.
//! scripts/test installs its package where it can; without PgBouncer on PATH there is nothing to
//! try, and scripts/test says so.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use sqlx::{ConnectOptions as _, Row as _};
use tempfile::TempDir;

use crate::retention::run_retention;
use crate::support::{Binary, Database, Server, ServerOptions, bin, client, now_ms, unused_port};
use crate::upsert::{body, hot_sessions_are_right};

struct PgBouncer {
    process: Child,
    port: u16,
    _dir: TempDir,
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    dirs.map(|dir| dir.join("pgbouncer")).find(|file| file.is_file())
}

impl PgBouncer {
    /// In front of a database, with nothing set but where things are and `settings`.
    fn start(database: &Database, settings: &str) -> Option<Self> {
        let program = program()?;
        let options = database.options();
        let (host, user) = (options.get_host(), options.get_username());
        let (server_port, name) = (options.get_port(), database.name());
        let port = unused_port();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{name} = host={host} port={server_port} dbname={name} user={user}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\n{settings}\n"
        );
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new(program);
        command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        if Uid::effective().is_root() {
            let user = User::from_name("nobody").expect("users").expect("nobody");
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path(), open).expect("ours");
        }
        let process = command.spawn().expect("it runs");
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "PgBouncer does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { process, port, _dir: dir })
    }

    fn url(&self, database: &Database) -> String {
        let user = database.options().get_username().to_owned();
        format!("postgresql://{user}@127.0.0.1:{}/{}", self.port, database.name())
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What other clients of the pool find: no setting and no prepared statement of ours.
async fn nothing_is_left_behind(through: &Database, mode: &str) {
    let mut others = Vec::new();
    // Each holds a server connection of its own.
    for _ in 0..20 {
        let mut connection = through.options().connect().await.expect("it connects");
        sqlx::raw_sql("BEGIN").execute(&mut connection).await.expect("a transaction");
        let row = sqlx::raw_sql(
            "SELECT current_setting('statement_timeout') || current_setting('lock_timeout'),
                    (SELECT count(*)::text FROM pg_prepared_statements),
                    (SELECT count(*)::text FROM pg_locks
                     WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
        )
        .fetch_one(&mut connection)
        .await
        .expect("a row");
        let found: Vec<String> = (0..3).map(|column| row.get(column)).collect();
        assert_eq!(found, ["00", "0", "0"], "{mode}");
        others.push(connection);
    }
}

#[tokio::test]
async fn everything_works_through_each_kind_of_pool() {
    let modes = ["", "pool_mode = session", "pool_mode = transaction"];
    for (mode, asked) in modes.into_iter().map(|mode| (mode, "")).chain([
        ("pool_mode = transaction", "?pgbouncer=true"),
        ("pool_mode = transaction\nserver_round_robin = 1", ""),
    ]) {
        let database = Database::new().await;
        let Some(pooler) = PgBouncer::start(&database, mode) else { return };
        let through = Database { url: pooler.url(&database) + asked };
        let server = Server::with(ServerOptions::default(), &through).await;
        hot_sessions_are_right((&through, &database), 4, 3, 10).await;
        // A month that is over, so that a partition is made and dropped.
        let now = now_ms();
        for days in [1, 40, 80] {
            let begun = now - days * 24 * 3_600_000;
            assert_eq!(server.post(body(&format!("s{days}"), begun, 3)).await.status, 200);
        }
        let read = server.get("/v1/sessions/s40").await;
        assert_eq!(read.status, 200, "{mode}: {}", read.text);
        server.post("{").await;
        assert_eq!(database.number("SELECT count(*) FROM rejected_reports").await, 1, "{mode}");
        assert!(run_retention(&server.app).await, "{mode}");
        assert_eq!(server.get("/health").await.status, 200);
        if mode.contains("transaction") {
            nothing_is_left_behind(&through, mode).await;
        }
        server.stop().await;
    }
}

/// Another client uses the names that our driver gives to its statements.
#[tokio::test]
async fn statements_of_other_clients_are_not_in_the_way() {
    let database = Database::new().await;
    let mode = "pool_mode = transaction\ndefault_pool_size = 2";
    let Some(pooler) = PgBouncer::start(&database, mode) else { return };
    let through = Database { url: pooler.url(&database) };
    let prepare = "PREPARE sqlx_s_1 AS SELECT 1; PREPARE sqlx_s_2 AS SELECT 2";
    through.execute(prepare).await;
    let server = Server::with(ServerOptions::default(), &through).await;
    for number in 0..20 {
        let _ = sqlx::raw_sql(prepare).execute(&mut through.connect().await).await;
        let answer = server.post(body(&format!("s{number}"), now_ms(), 1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    server.stop().await;
}

/// The server was told that there is no such pooler, and meets its errors while it serves.
#[tokio::test]
async fn a_pooler_that_was_not_expected_is_noticed() {
    let database = Database::new().await;
    let mode = "pool_mode = transaction\ndefault_pool_size = 2";
    let Some(pooler) = PgBouncer::start(&database, mode) else { return };
    // The schema is made without it.
    Server::with(ServerOptions::default(), &database).await.stop().await;
    let url = pooler.url(&database) + "?pgbouncer=false";
    let server = Binary::serve(&[("DATABASE_URL", &url)]);
    let client = client(Duration::from_secs(30));
    let posts = (0..200).map(|number| {
        let post = client.post(server.url("/v1/sessions")).header("X-API-Key", "dev-key");
        post.body(body(&format!("s{}", number % 40), now_ms(), number)).send()
    });
    for answer in futures_util::future::join_all(posts).await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", server.log());
    }
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 40);
}

#[tokio::test]
async fn a_pool_without_transactions_is_refused_with_the_remedy() {
    let database = Database::new().await;
    let Some(pooler) = PgBouncer::start(&database, "pool_mode = statement") else { return };
    for asked in ["", "?pgbouncer=true"] {
        let mut command = tokio::process::Command::from(bin());
        command.env("DATABASE_URL", pooler.url(&database) + asked).arg("migrate");
        let begin = Instant::now();
        let output = command.output().await.expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("pool_mode = transaction"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "said at once");
    }
}
