//! The result: a table to read, JSON to keep.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::figures::{Figure, comparison, figures, median, spread, values};
use super::measure::{Sample, What};

/// More than this, in percent of all processors, and others had a say in a measurement.
const DISTURBED: f64 = 10.0;

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
    /// The first server compared to that of `--against`.
    #[serde(default)]
    pub comparison: Vec<Figure>,
}

impl Outcome {
    /// Works the figures out.
    pub fn settle(&mut self) {
        let servers = 0..self.servers.len();
        self.figures = servers.map(|binary| figures(&self.samples, binary, self.rounds)).collect();
        self.comparison = comparison(&self.samples, self.rounds);
    }

    /// Tables to read.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}\n{}; fdatasync of 8 kB: {:.0} µs\n{} rounds of {} s: medians (smallest to largest)\n",
            self.machine, self.postgres, self.fsync_us, self.rounds, self.seconds
        );
        self.measurements(&mut text);
        let stars = ["", " *"];
        for ((server, figures), star) in self.servers.iter().zip(&self.figures).zip(stars) {
            let _ = writeln!(text, "\n{server}{star}");
            for figure in figures {
                let _ = writeln!(text, "{}", line(figure));
            }
        }
        self.disk(&mut text);
        if !self.comparison.is_empty() {
            text.push_str("\nThe first server (new) and that of --against (other)\n");
            for figure in &self.comparison {
                let _ = writeln!(text, "{}", line(figure));
            }
        }
        text
    }

    /// Where the bytes are on disk: a line per part of a table, a column per server.
    fn disk(&self, text: &mut String) {
        let of = |binary: usize, name: &str| values(&self.samples, What::Disk, binary, name).pop();
        let disk = self.samples.iter().filter(|sample| sample.what == What::Disk);
        let names: BTreeSet<&str> = disk
            .flat_map(|sample| sample.values.keys())
            .filter_map(|name| name.strip_prefix("bytes "))
            .collect();
        let Some(sessions) = of(0, "sessions") else { return };
        let (reports, entries) = (of(0, "reports"), of(0, "entries"));
        let per = |count: Option<f64>| number(count.unwrap_or(0.0) / sessions);
        let _ = writeln!(
            text,
            "\nDisk, bytes per session: {sessions} sessions of 60 days, {} reports and {} timeline \
             entries each",
            per(reports),
            per(entries)
        );
        let mut line = |label: &str, name: &str| {
            let _ = write!(text, "  {label:<46}");
            for binary in 0..self.servers.len() {
                let cell = of(binary, name).map_or_else(|| "-".to_owned(), number);
                let _ = write!(text, "{cell:>9}");
            }
            text.push('\n');
        };
        for name in names {
            line(name, &format!("bytes {name}"));
        }
        line("all", "bytes_per_session");
    }

    /// A line per kind of measurement.
    fn measurements(&self, text: &mut String) {
        let heads = ["server", "postgres", "client", "others", "WAL", "memory", "p50", "p99"];
        let _ = write!(text, "\n{:<16}{:>8}  {:<17}", "", "per s", "");
        for head in heads {
            let _ = write!(text, "{head:>10}");
        }
        let mut kinds: Vec<(What, usize)> =
            self.samples.iter().map(|sample| (sample.what, sample.binary)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for (what, binary) in
            kinds.into_iter().filter(|(what, _)| !matches!(what, What::Start | What::Disk))
        {
            text.push('\n');
            self.measurement(text, what, binary);
        }
        text.push_str("\nCPU and WAL are per report; * is the server of --against\n");
        let others = self.samples.iter().filter_map(|sample| sample.values.get("others_percent"));
        let (all, disturbed) = (others.clone().count(), others.filter(|o| **o > DISTURBED).count());
        if disturbed > 0 {
            let _ = writeln!(
                text,
                "In {disturbed} of {all} measurements others used more than {DISTURBED:.0} % of \
                 the processors: take them with care"
            );
        }
    }

    fn measurement(&self, text: &mut String, what: What, binary: usize) {
        let of = |name: &str| values(&self.samples, what, binary, name);
        let (rates, reports) = (of("rate"), of("reports"));
        let (rate, (least, most)) = (median(&rates).unwrap_or(0.0), spread(&rates));
        let name = serde_json::to_string(&what).unwrap_or_default();
        let name = format!("{}{}", name.trim_matches('"'), if binary == 1 { " *" } else { "" });
        let range = format!("({least:.0} to {most:.0})");
        let _ = write!(text, "{name:<16}{rate:>8.0}  {range:<17}");
        let cell = |name: &str, unit: &str| {
            median(&of(name)).map_or_else(String::new, |value| format!("{} {unit}", number(value)))
        };
        let cpu = |name: &str| {
            let seconds = of(name);
            let each = seconds.iter().zip(&reports).map(|(seconds, all)| seconds * 1e6 / all);
            median(&each.collect::<Vec<_>>())
                .map_or_else(String::new, |us| format!("{} µs", number(us)))
        };
        let cells = [
            cpu("cpu_server_s"),
            cpu("cpu_postgres_s"),
            cpu("cpu_client_s"),
            cell("others_percent", "%"),
            cell("wal_bytes_per_report", "B"),
            cell("peak_mb", "MB"),
            cell("p50_ms", "ms"),
            cell("p99_ms", "ms"),
        ];
        for cell in cells {
            let _ = write!(text, "{cell:>10}");
        }
        if let Some(wanted) = median(&of("wanted_rate"))
            && rate < wanted * 0.97
        {
            let _ = write!(text, "  late: wanted {wanted:.0}");
        }
        if let Some(first) = median(&of("first_rate")) {
            let _ = write!(text, "  first, not counted: {first:.0}");
        }
    }
}

fn line(figure: &Figure) -> String {
    let (least, most) = spread(&figure.rounds);
    let measured = format!(
        "  {:<46}{:>9} {:<3}{:<20}",
        figure.label,
        number(figure.median),
        figure.unit,
        format!("({} to {})", number(least), number(most)),
    );
    if !figure.has_goal() {
        return measured.trim_end().to_owned();
    }
    let sign = if figure.at_least { "≥" } else { "≤" };
    format!(
        "{measured}must {sign} {:<6}aim {sign} {:<6}{}",
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
