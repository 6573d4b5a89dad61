//! Versioned migrations, embedded in the binary, run by one instance at a time.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::{Migrate as _, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::lease::Lease;
use super::rollup::functions as rollup_functions;
use super::write::functions;
use super::{Error, Store, original, own_dimensions};
use crate::clock::Clock;

/// sqlx refuses changed checksums. The lock is ours: that of sqlx is an advisory one, which any
/// role can take, and outlives a transaction, so that a pooler would leave it to somebody else.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!();
    migrations.set_locking(false);
    migrations
});
/// sqlx's list of applied migrations. Locking it lets one instance at a time migrate.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";

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
        "this database holds {found}, which media3watch did not make; nothing was changed. Use \
         another database or schema: a name of its own in DATABASE_URL (CREATE DATABASE …, or \
         CREATE SCHEMA … and ?currentSchema=…). To copy the sessions of the original Media3Watch \
         backend there, run:\n  \
         DATABASE_URL=postgresql://USER:PASSWORD@HOST/NEW_DATABASE media3watch import \
         --from-media3watch postgresql://USER:PASSWORD@HOST/OLD_DATABASE"
    )]
    ForeignTables {
        /// Which table, and whose it is as far as that can be told.
        found: &'static str,
    },
    /// A right is missing.
    #[error("{cause}; {remedy}")]
    Right {
        /// What Postgres said.
        cause: Error,
        /// Statements that mend it.
        remedy: String,
    },
    /// A pooler that allows no transactions.
    #[error(
        "the pooler in front of the database gives each statement a connection of its own, so \
         that no report can be stored safely; set pool_mode = transaction or session in PgBouncer, \
         or put the address of PostgreSQL itself into DATABASE_URL"
    )]
    StatementPooling,
    /// The schema is not one that this version knows.
    #[error("the schema cannot be migrated: {0}")]
    Schema(String),
}

impl MigrateError {
    /// True where waiting may help. What is set wrong is said at once: at a start, somebody is
    /// there to read it.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_temporary() && !error.is_permanent())
    }
}

impl Store {
    /// Brings the schema up to date, gives own fields their columns, and makes the partitions that
    /// are needed next. From then on,
    /// `clock` goes with the database's.
    ///
    /// # Errors
    /// When Postgres is away or too old, or holds a schema from a newer version.
    pub async fn migrate(&self, clock: &Clock) -> Result<Migrated, MigrateError> {
        match self.try_migrate(clock).await {
            Err(MigrateError::Database(error)) if error.is_statement_pooling() => {
                Err(MigrateError::StatementPooling)
            }
            Err(MigrateError::Database(cause)) if cause.is_missing_right() => {
                let remedy = self.remedy(&cause).await?;
                Err(MigrateError::Right { cause, remedy })
            }
            result => result,
        }
    }

    async fn try_migrate(&self, clock: &Clock) -> Result<Migrated, MigrateError> {
        self.pool.find_pooler().await?;
        let mut connection = self.pool.connect().await?;
        connection.open().await?;
        let (number, server_version, encoding): (i32, String, String) = sqlx::query_as(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                    current_setting('server_encoding')",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::from)?;
        connection.close().await?;
        if number < OLDEST_SERVER {
            return Err(MigrateError::ServerTooOld(server_version));
        }
        if encoding != "UTF8" {
            return Err(MigrateError::Encoding(encoding));
        }
        let applied = migrate(&mut connection).await?;
        functions::ensure(&mut connection).await?;
        self.follow_clock(clock).await?;
        let own = own_dimensions::ensure(&mut connection, self.own.fields(), clock.now()).await?;
        self.own.assigned(&own);
        let made = rollup_functions::ensure(&mut connection).await;
        // An open transaction ends with its connection.
        drop(connection);
        match made {
            // Such as a view of somebody's on another version of one: no report is lost for want
            // of a dashboard.
            Err(error) if !error.is_temporary() || error.is_permanent() => tracing::error!(
                %error,
                "the functions that dashboards read with (qoe and its siblings) could not be \
                 replaced: remove what stands in the way and restart"
            ),
            result => result?,
        }
        self.ensure_partitions(clock.now()).await?;
        Ok(Migrated {
            version: MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0),
            applied,
            server_version,
        })
    }

    /// What a superuser must run so that this role has the right that it lacks.
    async fn remedy(&self, cause: &Error) -> Result<String, Error> {
        let mut connection = self.pool.connect().await?;
        connection.open().await?;
        let (role, database, schema, wanted): (String, String, Option<String>, String) =
            sqlx::query_as(
                "SELECT quote_ident(current_user), quote_ident(current_database()),
                        quote_ident(current_schema()), current_setting('search_path')",
            )
            .fetch_one(&mut *connection)
            .await?;
        connection.close().await?;
        Ok(match schema {
            None => format!(
                "none of the schemas in search_path ({wanted}) is there. As the owner of the \
                 database: CREATE SCHEMA … AUTHORIZATION {role}"
            ),
            Some(schema) if cause.cause().message.contains("schema") => format!(
                "as a superuser, in this database: GRANT USAGE, CREATE ON SCHEMA {schema} TO \
                 {role}, or ALTER DATABASE {database} OWNER TO {role} (PostgreSQL 15 and newer let \
                 only the owner of a database make tables in it)"
            ),
            Some(_) => format!(
                "log in as the role that owns the tables, or, as a superuser, in this database: \
                 REASSIGN OWNED BY … TO {role}"
            ),
        })
    }

