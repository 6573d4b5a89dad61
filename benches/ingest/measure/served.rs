//! Measurements of the server.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{BREATH, Bench, Subject, Values, What, base_ms};
use crate::database::{Database, Rows};
use crate::load::{self, Load};
use crate::process::{Meter, memory_mib};
use crate::reports::BATCH;
use crate::server::Server;

/// Connections for single reports.
const CONNECTIONS: usize = 64;
/// Connections for batches: twice as many as the server writes at once.
const BATCH_CONNECTIONS: usize = 8;
/// Starts of which the median counts.
const STARTS: usize = 5;
/// After this, a server without load is idle.
const CALM: Duration = Duration::from_secs(3);

impl Bench<'_> {
    pub(super) async fn start(&self, subject: &Subject<'_>) -> Result<Values> {
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

    pub(super) async fn server(
        &self,
        what: What,
        subject: &Subject<'_>,
        database: &Database<'_>,
        rate: Option<f64>,
    ) -> Result<Values> {
        let mut servers = Vec::new();
        for number in 0..what.servers() {
            let log = self.cluster.data().join(format!("bench-server-{number}.log"));
            servers.push(Server::start(&subject.binary, &database.url(), &log).await?);
        }
        let mut load = Load {
            kind: what.kind(),
            addresses: servers.iter().map(Server::address).collect(),
            connections: if what == What::Batch { BATCH_CONNECTIONS } else { CONNECTIONS },
            seconds: self.seconds,
            rate,
            base_ms: base_ms(what),
        };
        let mut values = Vec::new();
        if what.is_full() {
            let first = load::run(&load).await?;
            values.push(("first_rate", first.requests as f64 / first.seconds));
            tokio::time::sleep(BREATH).await;
            load.base_ms = base_ms(what);
        }
        let pids = servers.iter().map(Server::pid).collect::<Result<Vec<_>>>()?;
        let before = database.counters_now().await?;
        let meter = Meter::start(self.cluster.pid()?, pids.clone())?;
        let done = load::run(&load).await?;
        values.extend(meter.read_out()?);
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
        let acknowledged = Rows { sessions: done.sessions, reports, entries: done.entries };
        let there = database.rows_since(load.base_ms).await?;
        ensure!(
            there == acknowledged,
            "acknowledged were {acknowledged:?}, but there are {there:?}; the server said:\n{said}"
        );
        let (all, updates) = (reports as f64, after.updates - before.updates);
        values.extend([
            ("rate", all / done.seconds),
            ("reports", all),
            ("seconds", done.seconds),
            ("p50_ms", done.percentile_ms(50.0)),
            ("p99_ms", done.percentile_ms(99.0)),
            ("peak_mb", peak_mb),
            ("wal_bytes_per_report", (after.wal_bytes - before.wal_bytes) / all),
            ("deadlocks", after.deadlocks - before.deadlocks),
        ]);
        values.extend(rate.map(|rate| ("wanted_rate", rate)));
        if updates > 0.0 {
            values.push(("hot", (after.hot_updates - before.hot_updates) / updates));
            // Reports of one session that met in a batch are one update.
            values.push(("updates_per_report", updates / (all - done.sessions as f64)));
        }
        Ok(values)
    }
}
