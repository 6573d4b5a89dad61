//! PostgreSQL: the only place that speaks SQL.
//!
//! [`Store::upsert`] is the write path: one transaction per batch, answered report by report.
//! Everything here returns [`Error`], classified once by what to do about it.

mod connect;
mod distribute;
mod error;
mod lease;
mod migrate;
mod minutes;
mod original;
mod partitions;
mod prune;
mod reader;
mod rejected;
mod settings;
mod sharding;
mod types;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;

pub use connect::PoolSize;
pub use distribute::{DistributeError, Distribution, LocalTable};
pub use error::{Cause, Error};
pub use lease::Kept;
pub use migrate::{MigrateError, Migrated};
pub use minutes::{JobRun, Minute};
pub use original::{Original, OriginalError, OriginalSession, Place};
pub use prune::Pruned;
pub use reader::Reader;
pub(crate) use reader::{LARGE_OBJECTS_ARE_PUBLIC, REVOKE_LARGE_OBJECTS};
pub use rejected::RejectedBody;
pub use settings::Target;

use crate::auth::Tenant;
use crate::report::{Retention, SessionReport, UnixMs};
use crate::telemetry::Metrics;
use connect::Pool;
use partitions::Partitions;
use sharding::Sharding;
use write::NewSessionStreak;

/// A session with its timeline is read by its key.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows about ourselves are short, and can wait for the next time.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Held to the end of a transaction, by one instance at a time.
const LOCK: &str = "LOCK TABLE server_lock IN EXCLUSIVE MODE";
/// First half of the key of our advisory lock: "m3w" in ASCII.
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
    pool: Pool,
    retention: Retention,
    partitions: Partitions,
    sharding: Sharding,
    new_sessions: NewSessionStreak,
    metrics: Arc<Metrics>,
}

impl Store {
    /// A store whose connections are made when they are needed.
    #[must_use]
    pub fn new(
        target: Target,
        size: PoolSize,
        retention: Retention,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            pool: Pool::new(target, size),
            retention,
            partitions: Partitions::default(),
            sharding: Sharding::default(),
            new_sessions: NewSessionStreak::default(),
            metrics,
        }
    }

    /// Whether Postgres answers, within `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not.
    pub async fn ping(&self, limit: Duration) -> Result<(), Error> {
        self.execute(limit, "ping", sqlx::query("SELECT 1")).await.map(drop)
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
        let read = async {
            let mut lease = self.pool.take().await?;
            lease.open().await?;
            let found = sqlx::query_scalar(include_str!("sql/select_session.sql"))
                .bind(write::session_key(tenant.as_str(), session_id))
                .bind(tenant.as_str())
                .bind(session_id)
                .fetch_optional(&mut *lease)
                .await?;
            lease.close().await?;
            lease.finish();
            Ok(found)
        };
        self.within(READ_TIMEOUT, "select_session", read).await
    }

    /// Where the tables are, or will be.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn place(&self) -> Result<Place, Error> {
        self.pool.find_pooler().await?;
        let mut connection = self.pool.connect().await?;
        connection.open().await?;
        let place = Place::of(&mut connection).await?;
        connection.close().await?;
        Ok(place)
    }

    /// How many connections are in use, idle, and allowed.
    #[must_use]
    pub fn pool_usage(&self) -> (u32, u32, u32) {
        let size = self.pool.size();
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX).min(size);
        (size - idle, idle, self.pool.options().get_max_connections())
    }

    /// Closes all connections; calls that are under way end first.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs one statement on a connection of the pool, as [`Store::within`]: the rows touched.
    async fn execute(
        &self,
        limit: Duration,
        name: &'static str,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, Error> {
        let work = async {
            let mut lease = self.pool.take().await?;
            lease.open().await?;
            let touched = query.execute(&mut *lease).await?.rows_affected();
            lease.close().await?;
            lease.finish();
            Ok(touched)
        };
        self.within(limit, name, work).await
    }

    /// Runs `work` for `limit` at most, measured under a name that is a label value of
    /// `db_query_duration_seconds`. Work that is cut off must hold its connection as a
    /// [`lease::Lease`].
    async fn within<T>(
        &self,
        limit: Duration,
        name: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let result = tokio::time::timeout(limit, work).await;
        self.metrics.db_query(name, started.elapsed());
        let result = result.unwrap_or_else(|_| Err(Error::timed_out(name)));
        match &result {
            Err(error) if error.is_of_pooler() => self.pool.set_pooled(),
            Err(Error::Unavailable(_)) => self.pool.lost_one(),
            _ => {}
        }
        result
    }
}
