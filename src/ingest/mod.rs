//! From a body to exactly one [`Outcome`]: the only place that knows the order of the steps.
//!
//! ```text
//! bytes ─ report::parse ─▶ SessionReport ─ Batcher ─▶ Store::upsert ─▶ Outcome ─▶ counted
//!                 └─ Rejection ─ RejectedWriter ─▶ rejected_reports ─▶ Outcome::Rejected
//! ```

mod aside;
mod aside_worker;
mod batch;
mod batcher;
mod hold;
mod outcome;
mod queue;
mod rejected_writer;

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

pub use batcher::Batcher;
pub use outcome::Outcome;
pub use queue::Bounds;

use crate::auth::Tenant;
use crate::report::{self, Code, Paths, Rejection, SessionReport, UnixMs};
use crate::store::{Received, RejectedBody, Store};
use crate::telemetry::Metrics;
use rejected_writer::RejectedWriter;

/// The way in for reports.
pub struct Ingest {
    batcher: Batcher,
    rejected: RejectedWriter,
    metrics: Arc<Metrics>,
    max_report_bytes: usize,
    /// Where reports have their own fields.
    paths: Arc<Paths>,
}

/// What became of one body.
#[derive(Debug)]
pub struct Answer {
    /// The session, where the body said which.
    pub session_id: Option<String>,
    /// What happened.
    pub outcome: Outcome,
}

impl Ingest {
    /// Starts the tasks that write, once the schema of `store` is up to date.
    #[must_use]
    pub fn start(
        store: &Arc<Store>,
        metrics: &Arc<Metrics>,
        bounds: Bounds,
        max_report_bytes: usize,
    ) -> Self {
        Self {
            batcher: Batcher::new(Arc::clone(store), Arc::clone(metrics), bounds),
            rejected: RejectedWriter::start(Arc::clone(store)),
            metrics: Arc::clone(metrics),
            max_report_bytes,
            paths: store.paths(),
        }
    }

    /// Takes reports in and returns when each of them is committed, refused or given up.
    ///
    /// Must run to its end also when the client has hung up.
    pub async fn receive(&self, tenant: &Tenant, bodies: Vec<Bytes>, at: UnixMs) -> Vec<Answer> {
        let since = Instant::now();
        let mut answers = Vec::with_capacity(bodies.len());
        let (mut reports, mut reported) = (Vec::with_capacity(bodies.len()), Vec::new());
        for (index, body) in bodies.iter().enumerate() {
            let (session_id, outcome) = match self.parse(body) {
                Ok(mut report) => {
                    let session_id = report.session_id.clone();
                    reported.push((index, std::mem::take(&mut report.dropped)));
                    reports.push(Received::new(tenant.clone(), report, at));
                    (Some(session_id), Outcome::Busy)
                }
                // Of a body that is too large nothing is parsed.
                Err(rejection) if rejection.code == Code::PayloadTooLarge => {
                    (None, Outcome::Rejected(rejection))
                }
                Err(rejection) => (report::peek_session_id(body), Outcome::Rejected(rejection)),
            };
            answers.push(Answer { session_id, outcome });
        }
        for ((index, dropped), outcome) in reported.into_iter().zip(self.batcher.submit(reports)) {
            if let Some(outcome) = outcome {
                // Only a bug drops a report without an outcome.
                answers[index].outcome = outcome.await.unwrap_or(Outcome::Bug);
            }
            if answers[index].outcome.is_news() {
                self.metrics.dropped(&dropped);
            }
        }
        let mut refused = Vec::new();
        for (body, answer) in bodies.into_iter().zip(&answers) {
            if let Outcome::Rejected(rejection) = &answer.outcome {
                let rejection = rejection.clone();
                refused.push(RejectedBody { tenant: tenant.clone(), at, rejection, body });
            }
        }
        if !refused.is_empty() && !self.rejected.keep(refused, since).await {
            // A refused body is lost for good, so it is only refused once it is kept.
            for answer in answers.iter_mut().filter(|answer| answer.outcome.is_rejected()) {
                answer.outcome = Outcome::Failed;
            }
        }
        for answer in &answers {
            answer.outcome.count(tenant, &self.metrics);
        }
        answers
    }

    /// Refuses a body that holds no reports at all.
    pub async fn refuse(
        &self,
        tenant: &Tenant,
        body: Bytes,
        rejection: Rejection,
        at: UnixMs,
    ) -> Outcome {
        let outcome = Outcome::Rejected(rejection.clone());
        let kept = vec![RejectedBody { tenant: tenant.clone(), at, rejection, body }];
        let is_kept = self.rejected.keep(kept, Instant::now()).await;
        let outcome = if is_kept { outcome } else { Outcome::Failed };
        outcome.count(tenant, &self.metrics);
        outcome
    }

    fn parse(&self, body: &[u8]) -> Result<SessionReport, Rejection> {
        if body.len() > self.max_report_bytes {
            let detail = format!("a report of more than {} bytes", self.max_report_bytes);
            return Err(Rejection::too_large(detail));
        }
        report::parse(body, &self.paths)
    }

    /// Takes no more reports, and returns when all that were taken have their outcome.
    pub async fn drain(&self) {
        self.batcher.drain().await;
        self.rejected.drain().await;
    }
}
