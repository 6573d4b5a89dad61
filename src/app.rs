//! What the parts of a running server share.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use crate::auth::Keys;
use crate::ingest::Ingest;
use crate::limit::{BodyBudget, Limiter, Limits, ResponseBudget, TrustedProxies};
use crate::report::UnixMs;
use crate::store::Store;
use crate::telemetry::Metrics;

/// Tells the time. Passed in, so that tests can tell another.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMs + Send + Sync>);

impl Clock {
    /// A clock that asks `now`.
    pub fn new(now: impl Fn() -> UnixMs + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that all others ask")]
        Self::new(|| SystemTime::now().into())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        (self.0)()
    }
}

/// State of one server.
pub struct App {
    /// Host name and port: how this instance is told from others.
    pub instance: String,
    /// Who may do what.
    pub keys: Keys,
    /// How often.
    pub limiter: Limiter,
    /// The way in.
    pub ingest: Arc<Ingest>,
    /// The database.
    pub store: Arc<Store>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Clock,
    /// Largest report in bytes, before and after decompression.
    pub max_body_bytes: usize,
    /// What clients may cost.
    pub limits: Limits,
    /// Memory for their bodies.
    pub bodies: BodyBudget,
    /// Memory for responses that they have not read yet.
    pub responses: ResponseBudget,
    /// Peers that stand for many clients.
    pub trusted_proxies: TrustedProxies,
    /// Where `/metrics` is answered.
    pub metrics_on_main: bool,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
}
