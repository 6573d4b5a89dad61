//! What the parts of a running server share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::auth::Keys;
use crate::clock::Clock;
use crate::ingest::Ingest;
use crate::limit::{BodyBudget, Limiter, Limits, ResponseBudget, TrustedProxies};
use crate::managed_pg::Outage;
use crate::store::Store;
use crate::telemetry::Metrics;

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
    /// Whether the built-in database is down.
    pub outage: Outage,
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
