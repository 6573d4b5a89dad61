//! The result: a table to read, JSON to keep.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::figures::{Figure, figures, median, spread, values};
use super::measure::{Sample, What};

/// All that a run has to say.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Unix milliseconds at the end.
    pub at_ms: u64,
    /// Processors, memory, kernel.
    pub machine: String,
    /// Version of Postgres.
    pub postgres: String,
    /// What is not default in it.
    pub settings: Vec<(String, String)>,
    /// Median of one write with fdatasync, microseconds.
    pub fsync_us: f64,
    /// Length of each measurement.
    pub seconds: u32,
    /// Rounds measured.
    pub rounds: usize,
    /// Sessions in the full table.
    pub full_sessions: u64,
    /// What the servers say of their version, in the order of `Sample::binary`.
    pub servers: Vec<String>,
    /// Every measurement.
    pub samples: Vec<Sample>,
    /// The figures of each server.
    pub figures: Vec<Vec<Figure>>,
}

impl Outcome {
    /// Works the figures out.
    pub fn settle(&mut self) {
        let servers = 0..self.servers.len();
        self.figures = servers.map(|binary| figures(&self.samples, binary, self.rounds)).collect();
    }

    /// Tables to read.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}\n{}; fdatasync of 8 kB: {:.0} µs\n{} rounds of {} s: medians (smallest to largest)\n",
            self.machine, self.postgres, self.fsync_us, self.rounds, self.seconds
        );
        self.measurements(&mut text);
        for (server, figures) in self.servers.iter().zip(&self.figures) {
            let _ = writeln!(text, "\n{server}");
            for figure in figures {
                let _ = writeln!(text, "{}", line(figure));
            }
        }
        text
    }

    fn measurements(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{:<16}{:>9}  {:<18}{:>9}{:>10}{:>9}{:>9}{:>11}{:>11}",
            "", "per s", "", "server", "postgres", "client", "WAL", "p50", "p99"
        );
        let mut kinds: Vec<(What, usize)> =
            self.samples.iter().map(|sample| (sample.what, sample.binary)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.retain(|(what, _)| *what != What::Start);
        for (what, binary) in kinds {
            let of = |name: &str| values(&self.samples, what, binary, name);
            let rates = of("rate");
            let (least, most) = spread(&rates);
            // Microseconds of CPU per report.
            let reports = of("reports");
            let cpu = |name: &str| {
                let per: Vec<f64> =
                    of(name).iter().zip(&reports).map(|(s, all)| s * 1e6 / all).collect();
                median(&per).map_or_else(String::new, |us| format!("{us:.1} µs"))
            };
            let time =
                |name: &str| median(&of(name)).map_or_else(String::new, |ms| format!("{ms:.2} ms"));
            let wal = median(&of("wal_bytes_per_report")).unwrap_or(0.0);
            let wanted = median(&of("wanted_rate")).unwrap_or(0.0);
            let is_late = median(&rates).is_some_and(|rate| rate < wanted * 0.97);
            let first = median(&of("first_rate"))
                .map_or_else(String::new, |rate| format!("  first, not counted: {rate:.0}"));
            let late = if is_late { format!("  late: wanted {wanted:.0}") } else { String::new() };
            let name = serde_json::to_string(&what).unwrap_or_default();
            let name = format!("{}{}", name.trim_matches('"'), if binary == 1 { " *" } else { "" });
            let _ = writeln!(
                text,
                "{name:<16}{:>9.0}  {:<18}{:>9}{:>10}{:>9}{:>9}{:>11}{:>11}{late}{first}",
                median(&rates).unwrap_or(0.0),
                format!("({least:.0} to {most:.0})"),
                cpu("cpu_server_s"),
                cpu("cpu_postgres_s"),
                cpu("cpu_client_s"),
                format!("{wal:.0} B"),
                time("p50_ms"),
                time("p99_ms"),
            );
        }
        text.push_str("CPU and WAL are per report; * is the server of --against\n");
    }
}

fn line(figure: &Figure) -> String {
    let (least, most) = spread(&figure.rounds);
    let sign = if figure.at_least { "≥" } else { "≤" };
    format!(
        "  {:<46}{:>9} {:<3}{:<20}must {sign} {:<6}aim {sign} {:<6}{}",
        figure.label,
        number(figure.median),
        figure.unit,
        format!("({} to {})", number(least), number(most)),
        figure.must,
        figure.aim,
        figure.verdict(),
    )
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
