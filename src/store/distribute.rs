//! Turning the tables of a database into distributed ones, on Citus.

use std::time::{Duration, Instant};

use sqlx::{PgConnection, Row as _};

use super::{Error, Store};

/// Distributed in this order: what is distributed first decides where a session's rows lie.
const TABLES: [&str; 3] = ["session_times", "sessions", "timeline_chunks"];

/// Copying takes as long as it takes; a lock is waited for, but not for ever.
const SETTINGS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '1min';
                        SET LOCAL idle_in_transaction_session_timeout = 0;
                        SET LOCAL client_min_messages = warning";

/// A cluster and the tables that are to be distributed over it.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Version of Citus.
    pub citus: String,
    /// Nodes that take shards.
    pub nodes: u32,
    /// Tables that are not distributed yet.
    pub tables: Vec<LocalTable>,
}

/// A table on the coordinator.
#[derive(Debug, Clone)]
pub struct LocalTable {
    /// Its name.
    pub name: &'static str,
    /// Rows, as Postgres estimates them.
    pub rows: i64,
    /// Bytes on disk, indexes included.
    pub bytes: i64,
}

/// Why tables cannot be distributed.
#[derive(Debug, thiserror::Error)]
pub enum DistributeError {
    /// Postgres cannot be reached or refused.
    #[error(transparent)]
    Database(#[from] Error),
    /// Citus is not installed in this database.
    #[error(
        "this database has no Citus: on every node run CREATE EXTENSION citus, then on the \
         coordinator citus_set_coordinator_host and citus_add_node; docs/scaling.md shows each step"
    )]
    NoCitus,
    /// The cluster has no node for shards.
    #[error(
        "no node of this cluster takes shards: run SELECT citus_add_node('host', 5432) on the \
         coordinator for each worker; docs/scaling.md shows each step"
    )]
    NoNodes,
}

impl Distribution {
    /// Shards for a cluster of this size: each statement of many rows visits all of them, so
    /// many cost more than they bring, and few cannot be spread over more nodes later.
    #[must_use]
    pub fn default_shards(&self) -> u32 {
        (4 * self.nodes).max(8)
    }
}

impl Store {
    /// What [`Store::distribute`] would do.
    ///
    /// # Errors
    /// [`DistributeError`] says what is missing.
    pub async fn distribution(&self) -> Result<Distribution, DistributeError> {
        let mut connection = self.pool.connect().await?;
        connection.open().await?;
        let citus: Option<String> =
            sqlx::query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
                .fetch_optional(&mut *connection)
                .await
                .map_err(Error::from)?;
        let citus = citus.ok_or(DistributeError::NoCitus)?;
        let nodes: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_dist_node
             WHERE shouldhaveshards AND isactive AND noderole = 'primary'",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::from)?;
        if nodes == 0 {
            return Err(DistributeError::NoNodes);
        }
        let mut tables = Vec::new();
        for name in TABLES {
            tables.extend(local_table(&mut connection, name).await?);
        }
        connection.close().await?;
        Ok(Distribution { citus, nodes: u32::try_from(nodes).unwrap_or(u32::MAX), tables })
    }

    /// Distributes a table by session, together with those that are distributed already. Reports
    /// wait meanwhile. Returns how long it took.
    ///
    /// # Errors
    /// As classified by [`Error`]; the table is as it was then.
    pub async fn distribute(&self, table: &LocalTable, shards: u32) -> Result<Duration, Error> {
        let started = Instant::now();
        let mut connection = self.pool.connect().await?;
        connection.begin(SETTINGS).await?;
        let first = TABLES[0];
        let distribute = if table.name == first {
            sqlx::query("SELECT create_distributed_table($1, 'session_key', shard_count := $2)")
                .bind(table.name)
                .bind(i32::try_from(shards).unwrap_or(i32::MAX))
        } else {
            sqlx::query("SELECT create_distributed_table($1, 'session_key', colocate_with := $2)")
                .bind(table.name)
                .bind(first)
        };
        distribute.execute(&mut *connection).await?;
        connection.commit().await?;
        Ok(started.elapsed())
    }

    /// Frees the space that distributed tables still take on the coordinator: Citus leaves the
    /// rows where they were, and hides them. May run again.
    ///
    /// # Errors
    /// As classified by [`Error`]; the tables are distributed all the same.
    pub async fn free_local_copies(&self) -> Result<(), Error> {
        let mut connection = self.pool.connect().await?;
        connection.begin(SETTINGS).await?;
        for table in TABLES {
            sqlx::query("SELECT truncate_local_data_after_distributing_table($1::text::regclass)")
                .bind(table)
                .execute(&mut *connection)
                .await?;
        }
        connection.commit().await
    }
}

/// The table, unless it is distributed.
async fn local_table(
    connection: &mut PgConnection,
    name: &'static str,
) -> Result<Option<LocalTable>, Error> {
    let row = sqlx::query(
        "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint,
                coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
         FROM pg_class AS c
         -- The tree of a table without partitions is empty.
         WHERE c.relkind = 'r' AND (c.oid = $1::text::regclass
                OR c.oid IN (SELECT relid FROM pg_partition_tree($1::text::regclass)))
         HAVING NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = $1::text::regclass)",
    )
    .bind(name)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(LocalTable { name, rows: row.try_get(0)?, bytes: row.try_get(1)? }))
        .transpose()
}
