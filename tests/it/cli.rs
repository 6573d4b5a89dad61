//! The command line as its users meet it: help, answers, mistakes, and what it never says.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::managed_pg::cache_dir;
use crate::support::{Binary, Database, KEY, bin, unused_port};

/// What a command did.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn run(arguments: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = bin();
    // The width of the help, whoever looks at it.
    command.env("COLUMNS", "100").env("HOME", "/home/ada");
    command.args(arguments).envs(env.iter().copied());
    command.output().expect("it runs").into()
}

async fn run_beside(arguments: &'static [&'static str], env: Vec<(&'static str, String)>) -> Ran {
    let running = tokio::task::spawn_blocking(move || {
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
        run(arguments, &env)
    });
    running.await.expect("it ran")
}

#[test]
fn every_help_is_the_one_that_was_reviewed() {
    for command in [
        "",
        "serve",
        "migrate",
        "import",
        "config",
        "config check",
        "config show",
        "rollups",
        "rollups status",
        "rollups rebuild",
        "simulate",
        "grafana",
        "grafana export",
        "openapi",
        "healthcheck",
        "version",
    ] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.push("--help");
        let ran = run(&arguments, &[]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{command}");
        let name = format!("help {command}").trim_end().replace(' ', "_");
        insta::assert_snapshot!(name, ran.out);
    }
    insta::assert_snapshot!("short_help", run(&["-h"], &[]).out);
}

#[test]
fn version_is_that_of_the_package() {
    let version = env!("CARGO_PKG_VERSION");
    let plain = run(&["version"], &[]);
    assert_eq!(plain.code, Some(0));
    let expected = format!("media3watch {version} (revision ");
    assert!(plain.out.starts_with(&expected), "{}", plain.out);
    let ran = run(&["version", "--json"], &[]);
    let json: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(json["version"], version);
    assert!(json["revision"].is_string());
    let flag = run(&["--version"], &[]);
    assert_eq!(flag.out, format!("media3watch {version}\n"));
}

#[test]
fn openapi_is_the_file_in_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let file = fs::read_to_string(path).expect("docs/openapi.json");
    let ran = run(&["openapi"], &[]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    assert!(
        ran.out.trim_end() == file.trim_end(),
        "docs/openapi.json is not what the code says; refresh it with\n  \
         cargo run -- openapi > docs/openapi.json"
    );
}

