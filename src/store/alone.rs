//! Long work that one instance at a time does.

use std::time::Duration;

use super::lease::Lease;
use super::{Error, Store};

/// The transaction that holds the lock does nothing for as long as the work takes.
const SETTINGS: &str = "SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')";
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Held by a transaction that does nothing else, and gone with it. It writes nothing either, so
/// that it keeps no dead row from being vacuumed.
pub(super) struct Alone(Lease);

impl Store {
    /// Locks a table that is there to be locked; none where another instance has. Outside of the
    /// pool.
    pub(super) async fn alone(&self, table: &'static str) -> Result<Option<Alone>, Error> {
        let mut lock = self.pool.connect().await?;
        lock.begin(SETTINGS).await?;
        match lock.begin(&format!("LOCK TABLE {table} IN EXCLUSIVE MODE NOWAIT")).await {
            Err(error) if error.is_lock_timeout() => Ok(None),
            locked => locked.map(|()| Some(Alone(lock))),
        }
    }
}

impl Alone {
    /// Gives the lock back. The work is done, whether its connection lived that long or not.
    pub(super) async fn end(mut self) {
        let _ = tokio::time::timeout(END_TIMEOUT, self.0.rollback()).await;
    }
}
