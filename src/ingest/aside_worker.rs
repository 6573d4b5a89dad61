//! The worker that writes what was set aside.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use uuid::Uuid;

use super::aside::Next;
use super::batch::{Batch, Destination};
use crate::store::{Kept, Month};

/// Pause after an attempt in which nothing could be written.
const PAUSE: Duration = Duration::from_millis(100);

/// Writes what was set aside as soon as that is possible, to the end.
pub(super) async fn work(destination: Arc<Destination>) {
    let mut kept = Kept::default();
    let mut making: Option<JoinHandle<()>> = None;
    loop {
        let expired = destination.aside.give_up_expired();
        if expired > 0 {
            destination.log_given_up(expired, "their session or partition stayed locked");
        }
        make_partitions(&destination, &mut making);
        match destination.aside.next(|month| destination.store.has_partition(month)) {
            Next::Write { batch, is_alone } => {
                let sessions: Vec<Uuid> = batch.iter().map(|one| one.received.key()).collect();
                let batch = Batch::new(&destination, batch);
                if batch.write_unlocked(is_alone, &mut kept).await {
                    destination.aside.freed(&sessions);
                } else {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Next::Wait => {
                let _ = tokio::time::timeout(PAUSE, destination.aside.changed()).await;
            }
            Next::Nothing => {
                kept = Kept::default();
                destination.aside.changed().await;
            }
            Next::End => return,
        }
    }
}

/// Makes the partitions that reports wait for, in a task of its own: that may wait for a lock too.
fn make_partitions(destination: &Arc<Destination>, making: &mut Option<JoinHandle<()>>) {
    let mut months: Vec<Month> = destination.aside.months().into_iter().collect();
    months.retain(|month| !destination.store.has_partition(*month));
    if months.is_empty() || making.as_ref().is_some_and(|task| !task.is_finished()) {
        return;
    }
    let destination = Arc::clone(destination);
    *making = Some(tokio::spawn(async move {
        match destination.store.make_partitions(months.iter().copied()).await {
            Ok(()) => {}
            Err(error) if error.is_temporary() => {
                tracing::debug!(%error, "a partition could not be made yet; retrying");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let reports = destination.aside.give_up_months(&months);
                destination.log_given_up(reports, &format!("no partition could be made: {error}"));
            }
        }
        destination.aside.wake();
    }));
}
