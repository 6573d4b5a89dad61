//! The past: finished sessions in batches, oldest first, as fast as the server takes them.
//!
//! The SDK sends dozens of reports per session. Sending all of them takes long, so by default the
//! reports before the last one are joined, which leaves the same timelines and final values.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::RngExt as _;
use serde::Deserialize;

use super::chance::{Domain, generator};
use super::client::{Answer, Client, Refusal};
use super::model::{Content, Generation, Incident, Install};
use super::progress::Progress;
use super::rhythm::Rhythm;
use super::script::{self, Conditions};
use super::session::{Playback, Snapshot};
use super::span::Moment;
use super::stop::Stop;
use super::tally::Tally;
use super::wire::Header;
use crate::telemetry::say;

/// What the batch route takes at most.
const MOST_REPORTS: usize = 1_000;
/// A request is closed once it holds this much. The batch route takes 8 MiB, and a report of
/// [`MOST_JOINED`] entries has less than 256 KiB.
const FULL_BYTES: usize = 4 * 1_024 * 1_024;
/// Entries of joined reports; the server takes 500 in one report.
const MOST_JOINED: usize = 400;
const TYPICAL_WATCH_MS: f64 = 600_000.0;
const INCIDENT_MS: u64 = 2 * 3_600_000;
const DAY_MS: u64 = 24 * 3_600_000;
/// Requests for one batch before the run is given up: minutes, with the waits in between.
const MOST_TRIES: u32 = 10;
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The sessions of a stretch of the past. A pure function of its fields.
#[derive(Debug, Clone)]
pub(super) struct Past {
    seed: u64,
    sessions: u64,
    until_ms: u64,
    incident: Option<Incident>,
    incident_from_ms: u64,
    rhythm: Rhythm,
}

impl Past {
    /// `sessions` sessions that begin within `span_ms` before `until_ms`.
    pub(super) fn new(
        seed: u64,
        sessions: u64,
        span_ms: u64,
        until_ms: u64,
        incident: Option<Incident>,
    ) -> Self {
        let from_ms = until_ms.saturating_sub(span_ms);
        Self {
            seed,
            sessions,
            until_ms,
            incident,
            incident_from_ms: until_ms - INCIDENT_MS.min(span_ms / 2),
            rhythm: Rhythm::new(from_ms, until_ms),
        }
    }

    /// Session number `index`, before its first report.
    fn session(&self, index: u64, reports: Reports) -> Session {
        let mut rng = generator(self.seed, Domain::HistorySession, index);
        let share = (index as f64 + rng.random::<f64>()) / self.sessions as f64;
        let started_ms = self.rhythm.moment(share);
        let install = Install::draw(&mut rng);
        let content = Content::draw(&mut rng);
        let conditions = Conditions {
            typical_watch_ms: TYPICAL_WATCH_MS,
            incident: self.incident.filter(|_| started_ms >= self.incident_from_ms),
        };
        let steps = script::draw(&mut rng, &install, &content, conditions);
        let mut playback = Playback::new(steps, install.device.drops_per_min);
        // Who is still watching at the end of the history has watched until then.
        playback.cut(self.until_ms - started_ms);
        let header = Header::draw(&mut rng, install, content, started_ms);
        Session { header, playback, reports, ahead: None }
    }
}

/// How many of a session's reports are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reports {
    /// The last one as the SDK sends it. Those before it are joined: their entries in one report,
    /// or in a few where there are many, with the totals of the last report joined.
    Joined,
    /// Each one as the SDK sends it.
    Every,
}

/// A session, report by report. Generations A and B have one.
struct Session {
    header: Header,
    playback: Playback,
    reports: Reports,
    /// What the playback gave already, for the report after the next one.
    ahead: Option<Snapshot>,
}

impl Session {
    fn generation(&self) -> Generation {
        self.header.install.generation
    }

    /// The next report as the SDK sends it.
    fn next_snapshot(&mut self) -> Option<Snapshot> {
        if let Some(ahead) = self.ahead.take() {
            return Some(ahead);
        }
        match self.generation() {
            Generation::C => self.playback.next(),
            Generation::A | Generation::B => self.playback.by_ref().last(),
        }
    }