#[test]
fn usage_errors_end_with_2_and_print_no_result() {
    for arguments in [
        &["nonsense"][..],
        &["config"],
        &["serve", "--port", "80"],
        &["migrate", "now"],
        &["import"],
        &["import", "--from-media3watch"],
        &["version", "--yaml"],
        &["grafana"],
        &["grafana", "export"],
        &["simulate", "--viewers", "0"],
        &["simulate", "--for", "soon"],
        &["simulate", "--history", "30d", "--viewers", "3"],
        &["simulate", "--url", "http://user:pw@127.0.0.1"],
    ] {
        let ran = run(arguments, &[]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
}

/// Everything that can be wrong, wrong.
const WRONG: &[(&str, &str)] = &[
    ("M3W_API_KEY", "a key with blanks"),
    ("DATABASE_URL", "mysql://u:p@h/d"),
    ("DATABASE_PASSWORD_FILE", "/does/not/exist"),
    ("PORT", "80800"),
    ("HOST", "everywhere"),
    ("RATE_LIMIT_REQUESTS", "0"),
    ("RATE_LIMIT_WINDOW_SEC", "a minute"),
    ("TRUSTED_PROXIES", "10.0.0.0/8,the proxy"),
    ("REDIS_URL", "localhost:6379"),
    ("RETENTION_DAYS", "-1"),
    ("HIKARI_MAX_POOL_SIZE", "3"),
    ("HIKARI_MIN_IDLE", "4"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("ENABLE_METRICS", "maybe"),
    ("METRICS_ADDR", "9090"),
    ("MAX_BODY_BYTES", "1MB"),
    ("DIMENSIONS", "tenant:custom.tenant"),
    ("VIEWER_ID", "timelineEvents.viewer"),
];

#[test]
fn config_check_says_yes_or_names_all_mistakes_at_once() {
    let good = run(&["config", "check"], &[]);
    assert_eq!(good.code, Some(0), "{}", good.err);
    assert_eq!(good.out, "the configuration is valid\n");
    let good = run(&["config", "check", "--json"], &[]);
    let said: Value = serde_json::from_str(&good.out).expect("JSON");
    assert_eq!(said, json!({"valid": true, "problems": []}));

    let bad = run(&["config", "check"], WRONG);
    assert_eq!((bad.code, bad.out.as_str()), (Some(2), ""));
    insta::assert_snapshot!("all_mistakes", bad.err);
    let bad = run(&["config", "check", "--json"], WRONG);
    assert_eq!((bad.code, bad.err.as_str()), (Some(2), ""));
    let said: Value = serde_json::from_str(&bad.out).expect("JSON");
    assert_eq!(said["valid"], false);
    // The pool's maximum of 3 is what makes the idle 4 wrong; it is right itself.
    let problems = said["problems"].as_array().expect("problems");
    assert_eq!(problems.len(), WRONG.len() - 1);
    // What cannot start says the same as the check.
    let serve = run(&["serve"], WRONG);
    assert_eq!((serve.code, serve.out.as_str()), (Some(2), ""));
    assert!(serve.err.contains("18 wrong environment variables"));
}

/// The runtime would panic over these.
#[test]
fn a_wrong_number_of_threads_is_said_and_an_empty_one_is_none() {
    for wrong in ["two", "0", "-1", "256"] {
        let ran = run(&["config", "check"], &[("TOKIO_WORKER_THREADS", wrong)]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{wrong}");
        let said = format!("TOKIO_WORKER_THREADS is {wrong:?}: a whole number from 1 to 255");
        assert!(ran.err.contains(&said), "{}", ran.err);
    }
    for right in ["", " 2 ", "1"] {
        let ran = run(&["config", "check"], &[("TOKIO_WORKER_THREADS", right)]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{right:?}");
    }
}

#[test]
fn config_show_tells_values_and_sources_and_no_secrets() {
    let dir = tempfile::tempdir().expect("a directory");
    let password = dir.path().join("password");
    fs::write(&password, "canary-password\n").expect("written");
    let password = password.to_str().expect("UTF-8");
    let env = [
        ("M3W_API_KEY", "canary-key"),
        ("DATABASE_URL", "jdbc:postgresql://db:5433/m3w?user=app&sslmode=require"),
        ("DATABASE_PASSWORD_FILE", password),
        ("REDIS_URL", "redis://:canary-redis@cache:6379/0"),
        ("PORT", "9000"),
        ("HOST", ""),
        ("LOG_LEVEL", "WARN"),
        ("LOG_FORMAT", "text"),
    ];
    let ran = run(&["config", "show"], &env);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    insta::assert_snapshot!("config_show", ran.out.replace(password, "PASSWORD_FILE"));
    let ran = run(&["config", "show", "--json"], &env);
    assert!(!ran.all().contains("canary"), "{}", ran.all());
    let settings: Value = serde_json::from_str(&ran.out).expect("JSON");
    let setting = |name: &str| {
        let all = settings.as_array().expect("settings");
        let found = all.iter().find(|setting| setting["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}")).clone()
    };
    assert_eq!(setting("PORT"), json!({"name": "PORT", "value": "9000", "source": "environment"}));
    assert_eq!(setting("HOST")["source"], "default");
    assert_eq!(setting("DATABASE_PASSWORD")["source"], json!({"file": password}));
    // The built-in PostgreSQL has a directory, and no login of anyone's.
    let ran = run(&["config", "show"], &[("LOG_FORMAT", "json"), ("M3W_DATA_DIR", "/srv/m3w")]);
    insta::assert_snapshot!("config_show_built_in", ran.out);
}

#[tokio::test]
async fn migrate_makes_the_schema_and_then_has_nothing_to_do() {
    let database = Database::new().await;
    let env = || vec![("DATABASE_URL", database.url.clone())];
    let first = run_beside(&["migrate"], env()).await;
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.out.contains("applied, the schema is at version "), "{}", first.out);
    assert_eq!(database.number("SELECT count(*) FROM sessions").await, 0);
    let again = run_beside(&["migrate"], env()).await;
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert!(again.out.starts_with("the schema is up to date (version "), "{}", again.out);
    // Not what Postgres remarks on the table of migrations, which reads like a fault.
    assert_eq!(again.err, "");
    let json = run_beside(&["migrate", "--json"], env()).await;
    let said: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(said["applied"], 0);
    assert!(said["version"].as_i64().expect("a number") >= 1);
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_with_the_reason() {
    let port = unused_port();
    let url = format!("postgresql://ada:canary@127.0.0.1:{port}/films");
    let ran = run_beside(&["migrate"], vec![("DATABASE_URL", url)]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let last = ran.err.lines().last().expect("a message");
    let place = format!("the database postgresql://ada@127.0.0.1:{port}/films cannot be used");
    for part in [place.as_str(), "DATABASE_URL", "Connection refused"] {
        assert!(last.contains(part), "no {part:?} in {last}");
    }
    assert_eq!(last.matches("Connection refused").count(), 1, "{last}");
    assert!(!ran.all().contains("canary"), "{}", ran.all());
}

/// What only an operator can mend is not waited for.
#[tokio::test]
async fn a_database_that_does_not_exist_is_said_at_once() {
    let url = Database::new().await.url.replace("/test_", "/no_test_");
    let started = Instant::now();
    let ran = run_beside(&["migrate"], vec![("DATABASE_URL", url)]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("does not exist"), "{}", ran.err);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

#[tokio::test]
async fn metrics_can_have_a_listener_of_their_own() {
    let url = Database::new().await.url;
    let own = format!("127.0.0.1:{}", unused_port());
    let serve = move || {
        let server = Binary::serve(&[("DATABASE_URL", &url), ("METRICS_ADDR", &own)]);
        (server, own)
    };
    let (server, own) = tokio::task::spawn_blocking(serve).await.expect("starts");
    let get = async |url: String| {
        let answer = reqwest::get(url).await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let (status, text) = get(format!("http://{own}/metrics")).await;
    assert_eq!(status, 200);
    assert!(text.contains("sessions_ingested_total"), "{text}");
    assert_eq!(get(format!("http://{}/metrics", server.address)).await.0, 404);
    assert_eq!(get(format!("http://{own}/v1/sessions")).await.0, 404);
}

#[test]
fn a_port_in_use_is_said_before_anything_else_is_done() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let data_text = data.to_str().expect("UTF-8");
    let env = [("HOST", "127.0.0.1"), ("PORT", port.as_str()), ("M3W_DATA_DIR", data_text)];
    let ran = run(&[], &env);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let expected =
        format!("media3watch: cannot listen on 127.0.0.1:{port} (set PORT to change it)");
    assert!(ran.err.contains(&expected), "{}", ran.err);
    assert!(!data.exists(), "no PostgreSQL was set up for nothing");
}

/// The library that fails, ours around it, and the one that prints would each say it.
#[test]
fn the_systems_reason_is_said_once() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let here = ("HOST", "127.0.0.1");
    for (arguments, env) in [
        (&[][..], &[here, ("PORT", &*port)][..]),
        (&[], &[here, ("PORT", "0"), ("M3W_DATA_DIR", "/dev/null/data")]),
        (&["migrate"], &[("M3W_DATA_DIR", "/dev/null/data")]),
        (&["grafana", "export", "/dev/null/export"], &[]),
        (&["healthcheck"], &[here, ("PORT", "1")]),
        (&["simulate", "--url", "http://127.0.0.1:1"], &[]),
    ] {
        let ran = run(arguments, env);
        assert_eq!(ran.code, Some(1), "{arguments:?}");
        assert_eq!(ran.err.matches("os error").count(), 1, "{}", ran.err);
    }
}

#[tokio::test]
async fn the_default_key_is_warned_about_beyond_this_machine_only() {
    let database = Database::new().await;
    for (host, key, is_warned) in [
        ("127.0.0.1", "dev-key", false),
        ("0.0.0.0", "dev-key", true),
        ("0.0.0.0", "a-key-of-my-own", false),
    ] {
        let url = database.url.clone();
        let log = tokio::task::spawn_blocking(move || {
            let env = [("HOST", host), ("M3W_API_KEY", key), ("DATABASE_URL", url.as_str())];
            let server = Binary::serve(&env);
            server.signal(Signal::SIGTERM);
            let (status, log) = server.wait(Duration::from_secs(30));
            assert!(status.success(), "{log}");
            log
        });
        let log = log.await.expect("it ran");
        let warned = log.lines().any(|line| {
            line.contains("\"level\":\"WARN\"") && line.contains("M3W_API_KEY is the default key")
        });
        assert_eq!(warned, is_warned, "{host} {key}\n{log}");
    }
}

#[tokio::test]
async fn healthcheck_asks_the_server_of_its_own_settings() {
    let database = Database::new().await;
    let url = database.url.clone();
    let running = tokio::task::spawn_blocking(move || {
        let server = Binary::serve(&[("DATABASE_URL", &url)]);
        let port = server.address.port().to_string();
        let env = [("PORT", port.as_str()), ("HOST", "0.0.0.0"), ("DATABASE_URL", &url)];
        let up = run(&["healthcheck"], &env);
        assert_eq!((up.code, up.all().trim()), (Some(0), ""));
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait(Duration::from_secs(30));
        assert!(status.success(), "{log}");
        // On a database of others and without a terminal, there is only the log.
        assert!(!log.contains("is ready."), "{log}");
        let down = run(&["healthcheck"], &env);
        assert_eq!((down.code, down.out.as_str()), (Some(1), ""));
        let expected = format!("media3watch: nothing listens on 127.0.0.1:{port}");
        assert!(down.err.starts_with(&expected), "{}", down.err);
    });
    running.await.expect("it ran");
}

/// A server on the built-in PostgreSQL, as a newcomer starts it.
struct FirstEvening {
    child: Child,
    dir: TempDir,
}

impl FirstEvening {
    fn start(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // PostgreSQL does not run as root, and whoever it runs as must get in.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("ours");
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("created");
        fs::set_permissions(&data, Permissions::from_mode(0o755)).expect("ours");
        // The binaries are there already: the download has tests of its own.
        symlink(cache_dir(), data.join("postgresql")).expect("linked");
        let file = |name| File::create(dir.path().join(name)).expect("created");
        let mut command = bin();
        command
            .envs([("PORT", "0"), ("HOST", "127.0.0.1"), ("LOG_FORMAT", "text")])
            .env("M3W_DATA_DIR", &data)
            .envs(env.iter().copied())
            .stdout(file("out"))
            .stderr(file("err"));
        let child = command.spawn().expect("it starts");
        Self { child, dir }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).expect("there")
    }

    fn data(&self) -> PathBuf {
        let data = self.dir.path().join("data");
        data.canonicalize().expect("there")
    }

    /// What it prints once it is ready.
    fn greeting(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_mins(2);
        loop {
            let text = self.read("out");
            if text.contains("the data stays.") {
                return text;
            }
            let is_over = self.child.try_wait().expect("ours").is_some();
            assert!(!is_over && Instant::now() < deadline, "{}", self.read("err"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{}", self.read("err"));
    }
}

impl Drop for FirstEvening {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Killed, it would leave its PostgreSQL behind.
            let pid = i32::try_from(self.child.id()).expect("a pid");
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

/// Runs a line in a shell, as somebody who pastes it does.
fn shell(line: &str) -> Ran {
    let path = std::env::var_os("PATH").expect("a PATH");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).env_clear().env("PATH", path);
    command.output().expect("a shell").into()
}

fn is_there(program: &str) -> bool {
    shell(&format!("command -v {program}")).code == Some(0)
}

/// The command line that begins with `start`, its continuation included.
fn command_in(greeting: &str, start: &str, nth: usize) -> String {
    let joined = greeting.replace("\\\n", " ");
    let mut lines = joined.lines().map(str::trim).filter(|line| line.starts_with(start));
    lines.nth(nth).unwrap_or_else(|| panic!("no {start}: {greeting}")).to_owned()
}

fn value_in<'g>(greeting: &'g str, name: &str) -> &'g str {
    let line = greeting.lines().find_map(|line| line.trim().strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}: {greeting}")).trim()
}

async fn installed() {
    use media3watch::managed_pg::{MAVEN_CENTRAL, install};
    install(&cache_dir(), MAVEN_CENTRAL, &|_| {}).await.expect("PostgreSQL can be fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serve_prints_at_its_start_works_when_it_is_pasted() {
    installed().await;
    let mut server = FirstEvening::start(&[]);
    let greeting = server.greeting();
    let address = value_in(&greeting, "address").split(' ').next().expect("a URL").to_owned();
    assert!(address.starts_with("http://127.0.0.1:"), "{greeting}");
    assert_eq!(value_in(&greeting, "key"), "dev-key (set M3W_API_KEY to change it)");
    let data = server.data().display().to_string();
    assert!(value_in(&greeting, "data").starts_with(&data), "{greeting}");

    let (post, get) = (command_in(&greeting, "curl", 0), command_in(&greeting, "curl", 1));
    let (posted, got) = if is_there("curl") {
        (shell(&format!("{post} -sS")).out, shell(&format!("{get} -sS")).out)
    } else {
        // Without curl: what it would have sent.
        let (_, body) = post.split_once("-d '").expect("a body");
        let body = body.trim_end_matches('\'').to_owned();
        let client = reqwest::Client::new();
        let sessions = format!("{address}/v1/sessions");
        let request = client.post(&sessions).header("Content-Type", "application/json");
        let posted = request.header("X-API-Key", KEY).body(body).send().await.expect("sent");
        let url = get.split_whitespace().last().expect("a URL").to_owned();
        let got = client.get(url).header("X-API-Key", KEY).send().await.expect("sent");
        (posted.text().await.expect("text"), got.text().await.expect("text"))
    };
    let posted: Value = serde_json::from_str(&posted).expect("JSON");
    assert_eq!(posted["status"], "success");
    let got: Value = serde_json::from_str(&got).expect("JSON");
    assert_eq!(got["session_id"], posted["sessionId"]);
    assert_eq!(got["content_id"], "my-first-video");

    let psql = value_in(&greeting, "psql").to_owned();
    let program = psql.split_whitespace().nth(1).expect("a program").to_owned();
    if is_there(&program) {
        let ran = shell(&format!("{psql} -Atc 'SELECT content_id FROM sessions'"));
        assert_eq!(ran.out, "my-first-video\n", "{}", ran.err);
    }
    server.stop();
    assert!(!server.read("out").contains("INFO"), "logs go to standard error");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_to_paste_work_with_a_key_from_a_file_and_over_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() || !is_there("curl") {
        return;
    }
    installed().await;
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("the key");
    fs::write(&key, "canary-key\n").expect("written");
    let key = key.to_str().expect("UTF-8");
    let env = [("HOST", "::1"), ("M3W_API_KEY_FILE", key), ("LOG_LEVEL", "trace")];
    let mut server = FirstEvening::start(&env);
    let greeting = server.greeting();
    assert!(greeting.contains("http://[::1]:"), "{greeting}");
    let posted = shell(&format!("{} -sS -g", command_in(&greeting, "curl", 0)));
    assert!(posted.out.contains("success"), "{greeting}\n{}", posted.all());
    let got = shell(&format!("{} -sS -g", command_in(&greeting, "curl", 1)));
    assert!(got.out.contains("my-first-video"), "{}", got.all());
    server.stop();
    let printed = server.read("out") + &server.read("err") + &server.read("data/postgres.log");
    assert!(printed.contains("DEBUG"), "the level was taken");
    assert!(!printed.contains("canary"), "the key was printed");
    // The passwords that it has made up and logged in with.
    for file in ["data/media3watch.pgpass", "data/postgres.pgpass"] {
        let text = server.read(file);
        let (_, password) = text.trim().rsplit_once(':').expect("a password");
        assert!(password.len() > 20);
        assert!(!printed.contains(password), "{file} was printed");
    }
}

/// Secrets that must appear nowhere: of a name each, so that a leak is told apart.
const CANARIES: [&str; 5] =
    ["canary-key", "canary-db", "canary-own-db", "canary-redis", "canary-wrong-key"];

fn assert_no_canary(what: &str, text: &str) {
    for canary in CANARIES {
        let line = text.lines().find(|line| line.contains(canary));
        assert!(line.is_none(), "{what} shows {canary}: {}", line.unwrap_or_default());
    }
}

#[test]
fn no_configuration_shows_a_secret_good_or_bad() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let (key, url) = (file("key", "canary-key"), file("url", "postgresql://u:canary-db@h/d"));
    let (password, redis) =
        (file("password", "canary-own-db"), file("redis", "redis://:canary-redis@h"));
    let (bad_key, bad_url) =
        (file("bad-key", "canary-key is two words"), file("bad-url", "canary-db"));
    let sets: [&[(&str, &str)]; 10] = [
        &[
            ("M3W_API_KEY", "canary-key"),
            ("DATABASE_URL", "postgresql://u:canary-db@h/d"),
            ("DATABASE_PASSWORD", "canary-own-db"),
            ("REDIS_URL", "redis://:canary-redis@h"),
        ],
        &[
            ("M3W_API_KEY_FILE", &key),
            ("DATABASE_URL_FILE", &url),
            ("DATABASE_PASSWORD_FILE", &password),
            ("REDIS_URL_FILE", &redis),
        ],
        &[(
            "DATABASE_URL",
            "jdbc:postgresql://h/d?user=u&password=canary-db&application_name=canary-own-db",
        )],
        &[("M3W_API_KEY", "canary-key is two words"), ("DATABASE_URL", "mysql://u:canary-db@h/d")],
        &[("M3W_API_KEY_FILE", &bad_key), ("DATABASE_URL_FILE", &bad_url)],
        &[
            ("DATABASE_URL", "postgresql://u:canary-db@h:canary-own-db/d"),
            ("REDIS_URL", "canary-redis:1"),
        ],
        &[
            ("DATABASE_URL", "postgresql://u:canary-db%ff@h/d"),
            ("REDIS_URL", "http://:canary-redis@h"),
        ],
        &[("DATABASE_URL", "postgresql://u:canary-db@h/d?sslmode=canary-own-db")],
        &[("DATABASE_URL", "postgresql://:canary-db@h/d"), ("DATABASE_PASSWORD", "canary-own-db")],
        &[
            ("M3W_API_KEY", "canary-key"),
            ("M3W_API_KEY_FILE", &key),
            ("DATABASE_PASSWORD", "canary-own-db"),
            ("DATABASE_PASSWORD_FILE", &password),
        ],
    ];
    for (index, env) in sets.into_iter().enumerate() {
        for arguments in [
            &["config", "show"][..],
            &["config", "show", "--json"],
            &["config", "check"],
            &["config", "check", "--json"],
        ] {
            let ran = run(arguments, env);
            let is_good = index < 3;
            let expected = if is_good { 0 } else { 2 };
            assert_eq!(ran.code, Some(expected), "{env:?}: {}", ran.all());
            assert_no_canary(&format!("{arguments:?} of {env:?}"), &ran.all());
        }
    }
}

/// Requests of every kind; gives all that was answered.
async fn ask_everything(url: &str) -> String {
    let clients = [
        reqwest::Client::new(),
        // HTTP/2 logs its header tables at TRACE.
        reqwest::Client::builder().http2_prior_knowledge().build().expect("a client"),
    ];
    let good = r#"{"sessionId":"s","timestamp":1795000000000}"#;
    let mut answers = String::new();
    for client in &clients {
        let requests = [
            client.post(format!("{url}/v1/sessions")).header("X-API-Key", "canary-key").body(good),
            client.post(format!("{url}/v1/sessions")).header("X-API-Key", "canary-key").body("{"),
            client
                .post(format!("{url}/v1/sessions"))
                .header("X-API-Key", "canary-wrong-key")
                .body(good),
            client.post(format!("{url}/v1/sessions")).body(good),
            client
                .post(format!("{url}/v1/sessions/batch"))
                .header("X-API-Key", "canary-key")
                .body("[1]"),
            client.get(format!("{url}/v1/sessions/s")).header("X-API-Key", "canary-key"),
            client.get(format!("{url}/v1/sessions/s")).header("X-API-Key", "canary-wrong-key"),
            client.delete(format!("{url}/v1/sessions")).header("X-API-Key", "canary-key"),
            client.get(format!("{url}/nowhere")).header("X-API-Key", "canary-key"),
            client.get(format!("{url}/health")),
            client.get(format!("{url}/openapi.json")),
            client.get(format!("{url}/metrics")),
        ];
        let mut statuses = Vec::new();
        for request in requests {
            let answer = request.send().await.expect("an answer");
            statuses.push(answer.status().as_u16());
            answers += &format!("{:?}\n", answer.headers());
            answers += &answer.text().await.expect("text");
            answers.push('\n');
        }
        let expected = [200, 400, 401, 401, 200, 200, 401, 405, 404, 200, 200, 200];
        assert_eq!(statuses, expected);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_at_trace_level_says_no_secret() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = Database::new().await;
    let with_password = database.url.replace("postgres@", "postgres:canary-db@");
    assert_ne!(with_password, database.url);
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let redis = "redis://:canary-redis@127.0.0.1:1/0";
    let by_value = vec![
        ("M3W_API_KEY", "canary-key".to_owned()),
        ("DATABASE_URL", with_password.clone()),
        ("REDIS_URL", redis.to_owned()),
        ("LOG_LEVEL", "trace".to_owned()),
    ];
    let by_file = vec![
        ("M3W_API_KEY_FILE", file("key", "canary-key\n")),
        ("DATABASE_URL_FILE", file("url", &with_password)),
        ("DATABASE_PASSWORD_FILE", file("password", "canary-own-db\n")),
        ("REDIS_URL_FILE", file("redis", redis)),
        ("LOG_LEVEL", "TRACE".to_owned()),
    ];
    for env in [by_value, by_file] {
        let started = tokio::task::spawn_blocking(move || {
            let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).collect();
            Binary::serve(&env)
        });
        let server = started.await.expect("it starts");
        let answers = ask_everything(&server.url("")).await;
        assert_no_canary("an answer", &answers);
        server.signal(Signal::SIGTERM);
        let waited = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(30)));
        let (status, log) = waited.await.expect("it ends");
        assert!(status.success(), "{log}");
        assert!(log.contains("\"level\":\"TRACE\""), "the level was taken");
        assert_no_canary("the log", &log);
    }
}
