//! Keeps refused bodies: in batches, bounded, and answered once they are committed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::hold::Hold;
use crate::auth::Tenant;
use crate::store::{RejectedBody, Store};

/// Bytes that may wait to be kept; a batch request of 8 MiB fits twice.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// What a body costs beside its bytes, so that many small ones count too.
const OVERHEAD_BYTES: usize = 256;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// A tenant's rows are trimmed to their bound after so many, or so many bytes, were added.
const TRIM_EVERY_ROWS: usize = 1_000;
const TRIM_EVERY_BYTES: usize = 16 * 1024 * 1024;

struct Waiting {
    bodies: Vec<RejectedBody>,
    bytes: usize,
    kept: oneshot::Sender<bool>,
    since: Instant,
    room: OwnedSemaphorePermit,
}

pub(super) struct Keeper {
    queue: Mutex<Option<mpsc::UnboundedSender<Waiting>>>,
    room: Arc<Semaphore>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
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
        let waiting = Waiting { bodies, bytes, kept, since, room };
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
    let mut touched: HashSet<Tenant> = HashSet::new();
    let (mut rows, mut bytes) = (0, 0);
    while let Some(first) = queue.recv().await {
        let mut batch_bytes = first.bytes;
        let mut bodies = first.bodies;
        let mut oldest = first.since;
        // The room is held until the rows are written.
        let mut replies = vec![(first.kept, first.room)];
        while batch_bytes < BATCH_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            batch_bytes += next.bytes;
            bodies.extend(next.bodies);
            oldest = oldest.min(next.since);
            replies.push((next.kept, next.room));
        }
        let mut hold = Hold::since(oldest);
        let kept = loop {
            match store.keep_rejected(&bodies, hold.limit()).await {
                Err(error) if hold.try_again(&error).await => {}
                kept => break kept,
            }
        };
        if let Err(error) = &kept {
            tracing::error!(%error, bodies = bodies.len(), "refused reports could not be kept");
        }
        for (reply, _room) in replies {
            // The client may have hung up.
            let _ = reply.send(kept.is_ok());
        }
        rows += bodies.len();
        bytes += batch_bytes;
        touched.extend(bodies.into_iter().map(|body| body.tenant));
        if rows < TRIM_EVERY_ROWS && bytes < TRIM_EVERY_BYTES {
            continue;
        }
        (rows, bytes) = (0, 0);
        for tenant in touched.drain() {
            if let Err(error) = store.trim_rejected(&tenant).await {
                tracing::warn!(%error, %tenant, "refused reports could not be trimmed");
            }
        }
    }
}
