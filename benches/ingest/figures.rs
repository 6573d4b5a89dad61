//! The figures that count: ratios, most with what they must be and what is aimed at, and how two
//! servers compare.

use serde::{Deserialize, Serialize};

use super::measure::{Sample, What};

/// One line of the result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// What it is.
    pub label: String,
    /// What comes after the number.
    pub unit: String,
    /// One number per round.
    pub rounds: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Required. Where more is better, 0 stands for a figure without a goal.
    pub must: f64,
    /// Wanted.
    pub aim: f64,
    /// Whether more is better.
    pub at_least: bool,
}

impl Figure {
    /// Whether there is a goal.
    pub fn has_goal(&self) -> bool {
        self.must > 0.0 || !self.at_least
    }

    /// `ok` is what must be, `aim` what is wanted.
    pub fn verdict(&self) -> &'static str {
        let reaches = |goal: f64| {
            if self.at_least { self.median >= goal } else { self.median <= goal }
        };
        match (reaches(self.aim), reaches(self.must)) {
            (true, _) => "aim",
            (false, true) => "ok",
            (false, false) => "MISS",
        }
    }
}

/// The samples of one binary in one round.
struct Round<'a> {
    samples: &'a [Sample],
    binary: usize,
    number: usize,
}

impl Round<'_> {
    fn value(&self, what: What, name: &str) -> Option<f64> {
        let binary = if what.is_server() { self.binary } else { 0 };
        let is_it = |sample: &&Sample| {
            (sample.what, sample.binary, sample.round) == (what, binary, self.number)
        };
        self.samples.iter().find(is_it)?.values.get(name).copied()
    }

    fn ratio(&self, name: &str, above: What, below: What) -> Option<f64> {
        Some(self.value(above, name)? / self.value(below, name)?)
    }
}

/// Label, unit, must, aim, whether more is better, and where it comes from.
type Goal = (&'static str, &'static str, f64, f64, bool, fn(&Round<'_>) -> Option<f64>);

/// In place of goals, for figures without.
const NO_GOAL: f64 = 0.0;

const GOALS: [Goal; 13] = [
    ("single POSTs, new sessions, over row", "×", 1.8, 3.0, true, |round| {
        round.ratio("rate", What::Single, What::Row)
    }),
    ("SDK-C mix over row mix", "×", 1.8, 3.0, true, |round| {
        round.ratio("rate", What::Mix, What::RowMix)
    }),
    ("mix of 12 entries over row mix of 12", "×", NO_GOAL, NO_GOAL, true, |round| {
        round.ratio("rate", What::Mix12, What::RowMix12)
    }),
    ("batches of 500 over copy", "×", 0.4, 0.7, true, |round| {
        round.ratio("rate", What::Batch, What::Copy)
    }),
    ("p99 over row's, at half of the smaller peak", "×", 4.0, 2.0, false, |round| {
        round.ratio("p99_ms", What::Paced, What::RowPaced)
    }),
    ("p99 over row's, at half of the server's peak", "×", 4.0, 2.0, false, |round| {
        round.ratio("p99_ms", What::PacedOwn, What::RowPacedOwn)
    }),
    ("HOT share of updates, mix", "%", 90.0, 97.0, true, |round| {
        Some(round.value(What::Mix, "hot")? * 100.0)
    }),
    ("resident memory at peak load, single", "MB", 96.0, 48.0, false, |round| {
        round.value(What::Single, "peak_mb")
    }),
    ("resident memory when idle", "MB", 30.0, 15.0, false, |round| {
        round.value(What::Start, "idle_mb")
    }),
    ("start to healthy", "ms", 500.0, 150.0, false, |round| round.value(What::Start, "start_ms")),
    ("full table over the empty one, single", "×", 0.7, 0.9, true, |round| {
        round.ratio("rate", What::SingleFull, What::Single)
    }),
    ("deadlocks of two servers", "", 0.0, 0.0, false, |round| {
        let mix = round.value(What::TwoMix, "deadlocks")?;
        Some(mix + round.value(What::TwoSingle, "deadlocks")?)
    }),
    ("bytes per session on disk", "B", NO_GOAL, NO_GOAL, true, |round| {
        round.value(What::Disk, "bytes_per_session")
    }),
];

/// Label, what is measured, which value, and whether it is the second server's over the first's.
type Comparison = (&'static str, What, &'static str, bool);

const COMPARISONS: [Comparison; 9] = [
    ("reports per second, single, new/other", What::Single, "rate", false),
    ("reports per second, mix, new/other", What::Mix, "rate", false),
    ("reports per second, mix12, new/other", What::Mix12, "rate", false),
    ("reports per second, batch, new/other", What::Batch, "rate", false),
    ("p99 at half the peak, single, other/new", What::PacedOwn, "p99_ms", true),
    ("peak memory, single, other/new", What::Single, "peak_mb", true),
    ("peak memory, mix, other/new", What::Mix, "peak_mb", true),
    ("peak memory, batch, other/new", What::Batch, "peak_mb", true),
    ("bytes per session on disk, new/other", What::Disk, "bytes_per_session", false),
];

/// How the first server (new) compares to the second (other), round by round.
pub fn comparison(samples: &[Sample], rounds: usize) -> Vec<Figure> {
    let figure = |(label, what, name, inverse): Comparison| {
        let ratio = |number| {
            let value = |binary| Round { samples, binary, number }.value(what, name);
            let (new, other) = (value(0)?, value(1)?);
            Some(if inverse { other / new } else { new / other })
        };
        let rounds: Vec<f64> = (0..rounds).filter_map(ratio).collect();
        let median = median(&rounds)?;
        let (label, unit) = (label.to_owned(), "×".to_owned());
        Some(Figure { label, unit, rounds, median, must: NO_GOAL, aim: NO_GOAL, at_least: true })
    };
    COMPARISONS.into_iter().filter_map(figure).collect()
}

/// The figures of a binary, as far as they were measured.
pub fn figures(samples: &[Sample], binary: usize, rounds: usize) -> Vec<Figure> {
    let figure = |(label, unit, must, aim, at_least, of): Goal| {
        let rounds = (0..rounds).filter_map(|number| of(&Round { samples, binary, number }));
        let rounds: Vec<f64> = rounds.collect();
        let median = median(&rounds)?;
        let (label, unit) = (label.to_owned(), unit.to_owned());
        Some(Figure { label, unit, rounds, median, must, aim, at_least })
    };
    GOALS.into_iter().filter_map(figure).collect()
}

/// The values of one name over all rounds.
pub fn values(samples: &[Sample], what: What, binary: usize, name: &str) -> Vec<f64> {
    let is_it = |sample: &&Sample| (sample.what, sample.binary) == (what, binary);
    samples.iter().filter(is_it).filter_map(|sample| sample.values.get(name).copied()).collect()
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Smallest and largest.
pub fn spread(values: &[f64]) -> (f64, f64) {
    let fold = |start: f64, pick: fn(f64, f64) -> f64| values.iter().copied().fold(start, pick);
    (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
}
