//! What waits for its batch: bounded in reports and bytes, in order of arrival.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::hold;
use super::outcome::Outcome;
use crate::store::Received;
use crate::telemetry::Metrics;

/// How much may wait, and how it is cut into batches.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Reports that wait for their commit, in batches or before.
    pub queue_reports: usize,
    /// Memory of those reports.
    pub queue_bytes: usize,
    /// Reports in one transaction.
    pub batch_reports: usize,
    /// Memory of the reports in one transaction.
    pub batch_bytes: usize,
    /// Memory of reports that is worth a transaction beside one in flight: with less, what a
    /// transaction costs by itself would be most of its cost.
    pub worth_bytes: usize,
    /// Transactions at the same time.
    pub in_flight: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            queue_reports: 10_000,
            queue_bytes: 32 * 1024 * 1024,
            batch_reports: 500,
            batch_bytes: 4 * 1024 * 1024,
            worth_bytes: 96 * 1024,
            in_flight: 4,
        }
    }
}

/// A report, and where its outcome is sent.
pub(super) struct Queued {
    pub(super) received: Received,
    pub(super) reply: Reply,
}

/// Where the outcome of a report is sent.
pub(super) struct Reply {
    outcome: oneshot::Sender<Outcome>,
    since: Instant,
    pub(super) slot: QueueSlot,
    pub(super) was_set_aside: bool,
}

impl Reply {
    /// A reply for a report that arrives now, and where its outcome will be.
    pub(super) fn new(slot: QueueSlot, since: Instant) -> (Self, oneshot::Receiver<Outcome>) {
        let (outcome, receiver) = oneshot::channel();
        (Self { outcome, since, slot, was_set_aside: false }, receiver)
    }

    /// When the report is given up.
    pub(super) fn deadline(&self) -> Instant {
        hold::deadline(self.since)
    }

    /// Sends the outcome.
    pub(super) fn send(self, outcome: Outcome) {
        let Self { outcome: sender, since, slot, .. } = self;
        slot.budget.metrics.commit_delay.observe(since.elapsed().as_secs_f64());
        drop(slot);
        // The client may have disconnected; the report is where it belongs all the same.
        let _ = sender.send(outcome);
    }
}

/// What waits, against what may wait.
pub(super) struct Budget {
    pub(super) bounds: Bounds,
    reports: AtomicUsize,
    bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// The slot of one report in the queue, given back on drop.
pub(super) struct QueueSlot {
    budget: Arc<Budget>,
    pub(super) bytes: usize,
}

impl Budget {
    pub(super) fn new(bounds: Bounds, metrics: Arc<Metrics>) -> Self {
        Self { bounds, reports: AtomicUsize::new(0), bytes: AtomicUsize::new(0), metrics }
    }

    /// A slot for a report of that many bytes; `None` when there is none.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<QueueSlot> {
        let reports = self.reports.fetch_add(1, Ordering::Relaxed);
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.queue_reports.inc();
        self.metrics.queue_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        // Dropping it takes all of that back.
        let slot = QueueSlot { budget: Arc::clone(self), bytes };
        let is_full = reports >= self.bounds.queue_reports
            || waiting.saturating_add(bytes) > self.bounds.queue_bytes;
        (!is_full).then_some(slot)
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.budget.reports.fetch_sub(1, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.metrics.queue_reports.dec();
        self.budget.metrics.queue_bytes.sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

/// Reports that wait for their batch.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Queued>,
    bytes: usize,
    pub(super) is_closed: bool,
}

impl Queue {
    pub(super) fn push(&mut self, queued: Queued) {
        self.bytes += queued.reply.slot.bytes;
        self.waiting.push_back(queued);
    }

    /// Whether enough waits for a batch beside the one in flight.
    pub(super) fn is_worth_a_batch(&self, bounds: &Bounds) -> bool {
        self.bytes >= bounds.worth_bytes || self.waiting.len() >= bounds.batch_reports
    }

    /// The next batch, if anything waits.
    pub(super) fn cut(&mut self, bounds: &Bounds) -> Option<Vec<Queued>> {
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            bytes += queued.reply.slot.bytes;
            bytes <= bounds.batch_bytes
        };
        let fitting = self.waiting.iter().take(bounds.batch_reports).take_while(fits).count();
        // One that is too large for any batch goes alone.
        let batch: Vec<Queued> =
            self.waiting.drain(..fitting.max(1).min(self.waiting.len())).collect();
        self.bytes -= batch.iter().map(|queued| queued.reply.slot.bytes).sum::<usize>();
        (!batch.is_empty()).then_some(batch)
    }
}
