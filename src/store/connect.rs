//! The connection pool: its limits, and how connections are made.

use std::io::ErrorKind;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::Error;
use super::lease::Lease;
use super::settings::{Settings, Target};

/// Connections are renewed after this, so that a failover or a changed setting gets through.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// Shorter than the time a report is held, so that waiting for a connection is retried.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a connection is asked which server it has.
const PROBES: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How many connections a pool has at most, and how many it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// `HIKARI_MAX_POOL_SIZE`
    pub max: u32,
    /// `HIKARI_MIN_IDLE`
    pub min_idle: u32,
}

/// The connections of a store.
pub(super) struct Pool {
    connections: PgPool,
    pub(super) settings: Arc<Settings>,
    trust: Arc<Trust>,
}

impl Deref for Pool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.connections
    }
}

impl Pool {
    /// A pool whose connections are made when they are needed.
    pub(super) fn new(target: Target, size: PoolSize) -> Self {
        let settings = Arc::new(Settings::of(&target));
        let trust = Arc::new(Trust::default());
        let connections = pool(target.options, size, Arc::clone(&trust), Arc::clone(&settings));
        let new = Self { connections, settings, trust };
        if target.is_pooled == Some(true) {
            new.set_pooled();
        }
        new
    }

    pub(super) async fn take(&self) -> Result<Lease, Error> {
        let acquired = match self.connections.acquire().await {
            Err(error) if is_way_refused(&error) && other_way(&self.connections).is_some() => {
                drop(connect(&self.connections).await?);
                self.connections.acquire().await
            }
            acquired => acquired,
        };
        Ok(Lease::of_pool(acquired?, Arc::clone(&self.settings)))
    }

    /// A connection outside of the pool, for long work. Its error says why, where the pool
    /// would say "timed out".
    pub(super) async fn connect(&self) -> Result<Lease, Error> {
        let mut connection = self.bare().await?;
        let settings = AssertSqlSafe(self.settings.of_session());
        sqlx::raw_sql(settings).execute(&mut connection).await.map_err(Error::of_setting)?;
        Ok(Lease::own(connection, Arc::clone(&self.settings)))
    }

    /// A connection that nothing is set on.
    pub(super) async fn bare(&self) -> Result<PgConnection, Error> {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect(&self.connections)).await;
        Ok(connecting.map_err(|_| Error::timed_out("connecting"))??)
    }

    /// After a lost connection, the idle ones are suspect too.
    pub(super) fn lost_one(&self) {
        self.trust.lose();
    }

    /// Finds out whether a pooler is in between that gives each transaction another server
    /// connection: then two clients are seen on one. Nothing is changed on the server.
    pub(super) async fn find_pooler(&self) -> Result<(), Error> {
        if self.settings.is_decided() {
            return Ok(());
        }
        let (mut one, mut two) = (self.bare().await?, self.bare().await?);
        let shares = async {
            let before = server_of(&mut one).await?;
            sqlx::raw_sql("BEGIN").execute(&mut two).await?;
            // Poolers give what was used last. If they have no other, one would wait for two.
            let mut changed =
                server_of(&mut two).await? == before || server_of(&mut one).await? != before;
            sqlx::raw_sql("ROLLBACK").execute(&mut two).await?;
            // Others give each in turn.
            for _ in 0..PROBES {
                changed |= server_of(&mut one).await? != before;
            }
            Ok::<_, Error>(changed)
        };
        // Without an answer nothing is decided: a guess would reach other clients.
        let shares = tokio::time::timeout(CONNECT_TIMEOUT, shares).await;
        if shares.map_err(|_| Error::timed_out("looking for a pooler"))?? {
            self.set_pooled();
        }
        self.settings.decide();
        Ok(())
    }

    /// From now on nothing outlives a transaction.
    pub(super) fn set_pooled(&self) {
        if !self.settings.is_pooled() {
            tracing::info!(
                "a pooler gives each transaction another connection: no statements are prepared \
                 for longer, which costs some speed"
            );
        }
        self.settings.set_pooled();
        let options = PgConnectOptions::clone(&self.connections.connect_options());
        self.connections.set_connect_options(options.statement_cache_capacity(0));
    }
}

/// The process that serves the connection now.
async fn server_of(connection: &mut PgConnection) -> Result<i32, Error> {
    // Without parameters, and so without a prepared statement.
    let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?;
    Ok(row.try_get(0)?)
}

/// When a connection was last lost. Idle ones from before are tested before they are used;
/// all others are not, which saves a round trip per batch.
#[derive(Default)]
struct Trust {
    lost_at: Mutex<Option<Instant>>,
}

impl Trust {
    fn lose(&self) {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn covers(&self, idle_for: Duration) -> bool {
        let lost_at = *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        lost_at.is_none_or(|lost_at| lost_at.elapsed() > idle_for)
    }
}

/// Connects outside of the pool. If the server refuses TLS, or refuses plain text, and `sslmode`
/// allows the other, connects that way; the pool then does so too.
async fn connect(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
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

fn pool(
    options: PgConnectOptions,
    size: PoolSize,
    trust: Arc<Trust>,
    settings: Arc<Settings>,
) -> PgPool {
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
        .after_connect(move |connection, _| {
            let settings = Arc::clone(&settings);
            Box::pin(async move {
                settings.decided().await;
                let settings = AssertSqlSafe(settings.of_session());
                sqlx::raw_sql(settings).execute(connection).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options)
}
