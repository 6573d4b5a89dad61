//! One batch on its way into the database, until each of its reports has its outcome or is set
//! aside.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::aside::{Aside, Obstacle};
use super::hold::{Pauses, attempt_limit};
use super::outcome::Outcome;
use super::queue::{Bounds, Queued, Reply};
use crate::report::Rejection;
use crate::store::{Applied, Error, Kept, Received, Store};
use crate::telemetry::{Metrics, OnceAMinute};

/// How long the search for what is in the way of a batch may take.
const SEARCH_LIMIT: Duration = Duration::from_secs(1);

/// Where batches go: into the database, or aside.
pub(super) struct Destination {
    pub(super) store: Arc<Store>,
    metrics: Arc<Metrics>,
    pub(super) aside: Aside,
    given_up: Mutex<OnceAMinute>,
}

impl Destination {
    pub(super) fn new(store: Arc<Store>, metrics: Arc<Metrics>, bounds: Bounds) -> Self {
        let aside = Aside::new(bounds, Arc::clone(&metrics));
        Self { store, metrics, aside, given_up: Mutex::default() }
    }

    /// Logs, once a minute, that reports were given up. Whether the database can be reached at all
    /// says more than the attempts, which may only have waited for a connection.
    pub(super) fn log_given_up(&self, reports: u64, cause: &str) {
        let mut log = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reports) = log.count_all(reports) else { return };
        let (cause, store) = (cause.to_owned(), Arc::clone(&self.store));
        tokio::spawn(async move {
            let connecting = match store.reach().await {
                Ok(()) => "succeeds".to_owned(),
                Err(error) => error.to_string(),
            };
            tracing::error!(
                reports,
                cause,
                connecting,
                "reports were given up since the last such line: the database did not store them \
                 within 8 s"
            );
        });
    }
}

pub(super) struct Batch<'a> {
    destination: &'a Destination,
    /// `None` once set aside.
    reports: Vec<Option<Received>>,
    /// `None` once sent, or set aside.
    replies: Vec<Option<Reply>>,
    last_error: Option<Error>,
}

/// Reports of a batch that are written together, as indexes.
struct Part {
    indexes: Vec<usize>,
    /// A lock kept it from being written before, and nobody could be seen to hold one.
    is_blocked: bool,
}

