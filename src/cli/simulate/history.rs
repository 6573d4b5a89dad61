//! The past: finished sessions, one report each, in batches, oldest first, as fast as the server
//! takes them.

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use serde::Deserialize;

use super::chance::{Domain, generator};
use super::client::{Answer, Client, Refusal};
use super::model::{Content, Generation, Incident, Install};
use super::progress::Progress;
use super::rhythm::Rhythm;
use super::script::{self, Conditions};
use super::session::{Playback, thin};
use super::stop::Stop;
use super::tally::Tally;
use super::wire::Header;

/// What the batch route takes at most.
const REPORTS_PER_BATCH: u64 = 1_000;
/// Entries of a timeline: 1,000 reports stay below 6 MiB.
const MOST_ENTRIES: usize = 24;
const TYPICAL_WATCH_MS: f64 = 600_000.0;
const INCIDENT_MS: u64 = 2 * 3_600_000;
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

    /// The final report of session number `index`, and the SDK that wrote it.
    fn report(&self, index: u64) -> (Generation, Vec<u8>) {
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
        let mut snapshot = playback.finish().expect("a playback gives at least one report");
        thin(&mut snapshot.entries, MOST_ENTRIES);
        let header = Header::draw(&mut rng, install, content, started_ms);
        (header.install.generation, header.render(&snapshot))
    }

    fn batch(&self, range: Range<u64>) -> anyhow::Result<Batch> {
        let mut generations = Vec::new();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        for index in range {
            let (generation, report) = self.report(index);
            generations.push(generation);
            gzip.write_all(&report)?;
            gzip.write_all(b"\n")?;
        }
        Ok(Batch { generations, gzipped: gzip.finish()? })
    }
}

struct Batch {
    generations: Vec<Generation>,
    gzipped: Vec<u8>,
}

/// A history on its way to a server.
#[derive(Debug)]
pub(super) struct History {
    pub(super) client: Client,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
    pub(super) past: Past,
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
        let results = stream::iter((0..sessions.div_ceil(REPORTS_PER_BATCH)).map(async |number| {
            let first = number * REPORTS_PER_BATCH;
            history.send(first..(first + REPORTS_PER_BATCH).min(sessions)).await
        }));
        let mut results = results.buffer_unordered(self.concurrency);
        while let Some(result) = results.next().await {
            result?;
        }
        Ok(())
    }

    async fn send(&self, range: Range<u64>) -> anyhow::Result<()> {
        if self.stop.is_ending() {
            return Ok(());
        }
        let past = self.past.clone();
        let batch = tokio::task::spawn_blocking(move || past.batch(range));
        let batch = batch.await.context("a batch could not be made")??;
        let reports = batch.generations.len() as u64;
        for tries in 0..MOST_TRIES {
            let (answer, took) = self.client.post_batch(batch.gzipped.clone()).await;
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
        self.tally.count(|counts| batch.generations.into_iter().for_each(|g| counts.begin(g)));
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
