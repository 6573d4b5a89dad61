//! The database of a command: one that others run, or the built-in one for its duration.

use std::sync::Arc;

use anyhow::Context;
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;

use crate::config::{Config, Database, DatabaseUrl};
use crate::managed_pg::{ManagedPostgres, Reporter};
use crate::store::Store;
use crate::telemetry::Metrics;

/// A database that is there until [`Opened::close`].
pub(super) struct Opened {
    pub(super) options: PgConnectOptions,
    pub(super) built_in: Option<ManagedPostgres>,
}

impl Opened {
    /// What commands ask it through.
    pub(super) fn store(&self, config: &Config) -> Store {
        let metrics = Arc::new(Metrics::new([], &[]));
        Store::new(self.options.clone(), config.pool, config.retention, metrics)
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        if let Some(postgres) = self.built_in {
            postgres.stop().await.context("the built-in PostgreSQL could not be stopped")?;
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

/// Finds the database, starting the built-in one if it is that.
pub(super) async fn open(config: &Config) -> anyhow::Result<Opened> {
    match &config.database {
        Database::Url(url) => Ok(Opened { options: url.options(), built_in: None }),
        Database::BuiltIn(settings) => {
            let reporter = Reporter::stderr();
            let postgres =
                ManagedPostgres::start(settings.clone(), &|progress| reporter.report(progress))
                    .await?;
            drop(reporter);
            let url = postgres.url();
            let options =
                DatabaseUrl::parse(url.expose_secret()).map_err(anyhow::Error::msg)?.options();
            Ok(Opened { options, built_in: Some(postgres) })
        }
    }
}
