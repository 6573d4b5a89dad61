//! Reports that cannot be written now for a reason of their own: their session is locked by
//! somebody else, or their month has no partition yet. They wait here, so that nobody waits with
//! them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::outcome::Outcome;
use super::queue::{Bounds, Queued};
use crate::store::Month;
use crate::telemetry::{Metrics, OnceAMinute};

/// For so long after it was last found locked, a session's reports are expected to meet the lock.
const EXPECT_LOCK: Duration = Duration::from_mins(1);

/// What keeps a report from being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// A lock of somebody else on its session or on the partition. If it cannot be seen, only an
    /// attempt tells whether it is still there, and that delays all that are in it.
    Lock { is_seen: bool },
    /// Its month has no partition.
    Partition(Month),
}

impl Obstacle {
    /// The label of metrics.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Lock { .. } => "locked",
            Self::Partition(_) => "partition",
        }
    }
}

const UNSEEN: Obstacle = Obstacle::Lock { is_seen: false };

fn send_all(reports: Vec<Queued>, outcome: &Outcome) -> u64 {
    let count = reports.len() as u64;
    for queued in reports {
        queued.reply.send(outcome.clone());
    }
    count
}

/// The reports that are set aside.
pub(super) struct Aside {
    state: Mutex<State>,
    changed: Notify,
    bounds: Bounds,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Queued, Obstacle)>,
    bytes: usize,
    /// Sessions that were found locked: when last, and how.
    locked: HashMap<Uuid, (Instant, Obstacle)>,
    /// Whether what was taken last was one report that may wait for a lock.
    was_alone: bool,
    is_closed: bool,
    log: OnceAMinute,
}

/// What there is to do.
pub(super) enum Next {
    /// `is_alone`: an attempt tells whether it is still locked.
    Write {
        batch: Vec<Queued>,
        is_alone: bool,
    },
    /// Reports wait, but each for a partition.
    Wait,
    Nothing,
    End,
}

