//! What is counted during a run. Shared by all viewers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::{Answer, Refusal};
use super::model::Generation;

/// The counts of a run.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

/// A copy of the counts, or the counts themselves.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    /// Sessions begun.
    pub(super) sessions: u64,
    pub(super) generations: BTreeMap<Generation, u64>,
    /// HTTP requests with reports, retries among them.
    pub(super) requests: u64,
    /// Requests that sent something again.
    pub(super) retried: u64,
    /// Reports sent at least once.
    pub(super) sent: u64,
    /// Reports the server took.
    pub(super) accepted: u64,
    /// Reports refused for good.
    pub(super) refused: u64,
    /// Reports that never got through: never retried, or still waiting at the end.
    pub(super) undelivered: u64,
    /// Reports whose place in the retry queue a newer one took.
    pub(super) superseded: u64,
    /// Requests (live) or reports (batches) not accepted, by reason, retried ones among them.
    pub(super) not_accepted: BTreeMap<Refusal, u64>,
    /// Requests that got no answer.
    pub(super) unanswered: u64,
    /// What the batch route made of reports: stored, duplicate, stale, rejected.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Answer times in microseconds.
    pub(super) latencies_us: Vec<u32>,
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A panic elsewhere leaves numbers, not a broken structure.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the counts.
    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.lock());
    }

    /// The counts of this moment, latencies left out: for a progress line.
    pub(super) fn glance(&self) -> Counts {
        let counts = self.lock();
        Counts {
            sessions: counts.sessions,
            accepted: counts.accepted,
            refused: counts.refused,
            retried: counts.retried,
            ..Counts::default()
        }
    }

    /// All counts, leaving zeros.
    pub(super) fn take(&self) -> Counts {
        std::mem::take(&mut self.lock())
    }
}

impl Counts {
    /// Counts the beginning of a session.
    pub(super) fn begin(&mut self, generation: Generation) {
        self.sessions += 1;
        *self.generations.entry(generation).or_default() += 1;
    }

    /// Counts a request that carried `reports` reports, and its answer. What became of the
    /// reports is for the caller to count.
    pub(super) fn exchange(&mut self, answer: &Answer, took: Duration, reports: u64, again: bool) {
        self.requests += 1;
        if again {
            self.retried += 1;
        } else {
            self.sent += reports;
        }
        match answer {
            Answer::Accepted(_) => {}
            Answer::Later { refusal: None, .. } => self.unanswered += 1,
            Answer::Later { refusal: Some(refusal), .. } | Answer::Refused(refusal) => {
                *self.not_accepted.entry(refusal.clone()).or_default() += 1;
            }
        }
        let is_answered = !matches!(answer, Answer::Later { refusal: None, .. });
        if is_answered {
            self.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Whether the rate limit was met.
    pub(super) fn was_limited(&self) -> bool {
        self.not_accepted.keys().any(|refusal| refusal.status == 429)
    }
}
