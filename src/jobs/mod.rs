//! Background work: what an instance says of itself, and, one instance at a time, rollups,
//! partitions ahead of time, and retention.

mod minutes;
mod own_dimensions;
mod rollups;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::store::{Error, JobRun, Pruned};
pub use minutes::Heart;
use minutes::minutes;
use own_dimensions::own_dimensions;
pub use rollups::run_rollups;
use rollups::{rollup_lag, rollups};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Retention that could not run, for a database away or a reader in the way, runs again soon.
const RETRY_RETENTION: Duration = Duration::from_mins(10);
const PRUNE_LIMITER: Duration = Duration::from_mins(10);
const FOLLOW_CLOCK: Duration = Duration::from_secs(20);

/// Running jobs. They end when the app is stopping, but for the heartbeat.
pub struct Jobs {
    tasks: TaskTracker,
    drained: CancellationToken,
}

impl Jobs {
    /// To be called when all reports have their outcome: the last minute is told, and all jobs
    /// have ended.
    pub async fn finish(self) {
        self.drained.cancel();
        self.tasks.wait().await;
    }
}

/// Starts all jobs.
pub fn start(app: &Arc<App>) -> Jobs {
    let tasks = TaskTracker::new();
    let drained = CancellationToken::new();
    tasks.spawn(minutes(Arc::clone(app), drained.clone()));
    tasks.spawn(until_stopped(Arc::clone(app), partitions));
    tasks.spawn(until_stopped(Arc::clone(app), retention));
    tasks.spawn(until_stopped(Arc::clone(app), rollups));
    tasks.spawn(until_stopped(Arc::clone(app), rollup_lag));
    tasks.spawn(until_stopped(Arc::clone(app), own_dimensions));
    tasks.spawn(until_stopped(Arc::clone(app), limiter));
    tasks.spawn(until_stopped(Arc::clone(app), clock));
    tasks.close();
    Jobs { tasks, drained }
}

async fn until_stopped<J: Future<Output = ()>>(app: Arc<App>, job: impl FnOnce(Arc<App>) -> J) {
    let stopping = app.stopping.clone();
    // What is cut off in the middle is completed by the next run.
    stopping.run_until_cancelled_owned(job(app)).await;
}

/// Runs a job once: logged, counted, and told in `job_runs`. The job says what it did, or
/// `None` when another instance was at it. True when it did its work.
async fn run(
    app: &App,
    job: &'static str,
    work: impl Future<Output = Result<Option<String>, Error>>,
) -> bool {
    let started_at = app.clock.now();
    let (result, detail) = match work.await {
        Ok(Some(detail)) => {
            tracing::info!(job, detail, "job done");
            ("ok", detail)
        }
        Ok(None) => {
            tracing::info!(job, "job is being done by another instance");
            ("skipped", "another instance was at it".to_owned())
        }
        Err(error) => {
            tracing::error!(job, %error, "job failed, the next run goes on from there");
            ("failed", error.to_string())
        }
    };
    let finished_at = app.clock.now();
    app.metrics.job_run(job, result, finished_at.0 / 1000);
    let run =
        JobRun { job, instance: &app.instance, started_at, finished_at, result, detail: &detail };
    if let Err(error) = app.store.record_job(&run).await {
        tracing::warn!(job, %error, "the job's run could not be recorded");
    }
    result == "ok"
}

/// Makes partitions ahead of time. The start of the server has made the first ones.
async fn partitions(app: Arc<App>) {
    let mut hourly = tokio::time::interval(HOUR);
    hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        hourly.tick().await;
        let work = async {
            app.store.ensure_partitions(app.clock.now()).await?;
            Ok(Some("partitions are there for the months ahead".to_owned()))
        };
        run(&app, "partitions", work).await;
    }
}

/// Removes what has outlived its retention, at the start and every day.
async fn retention(app: Arc<App>) {
    loop {
        let pause = if run_retention(&app).await { DAY } else { RETRY_RETENTION };
        tokio::time::sleep(pause).await;
    }
}

/// One run of retention; false when it failed, or was left to another instance.
pub async fn run_retention(app: &App) -> bool {
    let work = async {
        let pruned = app.store.prune(app.clock.now()).await?;
        Ok(pruned.map(|pruned| {
            count(app, &pruned);
            pruned.to_string()
        }))
    };
    run(app, "retention", work).await
}

fn count(app: &App, pruned: &Pruned) {
    app.metrics.dropped_partitions.inc_by(pruned.partitions.len() as u64);
    for (table, rows) in pruned.rows() {
        app.metrics.pruned_rows(table, rows);
    }
}

/// Follows the database's clock, and says so as long as the machine's is minutes away from it.
async fn clock(app: Arc<App>) {
    let mut said_at: Option<Instant> = None;
    loop {
        // The start has done it for the first time.
        if let Some(warning) = app.clock.warning() {
            if said_at.is_none_or(|at| at.elapsed() > HOUR) {
                tracing::warn!("{warning}");
                said_at = Some(Instant::now());
            }
        } else if said_at.take().is_some() {
            tracing::info!("the clock of this machine and that of the database agree again");
        }
        app.metrics.clock_difference.set(app.clock.difference_ms() as f64 / 1000.0);
        tokio::time::sleep(FOLLOW_CLOCK).await;
        if let Err(error) = app.store.follow_clock(&app.clock).await {
            tracing::debug!(%error, "the database's clock could not be read");
        }
    }
}

/// Forgets keys whose limits are full again.
async fn limiter(app: Arc<App>) {
    loop {
        tokio::time::sleep(PRUNE_LIMITER).await;
        app.limiter.prune();
    }
}
