//! Keeps rejected bodies: in batches, bounded, and acknowledged once they are committed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::hold::{Pauses, attempt_limit, deadline};
use crate::store::{RejectedBody, Store};

/// Bytes that may wait to be kept; a batch request of 8 MiB fits twice.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// What a body costs beside its bytes, so that many small ones count too.
const OVERHEAD_BYTES: usize = 256;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The rejected bodies of a request.
struct Waiting {
    bodies: Vec<RejectedBody>,
    bytes: usize,
    kept: oneshot::Sender<bool>,
    deadline: Instant,
    /// Held until the rows are written.
    _room: OwnedSemaphorePermit,
}

/// Takes rejected bodies request by request and writes them in batches.
pub(super) struct RejectedWriter {
    queue: Mutex<Option<mpsc::UnboundedSender<Waiting>>>,
    room: Arc<Semaphore>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl RejectedWriter {
    pub(super) fn start(store: Arc<Store>) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        Self {
            queue: Mutex::new(Some(queue)),
            room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
            running: Mutex::new(Some(tokio::spawn(run(store, waiting)))),
        }
    }

    /// True once the bodies, which are here since `since`, are committed; false when they
    /// cannot be kept now.
    pub(super) async fn keep(&self, bodies: Vec<RejectedBody>, since: Instant) -> bool {
        let bytes: usize = bodies.iter().map(|body| body.body.len() + OVERHEAD_BYTES).sum();
        // What is larger than all the room there is takes all of it, and is kept alone.
        let permits = u32::try_from(bytes.min(MAX_WAITING_BYTES)).expect("16 MiB");
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) else {
            return false;
        };
        let (kept, answer) = oneshot::channel();
        let waiting = Waiting { bodies, bytes, kept, deadline: deadline(since), _room: room };
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(queue) = queue else { return false };
        queue.send(waiting).is_ok() && answer.await.unwrap_or(false)
    }

    pub(super) async fn drain(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            // A panic has been reported by then; there is nothing left to wait for.
            let _ = running.await;
        }
    }
}

async fn run(store: Arc<Store>, mut queue: mpsc::UnboundedReceiver<Waiting>) {
    while let Some(first) = queue.recv().await {
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while bytes < BATCH_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.bytes;
            batch.push(next);
        }
        write(&store, batch).await;
    }
}

/// Writes a batch, until it is committed or each of its requests has waited for too long.
async fn write(store: &Store, mut batch: Vec<Waiting>) {
    let mut pauses = Pauses::default();
    while let Some(latest) = batch.iter().map(|waiting| waiting.deadline).max() {
        let bodies: Vec<&RejectedBody> = batch.iter().flat_map(|waiting| &waiting.bodies).collect();
        let error = match store.keep_rejected(&bodies, attempt_limit(latest)).await {
            Ok(()) => {
                for waiting in batch {
                    // The client may have disconnected.
                    let _ = waiting.kept.send(true);
                }
                return;
            }
            Err(error) => error,
        };
        if error.is_temporary() {
            pauses.wait().await;
        }
        let now = Instant::now();
        let is_over = |waiting: &Waiting| !error.is_temporary() || waiting.deadline <= now;
        let (over, left): (Vec<Waiting>, Vec<Waiting>) = batch.into_iter().partition(is_over);
        if !over.is_empty() {
            tracing::error!(%error, requests = over.len(), "rejected reports could not be kept");
        }
        for waiting in over {
            let _ = waiting.kept.send(false);
        }
        batch = left;
    }
}