impl Part {
    fn halves(mut self) -> [Self; 2] {
        let second = self.indexes.split_off(self.indexes.len().div_ceil(2));
        let is_blocked = self.is_blocked;
        [Self { indexes: second, is_blocked }, self]
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new(destination: &'a Destination, batch: Vec<Queued>) -> Self {
        let (reports, replies) =
            batch.into_iter().map(|queued| (Some(queued.received), Some(queued.reply))).unzip();
        Self { destination, reports, replies, last_error: None }
    }

    /// Writes the batch. A report that cannot be stored is found by halving, and fails alone; one
    /// of a session or partition that is locked is set aside.
    pub(super) async fn write(mut self, kept: &mut Kept) {
        let whole = self.whole();
        self.write_part(whole, kept).await;
    }

    /// As [`Self::write`], for reports that have met a lock before: looks for locks first, since an
    /// attempt that meets one leaves dead rows. True if anything was written.
    pub(super) async fn write_unlocked(mut self, is_blocked: bool, kept: &mut Kept) -> bool {
        let mut whole = Part { is_blocked, ..self.whole() };
        // If the search fails, the attempt tells why.
        let _ = self.leave_out_locked(&mut whole).await;
        self.write_part(whole, kept).await
    }

    fn whole(&self) -> Part {
        Part { indexes: (0..self.reports.len()).collect(), is_blocked: false }
    }

    async fn write_part(&mut self, part: Part, kept: &mut Kept) -> bool {
        if !part.indexes.is_empty() {
            self.destination.metrics.batch_reports.observe(part.indexes.len() as f64);
        }
        let mut has_written = false;
        let mut parts = vec![part];
        let mut pauses = Pauses::default();
        while let Some(mut part) = parts.pop() {
            give_up_expired(self.destination, &mut self.replies, self.last_error.as_ref());
            part.indexes.retain(|index| self.replies[*index].is_some());
            if part.indexes.is_empty() {
                continue;
            }
            match self.attempt(&part, kept).await {
                Ok(applied) => {
                    has_written = true;
                    for (index, applied) in part.indexes.into_iter().zip(applied) {
                        self.settle(index, applied.into());
                    }
                }
                Err(error) if error.is_lock_timeout() => {
                    parts.extend(self.without_locked(part, &mut pauses).await);
                }
                Err(error) if error.is_missing_partition() => {
                    parts.extend(self.without_unplaced(part, &mut pauses).await);
                }
                Err(error) if error.may_be_one_row() && part.indexes.len() > 1 => {
                    parts.extend(part.halves());
                }
                Err(Error::Data(cause)) => {
                    let sqlstate = cause.sqlstate.unwrap_or_default();
                    tracing::error!(sqlstate, "validation let an unstorable report through");
                    let detail = format!("the database cannot hold this report ({sqlstate})");
                    let rejection = Rejection::invalid("$", detail);
                    self.settle(part.indexes[0], Outcome::Rejected(rejection));
                }
                Err(error) if error.is_temporary() => {
                    tracing::debug!(%error, "batch failed; retrying");
                    self.last_error = Some(error);
                    pauses.wait().await;
                    parts.push(part);
                }
                Err(error) => {
                    tracing::error!(%error, reports = part.indexes.len(), "batch failed");
                    part.indexes.iter().for_each(|index| self.settle(*index, Outcome::Bug));
                }
            }
        }
        has_written
    }

    /// Writes a part. Reports whose deadline passes meanwhile are given up, though they may be
    /// stored all the same: sent again, they are duplicates then.
    async fn attempt(&mut self, part: &Part, kept: &mut Kept) -> Result<Vec<Applied>, Error> {
        let Self { destination, reports, replies, last_error } = self;
        let reports = received(reports, part);
        let latest = part.indexes.iter().filter_map(|index| replies[*index].as_ref());
        let latest = latest.map(Reply::deadline).max().unwrap_or_else(Instant::now);
        let mut attempt = pin!(destination.store.upsert(kept, &reports, attempt_limit(latest)));
        loop {
            let Some(earliest) = replies.iter().flatten().map(Reply::deadline).min() else {
                return attempt.await;
            };
            tokio::select! {
                biased;
                result = &mut attempt => return result,
                () = sleep_until(earliest) => give_up_expired(destination, replies, last_error.as_ref()),
            }
        }
    }

    /// What is left of a part that waited too long for a lock, without those reports whose
    /// sessions or partitions are locked.
    async fn without_locked(&mut self, mut part: Part, pauses: &mut Pauses) -> Vec<Part> {
        match self.leave_out_locked(&mut part).await {
            Ok(true) => vec![Part { is_blocked: false, ..part }],
            // No lock is to be seen: it is gone by now, or on a row that is being inserted.
            Ok(false) if !part.is_blocked => vec![Part { is_blocked: true, ..part }],
            Ok(false) if part.indexes.len() > 1 => part.halves().into(),
            Ok(false) => {
                self.set_aside(&mut part, |_| Some(Obstacle::Lock { is_seen: false }));
                Vec::new()
            }
            // A lock that the search waits for is in the way of all.
            Err(error) => {
                self.last_error = Some(error);
                pauses.wait().await;
                vec![part]
            }
        }
    }

    /// Sets the reports of a part aside whose sessions or partitions are seen to be locked: whether
    /// there were any.
    async fn leave_out_locked(&mut self, part: &mut Part) -> Result<bool, Error> {
        let reports = received(&self.reports, part);
        let locked = self.destination.store.locked(&reports, SEARCH_LIMIT).await?;
        let is_locked = |received: &Received| locked.contains(&received.key());
        self.set_aside(part, |received| {
            is_locked(received).then_some(Obstacle::Lock { is_seen: true })
        });
        Ok(!locked.is_empty())
    }

    /// What is left of a part that met a missing partition, without those reports that belong
    /// there.
    async fn without_unplaced(&mut self, mut part: Part, pauses: &mut Pauses) -> Vec<Part> {
        let reports = received(&self.reports, &part);
        let months = match self.destination.store.without_partition(&reports, SEARCH_LIMIT).await {
            Ok(months) => months,
            Err(error) => {
                self.last_error = Some(error);
                HashMap::new()
            }
        };
        if months.is_empty() {
            pauses.wait().await;
        }
        let month = |received: &Received| months.get(&received.key()).copied();
        self.set_aside(&mut part, |received| month(received).map(Obstacle::Partition));
        vec![part]
    }

    /// Sets the reports of a part aside that have an obstacle.
    fn set_aside(&mut self, part: &mut Part, obstacle: impl Fn(&Received) -> Option<Obstacle>) {
        part.indexes.retain(|index| {
            let Some(received) = &self.reports[*index] else { return false };
            let Some(obstacle) = obstacle(received) else { return true };
            let (received, reply) = (self.reports[*index].take(), self.replies[*index].take());
            if let (Some(received), Some(reply)) = (received, reply) {
                self.destination.aside.put(Queued { received, reply }, obstacle);
            }
            false
        });
    }

    fn settle(&mut self, index: usize, outcome: Outcome) {
        if let Some(reply) = self.replies[index].take() {
            reply.send(outcome);
        }
    }
}

fn received<'a>(reports: &'a [Option<Received>], part: &Part) -> Vec<&'a Received> {
    part.indexes.iter().filter_map(|index| reports[*index].as_ref()).collect()
}

/// Gives up the reports that have waited for too long.
fn give_up_expired(
    destination: &Destination,
    replies: &mut [Option<Reply>],
    cause: Option<&Error>,
) {
    let now = Instant::now();
    let mut reports = 0;
    for reply in replies {
        if let Some(reply) = reply.take_if(|reply| reply.deadline() <= now) {
            reply.send(Outcome::Failed);
            reports += 1;
        }
    }
    if reports > 0 {
        let cause = cause.map_or_else(|| "no response".to_owned(), Error::to_string);
        destination.log_given_up(reports, &cause);
    }
}
