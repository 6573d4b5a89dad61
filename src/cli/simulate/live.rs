//! Viewers who watch now: each is a task that plays one session after the other and sends its
//! reports as the SDK does.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::chance::{Domain, generator, whole};
use super::client::{Answer, Client};
use super::model::{Content, Generation, Incident, Install};
use super::outbox::{Fate, Outbox, Parcel};
use super::progress::Progress;
use super::script::{self, Conditions};
use super::session::{Playback, Snapshot};
use super::stop::Stop;
use super::tally::Tally;
use super::wire::Header;
use crate::clock::Clock;

/// Retries after the last report get this long.
const GRACE: Duration = Duration::from_secs(5);
/// Between two starts of an app that has something left to send after the run.
const REOPEN: Duration = Duration::from_secs(1);
/// The typical session of a long run; in a short run sessions are shorter, so that some end.
const LONGEST_TYPICAL_WATCH_MS: f64 = 720_000.0;

/// What all viewers share.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: Client,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
    pub(super) seed: u64,
    pub(super) viewers: u32,
    pub(super) length: Duration,
    pub(super) incident: Option<Incident>,
}

impl Live {
    /// Plays all viewers to the end of the run.
    pub(super) async fn run(self) {
        let began = Instant::now();
        let live = Arc::new(self);
        let _progress = Progress::start(
            Arc::clone(&live.tally),
            live.length.as_secs().max(1),
            "s",
            move |_| began.elapsed().as_secs(),
        );
        let viewers = TaskTracker::new();
        for index in 0..live.viewers {
            let viewer = Viewer { live: Arc::clone(&live), index, began };
            viewers.spawn(viewer.run());
        }
        viewers.close();
        viewers.wait().await;
    }

    fn typical_watch_ms(&self) -> f64 {
        (self.length.as_secs_f64() * 1_000.0 / 3.0).clamp(4_000.0, LONGEST_TYPICAL_WATCH_MS)
    }
}

struct Viewer {
    live: Arc<Live>,
    index: u32,
    began: Instant,
}

impl Viewer {
    async fn run(self) {
        // Building and sending go on side by side: a slow server does not slow the player.
        let (outgoing, incoming) = mpsc::channel(64);
        tokio::join!(self.watch(outgoing), self.deliver(incoming));
    }

    /// Watches one session after the other until the run is over.
    async fn watch(&self, outgoing: mpsc::Sender<Parcel>) {
        let Live { stop, seed, length, .. } = &*self.live;
        let mut rng = generator(*seed, Domain::Viewer, u64::from(self.index));
        let install = Install::draw(&mut rng);
        let deadline = self.began + *length;

        // All have arrived after a quarter of the run, half a minute at most.
        let arrivals = (*length / 4).min(Duration::from_secs(30));
        let mut pause = arrivals.mul_f64(f64::from(self.index) / f64::from(self.live.viewers));
        // A session begun in the last moment would look like a viewer who left at once.
        let last_start = deadline - (*length / 10).min(Duration::from_secs(5));
        for number in 0.. {
            if Instant::now() + pause >= last_start {
                return;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.ending() => return,
            }
            self.watch_one(number, install.clone(), deadline, &outgoing).await;
            pause = Duration::from_millis(rng.random_range(1_000..6_000));
        }
    }

