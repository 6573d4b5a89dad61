//! Holding on while Postgres is away: a restart costs latency, not sessions.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use crate::store::Error;

/// How long a report is held. Below the SDK's read timeout of 10 s, so that the client is
/// still there to hear the outcome.
const HOLD: Duration = Duration::from_secs(8);
/// Two tries of the longest kind fit into the hold.
const LONGEST_TRY: Duration = Duration::from_secs(4);
const SHORTEST_TRY: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Decides after each failed call whether there is to be another.
pub(super) struct Hold {
    deadline: Instant,
    pause: Duration,
}

impl Hold {
    /// A hold that ends [`HOLD`] after `start`.
    pub(super) fn since(start: Instant) -> Self {
        Self { deadline: start + HOLD, pause: FIRST_PAUSE }
    }

    /// How long the next call may take: no longer than the hold, but never so short that a
    /// report which waited long in the queue has no chance at all.
    pub(super) fn limit(&self) -> Duration {
        self.deadline.duration_since(Instant::now()).clamp(SHORTEST_TRY, LONGEST_TRY)
    }

    /// Waits and returns true when the call may be tried again; false when the error is
    /// for good or the time is up.
    pub(super) async fn try_again(&mut self, error: &Error) -> bool {
        // Jitter, so that batches that met in a deadlock or an outage do not meet again.
        let wait = self.pause.mul_f64(rand::rng().random_range(0.5..1.5));
        if !error.is_temporary() || Instant::now() + wait >= self.deadline {
            return false;
        }
        tracing::debug!(%error, "database call failed, trying again");
        tokio::time::sleep(wait).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}
