//! From configuration to a running server, and from a signal to a clean end.
//!
//! The end, in order: readiness off, no new connections, requests under way answered with
//! `Connection: close`, batches flushed, jobs ended, pool closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::auth::Keys;
use crate::clock::Clock;
use crate::config::{Config, MetricsAt};
use crate::http;
use crate::ingest::{Bounds, Ingest};
use crate::jobs;
use crate::limit::{BodyBudget, Limiter, Limits, ResponseBudget};
use crate::managed_pg::Outage;
use crate::store::{MigrateError, Store, Target};
use crate::telemetry::Metrics;

/// How long a starting server waits for its Postgres.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the reports that wait may take; each of them is held for less.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long jobs and open connections may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server runs on, beside its configuration. Tests own all of it.
pub struct Ground {
    /// Where clients connect.
    pub listener: TcpListener,
    /// Where metrics are scraped, if not there too.
    pub metrics_listener: Option<TcpListener>,
    /// The database.
    pub database: Target,
    /// Whether the built-in database is down.
    pub outage: Outage,
    /// The time.
    pub clock: Clock,
    /// What clients may cost.
    pub limits: Limits,
    /// What the queue may hold.
    pub bounds: Bounds,
}

/// Runs a server until `stopping` is cancelled and everything acknowledged is settled.
/// `ready` is called once it takes traffic.
///
/// # Errors
/// When the schema cannot be brought up to date.
pub async fn run(
    config: &Config,
    ground: Ground,
    stopping: CancellationToken,
    ready: impl FnOnce(&Arc<App>),
) -> Result<(), MigrateError> {
    let instance = instance(ground.listener.local_addr().map_or(0, |address| address.port()));
    let keys = Keys::from_environment(&config.api_key);
    let metrics = Arc::new(Metrics::new(keys.tenants(), &http::ROUTES));
    let own_fields = config.own_fields.clone();
    let (pool, retention) = (config.pool, config.retention);
    let store = Store::new(ground.database, pool, retention, own_fields, Arc::clone(&metrics));
    let store = Arc::new(store);
    let migrating = store.migrate_patiently(&ground.clock, PATIENCE);
    let Some(migrated) = stopping.run_until_cancelled(migrating).await else {
        return Ok(());
    };
    let migrated = migrated?;
    tracing::info!(
        schema_version = migrated.version,
        applied = migrated.applied,
        postgres = migrated.server_version,
        "database is ready"
    );
    if let Some(reader) = &config.reader {
        stopping.run_until_cancelled(store.grant_reader(reader)).await;
    }
    let ingest = Ingest::start(&store, &metrics, ground.bounds, config.max_body_bytes);
    let app = Arc::new(App {
        instance,
        keys,
        limiter: Limiter::new(config.rate_limit),
        ingest: Arc::new(ingest),
        store,
        metrics: Arc::clone(&metrics),
        outage: ground.outage,
        clock: ground.clock,
        max_body_bytes: config.max_body_bytes,
        limits: ground.limits,
        bodies: BodyBudget::default(),
        responses: ResponseBudget::default(),
        trusted_proxies: config.trusted_proxies.clone(),
        metrics_on_main: config.metrics == MetricsAt::Main,
        stopping: stopping.clone(),
    });
    let jobs = jobs::start(&app);
    ready(&app);
    let main = http::serve(ground.listener, http::router(Arc::clone(&app)), &app);
    match ground.metrics_listener {
        Some(listener) => {
            let router = http::metrics_router(Arc::clone(&app));
            let own = http::serve(listener, router, &app);
            tokio::join!(main, own);
        }
        None => main.await,
    }
    if tokio::time::timeout(DRAIN_TIMEOUT, app.ingest.drain()).await.is_err() {
        tracing::error!("reports that were not acknowledged yet were given up");
    }
    let close = async {
        jobs.finish().await;
        app.store.close().await;
    };
    if tokio::time::timeout(CLOSE_TIMEOUT, close).await.is_err() {
        tracing::warn!("database connections did not close in time");
    }
    tracing::info!("stopped");
    Ok(())
}

/// How an instance is called in the database.
fn instance(port: u16) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{port}", host.as_deref().unwrap_or("unknown"))
}
