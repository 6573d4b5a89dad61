//! The batcher: batches from the queue, several in flight, one outcome per report.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::hold::Hold;
use super::outcome::Outcome;
use super::queue::{Bounds, Budget, Queue, Queued, Reply};
use crate::report::Rejection;
use crate::store::{Error, Kept, Received, Store};
use crate::telemetry::Metrics;

/// How long a batch is waited for by the next one. One that takes longer is slow or stuck.
const PATIENCE: Duration = Duration::from_millis(20);

/// Takes reports one by one and writes them in batches.
#[derive(Clone)]
pub struct Batcher(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    queue: Mutex<Queue>,
    batches: TaskTracker,
}

impl Batcher {
    /// A batcher with nothing in it.
    #[must_use]
    pub fn new(store: Arc<Store>, metrics: Arc<Metrics>, bounds: Bounds) -> Self {
        let budget = Budget::new(bounds, Arc::clone(&metrics));
        Self(Arc::new(Inner {
            store,
            metrics,
            budget: Arc::new(budget),
            queue: Mutex::default(),
            batches: TaskTracker::new(),
        }))
    }

    /// Queues the reports of a request, together, so that they share batches: for each where
    /// its outcome will be. `None` when too much is waiting already, or the server is stopping.
    pub fn submit(&self, reports: Vec<Received>) -> Vec<Option<oneshot::Receiver<Outcome>>> {
        let since = Instant::now();
        let mut queue = self.queue();
        let is_closed = queue.is_closed;
        let enqueue = |received: Received| {
            let room = self.0.budget.reserve(received.report.weight_bytes())?;
            let (outcome, answer) = oneshot::channel();
            let reply = Reply { outcome, since, room };
            queue.push(Queued { received, reply });
            Some(answer)
        };
        let answers = if is_closed {
            reports.iter().map(|_| None).collect()
        } else {
            reports.into_iter().map(enqueue).collect()
        };
        self.start(queue);
        answers
    }

    /// Takes no more reports and returns when all have their outcome.
    pub async fn drain(&self) {
        self.queue().is_closed = true;
        self.0.batches.close();
        self.0.batches.wait().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a task for each batch that is to leave now.
    fn start(&self, mut queue: MutexGuard<'_, Queue>) {
        while let Some(batch) = queue.cut(&self.0.budget.bounds) {
            let flight = Flight { batcher: self.clone(), is_prompt: true };
            self.0.batches.spawn(flight.run(batch));
        }
    }

    /// Writes a batch; a report that cannot be stored is found by halving, and fails alone.
    async fn write(&self, batch: Vec<Queued>, kept: &mut Kept) {
        self.0.metrics.batch_reports.observe(batch.len() as f64);
        let (reports, replies): (Vec<Received>, Vec<Reply>) =
            batch.into_iter().map(|queued| (queued.received, queued.reply)).unzip();
        let oldest = replies.iter().map(|reply| reply.since).min().unwrap_or_else(Instant::now);
        let mut replies: Vec<Option<Reply>> = replies.into_iter().map(Some).collect();
        let mut settle = |index: usize, outcome: Outcome| {
            if let Some(Reply { outcome: reply, since, room }) = replies[index].take() {
                self.0.metrics.commit_delay.observe(since.elapsed().as_secs_f64());
                drop(room);
                // The client may have hung up; the report is where it belongs all the same.
                let _ = reply.send(outcome);
            }
        };
        // Parts that are still to be written, as (start, end).
        let mut parts = vec![(0, reports.len())];
        let mut hold = Hold::since(oldest);
        while let Some((start, end)) = parts.pop() {
            match self.0.store.upsert(kept, &reports[start..end], hold.limit()).await {
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

/// A batch under way, and those that follow it on the same connection.
struct Flight {
    batcher: Batcher,
    is_prompt: bool,
}

impl Flight {
    async fn run(mut self, batch: Vec<Queued>) {
        let batcher = self.batcher.clone();
        let mut kept = Kept::default();
        let mut next = Some(batch);
        while let Some(batch) = next {
            let mut writing = pin!(batcher.write(batch, &mut kept));
            if timeout(PATIENCE, &mut writing).await.is_err() {
                self.slow();
                writing.await;
            }
            next = self.land();
        }
    }

    /// The batch takes long: the next one may leave beside it.
    fn slow(&mut self) {
        let mut queue = self.batcher.queue();
        self.is_prompt = false;
        queue.slow();
        self.batcher.start(queue);
    }

    /// The batch is done: what has gathered meanwhile, if it is to leave now.
    fn land(&mut self) -> Option<Vec<Queued>> {
        let mut queue = self.batcher.queue();
        queue.landed(self.is_prompt);
        let next = queue.cut(&self.batcher.0.budget.bounds);
        self.is_prompt = true;
        self.batcher.start(queue);
        next
    }
}

impl Drop for Flight {
    /// After a panic, what waits must not wait for ever. (When the runtime ends, it must.)
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.batcher.queue();
            queue.landed(self.is_prompt);
            self.batcher.start(queue);
        }
    }
}
