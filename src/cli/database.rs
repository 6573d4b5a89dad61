//! The database of a command: one that others run, or the built-in one for its duration.

use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Database, DatabaseUrl};
use crate::managed_pg::{Error, ManagedPostgres, Reporter};
use crate::signals::stop_on_signals;
use crate::store::{Store, Target};
use crate::telemetry::Metrics;

/// A database that is there until [`Opened::close`].
pub(super) struct Opened {
    pub(super) target: Target,
    pub(super) built_in: Option<ManagedPostgres>,
}

impl Opened {
    /// What commands ask it through.
    fn store(&self, config: &Config) -> Store {
        let metrics = Arc::new(Metrics::new([], &[]));
        let (target, own_fields) = (self.target.clone(), config.own_fields.clone());
        Store::new(target, config.pool, config.retention, own_fields, metrics)
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        if let Some(postgres) = self.built_in {
            postgres.stop().await?;
        }
        Ok(())
    }
}

/// What to say when the database cannot be used: which one it is, and where that was set.
pub(super) fn trouble(config: &Config) -> String {
    match &config.database {
        Database::Url(url) => format!(
            "the database {url} cannot be used (from DATABASE_URL, DATABASE_USER, DATABASE_PASSWORD)"
        ),
        Database::BuiltIn(settings) => {
            format!("the built-in PostgreSQL in {} cannot be used", settings.data_dir.display())
        }
    }
}

/// Opens the database for `work`, and closes it when that is done or a signal interrupts it.
pub(super) async fn with<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Arc<Store>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let stopping = CancellationToken::new();
    stop_on_signals(stopping.clone())?;
    let interrupted = || anyhow::anyhow!("interrupted by a signal");
    let opening = stopping.run_until_cancelled(open(config)).await.ok_or_else(interrupted)?;
    let is_taken =
        |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Error::Locked { .. }));
    let opened = match opening {
        Err(error) if is_taken(&error) => beside_server(config).ok_or(error)?,
        opening => opening?,
    };
    let store = Arc::new(opened.store(config));
    let done = stopping.run_until_cancelled(work(&store)).await;
    store.close().await;
    opened.close().await?;
    done.unwrap_or_else(|| Err(interrupted()))
}

/// The built-in database of a server that runs: it stays that server's.
fn beside_server(config: &Config) -> Option<Opened> {
    let Database::BuiltIn(settings) = &config.database else { return None };
    let url = ManagedPostgres::running_url(settings)?;
    let url = DatabaseUrl::parse(url.expose_secret()).ok()?;
    Some(Opened { target: url.target(), built_in: None })
}

/// Finds the database, starting the built-in one if it is that.
pub(super) async fn open(config: &Config) -> anyhow::Result<Opened> {
    match &config.database {
        Database::Url(url) => Ok(Opened { target: url.target(), built_in: None }),
        Database::BuiltIn(settings) => {
            let reporter = Reporter::stderr();
            let postgres =
                ManagedPostgres::start(settings.clone(), &|progress| reporter.report(progress))
                    .await?;
            drop(reporter);
            let url = postgres.url();
            let url = DatabaseUrl::parse(url.expose_secret()).map_err(anyhow::Error::msg)?;
            Ok(Opened { target: url.target(), built_in: Some(postgres) })
        }
    }
}
