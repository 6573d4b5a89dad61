//! What is measured in which order: rounds, each the other way round than the one before, so
//! that what changes slowly (a warm machine, a busy neighbour) does not favour anybody.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cluster::{Cluster, SETTINGS};
use super::database::Database;
use super::figures::values;
use super::measure::{Bench, Sample, Subject, What};
use super::options::{Options, Topic};
use super::output::{Outcome, number};
use super::progress;
use super::reports::now_ms;
use super::server::Server;

/// What belongs together, next to each other in time.
const GROUPS: [&[(What, &[Topic])]; 7] = [
    &[(What::Start, &[Topic::Start])],
    &[
        (What::Row, &[Topic::Single, Topic::Latency, Topic::Full]),
        (What::Single, &[Topic::Single, Topic::Latency, Topic::Full, Topic::Two]),
        (What::TwoSingle, &[Topic::Two]),
        (What::SingleFull, &[Topic::Full]),
        (What::RowFull, &[Topic::Full]),
    ],
    &[
        (What::RowMix, &[Topic::Mix]),
        (What::Mix, &[Topic::Mix, Topic::Two]),
        (What::TwoMix, &[Topic::Two]),
    ],
    &[(What::RowMix12, &[Topic::Mix12]), (What::Mix12, &[Topic::Mix12])],
    &[(What::Copy, &[Topic::Batch]), (What::Batch, &[Topic::Batch])],
    &[
        (What::RowPaced, &[Topic::Latency]),
        (What::Paced, &[Topic::Latency]),
        (What::RowPacedOwn, &[Topic::Latency]),
        (What::PacedOwn, &[Topic::Latency]),
    ],
    &[(What::Disk, &[Topic::Disk])],
];

/// Sets everything up, measures, and takes everything down.
pub async fn run(options: &Options) -> Result<Outcome> {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_media3watch"));
    let mut binaries = vec![options.server.clone().unwrap_or(own)];
    binaries.extend(options.against.clone());
    let servers = binaries.iter().map(|binary| version(binary)).collect::<Result<Vec<_>>>()?;

    if cfg!(debug_assertions) && options.server.is_none() {
        progress("this is a debug build: its figures say nothing about speed");
    }
    let cluster = Cluster::start(options.pg_bin.as_deref())?;
    let postgres = Database::create(&cluster, "bench".to_owned()).await?;
    let version = "SELECT 'PostgreSQL ' || current_setting('server_version')";
    let (postgres, fsync_us) = (postgres.text(version).await?, cluster.fsync_us()?);
    progress(&format!("{postgres}, in {}", cluster.bin().display()));
    let wants_full = options.only.contains(&Topic::Full);
    let mut subjects = Vec::new();
    for (number, binary) in binaries.into_iter().enumerate() {
        let full = wants_full.then_some(options.sessions);
        subjects.push(subject(&cluster, number, binary, full).await?);
    }
    let bench = Bench {
        cluster: &cluster,
        subjects,
        seconds: options.seconds,
        disk_sessions: options.disk_sessions.max(1),
        disk_until_ms: now_ms(),
    };
    let samples = rounds(&bench, options).await?;
    let setting = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut outcome = Outcome {
        at_ms: now_ms(),
        machine: super::process::machine(),
        postgres,
        settings: SETTINGS.map(setting).into(),
        fsync_us,
        seconds: options.seconds,
        rounds: options.rounds,
        full_sessions: if wants_full { options.sessions } else { 0 },
        servers,
        samples,
        figures: Vec::new(),
        comparison: Vec::new(),
    };
    outcome.settle();
    Ok(outcome)
}

async fn rounds(bench: &Bench<'_>, options: &Options) -> Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = Vec::new();
    for round in 0..options.rounds {
        for group in GROUPS {
            let mut group: Vec<What> = group
                .iter()
                // Once is enough for disk usage: it does not depend on time.
                .filter(|(what, _)| round == 0 || *what != What::Disk)
                .filter(|(_, topics)| topics.iter().any(|topic| options.only.contains(topic)))
                .map(|(what, _)| *what)
                .collect();
            let mut binaries: Vec<usize> = (0..bench.subjects.len()).collect();
            if round % 2 == 1 {
                group.reverse();
                binaries.reverse();
            }
            for what in group {
                let binaries = if what.is_server() { &binaries[..] } else { &[0] };
                for &binary in binaries {
                    let rate = pace(&samples, what);
                    let sample = bench.measure(what, binary, round, rate).await;
                    let sample = sample.with_context(|| format!("measuring {what:?}"))?;
                    progress(&told(&sample, options));
                    samples.push(sample);
                }
            }
        }
    }
    Ok(samples)
}

/// The rate of a measurement at a fixed rate, from the first round's peaks: the same in all
/// rounds, and one that all servers can hold.
fn pace(samples: &[Sample], what: What) -> Option<f64> {
    let peak = |what, binary| values(samples, what, binary, "rate").first().copied();
    let (first, second) = (peak(What::Single, 0)?, peak(What::Single, 1));
    let server = second.map_or(first, |second| second.min(first));
    match what {
        What::Paced | What::RowPaced => Some(peak(What::Row, 0)?.min(server) / 2.0),
        What::PacedOwn | What::RowPacedOwn => Some(server / 2.0),
        _ => None,
    }
}

fn told(sample: &Sample, options: &Options) -> String {
    let values = sample.values.iter().map(|(name, value)| format!("{name} {}", number(*value)));
    let other = if sample.binary == 1 { " (against)" } else { "" };
    let values = values.collect::<Vec<_>>().join(", ");
    format!("{}/{} {:?}{other}: {values}", sample.round + 1, options.rounds, sample.what)
}

/// A binary with its databases, migrated by itself, and filled.
async fn subject(
    cluster: &Cluster,
    number: usize,
    binary: PathBuf,
    full_sessions: Option<u64>,
) -> Result<Subject<'_>> {
    let log = cluster.data().join("bench-server-0.log");
    let mut empty = Database::create(cluster, format!("bench_empty_{number}")).await?;
    // A start makes the schema and the partitions.
    Server::start(&binary, &empty.url(), &log).await?.kill().await?;
    empty.learn().await?;
    let mut full = None;
    if let Some(sessions) = full_sessions {
        progress(&format!("filling a table with {sessions} sessions, which takes minutes"));
        let mut database = Database::create(cluster, format!("bench_full_{number}")).await?;
        Server::start(&binary, &database.url(), &log).await?.kill().await?;
        database.learn().await?;
        database.fill(sessions).await?;
        full = Some(database);
    }
    Ok(Subject { binary, empty, full })
}

fn version(binary: &Path) -> Result<String> {
    let output = Command::new(binary).arg("version").output();
    let output = output.with_context(|| format!("cannot run {}", binary.display()))?;
    ensure!(output.status.success(), "{} version fails", binary.display());
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().collect::<Vec<_>>().join(", "))
}
