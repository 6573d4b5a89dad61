//! PostgreSQL: the only place that speaks SQL.
//!
//! [`Store::upsert`] is the write path: one transaction per batch, answered report by report.
//! Everything here returns [`Error`], classified once by what to do about it.

mod alone;
mod backfill;
mod connect;
mod distribute;
mod error;
mod lease;
mod migrate;
mod minutes;
mod original;
mod own_dimensions;
mod own_slots;
mod partitions;
mod prune;
mod reader;
mod rejected;
mod rollup;
mod session;
mod session_qoe;
mod settings;
mod sharding;
mod types;
mod write;

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use backfill::{BackfillError, Backfilled};
pub use connect::PoolSize;
pub use distribute::{DistributeError, Distribution, LocalTable};
pub use error::{Cause, Error};
pub use lease::Kept;
pub use migrate::{MigrateError, Migrated};
pub use minutes::{JobRun, Minute};
pub use original::{Original, OriginalError, OriginalSession, Place};
pub use own_dimensions::OwnDimension;
pub use partitions::Month;
pub use prune::Pruned;
pub use reader::Reader;
pub(crate) use reader::{LARGE_OBJECTS_ARE_PUBLIC, REVOKE_LARGE_OBJECTS};
pub use rejected::RejectedBody;
pub use rollup::{Rebuild, RolledUp, RollupStatus};
pub use session::{TimelinePage, TimelinePosition};
pub use session_qoe::is_column;
pub use settings::Target;

use crate::auth::Tenant;
use crate::clock::Clock;
use crate::report::{OwnField, Retention, SessionReport, UnixMs};
use crate::telemetry::Metrics;
use connect::Pool;
use own_slots::OwnSlots;
use partitions::Partitions;
use sharding::Sharding;
use types::PgTime;
use write::NewSessionStreak;

/// Rows about ourselves are short, and can wait for the next time.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Held to the end of a transaction, by one instance at a time. Not an advisory lock: any role
/// that can log in could take that, Grafana's too.
const LOCK: &str = "SET LOCAL lock_timeout = '4s'; LOCK TABLE server_lock IN EXCLUSIVE MODE";

/// A validated report with what the server knows about its arrival.
#[derive(Debug)]
pub struct Received {
    /// Tenant of the key that sent it.
    pub tenant: Tenant,
    /// The report.
    pub report: SessionReport,
    /// Database clock at receipt.
    pub at: UnixMs,
    /// Key of its session.
    key: Uuid,
}

impl Received {
    /// A report of `tenant` that was received at `at`.
    #[must_use]
    pub fn new(tenant: Tenant, report: SessionReport, at: UnixMs) -> Self {
        let key = write::session_key(tenant.as_str(), &report.session_id);
        Self { tenant, report, at, key }
    }

    /// Key of its session in all tables.
    #[must_use]
    pub const fn key(&self) -> Uuid {
        self.key
    }
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
    own: OwnSlots,
    /// One permit for each session that may be read now.
    readers: Semaphore,
    metrics: Arc<Metrics>,
}

impl Store {
    /// A store whose connections are made when they are needed.
    #[must_use]
    pub fn new(
        target: Target,
        size: PoolSize,
        retention: Retention,
        own_fields: Vec<OwnField>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            pool: Pool::new(target, size),
            retention,
            partitions: Partitions::default(),
            sharding: Sharding::default(),
            new_sessions: NewSessionStreak::default(),
            own: OwnSlots::new(own_fields),
            readers: Semaphore::new(session::READERS),
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

    /// Whether a new connection can be made, and if not, why.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn reach(&self) -> Result<(), Error> {
        self.pool.bare().await.map(drop)
    }

    /// Tells `clock` what the database's says.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn follow_clock(&self, clock: &Clock) -> Result<(), Error> {
        let look = async {
            let mut lease = self.pool.take().await?;
            lease.open().await?;
            let asked = Instant::now();
            let now: PgTime =
                sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *lease).await?;
            let took = asked.elapsed();
            clock.follow(UnixMs::from(now).plus(took / 2));
            lease.close().await?;
            lease.finish();
            Ok(took)
        };
        self.within(RECORD_TIMEOUT, "clock", look).await.map(drop)
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
