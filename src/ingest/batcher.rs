//! The batcher: a bounded queue, several batches in flight, one outcome per report.
//!
//! A report never waits for company: while fewer batches than allowed are in flight, whatever
//! is in the queue leaves at once. When all are, reports gather, and the next batch is as
//! large as the load has made it. So batches are small when latency counts, and large when
//! throughput does, without a timer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hold::Hold;
use super::outcome::Outcome;
use crate::report::Rejection;
use crate::store::{Error, Received, Store};
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
    /// Transactions at the same time. Few, because a transaction costs as much as a dozen rows:
    /// with two, one is prepared while the other waits for the disk, and both are large.
    pub in_flight: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            queue_reports: 10_000,
            queue_bytes: 32 * 1024 * 1024,
            batch_reports: 500,
            batch_bytes: 4 * 1024 * 1024,
            in_flight: 2,
        }
    }
}

struct Queued {
    received: Received,
    reply: Reply,
}

/// The other end of a submitted report. Gives its place in the queue back when it is gone.
struct Reply {
    outcome: oneshot::Sender<Outcome>,
    since: Instant,
    room: Room,
}

/// What waits, against what may wait.
struct Budget {
    bounds: Bounds,
    reports: AtomicUsize,
    bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// Room for one report, given back on drop.
struct Room {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Room> {
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

/// Takes reports one by one and writes them in batches.
pub struct Batcher {
    // Bounded by the budget, which counts bytes too.
    queue: mpsc::UnboundedSender<Queued>,
    budget: Arc<Budget>,
    closing: CancellationToken,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Batcher {
    /// Starts the task that writes.
    #[must_use]
    pub fn start(store: Arc<Store>, metrics: Arc<Metrics>, bounds: Bounds) -> Self {
        let (queue, reports) = mpsc::unbounded_channel();
        let closing = CancellationToken::new();
        let (none, no_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let budget =
            Budget { bounds, reports: none, bytes: no_bytes, metrics: Arc::clone(&metrics) };
        let writer = Writer { store, metrics, bounds };
        let running = tokio::spawn(writer.run(reports, closing.clone()));
        Self { queue, budget: Arc::new(budget), closing, running: Mutex::new(Some(running)) }
    }

    /// Queues a report. `None` when too much is waiting already, or the server is stopping.
    #[must_use]
    pub fn submit(&self, received: Received) -> Option<oneshot::Receiver<Outcome>> {
        let room = self.budget.reserve(received.report.weight_bytes())?;
        let (outcome, answer) = oneshot::channel();
        let reply = Reply { outcome, since: Instant::now(), room };
        self.queue.send(Queued { received, reply }).ok()?;
        Some(answer)
    }

    /// Takes no more reports and returns when all have their outcome.
    pub async fn drain(&self) {
        self.closing.cancel();
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            // A panic has been reported by then; there is nothing left to wait for.
            let _ = running.await;
        }
    }
}

#[derive(Clone)]
struct Writer {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    bounds: Bounds,
}

impl Writer {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Queued>, closing: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.bounds.in_flight));
        let batches = TaskTracker::new();
        let mut first = None;
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("never closed");
            if first.is_none() {
                first = tokio::select! {
                    report = queue.recv() => report,
                    () = closing.cancelled(), if !queue.is_closed() => {
                        queue.close();
                        queue.recv().await
                    }
                };
            }
            let Some(head) = first.take() else { break };
            let (batch, next) = self.gather(head, &mut queue);
            first = next;
            let writer = self.clone();
            batches.spawn(async move {
                writer.write(batch).await;
                drop(slot);
            });
        }
        batches.close();
        batches.wait().await;
    }

    /// A batch of what is in the queue now, and the report that did not fit into it.
    fn gather(
        &self,
        head: Queued,
        queue: &mut mpsc::UnboundedReceiver<Queued>,
    ) -> (Vec<Queued>, Option<Queued>) {
        let mut bytes = head.reply.room.bytes;
        let mut batch = vec![head];
        while batch.len() < self.bounds.batch_reports {
            let Ok(report) = queue.try_recv() else { break };
            bytes += report.reply.room.bytes;
            if bytes > self.bounds.batch_bytes {
                return (batch, Some(report));
            }
            batch.push(report);
        }
        (batch, None)
    }

    /// Writes a batch; a report that cannot be stored is found by halving, and fails alone.
    async fn write(&self, batch: Vec<Queued>) {
        self.metrics.batch_reports.observe(batch.len() as f64);
        let (reports, replies): (Vec<Received>, Vec<Reply>) =
            batch.into_iter().map(|queued| (queued.received, queued.reply)).unzip();
        let oldest = replies.iter().map(|reply| reply.since).min().unwrap_or_else(Instant::now);
        let mut replies: Vec<Option<Reply>> = replies.into_iter().map(Some).collect();
        let mut settle = |index: usize, outcome: Outcome| {
            if let Some(Reply { outcome: reply, since, room }) = replies[index].take() {
                self.metrics.commit_delay.observe(since.elapsed().as_secs_f64());
                drop(room);
                // The client may have hung up; the report is where it belongs all the same.
                let _ = reply.send(outcome);
            }
        };
        // Parts that are still to be written, as (start, end).
        let mut parts = vec![(0, reports.len())];
        let mut hold = Hold::since(oldest);
        while let Some((start, end)) = parts.pop() {
            match self.store.upsert(&reports[start..end], hold.limit()).await {
                Ok(applied) => {
                    for (index, applied) in (start..end).zip(applied) {
                        settle(index, applied.into());
                    }
                }
                Err(error) if error.may_be_one_row() && end - start > 1 => {
                    let middle = start.midpoint(end);
                    parts.extend([(middle, end), (start, middle)]);
                }
                Err(Error::Data(cause)) => {
                    let sqlstate = cause.sqlstate.unwrap_or_default();
                    tracing::error!(sqlstate, "validation let an unstorable report through");
                    let detail = format!("the database cannot hold this report ({sqlstate})");
                    settle(start, Outcome::Rejected(Rejection::invalid("$", detail)));
                }
                Err(error) if hold.try_again(&error).await => parts.push((start, end)),
                Err(error) => {
                    let outcome = if error.is_temporary() { Outcome::Failed } else { Outcome::Bug };
                    tracing::error!(%error, reports = end - start, "a batch was given up");
                    (start..end).for_each(|index| settle(index, outcome.clone()));
                }
            }
        }
    }
}
