//! What clients may take: connections, time and memory, and how many requests a key has per
//! window, as a bucket that refills evenly.

mod budget;
mod clients;
mod connections;
mod memory;
mod peers;

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

pub use clients::Limits;
pub use connections::{Connections, Eviction, Place};
pub use memory::{BodyBudget, BodyPermit, Reader, ResponseBudget, ResponsePermit};
pub use peers::{TrustedProxies, peer_group};

use crate::auth::{Caller, KeyId};
use crate::telemetry::OnceAMinute;

/// Reports that one viewer of SDK 1.x posts per minute at least: one every 15 s.
const REPORTS_PER_VIEWER_MINUTE: f64 = 4.0;

type Buckets =
    RateLimiter<KeyId, DefaultKeyedStateStore<KeyId>, DefaultClock, StateInformationMiddleware>;

/// How much a key may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// `RATE_LIMIT_REQUESTS`
    pub requests: NonZeroU32,
    /// `RATE_LIMIT_WINDOW_SEC`
    pub window: Duration,
}

impl RateLimit {
    /// How many viewers of SDK 1.x the limit has room for, at most.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and saturating is what is wanted"
    )]
    pub fn viewers(&self) -> u64 {
        let per_minute = f64::from(self.requests.get()) * 60.0 / self.window.as_secs_f64();
        (per_minute / REPORTS_PER_VIEWER_MINUTE) as u64
    }

    /// Time in which one request's worth refills.
    fn refill(&self) -> Duration {
        (self.window / self.requests.get()).max(Duration::from_nanos(1))
    }
}

/// Whether a request may go on, and what its answer says about the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Requests per window.
    pub limit: u32,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// Time until the bucket is full again.
    pub reset: Duration,
    /// Where the request may not go on: when to try again.
    pub retry_after: Option<Duration>,
}

/// Counts requests per key, in this process.
pub struct Limiter {
    limit: RateLimit,
    buckets: Buckets,
    clock: DefaultClock,
    /// Requests over the limit: the SDK sends its whole queue however often it is told to wait.
    rejections: Mutex<OnceAMinute>,
}

impl Limiter {
    /// A limiter with full buckets.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let quota = Quota::with_period(limit.refill())
            .expect("a refill time above zero")
            .allow_burst(limit.requests);
        Self {
            limit,
            buckets: RateLimiter::keyed(quota).with_middleware(),
            clock: DefaultClock::default(),
            rejections: Mutex::default(),
        }
    }

    /// Takes one request out of the caller's bucket.
    #[must_use]
    pub fn take(&self, caller: &Caller) -> Decision {
        let limit = self.limit.requests.get();
        match self.buckets.check_key(&caller.key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let reset = self.limit.refill() * (limit - remaining.min(limit));
                Decision { limit, remaining, reset, retry_after: None }
            }
            Err(denied) => {
                let retry_after = denied.wait_time_from(self.clock.now());
                self.warn(caller);
                let reset = self.limit.window;
                Decision { limit, remaining: 0, reset, retry_after: Some(retry_after) }
            }
        }
    }

    /// Forgets keys whose buckets are full again: governor keeps every key that it ever saw.
    pub fn prune(&self) {
        self.buckets.retain_recent();
    }

    /// Says what the limit means, at most once a minute.
    fn warn(&self, caller: &Caller) {
        let mut rejections = self.rejections.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rejected) = rejections.count() else { return };
        drop(rejections);
        tracing::warn!(
            tenant = %caller.tenant,
            rejected,
            requests = self.limit.requests,
            window_sec = self.limit.window.as_secs(),
            viewers = self.limit.viewers(),
            "rate limit reached, requests rejected since the last such line; the limit has room for \
             this many viewers of SDK 1.x, who post at least four reports a minute each; raise \
             RATE_LIMIT_REQUESTS for more"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Keys, PlainKey};

    fn limit(requests: u32, window_sec: u64) -> RateLimit {
        let requests = NonZeroU32::new(requests).expect("not zero");
        RateLimit { requests, window: Duration::from_secs(window_sec) }
    }

    #[test]
    fn a_burst_of_the_whole_limit_passes_and_the_next_waits() {
        let keys = Keys::from_environment(&PlainKey::new("k".to_owned()));
        let caller = keys.authenticate(b"k").expect("known");
        let limiter = Limiter::new(limit(3, 3600));
        let decisions: Vec<Decision> = (0..4).map(|_| limiter.take(caller)).collect();
        assert_eq!(decisions.iter().map(|d| d.remaining).collect::<Vec<_>>(), [2, 1, 0, 0]);
        assert!(decisions[..3].iter().all(|decision| decision.retry_after.is_none()));
        let wait = decisions[3].retry_after.expect("denied");
        assert!(wait > Duration::from_secs(1100) && wait <= Duration::from_mins(20));
        assert_eq!(decisions[2].reset, Duration::from_hours(1));
    }

    #[test]
    fn the_default_limit_is_25_viewers() {
        assert_eq!(limit(100, 60).viewers(), 25);
        assert_eq!(limit(1, 60).viewers(), 0);
    }
}