    /// The next report, and whether it is the last one.
    fn next_report(&mut self) -> Option<(Vec<u8>, bool)> {
        let mut snapshot = self.next_snapshot()?;
        if self.reports == Reports::Joined {
            while !snapshot.is_final {
                let Some(next) = self.next_snapshot() else { break };
                if next.is_final || snapshot.entries.len() + next.entries.len() > MOST_JOINED {
                    self.ahead = Some(next);
                    break;
                }
                let mut entries = snapshot.entries;
                entries.extend(next.entries);
                snapshot = Snapshot { entries, ..next };
            }
        }
        Some((self.header.render(&snapshot), snapshot.is_final))
    }
}

/// Sessions that one request after the other takes its reports from, one of each session. A server
/// may merge reports of one session that arrive together, or write them in another order, neither
/// of which happens to a device's reports. A request is answered before the next one is made.
struct Lane {
    past: Past,
    reports: Reports,
    /// Numbers of the sessions that have not begun.
    waiting: std::iter::StepBy<std::ops::Range<u64>>,
    playing: VecDeque<Session>,
}

impl Lane {
    /// Lane `number` of `lanes`, between which the sessions are dealt out.
    fn new(past: &Past, reports: Reports, number: usize, lanes: usize) -> Self {
        let waiting = (number as u64..past.sessions).step_by(lanes);
        Self { past: past.clone(), reports, waiting, playing: VecDeque::new() }
    }

    /// The session that begins before all others, if this lane has it and has not begun.
    fn oldest(&self) -> Option<Header> {
        (self.waiting.clone().next() == Some(0)).then(|| self.past.session(0, self.reports).header)
    }

    fn begin(&mut self) -> Option<Session> {
        let index = self.waiting.next()?;
        Some(self.past.session(index, self.reports))
    }

    /// The next request; `None` when all sessions are over.
    fn batch(&mut self) -> anyhow::Result<Option<Batch>> {
        while self.playing.len() < MOST_REPORTS
            && let Some(session) = self.begin()
        {
            self.playing.push_back(session);
        }
        let mut batch = Batch::default();
        for _ in 0..self.playing.len() {
            if batch.is_full() {
                break;
            }
            let Some(mut session) = self.playing.pop_front() else { break };
            if batch.add(&mut session)? {
                self.playing.push_back(session);
            }
        }
        Ok(if batch.reports == 0 { None } else { Some(batch) })
    }
}

/// The body of a request, in the making.
struct Batch {
    reports: u64,
    bytes: usize,
    /// Of the sessions whose last report is in it.
    generations: Vec<Generation>,
    gzip: GzEncoder<Vec<u8>>,
}

impl Default for Batch {
    fn default() -> Self {
        let gzip = GzEncoder::new(Vec::new(), Compression::fast());
        Self { reports: 0, bytes: 0, generations: Vec::new(), gzip }
    }
}

impl Batch {
    fn is_full(&self) -> bool {
        self.reports == MOST_REPORTS as u64 || self.bytes >= FULL_BYTES
    }

    /// Takes the next report of a session. Whether there are more.
    fn add(&mut self, session: &mut Session) -> anyhow::Result<bool> {
        let Some((report, is_final)) = session.next_report() else { return Ok(false) };
        self.gzip.write_all(&report)?;
        self.gzip.write_all(b"\n")?;
        self.reports += 1;
        self.bytes += report.len() + 1;
        if is_final {
            self.generations.push(session.generation());
        }
        Ok(!is_final)
    }
}

/// A history on its way to a server.
#[derive(Debug)]
pub(super) struct History {
    pub(super) client: Client,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
    pub(super) past: Past,
    pub(super) reports: Reports,
    /// Requests in flight.
    pub(super) concurrency: usize,
}

