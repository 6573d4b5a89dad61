//! What a device still has to send, by the rules of SDK 1.x: a report is sent once, at once. One
//! that could not be delivered is kept, the newest of each session, and sent again after the next
//! success or when the next session begins. Neither `Retry-After` nor a failure before it holds
//! anything back.

use std::collections::VecDeque;

use uuid::Uuid;

use super::client::Answer;

/// The SDK's disk queue holds this many sessions.
const MOST_KEPT: usize = 100;

/// A report on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) session_id: Uuid,
    /// Number of the report within its session, growing from 0.
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
    /// The newest report of each session that could not be delivered, the one kept first first.
    kept: Vec<Parcel>,
    /// Sessions whose kept report is sent again now, each once.
    flushing: VecDeque<Uuid>,
    /// Reports whose place a newer one of the same session took.
    pub(super) superseded: u64,
    /// Reports that fell out of the full queue.
    pub(super) overflowed: u64,
}

impl Outbox {
    /// Takes a new report. The first one of a session finds what was left of earlier ones.
    pub(super) fn add(&mut self, parcel: Parcel) {
        if parcel.number == 0 {
            self.flush(None);
        }
        self.fresh.push_back(parcel);
    }

    /// Sends everything that is kept again, once, but for a session that was just delivered.
    pub(super) fn flush(&mut self, delivered: Option<Uuid>) {
        let pending = self.kept.iter().map(|parcel| parcel.session_id);
        let pending: Vec<Uuid> =
            pending.filter(|id| Some(*id) != delivered && !self.flushing.contains(id)).collect();
        self.flushing.extend(pending);
    }

    /// The next report to send, if there is one.
    pub(super) fn next(&mut self) -> Option<Parcel> {
        if let Some(parcel) = self.fresh.pop_front() {
            return Some(parcel);
        }
        while let Some(id) = self.flushing.pop_front() {
            // It stays in the queue until it is settled.
            if let Some(parcel) = self.kept.iter().find(|parcel| parcel.session_id == id) {
                return Some(parcel.clone());
            }
        }
        None
    }

    /// How many reports wait.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.kept.len()
    }

    /// Learns the answer to a parcel.
    pub(super) fn settle(&mut self, mut parcel: Parcel, answer: &Answer) -> Fate {
        let id = parcel.session_id;
        let is_retry = parcel.tries > 0;
        match answer {
            Answer::Accepted(_) => {
                self.forget(&parcel);
                if !is_retry {
                    self.flush(Some(id));
                }
                Fate::Settled
            }
            Answer::Refused(_) => {
                self.forget(&parcel);
                Fate::Settled
            }
            Answer::Later { .. } if !parcel.may_retry => Fate::Lost,
            Answer::Later { .. } => {
                parcel.tries += 1;
                match self.kept.iter_mut().find(|kept| kept.session_id == id) {
                    // A newer one took its place meanwhile, or it keeps its own.
                    Some(kept) if is_retry => kept.tries = kept.tries.max(parcel.tries),
                    _ => self.keep(parcel),
                }
                Fate::Kept
            }
        }
    }

    /// After a final answer nothing of the session waits any more.
    fn forget(&mut self, settled: &Parcel) {
        let before = self.kept.len();
        self.kept.retain(|kept| kept.session_id != settled.session_id);
        if settled.tries == 0 {
            self.superseded += (before - self.kept.len()) as u64;
        }
    }

    fn keep(&mut self, parcel: Parcel) {
        let before = self.kept.len();
        self.kept.retain(|kept| kept.session_id != parcel.session_id);
        self.superseded += (before - self.kept.len()) as u64;
        if self.kept.len() == MOST_KEPT {
            self.kept.remove(0);
            self.overflowed += 1;
        }
        self.kept.push(parcel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::simulate::client::Refusal;

    fn parcel(session: u128, number: u64) -> Parcel {
        let session_id = Uuid::from_u128(session);
        Parcel { session_id, number, body: Vec::new(), may_retry: true, tries: 0 }
    }

    fn limited() -> Answer {
        let refusal = Refusal { status: 429, code: "RATE_LIMIT_EXCEEDED".to_owned() };
        Answer::Later { refusal: Some(refusal), retry_after: Some(Duration::from_mins(1)) }
    }

    fn accepted() -> Answer {
        Answer::Accepted(Vec::new())
    }

    /// Sends what there is to send, with one answer: session and number of each report.
    fn deliver(outbox: &mut Outbox, answer: &Answer) -> Vec<(u128, u64)> {
        let mut sent = Vec::new();
        while let Some(parcel) = outbox.next() {
            sent.push((parcel.session_id.as_u128(), parcel.number));
            outbox.settle(parcel, answer);
        }
        sent
    }

    #[test]
    fn nothing_holds_a_report_back() {
        let mut outbox = Outbox::default();
        for number in 0..3 {
            outbox.add(parcel(1, number));
            assert_eq!(deliver(&mut outbox, &limited()), [(1, number)], "whatever came before");
        }
        assert_eq!((outbox.len(), outbox.superseded), (1, 2));
    }

    #[test]
    fn a_success_sends_all_others_again_even_where_each_is_rejected() {
        let mut outbox = Outbox::default();
        for session in 1..=3 {
            outbox.add(parcel(session, 1));
        }
        deliver(&mut outbox, &limited());
        outbox.add(parcel(4, 1));
        let first = outbox.next().expect("fresh");
        outbox.settle(first, &accepted());
        assert_eq!(deliver(&mut outbox, &limited()), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(outbox.len(), 3, "they wait for the next success");
        outbox.add(parcel(4, 2));
        assert_eq!(deliver(&mut outbox, &accepted()), [(4, 2), (1, 1), (2, 1), (3, 1)]);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn a_session_that_begins_sends_what_earlier_ones_left() {
        let mut outbox = Outbox::default();
        outbox.add(parcel(1, 5));
        deliver(&mut outbox, &limited());
        outbox.add(parcel(2, 0));
        assert_eq!(deliver(&mut outbox, &accepted()), [(2, 0), (1, 5)]);
    }

    #[test]
    fn a_final_answer_to_a_newer_report_drops_the_kept_one() {
        for answer in [accepted(), Answer::Refused(Refusal { status: 400, code: String::new() })] {
            let mut outbox = Outbox::default();
            outbox.add(parcel(1, 1));
            deliver(&mut outbox, &limited());
            outbox.add(parcel(1, 2));
            assert_eq!(deliver(&mut outbox, &answer), [(1, 2)]);
            assert_eq!((outbox.len(), outbox.superseded), (0, 1));
        }
    }

    #[test]
    fn generation_b_never_retries() {
        let mut outbox = Outbox::default();
        outbox.add(Parcel { may_retry: false, ..parcel(1, 1) });
        let sent = outbox.next().expect("fresh");
        assert_eq!(outbox.settle(sent, &limited()), Fate::Lost);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn the_queue_holds_a_hundred_sessions_and_drops_the_one_kept_first() {
        let mut outbox = Outbox::default();
        for session in 0..=100 {
            outbox.add(parcel(session, 1));
        }
        // Kept anew, it is the last one to go.
        outbox.add(parcel(1, 2));
        deliver(&mut outbox, &limited());
        assert_eq!((outbox.len(), outbox.overflowed), (100, 1));
        outbox.add(parcel(200, 1));
        let sent = deliver(&mut outbox, &accepted());
        assert_eq!((sent[1], sent[100]), ((2, 1), (1, 2)));
    }
}
