//! What waits for its batch: bounded in reports and bytes, and cut when it is time.
//!
//! While nothing is under way, a report leaves at once: it never waits for company. While a
//! batch is, reports gather, and leave when it has landed, or beside it when they are worth a
//! transaction of their own. So batches are small when latency counts and large when
//! throughput does, without a timer (docs/adr/0017-one-batch-at-a-time.md).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;

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
    /// Memory of reports that is worth a transaction beside one that is under way: with less,
    /// what a transaction costs by itself would be most of its cost.
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

/// A report and the one who waits for its outcome.
pub(super) struct Queued {
    pub(super) received: Received,
    pub(super) reply: Reply,
}

/// The other end of a submitted report. Gives its place in the queue back when it is gone.
pub(super) struct Reply {
    pub(super) outcome: oneshot::Sender<Outcome>,
    pub(super) since: Instant,
    pub(super) room: Room,
}

/// What waits, against what may wait.
pub(super) struct Budget {
    pub(super) bounds: Bounds,
    reports: AtomicUsize,
    bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// Room for one report, given back on drop.
pub(super) struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bounds: Bounds, metrics: Arc<Metrics>) -> Self {
        Self { bounds, reports: AtomicUsize::new(0), bytes: AtomicUsize::new(0), metrics }
    }

    /// Room for a report of that many bytes; `None` when there is none.
    pub(super) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        let reports = self.reports.fetch_add(1, Ordering::Relaxed);
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metrics.queue_reports.inc();
        self.metrics.queue_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        // Dropping it takes all of that back.
        let room = Room { budget: Arc::clone(self), bytes };
        let is_full = reports >= self.bounds.queue_reports
            || waiting.saturating_add(bytes) > self.bounds.queue_bytes;
        (!is_full).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.reports.fetch_sub(1, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.metrics.queue_reports.dec();
        self.budget.metrics.queue_bytes.sub(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

/// Reports that wait, and batches that are under way. While there are any of the first, there
/// are some of the second, and when one of them lands, somebody looks here.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Queued>,
    waiting_bytes: usize,
    /// Batches under way.
    in_flight: usize,
    /// Those of them that may be waited for; the others are slow, or stuck.
    prompt: usize,
    pub(super) is_closed: bool,
}

impl Queue {
    pub(super) fn push(&mut self, queued: Queued) {
        self.waiting_bytes += queued.reply.room.bytes;
        self.waiting.push_back(queued);
    }

    /// The next batch, if it is to leave now. It counts as under way.
    pub(super) fn cut(&mut self, bounds: &Bounds) -> Option<Vec<Queued>> {
        let is_worth_it =
            self.waiting_bytes >= bounds.worth_bytes || self.waiting.len() >= bounds.batch_reports;
        let leaves = self.in_flight < bounds.in_flight && (self.prompt == 0 || is_worth_it);
        if self.waiting.is_empty() || !leaves {
            return None;
        }
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            bytes += queued.reply.room.bytes;
            bytes <= bounds.batch_bytes
        };
        let fitting = self.waiting.iter().take(bounds.batch_reports).take_while(fits).count();
        // One that is too large for any batch goes alone.
        let batch: Vec<Queued> = self.waiting.drain(..fitting.max(1)).collect();
        self.waiting_bytes -= batch.iter().map(|queued| queued.reply.room.bytes).sum::<usize>();
        self.in_flight += 1;
        self.prompt += 1;
        Some(batch)
    }

    /// A batch takes long: nobody waits for it any more.
    pub(super) fn slow(&mut self) {
        self.prompt -= 1;
    }

    /// A batch is done, or failed.
    pub(super) fn landed(&mut self, was_prompt: bool) {
        self.in_flight -= 1;
        self.prompt -= usize::from(was_prompt);
    }
}
