//! What the backend says of itself in the database: a row a minute, and its jobs' runs.

use serde_json::json;
use sqlx::types::Json;

use super::types::PgTime;
use super::{Error, RECORD_TIMEOUT, Store};
use crate::report::UnixMs;
use crate::telemetry::Activity;

/// How an instance did since its last row in `backend_minutes`.
#[derive(Debug, Clone)]
pub struct Minute<'a> {
    /// Host name and port.
    pub instance: &'a str,
    /// When the instance started.
    pub started_at: UnixMs,
    /// What the counts cover.
    pub seconds: f64,
    /// The counts.
    pub activity: &'a Activity,
}

/// A background job's run, as in `job_runs`.
#[derive(Debug, Clone)]
pub struct JobRun<'a> {
    /// Its name.
    pub job: &'a str,
    /// Host name and port.
    pub instance: &'a str,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub finished_at: UnixMs,
    /// ok, failed or skipped.
    pub result: &'a str,
    /// What it did, or why it failed.
    pub detail: &'a str,
}

impl Store {
    /// Adds a row to `backend_minutes`.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn record_minute(&self, minute: &Minute<'_>) -> Result<(), Error> {
        let activity = minute.activity;
        let ingested =
            |outcome: &str| count(activity.ingested.get(outcome).copied().unwrap_or_default());
        let (active, idle, max) = self.pool_usage();
        let insert = sqlx::query(include_str!("sql/insert_minute.sql"))
            .bind(minute.instance)
            .bind(crate::VERSION)
            .bind(PgTime::from(minute.started_at))
            .bind(minute.seconds)
            .bind(count(activity.requests))
            .bind(count(activity.client_errors))
            .bind(count(activity.server_errors))
            .bind(activity.answers.mean_ms)
            .bind(activity.answers.p95_ms)
            .bind(ingested("stored"))
            .bind(ingested("updated"))
            .bind(ingested("duplicate"))
            .bind(ingested("stale"))
            .bind(count(activity.limited))
            .bind(Json(json!(activity.rejected)))
            .bind(Json(json!(activity.failed)))
            .bind(count(activity.batches))
            .bind(count(activity.batch_reports))
            .bind(activity.commits.mean_ms)
            .bind(activity.commits.p95_ms)
            .bind(activity.queue_reports)
            .bind(activity.queue_bytes)
            .bind(i64::from(active))
            .bind(i64::from(idle))
            .bind(i64::from(max))
            .bind(activity.memory_bytes)
            .bind(activity.cpu_seconds)
            .bind(Json(json!(activity.values_dropped)))
            .bind(Json(json!(activity.entries_dropped)));
        self.execute(RECORD_TIMEOUT, "record", insert).await.map(drop)
    }

    /// Adds a row to `job_runs`.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn record_job(&self, run: &JobRun<'_>) -> Result<(), Error> {
        let insert = sqlx::query(
            "INSERT INTO job_runs (job, instance, started_at, finished_at, result, detail)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(run.job)
        .bind(run.instance)
        .bind(PgTime::from(run.started_at))
        .bind(PgTime::from(run.finished_at))
        .bind(run.result)
        .bind(run.detail);
        self.execute(RECORD_TIMEOUT, "record", insert).await.map(drop)
    }
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