    async fn watch_one(
        &self,
        number: u32,
        install: Install,
        deadline: Instant,
        outgoing: &mpsc::Sender<Parcel>,
    ) {
        let live = &*self.live;
        let began = Instant::now();
        let has_trouble = began.duration_since(self.began) >= live.length / 2;
        let index = u64::from(self.index) << 32 | u64::from(number);
        let mut rng = generator(live.seed, Domain::LiveSession, index);
        let content = Content::draw(&mut rng);
        let conditions = Conditions {
            typical_watch_ms: live.typical_watch_ms(),
            incident: live.incident.filter(|_| has_trouble),
        };
        let steps = script::draw(&mut rng, &install, &content, conditions);
        let mut playback = Playback::new(steps, install.device.drops_per_min);
        let header = Header::draw(&mut rng, install, content, unix_ms_now());
        live.tally.count(|counts| counts.begin(header.install.generation));

        playback.cut(ms(deadline.duration_since(began)));
        let mut number = 0;
        loop {
            let mut ahead = playback.clone();
            let Some(snapshot) = ahead.next() else { return };
            tokio::select! {
                () = sleep_until(began + Duration::from_millis(snapshot.at_ms)) => {}
                () = live.stop.ending() => {
                    // The viewer leaves now, not when the next report would be due.
                    playback.cut(ms(began.elapsed()));
                    if let Some(last) = playback.finish() {
                        let _ = outgoing.send(parcel(&header, &last, number)).await;
                    }
                    return;
                }
            }
            playback = ahead;
            // Generations A and B report at the end only.
            if header.install.generation == Generation::C || snapshot.is_final {
                let _ = outgoing.send(parcel(&header, &snapshot, number)).await;
                number += 1;
            }
        }
    }

    /// Sends what the player builds, and what could not be sent before.
    async fn deliver(&self, mut incoming: mpsc::Receiver<Parcel>) {
        let mut outbox = Outbox::default();
        // When to give up; set once the player is gone.
        let mut ends: Option<Instant> = None;
        let tally = &self.live.tally;
        loop {
            while let Ok(parcel) = incoming.try_recv() {
                outbox.add(parcel);
            }
            if let Some(parcel) = outbox.next() {
                self.send(&mut outbox, parcel, ends).await;
                continue;
            }
            if ends.is_some_and(|ends| outbox.len() == 0 || Instant::now() + REOPEN >= ends) {
                break;
            }
            tokio::select! {
                received = incoming.recv(), if ends.is_none() => match received {
                    Some(parcel) => outbox.add(parcel),
                    None => ends = Some(Instant::now() + GRACE),
                },
                // The app is opened again, and sends what is left.
                () = sleep(REOPEN), if ends.is_some() => outbox.flush(None),
                () = self.live.stop.now() => break,
            }
        }
        tally.count(|counts| {
            counts.superseded += outbox.superseded;
            counts.undelivered += outbox.len() as u64 + outbox.overflowed;
        });
    }

    async fn send(&self, outbox: &mut Outbox, parcel: Parcel, ends: Option<Instant>) {
        let Live { client, tally, stop, .. } = &*self.live;
        let left = ends.map_or(Duration::MAX, |ends| ends.duration_since(Instant::now()));
        let posting = timeout(left, client.post_report(parcel.body.clone()));
        let (answer, took) = tokio::select! {
            posted = posting => posted.unwrap_or_else(|_| no_answer()),
            () = stop.now() => no_answer(),
        };
        let again = parcel.tries > 0;
        let fate = outbox.settle(parcel, &answer);
        tally.count(|counts| {
            counts.exchange(&answer, took, 1, again);
            match (&answer, fate) {
                (Answer::Accepted(_), _) => counts.accepted += 1,
                (Answer::Refused(refusal), _) => {
                    counts.refused += 1;
                    if counts.accepted == 0 && refusal.is_about_key() {
                        stop.fail(refusal.key_error());
                    }
                }
                (Answer::Later { .. }, Fate::Lost) => counts.undelivered += 1,
                (Answer::Later { .. }, _) => {}
            }
        });
    }
}

fn parcel(header: &Header, snapshot: &Snapshot, number: u64) -> Parcel {
    Parcel {
        session_id: header.session_id,
        number,
        body: header.render(snapshot),
        may_retry: header.install.generation != Generation::B,
        tries: 0,
    }
}

fn no_answer() -> (Answer, Duration) {
    (Answer::Later { refusal: None, retry_after: None }, Duration::ZERO)
}

fn ms(duration: Duration) -> u64 {
    whole(duration.as_secs_f64() * 1_000.0)
}

fn unix_ms_now() -> u64 {
    u64::try_from(Clock::system().now().0).unwrap_or_default()
}
