//! Versioned migrations, embedded in the binary, run by one instance at a time.

use std::time::Duration;

use sqlx::migrate::Migrator;

use super::write::functions;
use super::{Error, Store};

/// sqlx takes an advisory lock while it migrates and refuses changed checksums.
static MIGRATIONS: Migrator = sqlx::migrate!();

/// Oldest PostgreSQL that is supported, as `server_version_num` says it.
const OLDEST_SERVER: i32 = 150_000;

/// What a migration run found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Version of the schema now.
    pub version: i64,
    /// How many migrations were applied by this run.
    pub applied: usize,
    /// PostgreSQL's version, for example `16.4`.
    pub server_version: String,
}

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres cannot be reached or used.
    #[error(transparent)]
    Database(#[from] Error),
    /// Too old a server.
    #[error("PostgreSQL {0} is too old: 15 or newer is needed")]
    ServerTooOld(String),
    /// A database that cannot hold all text.
    #[error(
        "the database has the encoding {0}, which cannot hold every text: UTF8 is needed \
         (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0)"
    )]
    Encoding(String),
    /// A schema from before the first release.
    #[error(
        "this database was made by a build from before the first release, whose tables this \
         version cannot use; nothing in it was changed. Use a new database: another name in \
         DATABASE_URL (CREATE DATABASE …), or another M3W_DATA_DIR for the built-in PostgreSQL. \
         The build that made it can still read the old one"
    )]
    BeforeFirstRelease,
    /// Somebody else's tables.
    #[error(
        "this database holds a table named sessions that media3watch did not make; nothing was \
         changed. Use another database or schema: a name of its own in DATABASE_URL (CREATE \
         DATABASE …)"
    )]
    ForeignTables,
    /// The schema is not one that this version knows.
    #[error("the schema cannot be migrated: {0}")]
    Schema(String),
}

impl MigrateError {
    /// True where waiting may help. A wrong password or name is told at once: at a start,
    /// somebody is there to read it.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_temporary() && !error.is_refused_login())
    }
}

impl Store {
    /// Brings the schema up to date and makes the partitions that are needed next.
    ///
    /// # Errors
    /// When Postgres is away or too old, or holds a schema from a newer version.
    pub async fn migrate(&self, now: crate::report::UnixMs) -> Result<Migrated, MigrateError> {
        let mut connection = self.connect().await?;
        let (number, server_version, encoding): (i32, String, String) = sqlx::query_as(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                    current_setting('server_encoding')",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(Error::from)?;
        if number < OLDEST_SERVER {
            return Err(MigrateError::ServerTooOld(server_version));
        }
        if encoding != "UTF8" {
            return Err(MigrateError::Encoding(encoding));
        }
        // Migrations of a large table may run for long, and wait, but not for ever: the lock that
        // sqlx takes is one that anybody can take. Notices would say at each start that its table
        // exists already.
        let settings = "SET statement_timeout = 0; SET lock_timeout = '10min';
                        SET client_min_messages = warning";
        sqlx::raw_sql(settings).execute(&mut connection).await.map_err(Error::from)?;
        refuse_foreign_schema(&mut connection).await?;
        let before = applied_count(&mut connection).await;
        // Not `run`: of that, the compiler cannot tell that it may move between threads.
        let run = MIGRATIONS.run_direct(None, &mut connection, false).await;
        let after = applied_count(&mut connection).await;
        run.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error) => Error::from(error).into(),
            other => MigrateError::Schema(other.to_string()),
        })?;
        functions::ensure(&mut connection).await?;
        drop(connection);
        self.ensure_partitions(now).await?;
        Ok(Migrated {
            version: MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0),
            applied: after.saturating_sub(before),
            server_version,
        })
    }

    /// As [`Store::migrate`], waiting for a Postgres that is still starting, up to `patience`.
    ///
    /// # Errors
    /// The last error when it never came.
    pub async fn migrate_patiently(
        &self,
        now: crate::report::UnixMs,
        patience: Duration,
    ) -> Result<Migrated, MigrateError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.migrate(now).await {
                Err(error) if error.is_temporary() && tokio::time::Instant::now() < deadline => {
                    tracing::warn!(%error, "waiting for the database");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                result => return result,
            }
        }
    }
}

/// Refuses a database with tables that our migrations did not make, before anything is changed.
async fn refuse_foreign_schema(connection: &mut sqlx::PgConnection) -> Result<(), MigrateError> {
    // Every build before the first release had a table session_places; this schema has none.
    let (is_ours, has_sessions, is_early): (bool, bool, bool) = sqlx::query_as(
        "SELECT to_regclass('_sqlx_migrations') IS NOT NULL, to_regclass('sessions') IS NOT NULL,
                to_regclass('session_places') IS NOT NULL",
    )
    .fetch_one(connection)
    .await
    .map_err(Error::from)?;
    match (is_ours, has_sessions) {
        (true, true) if is_early => Err(MigrateError::BeforeFirstRelease),
        (false, true) => Err(MigrateError::ForeignTables),
        _ => Ok(()),
    }
}

/// Zero where the table of migrations does not exist yet.
async fn applied_count(connection: &mut sqlx::PgConnection) -> usize {
    let count: Result<i64, _> =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(connection).await;
    count.ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}
