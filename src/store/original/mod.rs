//! Reads the database of the original Media3Watch backend: its sessions and timelines, all from
//! one snapshot, and nothing is written.
//!
//! Its migrations left four shapes. The first has `"timestamp"` as timestamptz and a `payload`.
//! The second has the fields of SDK 0.x as columns, with `"timestamp"` in Unix milliseconds; the
//! third adds the device, the fourth a table `session_timeline`. Columns are looked up by name, so
//! a database between two of them is read too.

mod columns;

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio::time::timeout;

pub(super) use columns::is_original;

use super::connect::{Pool, PoolSize};
use super::{Error, Target};
use crate::report::UnixMs;
use columns::Columns;

/// Generous: the source may be busy.
const PAGE_TIMEOUT: Duration = Duration::from_mins(5);
const FIRST_PAGE_ROWS: usize = 50;
const MAX_PAGE_ROWS: usize = 500;
/// Target size of a page, which is held in memory: payloads may be large.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// The snapshot stays open while the target is written, so no timeout may end it.
const BEGIN: &str = "
    BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
    SET LOCAL TimeZone = 'UTC';
    SET LOCAL client_min_messages = warning;
    SET LOCAL lock_timeout = '10s';
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');";

/// The schema is that of the table `sessions` if there is one, else where one would be made.
const PLACE: &str = "
    SELECT pg_postmaster_start_time()::text,
           (SELECT oid::text FROM pg_database WHERE datname = current_database()),
           coalesce((SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                     WHERE c.oid = to_regclass('sessions')), current_schema())::text";

/// Only for progress, so the planner's estimate is good enough, if there is one.
const ROWS: &str = "
    SELECT CASE WHEN reltuples > 0 THEN reltuples::bigint ELSE (SELECT count(*) FROM sessions) END
    FROM pg_class WHERE oid = to_regclass('sessions')";

/// Where the tables of a connection are: the server's process, its database, and the schema.
/// URLs do not tell: a server has many names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(String, Option<String>, Option<String>);

impl Place {
    pub(super) async fn of(connection: &mut PgConnection) -> Result<Self, Error> {
        let (server, database, schema) =
            sqlx::query_as(PLACE).persistent(false).fetch_one(connection).await?;
        Ok(Self(server, database, schema))
    }
}

/// Why a database cannot be imported from.
#[derive(Debug, thiserror::Error)]
pub enum OriginalError {
    /// It cannot be reached or read.
    #[error(transparent)]
    Database(#[from] Error),
    /// Another database, or another schema of it.
    #[error(
        "it holds no table sessions; name the database of the original Media3Watch backend, and \
         with ?currentSchema=… its schema if that is not public"
    )]
    NoSessions,
    /// One of ours, or somebody else's.
    #[error("its table sessions is not one of the original Media3Watch backend")]
    OtherSessions,
}

/// A row of the original `sessions`.
#[derive(Debug)]
pub struct OriginalSession {
    /// Its `session_id`.
    pub session_id: String,
    /// When the original backend received its first report.
    pub created_at: Option<UnixMs>,
    /// Its columns as a JSON object with the keys of an SDK's report.
    pub columns: String,
    /// The JSON object in its `payload`, if it has one.
    pub payload: Option<String>,
}

impl OriginalSession {
    fn bytes(&self) -> usize {
        self.columns.len() + self.payload.as_ref().map_or(0, String::len)
    }
}

/// A connection to the database of the original backend.
pub struct Original {
    connection: PgConnection,
    entries: Option<String>,
    page_rows: usize,
}

impl Original {
    /// Connects, and takes the snapshot that everything comes from: one transaction, which works
    /// behind a pooler too.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn connect(target: Target) -> Result<Self, Error> {
        let size = PoolSize { max: 1, min_idle: 0 };
        let asked_for = target.asked_for();
        // The pool opens no connection; it is what retries with or without TLS, as `sslmode` allows.
        let connection = Pool::new(target, size).bare().await?;
        let mut original = Self { connection, entries: None, page_rows: FIRST_PAGE_ROWS };
        original.execute(&format!("{BEGIN} {asked_for}")).await?;
        Ok(original)
    }

    /// Where the tables are.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn place(&mut self) -> Result<Place, Error> {
        Place::of(&mut self.connection).await
    }

    /// Begins to read. Returns about how many sessions there are.
    ///
    /// # Errors
    /// When the tables are not those of the original backend.
    pub async fn begin(&mut self) -> Result<u64, OriginalError> {
        let sessions = Columns::of(&mut self.connection, "sessions").await?;
        if sessions.is_empty() {
            return Err(OriginalError::NoSessions);
        }
        if !sessions.is_original() {
            return Err(OriginalError::OtherSessions);
        }
        self.entries = Columns::of(&mut self.connection, "session_timeline").await?.entries();
        let rows: i64 = sqlx::query_scalar(ROWS)
            .persistent(false)
            .fetch_one(&mut self.connection)
            .await
            .map_err(Error::from)?;
        self.execute(&sessions.sessions()).await?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }

    /// The next sessions; none at the end.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn page(&mut self) -> Result<Vec<OriginalSession>, Error> {
        let fetch = format!("FETCH FORWARD {} FROM original_sessions", self.page_rows);
        let rows = sqlx::query(AssertSqlSafe(fetch)).persistent(false);
        let rows = timeout(PAGE_TIMEOUT, rows.fetch_all(&mut self.connection)).await;
        let rows = rows.map_err(|_| Error::timed_out("reading sessions"))??;
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            page.push(OriginalSession {
                session_id: row.try_get(0)?,
                created_at: row.try_get::<Option<i64>, _>(1)?.map(UnixMs),
                columns: row.try_get(2)?,
                payload: row.try_get(3)?,
            });
        }
        let bytes: usize = page.iter().map(OriginalSession::bytes).sum();
        if let Some(average) = bytes.checked_div(page.len()) {
            self.page_rows = (PAGE_BYTES / average.max(1)).clamp(1, MAX_PAGE_ROWS);
        }
        Ok(page)
    }

    /// The timeline entries of some sessions, each as its session and a JSON object, together by
    /// session.
    pub fn entries<'a>(
        &'a mut self,
        session_ids: &'a [&str],
    ) -> BoxStream<'a, Result<(String, String), Error>> {
        let Some(sql) = self.entries.clone().filter(|_| !session_ids.is_empty()) else {
            return stream::empty().boxed();
        };
        let query = sqlx::query(AssertSqlSafe(sql)).bind(session_ids).persistent(false);
        let rows = query.fetch(&mut self.connection);
        stream::try_unfold(rows, |mut rows| async {
            let row = timeout(PAGE_TIMEOUT, rows.next()).await;
            let row: Option<PgRow> =
                row.map_err(|_| Error::timed_out("reading timelines"))?.transpose()?;
            let Some(row) = row else { return Ok(None) };
            Ok(Some(((row.try_get(0)?, row.try_get(1)?), rows)))
        })
        .boxed()
    }

    async fn execute(&mut self, sql: &str) -> Result<(), Error> {
        // Made of our own names, nothing that a client sent.
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut self.connection).await?;
        Ok(())
    }
}