impl History {
    /// Sends all of it.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let sessions = self.past.sessions;
        let _progress = Progress::start(Arc::clone(&self.tally), sessions, "sessions", |tally| {
            tally.glance().sessions
        });
        let history = &self;
        let lanes = (0..self.concurrency)
            .map(|number| Lane::new(&history.past, history.reports, number, history.concurrency));
        let mut results: FuturesUnordered<_> = lanes.map(|lane| history.send_all(lane)).collect();
        while let Some(result) = results.next().await {
            result?;
        }
        Ok(())
    }

    async fn send_all(&self, mut lane: Lane) -> anyhow::Result<()> {
        // The first lane begins with the oldest session.
        let mut oldest = lane.oldest();
        while !self.stop.is_ending() {
            let made = tokio::task::spawn_blocking(move || lane.batch().map(|batch| (batch, lane)));
            let batch;
            (batch, lane) = made.await.context("a batch could not be made")??;
            let Some(batch) = batch else { break };
            self.send(batch).await?;
            if let Some(header) = oldest.take() {
                self.warn_if_at_receipt(&header).await;
            }
        }
        Ok(())
    }

    /// A server that keeps sessions for a shorter time than the history is long puts what is
    /// older into the present. Said at once, before all of it is there.
    async fn warn_if_at_receipt(&self, oldest: &Header) {
        if self.client.is_at_receipt(oldest.session_id).await != Some(true) {
            return;
        }
        let age_ms = Moment::now().unix_ms.saturating_sub(oldest.started_unix_ms);
        let days = age_ms.div_ceil(DAY_MS);
        if days == 0 {
            // It lies in the future, as it was told to.
            return;
        }
        say(&format!(
            "warning: the server places the oldest sessions at the time of receipt, not in the \
             past: the history reaches back {days} days, further than it keeps sessions. For all \
             of it, start the server with RETENTION_DAYS={} or more, or with 0 (for ever); nothing \
             is placed before 2020.",
            days + 1
        ));
    }

    async fn send(&self, batch: Batch) -> anyhow::Result<()> {
        let Batch { reports, generations, gzip, .. } = batch;
        let gzipped = gzip.finish()?;
        for tries in 0..MOST_TRIES {
            let (answer, took) = self.client.post_batch(gzipped.clone()).await;
            self.tally.count(|counts| counts.exchange(&answer, took, reports, tries > 0));
            let wait = match answer {
                Answer::Accepted(body) => {
                    self.count_results(&body, reports);
                    break;
                }
                Answer::Refused(refusal) => {
                    self.tally.count(|counts| {
                        counts.refused += reports;
                        if counts.accepted == 0 && refusal.is_about_key() {
                            self.stop.fail(refusal.key_error());
                        }
                    });
                    break;
                }
                Answer::Later { retry_after, .. } => {
                    retry_after.unwrap_or(Duration::from_secs(1 << tries).min(LONGEST_BACKOFF))
                }
            };
            let is_hopeless = tries + 1 == MOST_TRIES;
            if is_hopeless {
                self.stop.fail(anyhow::anyhow!(
                    "the server did not take a batch in {MOST_TRIES} tries; is it up, and its \
                     rate limit high enough?"
                ));
            }
            let is_stopped = tokio::select! {
                () = tokio::time::sleep(wait) => false,
                () = self.stop.ending() => true,
            };
            if is_stopped {
                self.tally.count(|counts| counts.undelivered += reports);
                break;
            }
        }
        self.tally.count(|counts| generations.into_iter().for_each(|g| counts.begin(g)));
        Ok(())
    }

    fn count_results(&self, body: &[u8], reports: u64) {
        let Ok(answer) = serde_json::from_slice::<BatchAnswer>(body) else {
            let refusal = Refusal { status: 200, code: "unreadable answer".to_owned() };
            self.tally.count(|counts| {
                counts.refused += reports;
                *counts.not_accepted.entry(refusal).or_default() += reports;
            });
            return;
        };
        self.tally.count(|counts| {
            counts.accepted += answer.accepted;
            counts.refused += answer.rejected;
            for result in answer.results {
                if let Some(error) = result.error {
                    let refusal = Refusal { status: 200, code: code_of(&error) };
                    *counts.not_accepted.entry(refusal).or_default() += 1;
                }
                *counts.outcomes.entry(result.status).or_default() += 1;
            }
        });
    }
}

#[derive(Deserialize)]
struct BatchAnswer {
    accepted: u64,
    rejected: u64,
    #[serde(default)]
    results: Vec<BatchResult>,
}

#[derive(Deserialize)]
struct BatchResult {
    status: String,
    error: Option<serde_json::Value>,
}

/// The code of an error that is an object with one, or else the error as it is.
fn code_of(error: &serde_json::Value) -> String {
    let code = error.get("code").unwrap_or(error);
    code.as_str().map_or_else(|| code.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests;
