//! What the benchmark is told on its command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// The ingest benchmark: a Postgres of its own, baselines and the server in turn, medians and
/// ratios. docs/performance.md says what each figure means.
#[derive(Debug, Parser)]
#[command(name = "just bench", bin_name = "just bench", max_term_width = 100)]
pub struct Options {
    /// Measure only these
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    pub only: Vec<Topic>,

    /// How often everything is measured
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub rounds: usize,

    /// How long each measurement takes
    #[arg(long, value_name = "S", default_value_t = 8)]
    pub seconds: u32,

    /// One round of 3 seconds, without the table of 5 million sessions and disk usage
    #[arg(long)]
    pub quick: bool,

    /// The server to measure [default: this source, built for release]
    #[arg(long, value_name = "BINARY")]
    pub server: Option<PathBuf>,

    /// A second server, measured in the same rounds
    #[arg(long, value_name = "BINARY")]
    pub against: Option<PathBuf>,

    /// Directory of postgres, initdb and pgbench [default: the newest of Debian's, else PATH]
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,

    /// Sessions in the full table, half of them in the month that is written to
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    pub sessions: u64,

    /// Sessions whose disk usage is measured; a minute or more for every 20,000
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub disk_sessions: u64,

    /// Write everything that was measured to FILE
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw the ratios as SVG
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,

    /// Measure nothing: print and draw what --json wrote to FILE
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,

    /// Cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Single POSTs of new sessions, with CPU and memory
    Single,
    /// SDK-C's mix: 20 updates for each new session, with as many timeline entries as SDKs send
    Mix,
    /// The same with twelve timeline entries in each report, the worst case
    Mix12,
    /// NDJSON, 500 reports per request
    Batch,
    /// p99 at half the peak rate
    Latency,
    /// Start to healthy, and memory when idle
    Start,
    /// A table with 5 million sessions
    Full,
    /// Two servers on one Postgres
    Two,
    /// Bytes per session on disk, with every report that SDKs send in 60 days
    Disk,
}

impl Options {
    /// The options, with what `--quick` implies.
    pub fn read() -> Self {
        let mut options = Self::parse();
        if options.quick {
            options.rounds = 1;
            options.seconds = options.seconds.min(3);
        }
        if options.only.is_empty() {
            options.only = Topic::value_variants().to_vec();
            if options.quick {
                options.only.retain(|topic| !matches!(topic, Topic::Full | Topic::Disk));
            }
        }
        options.rounds = options.rounds.max(1);
        options.seconds = options.seconds.max(1);
        options
    }
}
