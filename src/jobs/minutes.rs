//! A row in `backend_minutes` every minute: the heartbeat, for dashboards and alerts that have
//! nothing but the database.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::report::UnixMs;
use crate::store::{Error, Minute};
use crate::telemetry::Totals;

const MINUTE: Duration = Duration::from_mins(1);

/// Writes the first row at once, and the last one when all reports have their outcome.
pub(super) async fn minutes(app: Arc<App>, drained: CancellationToken) {
    let mut heart = Heart::new(&app);
    let mut every_minute = tokio::time::interval(MINUTE);
    every_minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_last = drained.run_until_cancelled(every_minute.tick()).await.is_none();
        if let Err(error) = heart.beat(&app).await {
            tracing::warn!(%error, "no heartbeat: this minute will be told with the next");
        }
        if is_last {
            return;
        }
    }
}

/// What has been told already.
pub struct Heart {
    started_at: UnixMs,
    told: Totals,
    told_at: Instant,
}

impl Heart {
    /// Nothing has been told of this server yet.
    #[must_use]
    pub fn new(app: &App) -> Self {
        Self { started_at: app.clock.now(), told: Totals::default(), told_at: Instant::now() }
    }

    /// Writes what has happened since the last row. Where that fails, the next row has it too.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn beat(&mut self, app: &App) -> Result<(), Error> {
        let (totals, now) = (app.metrics.totals(), Instant::now());
        let activity = totals.since(&self.told);
        let minute = Minute {
            instance: &app.instance,
            started_at: self.started_at,
            seconds: now.duration_since(self.told_at).as_secs_f64(),
            activity: &activity,
        };
        app.store.record_minute(&minute).await?;
        (self.told, self.told_at) = (totals, now);
        Ok(())
    }
}
