//! Background work, one instance at a time: partitions ahead of time, and retention.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use crate::app::App;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// Retention that could not run, for a database away or a reader in the way, runs again soon.
const RETRY_RETENTION: Duration = Duration::from_mins(10);
const PRUNE_LIMITER: Duration = Duration::from_mins(10);

/// Starts all jobs; they end when the app is stopping, and the tracker with them.
pub fn start(app: &Arc<App>) -> TaskTracker {
    let tasks = TaskTracker::new();
    tasks.spawn(until_stopped(Arc::clone(app), partitions));
    tasks.spawn(until_stopped(Arc::clone(app), retention));
    tasks.spawn(until_stopped(Arc::clone(app), limiter));
    tasks.close();
    tasks
}

async fn until_stopped<J: Future<Output = ()>>(app: Arc<App>, job: impl FnOnce(Arc<App>) -> J) {
    let stopping = app.stopping.clone();
    // What is cut off in the middle is completed by the next run.
    stopping.run_until_cancelled_owned(job(app)).await;
}

/// Makes partitions ahead of time. The start of the server has made the first ones.
async fn partitions(app: Arc<App>) {
    let mut hourly = tokio::time::interval(HOUR);
    hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        hourly.tick().await;
        let now = app.clock.now();
        let made = app.store.ensure_partitions(now).await;
        if let Err(error) = &made {
            tracing::error!(%error, "partitions could not be made ahead of time");
        }
        let result = if made.is_ok() { "ok" } else { "failed" };
        app.metrics.job_run("partitions", result, now.0 / 1000);
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
    let now = app.clock.now();
    let result = match app.store.prune(now).await {
        Ok(Some(pruned)) => {
            app.metrics.pruned_rows("sessions", pruned.sessions);
            app.metrics.pruned_rows("session_timeline", pruned.timeline_entries);
            app.metrics.pruned_rows("session_places", pruned.places);
            app.metrics.pruned_rows("rejected_reports", pruned.rejected);
            app.metrics.dropped_partitions.inc_by(pruned.partitions.len() as u64);
            tracing::info!(
                partitions = pruned.partitions.len(),
                sessions = pruned.sessions,
                timeline_entries = pruned.timeline_entries,
                places = pruned.places,
                rejected = pruned.rejected,
                "retention done"
            );
            "ok"
        }
        Ok(None) => {
            tracing::info!("retention is being done by another instance");
            "skipped"
        }
        Err(error) => {
            tracing::error!(%error, "retention failed, the next run goes on from there");
            "failed"
        }
    };
    app.metrics.job_run("retention", result, now.0 / 1000);
    result == "ok"
}

/// Forgets keys whose limits are full again.
async fn limiter(app: Arc<App>) {
    loop {
        tokio::time::sleep(PRUNE_LIMITER).await;
        app.limiter.prune();
    }
}
