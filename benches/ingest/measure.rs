//! One measurement: empty tables, a checkpoint, the load, and a count of what is there after.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::resource::UsageWho;
use serde::{Deserialize, Serialize};

use super::baseline;
use super::cluster::Cluster;
use super::database::{Database, Rows};
use super::load::{self, Load};
use super::process::{cpu, cpu_of_client, cpu_of_family, memory_mib};
use super::reports::{BATCH, ENTRIES, Kind, now_ms};
use super::server::Server;
use super::sql;

/// Connections for single reports.
const CONNECTIONS: usize = 64;
/// Connections for batches: twice as many as the server writes at once.
const BATCH_CONNECTIONS: usize = 8;
/// Starts of which the median counts.
const STARTS: usize = 5;
/// After this, a server without load is idle.
const CALM: Duration = Duration::from_secs(3);

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Start to healthy, and idle memory.
    Start,
    /// pgbench, a new session per transaction.
    Row,
    /// Single POSTs of new sessions.
    Single,
    /// The same to two servers.
    TwoSingle,
    /// pgbench, SDK-C's mix.
    RowMix,
    /// SDK-C's mix.
    Mix,
    /// The same to two servers.
    TwoMix,
    /// COPY.
    Copy,
    /// The batch endpoint.
    Batch,
    /// [`What::Row`] on the full table.
    RowFull,
    /// [`What::Single`] on the full table.
    SingleFull,
    /// [`What::Row`] at a rate that both can hold.
    RowPaced,
    /// [`What::Single`] at that rate.
    Paced,
    /// [`What::Single`] at half of the server's own peak.
    PacedOwn,
}

impl What {
    /// Whether it measures a server, not Postgres alone.
    pub fn is_server(self) -> bool {
        !matches!(self, Self::Row | Self::RowMix | Self::Copy | Self::RowFull | Self::RowPaced)
    }

    fn is_full(self) -> bool {
        matches!(self, Self::RowFull | Self::SingleFull)
    }

    fn servers(self) -> usize {
        if matches!(self, Self::TwoSingle | Self::TwoMix) { 2 } else { 1 }
    }

    fn kind(self) -> Kind {
        match self {
            Self::RowMix | Self::Mix | Self::TwoMix => Kind::Mix,
            Self::Copy | Self::Batch => Kind::Batch,
            _ => Kind::Single,
        }
    }
}

/// What came out of one measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// What was measured.
    pub what: What,
    /// Which binary: 0, or 1 for `--against`; baselines are 0.
    pub binary: usize,
    /// From 0.
    pub round: usize,
    /// Numbers by name; units are in the names, `rate` is reports per second.
    pub values: BTreeMap<String, f64>,
}

/// Everything that measurements need.
pub struct Bench<'a> {
    /// Postgres.
    pub cluster: &'a Cluster,
    /// The servers, and the databases of each: one that is emptied, and a full one.
    pub subjects: Vec<Subject<'a>>,
    /// Length of each measurement.
    pub seconds: u32,
}

/// A binary with its databases, so that two versions need not share a schema.
pub struct Subject<'a> {
    /// The program.
    pub binary: PathBuf,
    /// Emptied before each measurement.
    pub empty: Database<'a>,
    /// Filled once.
    pub full: Option<Database<'a>>,
}

