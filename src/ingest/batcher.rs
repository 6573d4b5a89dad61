//! The workers that write batches from the queue, several in flight, one outcome per report.
//!
//! While nothing is in flight, a report leaves at once: it never waits for company. While a
//! batch is, reports gather, and leave when it is done, or beside it when they are worth a
//! transaction of their own. So batches are small when latency counts and large when
//! throughput does, without a timer (docs/adr/0017-one-batch-at-a-time.md).

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::aside::Obstacle;
use super::aside_worker;
use super::batch::{Batch, Destination};
use super::outcome::Outcome;
use super::queue::{Bounds, Budget, Queue, Queued, Reply};
use crate::store::{Kept, Received, Store};
use crate::telemetry::Metrics;

/// How long the next batch waits for the one in flight. One that takes longer is slow or stuck.
const PATIENCE: Duration = Duration::from_millis(20);

/// Takes reports one by one and writes them in batches.
#[derive(Clone)]
pub struct Batcher(Arc<Inner>);

struct Inner {
    destination: Arc<Destination>,
    budget: Arc<Budget>,
    queue: Mutex<Queue>,
    /// Something waits that did not before, or the queue was closed.
    arrived: Notify,
    /// So much waits that it is worth a batch beside the one in flight.
    is_worth_it: Notify,
    /// Whose turn it is to take a batch.
    turn: tokio::sync::Mutex<()>,
    workers: TaskTracker,
    aside_worker: TaskTracker,
}

impl Batcher {
    /// A batcher with nothing in it.
    #[must_use]
    pub fn new(store: Arc<Store>, metrics: Arc<Metrics>, bounds: Bounds) -> Self {
        let inner = Arc::new(Inner {
            budget: Arc::new(Budget::new(bounds, Arc::clone(&metrics))),
            destination: Arc::new(Destination::new(store, metrics, bounds)),
            queue: Mutex::default(),
            arrived: Notify::new(),
            is_worth_it: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            workers: TaskTracker::new(),
            aside_worker: TaskTracker::new(),
        });
        for _ in 0..bounds.in_flight {
            let worker = Arc::clone(&inner);
            inner.workers.spawn(in_spite_of_panics(move || work(Arc::clone(&worker))));
        }
        let destination = Arc::clone(&inner.destination);
        let aside = move || aside_worker::work(Arc::clone(&destination));
        inner.aside_worker.spawn(in_spite_of_panics(aside));
        Self(inner)
    }

    /// Queues the reports of a request, together, so that they share batches: for each where
    /// its outcome will be. `None` when too much is waiting already, or the server is stopping.
    pub fn submit(&self, reports: Vec<Received>) -> Vec<Option<oneshot::Receiver<Outcome>>> {
        let since = Instant::now();
        let mut queue = self.0.queue();
        if queue.is_closed {
            return reports.iter().map(|_| None).collect();
        }
        let enqueue = |received: Received| {
            let slot = self.0.budget.reserve(received.report.weight_bytes())?;
            let (reply, outcome) = Reply::new(slot, since);
            let obstacle = self.0.obstacle(&received);
            let queued = Queued { received, reply };
            match obstacle {
                Some(obstacle) => self.0.destination.aside.put(queued, obstacle),
                None => queue.push(queued),
            }
            Some(outcome)
        };
        let outcomes = reports.into_iter().map(enqueue).collect();
        let is_worth_it = queue.is_worth_a_batch(&self.0.budget.bounds);
        drop(queue);
        self.0.arrived.notify_one();
        if is_worth_it {
            self.0.is_worth_it.notify_one();
        }
        outcomes
    }

    /// Takes no more reports and returns when all have their outcome.
    pub async fn drain(&self) {
        self.0.queue().is_closed = true;
        // Each worker that ends wakes the next one by giving up its turn.
        self.0.arrived.notify_one();
        self.0.workers.close();
        self.0.workers.wait().await;
        self.0.destination.aside.close();
        self.0.aside_worker.close();
        self.0.aside_worker.wait().await;
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known to keep a report from being written now.
    fn obstacle(&self, received: &Received) -> Option<Obstacle> {
        let Destination { aside, store, .. } = &*self.destination;
        let locked = aside.known_lock(received.key());
        locked.or_else(|| store.lacks_partition(received).map(Obstacle::Partition))
    }

    /// Waits until no other worker takes batches.
    async fn next_turn(&self, kept: &mut Kept) -> tokio::sync::MutexGuard<'_, ()> {
        if let Ok(turn) = timeout(PATIENCE, self.turn.lock()).await {
            return turn;
        }
        *kept = Kept::default();
        self.turn.lock().await
    }

    /// The next batch; `None` when there will be none.
    async fn next_batch(&self, kept: &mut Kept) -> Option<Vec<Queued>> {
        loop {
            let (batch, is_closed) = {
                let mut queue = self.queue();
                (queue.cut(&self.budget.bounds), queue.is_closed)
            };
            if batch.is_some() || is_closed {
                return batch;
            }
            // A worker that waits leaves its connection to others.
            *kept = Kept::default();
            self.arrived.notified().await;
        }
    }

    /// Returns when the next batch need not wait for the one in flight.
    async fn is_next_due(&self) {
        let gathered = async {
            loop {
                self.is_worth_it.notified().await;
                if self.queue().is_worth_a_batch(&self.budget.bounds) {
                    return;
                }
            }
        };
        let _ = timeout(PATIENCE, gathered).await;
    }
}

/// Writes batches, one after another.
async fn work(inner: Arc<Inner>) {
    let mut kept = Kept::default();
    let mut turn = Some(inner.turn.lock().await);
    while let Some(batch) = inner.next_batch(&mut kept).await {
        {
            let mut writing = pin!(Batch::new(&inner.destination, batch).write(&mut kept));
            let is_done = tokio::select! {
                biased;
                () = &mut writing => true,
                () = inner.is_next_due() => false,
            };
            if !is_done {
                drop(turn.take());
                writing.await;
            }
        }
        if turn.is_none() {
            turn = Some(inner.next_turn(&mut kept).await);
        }
    }
}

/// Does `work` to its end, and anew after a panic: what waits must not wait for ever.
async fn in_spite_of_panics<W>(work: impl Fn() -> W)
where
    W: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(work()).await {
        if !error.is_panic() {
            // The runtime ends.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_is_replaced() {
        let attempts = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&attempts);
        in_spite_of_panics(move || {
            let attempt = seen.fetch_add(1, Ordering::Relaxed);
            async move { assert!(attempt == 2, "on purpose") }
        })
        .await;
        assert_eq!(attempts.load(Ordering::Relaxed), 3);
    }
}
