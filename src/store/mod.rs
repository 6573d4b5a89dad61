//! PostgreSQL: the only place that speaks SQL.
//!
//! [`Store::upsert`] is the write path: one transaction per batch, answered report by report.
//! Everything here returns [`Error`], classified once by what to do about it.

mod batch;
mod connect;
mod error;
mod migrate;
mod partitions;
mod prune;
mod rejected;
mod types;
mod upsert;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool};

pub use connect::PoolSize;
pub use error::{Cause, Error};
pub use migrate::{MigrateError, Migrated};
pub use prune::Pruned;
pub use rejected::RejectedBody;

use crate::auth::Tenant;
use crate::report::{Retention, SessionReport, UnixMs};
use crate::telemetry::Metrics;
use connect::Trust;
use partitions::Partitions;

/// First half of the keys of all our advisory locks: "m3w" in ASCII.
const LOCK_CLASS: i32 = 0x006d_3377;

/// A validated report with what the server knows about its arrival.
#[derive(Debug)]
pub struct Received {
    /// Tenant of the key that sent it.
    pub tenant: Tenant,
    /// The report.
    pub report: SessionReport,
    /// Server clock at receipt.
    pub at: UnixMs,
}

/// What became of one report in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The session's first report.
    Stored,
    /// Newer than what was stored; it replaced it.
    Updated,
    /// The same version as stored; nothing changed.
    Duplicate,
    /// Older than what is stored; nothing changed but timeline entries that were missing.
    Stale,
}

/// A pool of connections and what is known about the schema behind it.
pub struct Store {
    pool: PgPool,
    trust: Arc<Trust>,
    retention: Retention,
    partitions: Partitions,
    metrics: Arc<Metrics>,
}

impl Store {
    /// A store whose connections are made when they are needed.
    #[must_use]
    pub fn new(
        options: PgConnectOptions,
        size: PoolSize,
        retention: Retention,
        metrics: Arc<Metrics>,
    ) -> Self {
        let trust = Arc::new(Trust::default());
        let pool = connect::pool(options, size, Arc::clone(&trust));
        Self {
            pool,
            trust,
            retention,
            partitions: Partitions::default(),
            metrics,
        }
    }

    /// Whether Postgres answers, within `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn ping(&self, limit: Duration) -> Result<(), Error> {
        let ping = self.timed("ping", async {
            let mut connection = self.pool.acquire().await?;
            match sqlx::query("SELECT 1").execute(&mut *connection).await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.give_up(connection, error.into())),
            }
        });
        let answer = tokio::time::timeout(limit, ping).await;
        answer.unwrap_or_else(|_| Err(Error::timed_out("SELECT 1")))
    }

    /// One session with its payload and timeline, as the text of a JSON object.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn session(
        &self,
        tenant: &Tenant,
        session_id: &str,
    ) -> Result<Option<String>, Error> {
        self.timed("select_session", async {
            let found = sqlx::query_scalar(include_str!("sql/select_session.sql"))
                .bind(session_id)
                .bind(tenant.as_str())
                .fetch_optional(&self.pool)
                .await;
            found.map_err(|error| self.distrust(error.into()))
        })
        .await
    }

    /// How many connections are in use, idle, and allowed.
    #[must_use]
    pub fn pool_usage(&self) -> (u32, u32, u32) {
        let size = self.pool.size();
        let idle = u32::try_from(self.pool.num_idle())
            .unwrap_or(u32::MAX)
            .min(size);
        (size - idle, idle, self.pool.options().get_max_connections())
    }

    /// Closes all connections; calls that are under way end first.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Measures `query` under a name that is a label value of `db_query_duration_seconds`.
    async fn timed<T>(&self, name: &'static str, query: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = query.await;
        self.metrics.db_query(name, started.elapsed());
        result
    }

    /// Throws a connection away whose state is unknown after an error: it may be dead, or
    /// stand in a broken transaction. Closing the socket makes Postgres roll back.
    fn give_up(&self, connection: PoolConnection<Postgres>, error: Error) -> Error {
        drop(connection.detach());
        self.distrust(error)
    }

    /// After a lost connection, the idle ones are suspect too.
    fn distrust(&self, error: Error) -> Error {
        if matches!(error, Error::Unavailable(_)) {
            self.trust.lose();
        }
        error
    }
}
