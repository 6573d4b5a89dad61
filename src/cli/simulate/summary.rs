//! What a run ends with, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::model::{Generation, Incident};
use super::tally::Counts;

const HINT: &str = "the server's rate limit was met (429). RATE_LIMIT_REQUESTS counts requests for \
    each key: a viewer of SDK 1.x posts at least four reports a minute, so the default of 100 in \
    60 s is good for about 25 viewers at once. Raise it on the server, for example \
    RATE_LIMIT_REQUESTS=10000.";

/// What the run was.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub(super) mode: Mode,
    pub(super) url: String,
    pub(super) seed: u64,
    /// End of the history, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    pub(super) incident: Option<Incident>,
}

/// Which of the two simulations ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    Live,
    History,
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    #[serde(flatten)]
    run: Run,
    elapsed_s: f64,
    sessions: u64,
    generations: BTreeMap<Generation, u64>,
    reports: Reports,
    requests: u64,
    retried: u64,
    /// Requests (live) or reports (history) not accepted, retried ones among them.
    not_accepted: Vec<Reason>,
    unanswered: u64,
    /// What the batch route said of the reports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    outcomes: BTreeMap<String, u64>,
    latency_ms: Option<Latency>,
    accepted_per_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
struct Reports {
    sent: u64,
    accepted: u64,
    refused: u64,
    superseded: u64,
    undelivered: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Reason {
    status: u16,
    code: String,
    count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Latency {
    fn of(mut latencies_us: Vec<u32>) -> Option<Self> {
        latencies_us.sort_unstable();
        let max = *latencies_us.last()?;
        // Nearest rank.
        let rank = |percent: usize| {
            let rank = (latencies_us.len() * percent).div_ceil(100).max(1);
            f64::from(latencies_us[rank - 1]) / 1_000.0
        };
        Some(Self { p50: rank(50), p95: rank(95), p99: rank(99), max: f64::from(max) / 1_000.0 })
    }
}

impl Summary {
    /// Sums up `counts` over `elapsed`.
    pub(super) fn new(run: Run, counts: Counts, elapsed: Duration) -> Self {
        let elapsed_s = (elapsed.as_secs_f64() * 1_000.0).round() / 1_000.0;
        let hint = counts.was_limited().then_some(HINT);
        let not_accepted = counts
            .not_accepted
            .into_iter()
            .map(|(refusal, count)| Reason { status: refusal.status, code: refusal.code, count })
            .collect();
        Self {
            run,
            elapsed_s,
            sessions: counts.sessions,
            generations: counts.generations,
            reports: Reports {
                sent: counts.sent,
                accepted: counts.accepted,
                refused: counts.refused,
                superseded: counts.superseded,
                undelivered: counts.undelivered,
            },
            requests: counts.requests,
            retried: counts.retried,
            not_accepted,
            unanswered: counts.unanswered,
            outcomes: counts.outcomes,
            latency_ms: Latency::of(counts.latencies_us),
            accepted_per_s: (counts.accepted as f64 / elapsed_s.max(0.001) * 10.0).round() / 10.0,
            hint,
        }
    }

    /// Whether the server took anything.
    pub(super) fn accepted_any(&self) -> bool {
        self.reports.accepted > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, reports, .. } = self;
        let generations: Vec<_> =
            self.generations.iter().map(|(name, count)| format!("{name:?} {count}")).collect();
        writeln!(f, "server      {}", run.url)?;
        write!(f, "seed        {}", run.seed)?;
        if let Some(until) = &run.until {
            write!(f, ", until {until}")?;
        }
        writeln!(f)?;
        writeln!(f, "sessions    {} (SDK generation {})", self.sessions, generations.join(", "))?;
        writeln!(
            f,
            "reports     {} sent, {} accepted, {} refused, {} replaced by a newer one, \
             {} not delivered",
            reports.sent,
            reports.accepted,
            reports.refused,
            reports.superseded,
            reports.undelivered
        )?;
        writeln!(f, "requests    {}, of them {} sent again", self.requests, self.retried)?;
        for Reason { status, code, count } in &self.not_accepted {
            writeln!(f, "  {status} {code}: {count}")?;
        }
        if self.unanswered > 0 {
            writeln!(f, "  no answer: {}", self.unanswered)?;
        }
        for (outcome, count) in &self.outcomes {
            writeln!(f, "  {outcome}: {count}")?;
        }
        if let Some(Latency { p50, p95, p99, max }) = self.latency_ms {
            writeln!(
                f,
                "latency     p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"
            )?;
        }
        write!(f, "rate        {:.1} reports/s in {:.1} s", self.accepted_per_s, self.elapsed_s)?;
        if let Some(hint) = self.hint {
            write!(f, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Refusal;
    use super::*;

    fn summary(counts: Counts) -> Summary {
        let run = Run {
            mode: Mode::Live,
            url: "http://127.0.0.1:8080/".to_owned(),
            seed: 7,
            until: None,
            incident: Some(Incident::ErrorSpike),
        };
        Summary::new(run, counts, Duration::from_secs(10))
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let latency = Latency::of((1..=200).rev().map(|ms| ms * 1_000).collect());
        assert_eq!(latency, Some(Latency { p50: 100.0, p95: 190.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn the_hint_comes_with_429_only() {
        let limited = |status| Counts {
            not_accepted: [(Refusal { status, code: "CODE".to_owned() }, 3)].into(),
            ..Counts::default()
        };
        assert!(summary(limited(429)).to_string().contains("RATE_LIMIT_REQUESTS=10000"));
        assert!(!summary(limited(503)).to_string().contains("hint"));
    }

    #[test]
    fn json_is_one_object() {
        let counts = Counts { accepted: 50, sessions: 4, ..Counts::default() };
        let json = serde_json::to_value(summary(counts)).expect("JSON");
        assert_eq!(json["reports"]["accepted"], 50);
        assert_eq!(json["accepted_per_s"], 5.0);
        assert_eq!(json["incident"], "error-spike");
        assert_eq!(json["seed"], 7);
    }
}
