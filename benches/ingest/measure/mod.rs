//! One measurement: empty tables, a checkpoint, the load, and a count of what is there after.

mod alone;
mod disk;
mod served;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::database::Database;
use super::reports::{Entries, Kind, now_ms};

/// Between what is not counted and what is, so that their times differ.
const BREATH: Duration = Duration::from_millis(5);

type Values = Vec<(&'static str, f64)>;

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
    /// pgbench, the mix with twelve entries in each report.
    #[serde(rename = "row_mix12")]
    RowMix12,
    /// The mix with twelve entries in each report.
    #[serde(rename = "mix12")]
    Mix12,
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
    /// [`What::Row`] at half of the server's own peak, held or not.
    RowPacedOwn,
    /// [`What::Single`] at half of its own peak.
    PacedOwn,
    /// What sessions take on disk.
    Disk,
}

impl What {
    /// Whether it measures a server, not Postgres alone.
    pub fn is_server(self) -> bool {
        use What::{Copy, Row, RowFull, RowMix, RowMix12, RowPaced, RowPacedOwn};
        !matches!(self, Row | RowMix | RowMix12 | Copy | RowFull | RowPaced | RowPacedOwn)
    }

    /// Whether it writes to the full table. These are measured after as long a run that is not
    /// counted: right after a checkpoint, every first change to a page of an index writes the
    /// whole page to the WAL. A few seconds of that would stand for minutes without it.
    fn is_full(self) -> bool {
        matches!(self, Self::RowFull | Self::SingleFull)
    }

    fn servers(self) -> usize {
        if matches!(self, Self::TwoSingle | Self::TwoMix) { 2 } else { 1 }
    }

    fn kind(self) -> Kind {
        match self {
            Self::RowMix | Self::Mix | Self::TwoMix => Kind::Mix(Entries::Sdk),
            Self::RowMix12 | Self::Mix12 => Kind::Mix(Entries::Twelve),
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
    /// Sessions whose disk usage is measured.
    pub disk_sessions: u64,
    /// When they end, Unix milliseconds: the same for all servers.
    pub disk_until_ms: u64,
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
        if what == What::Disk {
            let values = self.disk(subject, binary).await?;
            return Ok(Sample { what, binary, round, values });
        }
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
}

/// When the sessions of a measurement begin at the earliest, Unix milliseconds: those of the
/// mix have run for a while.
fn base_ms(what: What) -> u64 {
    now_ms() - if matches!(what.kind(), Kind::Mix(_)) { 600_000 } else { 0 }
}