    /// As [`Store::migrate`], waiting for a Postgres that is still starting, up to `patience`.
    ///
    /// # Errors
    /// The last error when it never came.
    pub async fn migrate_patiently(
        &self,
        clock: &Clock,
        patience: Duration,
    ) -> Result<Migrated, MigrateError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.migrate(clock).await {
                Err(error) if error.is_temporary() && tokio::time::Instant::now() < deadline => {
                    tracing::warn!(%error, "waiting for the database");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                result => return result,
            }
        }
    }
}

/// Applies what is missing, in one transaction: all of it or nothing. How many were missing.
async fn migrate(connection: &mut Lease) -> Result<usize, MigrateError> {
    // Migrations of a large table may run for long, and wait, but not for ever. Notices would say
    // at each start that a table exists already.
    let settings = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10min';
                    SET LOCAL idle_in_transaction_session_timeout = 0;
                    SET LOCAL client_min_messages = warning";
    let begin = AssertSqlSafe(connection.prelude(settings).await?);
    // sqlx must know of the transaction, to make one within it for each migration.
    let mut transaction = connection.begin_with(begin).await.map_err(Error::from)?;
    refuse_foreign_schema(&mut transaction).await?;
    lock_migrations(&mut transaction).await?;
    let before = applied_count(&mut transaction).await?;
    // Not `run`: of that, the compiler cannot tell that it may move between threads.
    MIGRATIONS.run_direct(None, &mut *transaction, false).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error)
        | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => Error::from(error).into(),
        other => MigrateError::Schema(other.to_string()),
    })?;
    let after = applied_count(&mut transaction).await?;
    // Behind a pooler, nothing that was prepared may stay.
    sqlx::raw_sql("DEALLOCATE ALL").execute(&mut *transaction).await.map_err(Error::from)?;
    transaction.commit().await.map_err(Error::from)?;
    connection.clear_cached_statements().await.map_err(Error::from)?;
    Ok(after.saturating_sub(before))
}

/// Waits until no other instance migrates, and keeps others waiting to the end of the transaction.
async fn lock_migrations(connection: &mut PgConnection) -> Result<(), MigrateError> {
    connection.ensure_migrations_table(MIGRATIONS_TABLE).await.map_err(|error| match error {
        // Another instance made it at the same time, and has migrated by now.
        sqlx::migrate::MigrateError::Execute(error)
            if error.as_database_error().is_some_and(DatabaseError::is_unique_violation) =>
        {
            Error::transient("another instance is migrating").into()
        }
        sqlx::migrate::MigrateError::Execute(error) => Error::from(error).into(),
        other => MigrateError::Schema(other.to_string()),
    })?;
    let lock = AssertSqlSafe(format!("LOCK TABLE {MIGRATIONS_TABLE} IN EXCLUSIVE MODE"));
    sqlx::raw_sql(lock).execute(connection).await.map_err(Error::from)?;
    Ok(())
}

/// Refuses a database with tables that our migrations did not make, before anything is changed.
async fn refuse_foreign_schema(connection: &mut PgConnection) -> Result<(), MigrateError> {
    // Every build before the first release had a table session_places; this schema has none.
    let (is_ours, has_sessions, is_early): (bool, bool, bool) = sqlx::query_as(
        "SELECT to_regclass('_sqlx_migrations') IS NOT NULL, to_regclass('sessions') IS NOT NULL,
                to_regclass('session_places') IS NOT NULL",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(Error::from)?;
    // sqlx creates its table first, so an empty one is left by a migration that failed on other
    // people's tables.
    let is_ours = is_ours
        && sqlx::query_scalar("SELECT EXISTS (SELECT FROM _sqlx_migrations)")
            .fetch_one(&mut *connection)
            .await
            .map_err(Error::from)?;
    match (is_ours, has_sessions) {
        (true, true) if is_early => Err(MigrateError::BeforeFirstRelease),
        (false, true) => {
            let found = if original::is_original(connection).await? {
                "the table sessions of the original Media3Watch backend"
            } else {
                "a table named sessions"
            };
            Err(MigrateError::ForeignTables { found })
        }
        _ => Ok(()),
    }
}

/// Zero where the table of migrations does not exist yet.
async fn applied_count(connection: &mut PgConnection) -> Result<usize, Error> {
    let is_there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        return Ok(0);
    }
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(connection).await?;
    Ok(usize::try_from(count).unwrap_or(0))
}
