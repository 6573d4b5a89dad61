//! A connection on loan, and transactions on it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Postgres};

use super::Error;
use super::connect::Pool;
use super::settings::Settings;

const RETURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections pass through the pool this often, which renews those that are old.
const LONGEST_KEPT: Duration = Duration::from_secs(1);

/// A connection of the pool, or one of its own for long work. One of the pool goes back only when
/// its user says that all went well; otherwise (an error, a time-out, a client that hung up) it
/// may be dead or stand in a broken transaction, and its socket is closed. Postgres then rolls an
/// open transaction back; a statement that is one by itself it may yet finish.
pub(super) struct Lease {
    connection: Option<Source>,
    settings: Arc<Settings>,
    in_transaction: bool,
}

enum Source {
    Pool(PoolConnection<Postgres>),
    Own(PgConnection),
}

impl Lease {
    pub(super) fn of_pool(connection: PoolConnection<Postgres>, settings: Arc<Settings>) -> Self {
        Self { connection: Some(Source::Pool(connection)), settings, in_transaction: false }
    }

    pub(super) fn own(connection: PgConnection, settings: Arc<Settings>) -> Self {
        Self { connection: Some(Source::Own(connection)), settings, in_transaction: false }
    }

    /// Begins a transaction; `how` are further statements, such as `SET LOCAL`. Within one that
    /// [`Self::open`] began, only these are run.
    pub(super) async fn begin(&mut self, how: &str) -> Result<(), Error> {
        let sql = if self.in_transaction { how.to_owned() } else { self.prelude(how).await? };
        // Our own names and constants, nothing that a client sent.
        let begun = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **self).await;
        begun.map_err(Error::of_setting)?;
        self.in_transaction = true;
        Ok(())
    }

    /// What begins a transaction. For those that the driver must know of.
    pub(super) async fn prelude(&mut self, how: &str) -> Result<String, Error> {
        if self.settings.is_pooled() && self.cached_statements_size() > 0 {
            // From before the pooler was noticed.
            self.clear_cached_statements().await?;
        }
        Ok(self.settings.begin(how))
    }

    pub(super) async fn commit(&mut self) -> Result<(), Error> {
        let commit = self.settings.commit();
        sqlx::raw_sql(commit).execute(&mut **self).await?;
        self.in_transaction = false;
        Ok(())
    }

    /// Ends a transaction that may have failed.
    pub(super) async fn rollback(&mut self) -> Result<(), Error> {
        let rollback = self.settings.rollback();
        sqlx::raw_sql(rollback).execute(&mut **self).await?;
        self.in_transaction = false;
        Ok(())
    }

    /// To be called before statements that are transactions by themselves, and [`Self::close`]
    /// after them: behind a pooler, they are one together.
    pub(super) async fn open(&mut self) -> Result<(), Error> {
        if self.settings.is_pooled() && !self.in_transaction {
            self.begin("").await
        } else {
            Ok(())
        }
    }

    /// Commits what [`Self::open`] began.
    pub(super) async fn close(&mut self) -> Result<(), Error> {
        if self.settings.is_pooled() && self.in_transaction { self.commit().await } else { Ok(()) }
    }

    pub(super) const fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Gives the connection back. sqlx asks it for a sign of life first; one that gives none
    /// is closed. (What is left of the lease looks, when dropped, whether the pool is filled.)
    pub(super) fn finish(mut self) {
        if let Some(Source::Pool(mut connection)) = self.connection.take() {
            let back = tokio::time::timeout(RETURN_TIMEOUT, connection.return_to_pool());
            tokio::spawn(async { drop(back.await) });
        }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self.connection.as_ref().expect("held until finish") {
            Source::Pool(connection) => connection,
            Source::Own(connection) => connection,
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self.connection.as_mut().expect("held until finish") {
            Source::Pool(connection) => connection,
            Source::Own(connection) => connection,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Not `close`, which talks to the server first and may wait for it for ever.
        if let Some(Source::Pool(connection)) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// A connection that is kept from one batch to the next, so that under load none is fetched and
/// given back for each. Given back in the end.
#[derive(Default)]
pub struct Kept(Option<(Lease, Instant)>);

impl Kept {
    pub(super) async fn take(&mut self, pool: &Pool) -> Result<(Lease, Instant), Error> {
        match self.0.take() {
            Some((lease, since)) if since.elapsed() < LONGEST_KEPT => Ok((lease, since)),
            old => {
                drop(Self(old));
                Ok((pool.take().await?, Instant::now()))
            }
        }
    }

    /// Keeps the connection, unless others would have to wait for it.
    pub(super) fn put(&mut self, lease: Lease, since: Instant, pool: &Pool) {
        if pool.num_idle() > 0 || pool.size() < pool.options().get_max_connections() {
            self.0 = Some((lease, since));
        } else {
            lease.finish();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some((lease, _)) = self.0.take() {
            lease.finish();
        }
    }
}
