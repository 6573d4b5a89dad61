//! Copies the sessions page by page: rows become drafts, drafts get their timelines, and reports go
//! through the ingest queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::TryStreamExt as _;
use tokio::time::Instant;

use super::row::{Draft, Limits};
use super::tally::Tally;
use crate::auth::Tenant;
use crate::config::Config;
use crate::ingest::{Batcher, Bounds, Outcome};
use crate::report::{Rejection, SessionReport, UnixMs};
use crate::store::{Original, OriginalSession, Received, Store};
use crate::telemetry::Metrics;

/// How long writes are retried. The queue itself retries each for some seconds.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(500);
/// Reports of so many bytes are written before more timelines are read.
const FLUSH_BYTES: usize = 4 * 1024 * 1024;

/// What to do after a run that stopped half-way.
const AGAIN: &str =
    "run the command again; sessions that were copied already count as duplicates then";

/// One run of the command.
pub(super) struct Copy<'a> {
    batcher: Batcher,
    tenant: &'a Tenant,
    limits: Limits,
}

/// A report to be written, with the index of its session in the page.
struct Piece {
    session: usize,
    at: UnixMs,
    report: SessionReport,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        store: &Arc<Store>,
        tenant: &'a Tenant,
        config: &Config,
        now: UnixMs,
    ) -> Self {
        let metrics = Arc::new(Metrics::new([], &[]));
        let (retention, max_body_bytes) = (config.retention, config.max_body_bytes);
        Self {
            batcher: Batcher::new(Arc::clone(store), metrics, Bounds::default()),
            tenant,
            limits: Limits { now, retention, max_body_bytes, paths: store.paths() },
        }
    }

    /// Copies everything.
    pub(super) async fn run(
        &self,
        source: &mut Original,
        mut tally: Tally,
    ) -> anyhow::Result<Tally> {
        loop {
            let page = source.page().await;
            let page =
                page.with_context(|| format!("the source cannot be read further; {AGAIN}"))?;
            if page.is_empty() {
                break;
            }
            self.copy(source, &page, &mut tally).await?;
        }
        self.batcher.drain().await;
        Ok(tally)
    }

    async fn copy(
        &self,
        source: &mut Original,
        page: &[OriginalSession],
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let (mut drafts, mut ids) = (Vec::with_capacity(page.len()), Vec::new());
        for row in page {
            match Draft::of(row, &self.limits) {
                Ok(Some(draft)) => {
                    drafts.push(draft);
                    ids.push(row.session_id.as_str());
                }
                Ok(None) => tally.past_retention(),
                Err(rejection) => tally.reject(&row.session_id, &rejection),
            }
        }
        let by_id: HashMap<&str, usize> = ids.iter().copied().zip(0..).collect();
        let mut outcomes = vec![None; drafts.len()];
        let mut pieces = Vec::new();
        let mut bytes = 0;
        {
            let mut entries = source.entries(&ids);
            let unreadable = || format!("the timelines of the source cannot be read; {AGAIN}");
            while let Some((id, entry)) = entries.try_next().await.with_context(unreadable)? {
                let Some(&session) = by_id.get(id.as_str()) else { continue };
                let at = drafts[session].at;
                let Some(report) = drafts[session].add(entry) else { continue };
                bytes += report.weight_bytes();
                pieces.push(Piece { session, at, report });
                if bytes >= FLUSH_BYTES {
                    self.write(&mut pieces, &mut outcomes).await?;
                    bytes = 0;
                    tally.progress();
                }
            }
        }
        for (session, draft) in drafts.iter_mut().enumerate() {
            let at = draft.at;
            pieces.extend(draft.finish().map(|report| Piece { session, at, report }));
        }
        self.write(&mut pieces, &mut outcomes).await?;
        for (id, outcome) in ids.iter().zip(outcomes) {
            let unbuilt =
                || Outcome::Rejected(Rejection::invalid("$", "no report can be made of it"));
            tally.settle(id, &outcome.unwrap_or_else(unbuilt));
        }
        tally.progress();
        Ok(())
    }

    /// Writes the pieces, retrying for [`PATIENCE`], and records the outcome of each session.
    async fn write(
        &self,
        pieces: &mut Vec<Piece>,
        outcomes: &mut [Option<Outcome>],
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !pieces.is_empty() {
            let received = pieces
                .iter()
                .map(|piece| Received::new(self.tenant.clone(), piece.report.clone(), piece.at));
            let answers = self.batcher.submit(received.collect());
            let mut left = Vec::new();
            for (piece, answer) in pieces.drain(..).zip(answers) {
                let outcome = match answer {
                    // Only a bug drops a report without an outcome.
                    Some(answer) => answer.await.unwrap_or(Outcome::Bug),
                    None => Outcome::Busy,
                };
                match outcome {
                    Outcome::Busy | Outcome::Failed => left.push(piece),
                    Outcome::Bug => bail!(
                        "a session cannot be written; see the log for the cause. Then {AGAIN}"
                    ),
                    outcome => record(&mut outcomes[piece.session], outcome),
                }
            }
            if !left.is_empty() {
                if Instant::now() >= deadline {
                    bail!("the database to import into cannot be reached; {AGAIN}");
                }
                tokio::time::sleep(PAUSE).await;
            }
            *pieces = left;
        }
        Ok(())
    }
}

/// Keeps the outcome of the report that changed the session's row: the others only add entries.
fn record(known: &mut Option<Outcome>, outcome: Outcome) {
    let is_new = |outcome: &Outcome| matches!(outcome, Outcome::Stored | Outcome::Updated);
    match known {
        Some(known) if !is_new(&outcome) || is_new(known) => {}
        known => *known = Some(outcome),
    }
}