impl Bench<'_> {
    /// Takes one measurement. `rate` is in reports per second, for those at a fixed rate.
    pub async fn measure(
        &self,
        what: What,
        binary: usize,
        round: usize,
        rate: Option<f64>,
    ) -> Result<Sample> {
        let subject = &self.subjects[binary];
        let values = match what {
            What::Start => self.start(subject).await?,
            what => {
                let database = if what.is_full() { subject.full.as_ref() } else { None };
                let database = database.unwrap_or(&subject.empty);
                if !what.is_full() {
                    database.empty().await?;
                }
                database.checkpoint().await?;
                if what.is_server() {
                    self.server(what, subject, database, rate).await?
                } else {
                    self.baseline(what, database, rate).await?
                }
            }
        };
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Sample { what, binary, round, values })
    }

    async fn start(&self, subject: &Subject<'_>) -> Result<Vec<(&'static str, f64)>> {
        let log = self.cluster.data().join("bench-server-0.log");
        let mut times = Vec::new();
        let mut idle_mb = 0.0;
        for number in 0..STARTS {
            let started = Instant::now();
            let mut server = Server::spawn(&subject.binary, &subject.empty.url(), &log)?;
            server.until_healthy("/health").await?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            if number + 1 == STARTS {
                tokio::time::sleep(CALM).await;
                idle_mb = memory_mib(server.pid()?, "VmRSS")?;
            }
            server.kill().await?;
        }
        times.sort_by(f64::total_cmp);
        Ok(vec![("start_ms", times[STARTS / 2]), ("idle_mb", idle_mb)])
    }

    async fn server(
        &self,
        what: What,
        subject: &Subject<'_>,
        database: &Database<'_>,
        rate: Option<f64>,
    ) -> Result<Vec<(&'static str, f64)>> {
        let mut servers = Vec::new();
        for number in 0..what.servers() {
            let log = self.cluster.data().join(format!("bench-server-{number}.log"));
            servers.push(Server::start(&subject.binary, &database.url(), &log).await?);
        }
        let base_ms = now_ms() - if what.kind() == Kind::Mix { 600_000 } else { 0 };
        let load = Load {
            kind: what.kind(),
            addresses: servers.iter().map(Server::address).collect(),
            connections: if what == What::Batch { BATCH_CONNECTIONS } else { CONNECTIONS },
            seconds: self.seconds,
            rate,
            base_ms,
        };
        let postmaster = self.cluster.pid()?;
        let pids = servers.iter().map(Server::pid).collect::<Result<Vec<_>>>()?;
        let of_servers =
            || -> Result<f64> { pids.iter().map(|pid| cpu(*pid)).sum::<Result<f64>>() };
        let (before, cpu_before) = (database.counters_now().await?, of_servers()?);
        let (postgres_before, own_before) =
            (cpu_of_family(postmaster)?, cpu_of_client(UsageWho::RUSAGE_SELF));
        let done = load::run(&load).await?;
        let cpu_client = cpu_of_client(UsageWho::RUSAGE_SELF) - own_before;
        let (cpu_postgres, cpu_server) =
            (cpu_of_family(postmaster)? - postgres_before, of_servers()? - cpu_before);
        let mut peak_mb = 0.0_f64;
        for pid in &pids {
            peak_mb = peak_mb.max(memory_mib(*pid, "VmHWM")?);
        }
        let mut said = String::new();
        for server in servers {
            said.push_str(&server.said());
            server.kill().await?;
        }
        let after = database.counters().await?;

        let per_request = if what == What::Batch { BATCH } else { 1 };
        let reports = done.requests * per_request;
        let entries = if what.kind() == Kind::Mix { reports * ENTRIES } else { 0 };
        let acknowledged = Rows { sessions: done.sessions, reports, entries };
        let there = database.rows_since(base_ms).await?;
        ensure!(
            there == acknowledged,
            "acknowledged were {acknowledged:?}, but there are {there:?}; the server said:\n{said}"
        );
        let (all, updates) = (reports as f64, after.updates - before.updates);
        let mut values = vec![
            ("rate", all / done.seconds),
            ("reports", all),
            ("seconds", done.seconds),
            ("p50_ms", done.percentile_ms(50.0)),
            ("p99_ms", done.percentile_ms(99.0)),
            ("cpu_server_s", cpu_server),
            ("cpu_postgres_s", cpu_postgres),
            ("cpu_client_s", cpu_client),
            ("peak_mb", peak_mb),
            ("wal_bytes_per_report", (after.wal_bytes - before.wal_bytes) / all),
            ("deadlocks", after.deadlocks - before.deadlocks),
        ];
        values.extend(rate.map(|rate| ("wanted_rate", rate)));
        if updates > 0.0 {
            values.push(("hot", (after.hot_updates - before.hot_updates) / updates));
            // Reports of one session that met in a batch are one update.
            values.push(("updates_per_report", updates / (all - done.sessions as f64)));
        }
        Ok(values)
    }

    async fn baseline(
        &self,
        what: What,
        database: &Database<'_>,
        rate: Option<f64>,
    ) -> Result<Vec<(&'static str, f64)>> {
        let base_ms = now_ms() - if what.kind() == Kind::Mix { 600_000 } else { 0 };
        let postmaster = self.cluster.pid()?;
        let before = database.counters().await?;
        let client =
            if what == What::Copy { UsageWho::RUSAGE_SELF } else { UsageWho::RUSAGE_CHILDREN };
        let (postgres_before, own_before) = (cpu_of_family(postmaster)?, cpu_of_client(client));
        let done = if what == What::Copy {
            baseline::copy(database, self.seconds).await?
        } else {
            let mix = what == What::RowMix;
            let script = if mix { sql::mix_script(base_ms) } else { sql::row_script() };
            baseline::pgbench(self.cluster, database, &script, self.seconds, rate).await?
        };
        let cpu_client = cpu_of_client(client) - own_before;
        let cpu_postgres = cpu_of_family(postmaster)? - postgres_before;
        let after = database.counters().await?;

        let there = database.rows_since(base_ms).await?;
        // pgbench does not count what was under way when the time was up.
        let counted = done.count..=done.count + sql::CLIENTS;
        ensure!(
            counted.contains(&there.reports),
            "the baseline wrote {}, but there are {there:?}",
            done.count
        );
        let (all, updates) = (done.count as f64, after.updates - before.updates);
        let mut values = vec![
            ("rate", all / done.seconds),
            ("reports", all),
            ("seconds", done.seconds),
            ("cpu_postgres_s", cpu_postgres),
            ("cpu_client_s", cpu_client),
            ("wal_bytes_per_report", (after.wal_bytes - before.wal_bytes) / all),
            ("deadlocks", after.deadlocks - before.deadlocks),
        ];
        if let Some(rate) = rate {
            values.push(("wanted_rate", rate));
            values.push(("p50_ms", done.percentile_ms(50.0)));
            values.push(("p99_ms", done.percentile_ms(99.0)));
        }
        if updates > 0.0 {
            values.push(("hot", (after.hot_updates - before.hot_updates) / updates));
            values.push(("updates_per_report", updates / (all - there.sessions as f64)));
        }
        Ok(values)
    }
}