impl Aside {
    /// Nothing is set aside. Half of what may wait in all may wait here.
    pub(super) fn new(bounds: Bounds, metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), bounds, metrics }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock that a report of this session is expected to meet.
    pub(super) fn known_lock(&self, session: Uuid) -> Option<Obstacle> {
        let state = self.state();
        let (found, obstacle) = state.locked.get(&session)?;
        (found.elapsed() < EXPECT_LOCK).then_some(*obstacle)
    }

    /// Sets a report aside; sends it back at once if too many are.
    pub(super) fn put(&self, mut queued: Queued, obstacle: Obstacle) {
        let mut state = self.state();
        let bytes = state.bytes + queued.reply.slot.bytes;
        let received = &queued.received;
        if !std::mem::replace(&mut queued.reply.was_set_aside, true) {
            self.metrics.set_aside(obstacle.as_str());
            if let Some(reports) = state.log.count() {
                tracing::warn!(
                    reason = obstacle.as_str(),
                    tenant = %received.tenant,
                    session_id = received.report.session_id,
                    reports,
                    "reports were set aside since the last such line; they wait for 8 s each and \
                     delay no others: another transaction has \
                     locked their session or partition (pg_stat_activity shows which has been \
                     open for long), or their month has no partition yet"
                );
            }
        }
        // As many as may report: more need not be known.
        let has_room = state.locked.len() < self.bounds.queue_reports;
        if matches!(obstacle, Obstacle::Lock { .. }) && has_room {
            state.locked.insert(received.key(), (Instant::now(), obstacle));
        }
        let is_full = state.waiting.len() >= self.bounds.queue_reports / 2
            || bytes > self.bounds.queue_bytes / 2;
        if is_full {
            drop(state);
            queued.reply.send(Outcome::Busy);
            return;
        }
        state.bytes = bytes;
        state.waiting.push_back((queued, obstacle));
        self.metrics.set_aside_reports.inc();
        drop(state);
        self.changed.notify_one();
    }

    /// Returns when something was set aside, or may be written now.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Something that was waited for has happened.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Nothing more will be set aside.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// Takes what is to be written next.
    pub(super) fn next(&self, has_partition: impl Fn(Month) -> bool) -> Next {
        let mut state = self.state();
        let now = Instant::now();
        state.locked.retain(|_, (found, _)| now.duration_since(*found) < EXPECT_LOCK);
        let is_ordinary = |obstacle: Obstacle| match obstacle {
            Obstacle::Partition(month) => has_partition(month),
            Obstacle::Lock { is_seen } => is_seen,
        };
        let waits = |wanted: &dyn Fn(Obstacle) -> bool| {
            state.waiting.iter().any(|(_, obstacle)| wanted(*obstacle))
        };
        let (has_ordinary, has_unseen) = (waits(&is_ordinary), waits(&|it| it == UNSEEN));
        // One that may wait for its lock goes alone, and every other time at most: it takes long.
        let is_alone = has_unseen && !(has_ordinary && state.was_alone);
        state.was_alone = is_alone;
        let (mut reports, mut bytes) = (0, 0);
        let batch = self.take(&mut state, |queued, obstacle| {
            let is_wanted = if is_alone { obstacle == UNSEEN } else { is_ordinary(obstacle) };
            let bound = if is_alone { 1 } else { self.bounds.batch_reports };
            let with = bytes + queued.reply.slot.bytes;
            // One that is too large for any batch goes alone.
            let fits = reports == 0 || reports < bound && with <= self.bounds.batch_bytes;
            if is_wanted && fits {
                (reports, bytes) = (reports + 1, with);
            }
            is_wanted && fits
        });
        match (batch.is_empty(), state.waiting.is_empty()) {
            (false, _) => Next::Write { batch, is_alone },
            (true, false) => Next::Wait,
            (true, true) if state.is_closed => Next::End,
            (true, true) => Next::Nothing,
        }
    }

    /// Gives up what has waited for too long: how many.
    pub(super) fn give_up_expired(&self) -> u64 {
        let now = Instant::now();
        let expired = self.take(&mut self.state(), |queued, _| queued.reply.deadline() <= now);
        send_all(expired, &Outcome::Failed)
    }

    /// Gives up the reports of months whose partitions cannot be made: how many.
    pub(super) fn give_up_months(&self, months: &[Month]) -> u64 {
        let of_these =
            |obstacle| matches!(obstacle, Obstacle::Partition(month) if months.contains(&month));
        let given_up = self.take(&mut self.state(), |_, obstacle| of_these(obstacle));
        send_all(given_up, &Outcome::Bug)
    }

    /// Takes what is wanted out of what waits.
    fn take(
        &self,
        state: &mut State,
        mut is_wanted: impl FnMut(&Queued, Obstacle) -> bool,
    ) -> Vec<Queued> {
        let (mut taken, mut left) = (Vec::new(), VecDeque::new());
        for (queued, obstacle) in std::mem::take(&mut state.waiting) {
            if is_wanted(&queued, obstacle) {
                state.bytes -= queued.reply.slot.bytes;
                self.metrics.set_aside_reports.dec();
                taken.push(queued);
            } else {
                left.push_back((queued, obstacle));
            }
        }
        state.waiting = left;
        taken
    }

    /// The months for which reports wait.
    pub(super) fn months(&self) -> HashSet<Month> {
        let month = |(_, obstacle): &(Queued, Obstacle)| match obstacle {
            Obstacle::Partition(month) => Some(*month),
            Obstacle::Lock { .. } => None,
        };
        self.state().waiting.iter().filter_map(month).collect()
    }

    /// Sessions that are not locked any more.
    pub(super) fn freed(&self, sessions: &[Uuid]) {
        let mut state = self.state();
        let waiting = state.waiting.iter().map(|(queued, _)| queued.received.key());
        let waiting: HashSet<Uuid> = waiting.collect();
        for session in sessions.iter().filter(|session| !waiting.contains(session)) {
            state.locked.remove(session);
        }
    }
}
