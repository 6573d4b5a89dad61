//! The load client: keep-alive connections on one thread, in a closed loop or at a fixed rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::http::Connection;
use super::reports::{Kind, Next, Random, Reports};

/// What to send, where, for how long.
#[derive(Clone)]
pub struct Load {
    /// What is sent.
    pub kind: Kind,
    /// The servers. Connections are divided among them; the sessions of a mix go to all in
    /// turn, as behind a load balancer.
    pub addresses: Vec<SocketAddr>,
    /// Requests under way at the same time.
    pub connections: usize,
    /// How long new requests are sent, in seconds.
    pub seconds: u32,
    /// Requests per second at random moments, or as many as are answered.
    pub rate: Option<f64>,
    /// Unix milliseconds at which the sessions of a mix start.
    pub base_ms: u64,
}

/// What was acknowledged.
#[derive(Default)]
pub struct Done {
    /// Requests answered with 200.
    pub requests: u64,
    /// Sessions whose first report was among them.
    pub sessions: u64,
    /// Timeline entries in them.
    pub entries: u64,
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// Of each request, in microseconds, sorted. At a fixed rate they count from the moment at
    /// which the request was due, so that a server that stalls is not spared the requests that
    /// would have come meanwhile.
    pub latencies: Vec<u32>,
}

impl Done {
    /// A percentile of the latencies, in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        percentile(&self.latencies, percent) / 1e3
    }
}

/// A percentile of sorted numbers.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index"
)]
pub fn percentile(sorted: &[u32], percent: f64) -> f64 {
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |value| f64::from(*value))
}

/// Requests that are due, shared by all connections.
type Due = Arc<Mutex<mpsc::UnboundedReceiver<Instant>>>;

/// Sends the load and waits for the last answer. Fails at the first that is not 200.
pub async fn run(load: &Load) -> Result<Done> {
    let mut workers = Vec::new();
    for number in 0..load.connections {
        workers.push(Worker::new(load, number).await?);
    }
    let started = Instant::now();
    let end = started + Duration::from_secs(load.seconds.into());
    let due = load.rate.map(|rate| pace(rate, started, end));
    let mut running = JoinSet::new();
    for worker in workers {
        running.spawn(worker.run(end, due.clone()));
    }
    let mut all = Done::default();
    while let Some(done) = running.join_next().await {
        let done = done.context("a connection's task ended")??;
        all.requests += done.requests;
        all.sessions += done.sessions;
        all.entries += done.entries;
        all.latencies.extend(done.latencies);
    }
    all.seconds = started.elapsed().as_secs_f64();
    all.latencies.sort_unstable();
    Ok(all)
}

/// Gives out the moments at which requests are due: a Poisson process, as pgbench's. On a
/// thread, because its sleep is finer than the runtime's milliseconds.
fn pace(rate: f64, started: Instant, end: Instant) -> Due {
    let (give, take) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut random = Random::new();
        let mut due = started;
        loop {
            #[expect(clippy::cast_precision_loss, reason = "53 bits of it")]
            let uniform = ((random.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            due += Duration::from_secs_f64(-uniform.ln() / rate);
            if due > end {
                return;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if give.send(due).is_err() {
                return;
            }
        }
    });
    Arc::new(Mutex::new(take))
}

struct Worker {
    connections: Vec<Connection>,
    reports: Reports,
    done: Done,
}

impl Worker {
    async fn new(load: &Load, number: usize) -> Result<Self> {
        ensure!(!load.addresses.is_empty(), "no server");
        let mut connections = Vec::new();
        if matches!(load.kind, Kind::Mix(_)) {
            for address in &load.addresses {
                connections.push(Connection::open(*address).await?);
            }
        } else {
            let address = load.addresses[number % load.addresses.len()];
            connections.push(Connection::open(address).await?);
        }
        let reports = Reports::new(load.kind, number, load.connections, load.base_ms);
        Ok(Self { connections, reports, done: Done::default() })
    }

    async fn run(mut self, end: Instant, due: Option<Due>) -> Result<Done> {
        loop {
            let since = match &due {
                None => Instant::now(),
                Some(due) => match due.lock().await.recv().await {
                    Some(due) => due,
                    None => break,
                },
            };
            if due.is_none() && since >= end {
                break;
            }
            let turn = usize::try_from(self.done.requests)? % self.connections.len();
            let Next { bytes, sessions, entries } = self.reports.next();
            let answer = self.connections[turn].exchange(bytes).await?;
            ensure!(
                self.reports.is_acknowledged(answer),
                "not acknowledged: {}",
                String::from_utf8_lossy(answer)
            );
            self.done.requests += 1;
            self.done.sessions += sessions;
            self.done.entries += entries;
            self.done.latencies.push(u32::try_from(since.elapsed().as_micros())?);
        }
        Ok(self.done)
    }
}
