//! How long reports are held while Postgres cannot store them: a restart costs latency, not
//! sessions.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

/// How long a report is held. Below the SDK's read timeout of 10 s, so that the client is
/// still there to receive the outcome.
const HOLD: Duration = Duration::from_secs(8);
/// Two attempts of the longest kind fit into the hold.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(4);
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// When something that arrived at `since` is given up. Each report has a deadline of its own: one
/// that came late into a batch is not given up with the others.
pub(super) fn deadline(since: Instant) -> Instant {
    since + HOLD
}

/// How long an attempt may take whose last deadline is `latest`: no longer than that, but never so
/// short that what waited long in the queue has no chance at all.
pub(super) fn attempt_limit(latest: Instant) -> Duration {
    latest.duration_since(Instant::now()).clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT)
}

/// The growing pauses between attempts.
pub(super) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    /// Waits before the next attempt.
    pub(super) async fn wait(&mut self) {
        // Jitter, so that batches that met in a deadlock or an outage do not meet again.
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..1.5));
        tokio::time::sleep(pause).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}
