//! The connection pool: its limits, and what every connection is set to.

use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres};

use super::Error;

/// Connections are renewed after this, so that a failover or a changed setting gets through.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// Shorter than the time a report is held, so that waiting for a connection is retried.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
const RETURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections pass through the pool this often, which renews those that are old.
const LONGEST_KEPT: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Once per connection. A 200 promises a durable commit, whatever the role's default is; the
/// timeouts keep a statement that nobody waits for any more from holding locks.
pub(super) const SESSION_SETTINGS: &str = "
    SET TimeZone = 'UTC';
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = '6s';
    SET lock_timeout = '4s';
    SET idle_in_transaction_session_timeout = '15s';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// How many connections a pool has at most, and how many it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// `HIKARI_MAX_POOL_SIZE`
    pub max: u32,
    /// `HIKARI_MIN_IDLE`
    pub min_idle: u32,
}

/// A connection on loan from the pool. It goes back only when its user says that all went
/// well; otherwise (an error, a time-out, a client that hung up) it may be dead or stand in a
/// broken transaction, and its socket is closed. Postgres then rolls an open transaction back;
/// a statement that is one by itself it may yet finish.
pub(super) struct Lease(Option<PoolConnection<Postgres>>);

impl Lease {
    pub(super) async fn take(pool: &PgPool) -> Result<Self, Error> {
        let acquired = match pool.acquire().await {
            Err(error) if is_way_refused(&error) && other_way(pool).is_some() => {
                drop(connect(pool).await?);
                pool.acquire().await
            }
            acquired => acquired,
        };
        Ok(Self(Some(acquired?)))
    }

    /// Gives the connection back. sqlx asks it for a sign of life first; one that gives none
    /// is closed. (What is left of the lease looks, when dropped, whether the pool is filled.)
    pub(super) fn finish(mut self) {
        if let Some(mut connection) = self.0.take() {
            let back = tokio::time::timeout(RETURN_TIMEOUT, connection.return_to_pool());
            tokio::spawn(async { drop(back.await) });
        }
    }
}

/// A connection that is kept from one batch to the next, so that under load none is fetched and
/// given back for each. Given back in the end.
#[derive(Default)]
pub struct Kept(Option<(Lease, Instant)>);

impl Kept {
    pub(super) async fn take(&mut self, pool: &PgPool) -> Result<(Lease, Instant), Error> {
        match self.0.take() {
            Some((lease, since)) if since.elapsed() < LONGEST_KEPT => Ok((lease, since)),
            old => {
                drop(Self(old));
                Ok((Lease::take(pool).await?, Instant::now()))
            }
        }
    }

    /// Keeps the connection, unless others would have to wait for it.
    pub(super) fn put(&mut self, lease: Lease, since: Instant, pool: &PgPool) {
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

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("held until finish")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("held until finish")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Not `close`, which talks to the server first and may wait for it for ever.
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// When a connection was last lost. Idle ones from before are tested before they are used;
/// all others are not, which saves a round trip per batch.
#[derive(Default)]
pub(super) struct Trust {
    lost_at: Mutex<Option<Instant>>,
}

impl Trust {
    pub(super) fn lose(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn covers(&self, idle_for: Duration) -> bool {
        let lost_at = *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        lost_at.is_none_or(|lost_at| lost_at.elapsed() > idle_for)
    }
}

/// Connects outside of the pool. If the server refuses TLS, or refuses plain text, and `sslmode`
/// allows the other, connects that way; the pool then does so too.
pub(super) async fn connect(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
    let refused = match pool.connect_options().connect().await {
        Err(error) if is_way_refused(&error) => error,
        done => return done,
    };
    let Some(other) = other_way(pool) else { return Err(refused) };
    let is_plain = matches!(other.get_ssl_mode(), PgSslMode::Allow);
    match other.connect().await {
        Ok(connection) => {
            let way = if is_plain { "without TLS" } else { "with TLS" };
            tracing::warn!(%refused, "the database refused a connection; sslmode allows {way} too");
            pool.set_connect_options(other);
            Ok(connection)
        }
        // Why TLS fails says more than that plain text is refused.
        Err(error) => Err(if is_plain { refused } else { error }),
    }
}

/// How to connect if the server refuses the way in use. For sqlx, `Prefer` is TLS if the server
/// offers it, and `Allow` is plain text.
fn other_way(pool: &PgPool) -> Option<PgConnectOptions> {
    let options = pool.connect_options();
    let mode = match options.get_ssl_mode() {
        PgSslMode::Prefer => PgSslMode::Allow,
        PgSslMode::Allow => PgSslMode::Prefer,
        _ => return None,
    };
    Some(PgConnectOptions::clone(&options).ssl_mode(mode))
}

/// Whether a connection failed in the TLS handshake, or because `pg_hba.conf` does not let it in.
fn is_way_refused(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        // An alert of the server that followed the handshake.
        sqlx::Error::Io(error) => error.kind() == ErrorKind::InvalidData,
        sqlx::Error::Database(error) => error.code().as_deref() == Some("28000"),
        _ => false,
    }
}

pub(super) fn pool(options: PgConnectOptions, size: PoolSize, trust: Arc<Trust>) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size.max)
        // A connection that cannot be had is waited for with its place in the pool taken.
        .min_connections(size.min_idle.min(size.max / 2))
        .max_lifetime(MAX_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            let trusted = trust.covers(meta.idle_for);
            Box::pin(async move {
                if trusted {
                    return Ok(true);
                }
                let ping = tokio::time::timeout(PING_TIMEOUT, connection.ping()).await;
                Ok(matches!(ping, Ok(Ok(()))))
            })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION_SETTINGS).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options)
}
