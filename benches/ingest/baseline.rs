//! The baselines: what Postgres can do without a server in front of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgPoolCopyExt as _, PgPoolOptions};
use tokio::process::Command;

use super::cluster::Cluster;
use super::database::Database;
use super::load::percentile;
use super::reports::{Random, uuid};
use super::sql::{self, CLIENTS};

/// Rows in one COPY.
const CHUNK: usize = 1_000;

/// What a baseline did.
pub struct Done {
    /// Transactions, or rows of COPY.
    pub count: u64,
    /// For how long, in seconds.
    pub seconds: f64,
    /// Latencies in microseconds, sorted, where a rate was given.
    pub latencies: Vec<u32>,
}

impl Done {
    /// A percentile of the latencies, in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        percentile(&self.latencies, percent) / 1e3
    }
}

/// Runs pgbench: 20 connections, prepared statements, one row per transaction. With a rate,
/// latencies count from the moment at which a transaction was due.
pub async fn pgbench(
    cluster: &Cluster,
    database: &Database<'_>,
    script: &str,
    seconds: u32,
    rate: Option<f64>,
) -> Result<Done> {
    let dir = tempfile::Builder::new().prefix("m3w-pgbench-").tempdir()?;
    let file = dir.path().join("script.sql");
    std::fs::write(&file, script)?;
    let mut command = Command::new(cluster.pgbench());
    command
        .current_dir(dir.path())
        .env_clear()
        .env("LC_ALL", "C")
        // As the server: a plan for each statement, made once.
        .env("PGOPTIONS", "-c plan_cache_mode=force_generic_plan")
        .args(["-n", "-M", "prepared", "-j", "2", "-D", "t=0"])
        .args(["-c", &CLIENTS.to_string(), "-T", &seconds.to_string()])
        .args(["-h", "127.0.0.1", "-p", &cluster.port().to_string(), "-U", "postgres"])
        .arg("-f")
        .arg(&file);
    if let Some(rate) = rate {
        command.args(["-l", "--log-prefix=latency", "-R", &format!("{rate:.1}")]);
    }
    let run = command.arg(database.name()).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = run.await.context("pgbench does not run")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pgbench: {complaint}");
    let value = |name: &str| -> Result<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        Ok(word.with_context(|| format!("no {name:?} from pgbench:\n{said}"))?.parse()?)
    };
    let failed = value("number of failed transactions: ").unwrap_or(0.0);
    ensure!(failed < 0.5, "pgbench: {failed} transactions failed");
    let count = value("number of transactions actually processed: ")?;
    let rate = value("tps = ")?;
    let latencies = latencies(dir.path())?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    Ok(Done { count: count as u64, seconds: count / rate, latencies })
}

/// The third column of all log files, sorted.
fn latencies(dir: &Path) -> Result<Vec<u32>> {
    let files = dir.read_dir()?.flatten().map(|entry| entry.path());
    let is_log = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("latency"))
    };
    let mut latencies = Vec::new();
    for file in files.filter(is_log) {
        let text = std::fs::read_to_string(file)?;
        let column = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u32>().ok());
        latencies.extend(column);
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// Copies rows into `sessions` for some seconds: two connections, binary COPY in chunks of
/// 1,000 rows. The bytes are made beforehand; each chunk gets new ids, in place.
pub async fn copy(database: &Database<'_>, seconds: u32) -> Result<Done> {
    let mut first = Copier::new(database).await?;
    let mut second = Copier::new(database).await?;
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds.into());
    let (one, two) = tokio::try_join!(first.run(end), second.run(end))?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Done { count: one + two, seconds, latencies: Vec::new() })
}

/// Where `part` is in `bytes`.
fn places(bytes: &[u8], part: &[u8]) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(part.len()).position(|window| window == part) {
        places.push(at + found);
        at += found + part.len();
    }
    places
}

struct Copier {
    connection: PgConnection,
    statement: String,
    chunk: Vec<u8>,
    ids: Vec<usize>,
    /// Where the keys are, 16 bytes each, in a schema that has them.
    keys: Vec<usize>,
    random: Random,
}

impl Copier {
    async fn new(database: &Database<'_>) -> Result<Self> {
        // Postgres makes the chunk itself; it is recognised by ids that are all the same.
        const ID: &str = "ffffffff-ffff-4fff-8fff-ffffffffffff";
        let schema = database.schema();
        let values = sql::values_a(schema, &format!("'{ID}'"), "now() + n * interval '1 ms'");
        let rows = format!("SELECT {values} FROM generate_series(1, {CHUNK}) n");
        let make = format!("COPY ({rows}) TO STDOUT (FORMAT binary)");
        let pool = PgPoolOptions::new().max_connections(1).connect(&database.url()).await?;
        let pieces: Vec<_> = pool.copy_out_raw(&make).await?.try_collect().await?;
        pool.close().await;
        let chunk = pieces.concat();
        let ids = places(&chunk, ID.as_bytes());
        ensure!(ids.len() == CHUNK, "{} ids in a chunk", ids.len());
        let mut keys = Vec::new();
        if schema.has_key {
            let key =
                database.text(&format!("SELECT session_key('default', '{ID}')::text")).await?;
            keys = places(&chunk, uuid::Uuid::parse_str(&key)?.as_bytes());
            ensure!(keys.len() == CHUNK, "{} keys in a chunk", keys.len());
        }
        let statement =
            format!("COPY sessions ({}) FROM STDIN (FORMAT binary)", sql::columns(schema));
        let connection = database.connect().await?;
        Ok(Self { connection, statement, chunk, ids, keys, random: Random::new() })
    }

    async fn run(&mut self, end: Instant) -> Result<u64> {
        let mut rows = 0;
        while Instant::now() < end {
            for at in &self.ids {
                let id = uuid(self.random.next(), self.random.next());
                self.chunk[*at..*at + id.len()].copy_from_slice(&id);
            }
            for at in &self.keys {
                self.chunk[*at..*at + 8].copy_from_slice(&self.random.next().to_be_bytes());
                self.chunk[*at + 8..*at + 16].copy_from_slice(&self.random.next().to_be_bytes());
            }
            let mut copy = self.connection.copy_in_raw(&self.statement).await?;
            copy.send(self.chunk.as_slice()).await?;
            rows += copy.finish().await?;
        }
        Ok(rows)
    }
}
