//! Fills the columns of new own dimensions from the payloads of sessions that were stored before.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::run;
use crate::app::App;
use crate::store::{BackfillError, Error};

/// Another instance with the same configuration may be doing it, and may be stopped.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Runs until nothing is left: the list changes only with a restart.
pub(super) async fn own_dimensions(app: Arc<App>) {
    loop {
        match app.store.unfilled_fields().await {
            Ok(names) if names.is_empty() => return,
            Ok(_) => {
                run(&app, "own_dimensions", fill(&app)).await;
            }
            Err(error) => tracing::debug!(%error, "own dimensions could not be looked at"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn fill(app: &App) -> Result<Option<String>, Error> {
    let mut said_at = Instant::now();
    let filled = app.store.backfill(|name, done| {
        if said_at.elapsed() >= SAY_EVERY {
            said_at = Instant::now();
            let sessions = done.sessions;
            tracing::info!(name, sessions, to_ms = done.to.0, "filling {name} from payloads");
        }
    });
    match filled.await {
        Ok(filled) => Ok(filled.map(|names| format!("filled {}", names.join(", ")))),
        Err(BackfillError::Database(error)) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "own dimensions are filled by whoever has them configured");
            Ok(None)
        }
    }
}
