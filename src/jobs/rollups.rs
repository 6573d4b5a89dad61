//! Keeps the rollups up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{HOUR, run};
use crate::app::App;
use crate::store::RolledUp;

/// Between two runs; what they find is at most so much older than what panels show.
const SHORTEST_PAUSE: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A run is followed by a pause of so many times its length: reports come first.
const PAUSE_SHARE: u32 = 8;
const MEASURE_LAG: Duration = Duration::from_secs(5);
/// How often failures in a row are recorded.
const RECORD_FAILURE: Duration = Duration::from_mins(5);

/// Runs every few seconds. What it did is recorded once an hour, and failures at once.
pub(super) async fn rollups(app: Arc<App>) {
    let mut since_record = RolledUp::default();
    let mut recorded_at: Option<Instant> = None;
    let mut failed_at: Option<Instant> = None;
    loop {
        let began = Instant::now();
        match run_rollups(&app).await {
            Ok(done) => {
                since_record += done;
                let is_due = recorded_at.is_none_or(|at| at.elapsed() >= HOUR);
                if is_due || failed_at.take().is_some() {
                    let detail = std::mem::take(&mut since_record).to_string();
                    run(&app, "rollups", std::future::ready(Ok(Some(detail)))).await;
                    recorded_at = Some(Instant::now());
                }
            }
            Err(error) => {
                if failed_at.is_none_or(|at| at.elapsed() >= RECORD_FAILURE) {
                    run(&app, "rollups", std::future::ready(Err(error))).await;
                    failed_at = Some(Instant::now());
                }
            }
        }
        let pause = (began.elapsed() * PAUSE_SHARE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
    }
}

/// Measures how far behind they are, also while a run takes long or waits for a lock.
pub(super) async fn rollup_lag(app: Arc<App>) {
    loop {
        match app.store.rollup_lag_seconds().await {
            Ok(lag) => app.metrics.rollup_lag.set(lag),
            Err(error) => tracing::debug!(%error, "the lag of the rollups could not be read"),
        }
        tokio::time::sleep(MEASURE_LAG).await;
    }
}

/// One run.
///
/// # Errors
/// As classified by [`crate::store::Error`].
pub async fn run_rollups(app: &App) -> Result<RolledUp, crate::store::Error> {
    let done = app.store.roll_up(|_| {}).await?;
    if done.hours > 0 {
        tracing::debug!(%done, "rollups made");
    }
    Ok(done)
}
