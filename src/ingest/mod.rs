//! From a body to exactly one [`Outcome`]: the only place that knows the order of the steps.
//!
//! ```text
//! bytes ─ report::parse ─▶ SessionReport ─ Batcher ─▶ Store::upsert ─▶ Outcome ─▶ counted
//!                 └─ Rejection ─ Keeper ─▶ rejected_reports ─▶ Outcome::Rejected
//! ```

mod batcher;
mod hold;
mod keeper;
mod outcome;

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

pub use batcher::{Batcher, Bounds};
pub use outcome::Outcome;

use crate::auth::Tenant;
use crate::report::{self, Code, Rejection, UnixMs};
use crate::store::{Received, RejectedBody, Store};
use crate::telemetry::Metrics;
use keeper::Keeper;

/// The way in for reports.
pub struct Ingest {
    batcher: Batcher,
    keeper: Keeper,
    metrics: Arc<Metrics>,
    max_report_bytes: usize,
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
    /// Starts the tasks that write.
    #[must_use]
    pub fn start(
        store: &Arc<Store>,
        metrics: &Arc<Metrics>,
        bounds: Bounds,
        max_report_bytes: usize,
    ) -> Self {
        Self {
            batcher: Batcher::start(Arc::clone(store), Arc::clone(metrics), bounds),
            keeper: Keeper::start(Arc::clone(store)),
            metrics: Arc::clone(metrics),
            max_report_bytes,
        }
    }

    /// Takes reports in and returns when each of them is committed, refused or given up.
    ///
    /// Runs to its end also when the client has hung up: call it from a task of its own.
    pub async fn receive(&self, tenant: &Tenant, bodies: Vec<Bytes>, at: UnixMs) -> Vec<Answer> {
        let since = Instant::now();
        let mut pending = Vec::with_capacity(bodies.len());
        for body in &bodies {
            pending.push(self.submit(tenant, body, at));
        }
        let mut answers = Vec::with_capacity(bodies.len());
        let mut refused = Vec::new();
        for (body, pending) in bodies.into_iter().zip(pending) {
            let answer = match pending {
                Pending::Answered(answer) => answer,
                Pending::Queued(session_id, outcome) => {
                    // Only a bug drops a report without an outcome.
                    let outcome = outcome.await.unwrap_or(Outcome::Bug);
                    Answer { session_id: Some(session_id), outcome }
                }
            };
            if let Outcome::Rejected(rejection) = &answer.outcome {
                let rejection = rejection.clone();
                refused.push(RejectedBody { tenant: tenant.clone(), at, rejection, body });
            }
            answers.push(answer);
        }
        if !refused.is_empty() && !self.keeper.keep(refused, since).await {
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
        let is_kept = self.keeper.keep(kept, Instant::now()).await;
        let outcome = if is_kept { outcome } else { Outcome::Failed };
        outcome.count(tenant, &self.metrics);
        outcome
    }

    fn submit(&self, tenant: &Tenant, body: &Bytes, at: UnixMs) -> Pending {
        let parsed = if body.len() > self.max_report_bytes {
            let detail = format!("a report of more than {} bytes", self.max_report_bytes);
            Err(Rejection { code: Code::PayloadTooLarge, field: "$".to_owned(), detail })
        } else {
            report::parse(body)
        };
        let report = match parsed {
            Ok(report) => report,
            Err(rejection) => {
                let session_id = report::peek_session_id(body);
                return Pending::Answered(Answer {
                    session_id,
                    outcome: Outcome::Rejected(rejection),
                });
            }
        };
        let session_id = report.session_id.clone();
        match self.batcher.submit(Received { tenant: tenant.clone(), report, at }) {
            Some(outcome) => Pending::Queued(session_id, outcome),
            None => {
                Pending::Answered(Answer { session_id: Some(session_id), outcome: Outcome::Busy })
            }
        }
    }

    /// Takes no more reports, and returns when all that were taken have their outcome.
    pub async fn drain(&self) {
        self.batcher.drain().await;
        self.keeper.drain().await;
    }
}

enum Pending {
    Answered(Answer),
    Queued(String, tokio::sync::oneshot::Receiver<Outcome>),
}
