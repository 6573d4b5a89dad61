//! Whether the tables are distributed over several Postgres servers by Citus.

use std::sync::atomic::{AtomicU8, Ordering};

use sqlx::PgConnection;

use super::Error;
use super::lease::Lease;

const UNKNOWN: u8 = 0;
const ONE_POSTGRES: u8 = 1;
const SHARDED: u8 = 2;

/// What is known about it: found out once, with the first batch.
#[derive(Default)]
pub(super) struct Sharding(AtomicU8);

impl Sharding {
    /// Whether the tables are distributed.
    pub(super) async fn of(&self, connection: &mut Lease) -> Result<bool, Error> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => {
                let is_sharded = is_sharded(connection).await?;
                let known = if is_sharded { SHARDED } else { ONE_POSTGRES };
                self.0.store(known, Ordering::Relaxed);
                Ok(is_sharded)
            }
            known => Ok(known == SHARDED),
        }
    }

    /// Whether the tables are known to be distributed.
    pub(super) fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed) == SHARDED
    }

    /// Whether the tables are distributed and were not when it was found out last.
    pub(super) async fn look_again(&self, connection: &mut Lease) -> Result<bool, Error> {
        if self.is_known() {
            return Ok(false);
        }
        self.0.store(UNKNOWN, Ordering::Relaxed);
        self.of(connection).await
    }
}

/// Whether any of the tables is distributed now.
async fn is_sharded(connection: &mut Lease) -> Result<bool, Error> {
    let was_in_transaction = connection.is_in_transaction();
    connection.open().await?;
    let is_sharded = look(connection).await?;
    if !was_in_transaction {
        connection.close().await?;
    }
    Ok(is_sharded)
}

async fn look(connection: &mut PgConnection) -> Result<bool, Error> {
    // Two steps: the table of distributed tables exists only where Citus is installed.
    let has_citus: bool =
        sqlx::query_scalar("SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
    if !has_citus {
        return Ok(false);
    }
    // One of them is enough: the statements for sharded tables work on all others too.
    let is_sharded = sqlx::query_scalar(
        "SELECT EXISTS (
           SELECT FROM pg_catalog.pg_dist_partition
           WHERE logicalrelid IN ('session_times'::regclass, 'sessions'::regclass,
                                  'timeline_chunks'::regclass))",
    );
    Ok(is_sharded.fetch_one(connection).await?)
}
