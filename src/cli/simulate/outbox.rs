//! What a device still has to send. Pure: the caller passes the time in.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::client::Answer;

/// The SDK's disk queue holds this many sessions.
const MOST_KEPT: usize = 100;
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);

/// A report on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) session_id: Uuid,
    /// Number of the report within its session, growing.
    pub(super) number: u64,
    pub(super) body: Vec<u8>,
    /// Generation B never retries.
    pub(super) may_retry: bool,
    /// How often it was sent before.
    pub(super) tries: u32,
}

/// What became of a parcel that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The server has it, or refused it for good.
    Settled,
    /// It will be sent again, unless a newer report of its session takes its place.
    Kept,
    /// It is gone: no answer, and no retry.
    Lost,
}

/// The queue of one device.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Never sent; sent at once.
    fresh: VecDeque<Parcel>,
    /// The newest report of each session that could not be delivered, oldest session first.
    kept: Vec<Parcel>,
    /// Nothing that may be retried is sent before.
    not_before: Option<Instant>,
    failures_in_a_row: u32,
    /// Reports whose place a newer one of the same session took.
    pub(super) superseded: u64,
    /// Reports that fell out of the full queue.
    pub(super) overflowed: u64,
}

impl Outbox {
    /// Takes a new report.
    pub(super) fn add(&mut self, parcel: Parcel, now: Instant) {
        if parcel.may_retry && self.is_holding(now) {
            self.keep(parcel);
        } else {
            self.fresh.push_back(parcel);
        }
    }

    /// The next report to send, if one may be sent now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Parcel> {
        if let Some(parcel) = self.fresh.pop_front() {
            return Some(parcel);
        }
        if self.kept.is_empty() || self.is_holding(now) {
            return None;
        }
        Some(self.kept.remove(0))
    }

    /// When there is something to do again; `None` when all is sent.
    pub(super) fn ready_at(&self, now: Instant) -> Option<Instant> {
        match (self.fresh.is_empty(), self.kept.is_empty()) {
            (false, _) => Some(now),
            (true, false) => Some(self.not_before.map_or(now, |at| at.max(now))),
            (true, true) => None,
        }
    }

    /// How many reports wait.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.kept.len()
    }

    /// Learns the answer to a parcel. `spread` keeps many devices from coming back in one moment.
    pub(super) fn settle(
        &mut self,
        mut parcel: Parcel,
        answer: &Answer,
        now: Instant,
        spread: Duration,
    ) -> Fate {
        let Answer::Later { retry_after, .. } = answer else {
            self.failures_in_a_row = 0;
            return Fate::Settled;
        };
        if !parcel.may_retry {
            return Fate::Lost;
        }
        let backoff = Duration::from_secs(1 << self.failures_in_a_row.min(6)).min(LONGEST_BACKOFF);
        self.failures_in_a_row += 1;
        self.not_before = Some(now + retry_after.unwrap_or(backoff) + spread);
        parcel.tries += 1;
        self.keep(parcel);
        // What waits behind it would meet the same answer.
        for waiting in std::mem::take(&mut self.fresh) {
            self.add(waiting, now);
        }
        Fate::Kept
    }

    fn is_holding(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| now < at)
    }

    fn keep(&mut self, parcel: Parcel) {
        let same = self.kept.iter_mut().find(|kept| kept.session_id == parcel.session_id);
        if let Some(kept) = same {
            self.superseded += 1;
            if kept.number < parcel.number {
                *kept = parcel;
            }
            return;
        }
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
            self.overflowed += 1;
        }
        self.kept.push(parcel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_SPREAD: Duration = Duration::ZERO;

    fn parcel(session: u128, number: u64) -> Parcel {
        let session_id = Uuid::from_u128(session);
        Parcel { session_id, number, body: Vec::new(), may_retry: true, tries: 0 }
    }

    fn later(seconds: Option<u64>) -> Answer {
        Answer::Later { refusal: None, retry_after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn retry_after_is_honoured_to_the_second() {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        outbox.add(parcel(1, 1), now);
        let sent = outbox.next(now).expect("fresh");
        assert_eq!(outbox.settle(sent, &later(Some(7)), now, NO_SPREAD), Fate::Kept);
        let due = now + Duration::from_secs(7);
        assert_eq!(outbox.ready_at(now), Some(due));
        assert_eq!(outbox.next(due - Duration::from_millis(1)), None);
        assert_eq!(outbox.next(due).map(|parcel| parcel.tries), Some(1));
    }

    #[test]
    fn the_newest_report_of_a_session_is_kept() {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        for number in 1..=2 {
            outbox.add(parcel(1, number), now);
        }
        let sent = outbox.next(now).expect("fresh");
        outbox.settle(sent, &later(Some(5)), now, NO_SPREAD);
        outbox.add(parcel(1, 3), now);
        outbox.add(parcel(2, 1), now);
        assert_eq!((outbox.len(), outbox.superseded), (2, 2));
        let due = now + Duration::from_secs(5);
        let order: Vec<_> = std::iter::from_fn(|| outbox.next(due)).collect();
        assert_eq!(order, [parcel(1, 3), parcel(2, 1)]);
    }

    #[test]
    fn a_newer_report_does_not_wait_for_an_older_kept_one() {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        outbox.add(parcel(1, 1), now);
        let sent = outbox.next(now).expect("fresh");
        outbox.settle(sent, &later(Some(5)), now, NO_SPREAD);
        let due = now + Duration::from_secs(5);
        outbox.add(parcel(1, 2), due);
        let numbers: Vec<_> = std::iter::from_fn(|| outbox.next(due)).map(|p| p.number).collect();
        assert_eq!(numbers, [2, 1], "the late retry comes after the newer report, as in the field");
    }

    #[test]
    fn without_retry_after_the_wait_doubles_up_to_a_minute() {
        let mut outbox = Outbox::default();
        let mut now = Instant::now();
        outbox.add(parcel(1, 1), now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let sent = outbox.next(now).expect("due");
            outbox.settle(sent, &later(None), now, NO_SPREAD);
            let due = outbox.ready_at(now).expect("kept");
            assert_eq!(due - now, Duration::from_secs(seconds));
            now = due;
        }
        let sent = outbox.next(now).expect("due");
        assert_eq!(
            outbox.settle(sent, &Answer::Accepted(Vec::new()), now, NO_SPREAD),
            Fate::Settled
        );
        assert_eq!(outbox.ready_at(now), None);
    }

    #[test]
    fn generation_b_neither_retries_nor_waits() {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        outbox.add(parcel(1, 1), now);
        let sent = outbox.next(now).expect("fresh");
        outbox.settle(sent, &later(Some(60)), now, NO_SPREAD);
        let once = Parcel { may_retry: false, ..parcel(2, 1) };
        outbox.add(once.clone(), now);
        assert_eq!(outbox.next(now).as_ref(), Some(&once));
        assert_eq!(outbox.settle(once, &later(None), now, NO_SPREAD), Fate::Lost);
    }

    #[test]
    fn the_queue_holds_a_hundred_sessions() {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        outbox.add(parcel(0, 1), now);
        let sent = outbox.next(now).expect("fresh");
        outbox.settle(sent, &later(Some(60)), now, NO_SPREAD);
        for session in 1..=100 {
            outbox.add(parcel(session, 1), now);
        }
        assert_eq!((outbox.len(), outbox.overflowed), (100, 1));
    }
}
