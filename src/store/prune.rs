//! Retention: what is older than the cutoff goes, whole months at once, the edge in batches.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::partitions::Month;
use super::types::PgTime;
use super::{Error, LOCK_CLASS, Store};
use crate::report::UnixMs;

const PRUNE_LOCK: i32 = 2;
/// Rows deleted per transaction: short enough that nobody waits.
const BATCH_ROWS: i64 = 2_000;
/// Pause between batches, so that pruning never takes more than a share of the disk.
const BREATH: Duration = Duration::from_millis(20);
/// How long refused bodies are kept for the operator.
const REJECTED_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// What a run of pruning removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names of dropped partitions.
    pub partitions: Vec<String>,
    /// Rows deleted from partitions that stay.
    pub sessions: u64,
    /// Timeline entries of those sessions.
    pub timeline_entries: u64,
    /// Entries of `session_places`.
    pub places: u64,
    /// Refused bodies.
    pub rejected: u64,
}

impl Store {
    /// Removes what has outlived its retention. `None` when another instance is at it.
    ///
    /// Safe at any moment: every step is a transaction of its own, and a run that was cut off
    /// is completed by the next.
    ///
    /// # Errors
    /// As classified by [`Error`]; what was removed before stays removed.
    pub async fn prune(&self, now: UnixMs) -> Result<Option<Pruned>, Error> {
        let mut connection = self
            .pool
            .acquire()
            .await
            .map_err(|e| self.distrust(e.into()))?;
        let run = self
            .timed("prune", self.prune_locked(&mut connection, now))
            .await;
        // Closing the connection gives the lock back, whatever happened.
        drop(connection.detach());
        self.partitions.forget_all();
        run
    }

    async fn prune_locked(
        &self,
        connection: &mut PgConnection,
        now: UnixMs,
    ) -> Result<Option<Pruned>, Error> {
        let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCK_CLASS)
            .bind(PRUNE_LOCK)
            .fetch_one(&mut *connection)
            .await?;
        if !is_ours {
            return Ok(None);
        }
        sqlx::raw_sql("SET statement_timeout = '5min'")
            .execute(&mut *connection)
            .await?;
        let mut pruned = Pruned::default();
        if let Some(cutoff) = self.retention.cutoff(now) {
            pruned.partitions = drop_partitions(connection, cutoff).await?;
            let before = PgTime::from(cutoff);
            loop {
                let (sessions, entries) = delete_sessions(connection, before).await?;
                pruned.sessions += sessions;
                pruned.timeline_entries += entries;
                if sessions == 0 {
                    break;
                }
                tokio::time::sleep(BREATH).await;
            }
            // Last, so that a place is only gone when its row is.
            pruned.places = delete_batches(
                connection,
                r#"DELETE FROM session_places WHERE key = ANY(ARRAY(
                     SELECT key FROM session_places WHERE "timestamp" < $1 LIMIT $2))"#,
                before,
            )
            .await?;
        }
        pruned.rejected = delete_batches(
            connection,
            "DELETE FROM rejected_reports WHERE id = ANY(ARRAY(
               SELECT id FROM rejected_reports WHERE received_at < $1 LIMIT $2))",
            now.minus(REJECTED_LIFETIME).into(),
        )
        .await?;
        Ok(Some(pruned))
    }
}

/// Drops partitions whose month lies wholly before the cutoff.
async fn drop_partitions(
    connection: &mut PgConnection,
    cutoff: UnixMs,
) -> Result<Vec<String>, Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent IN ('sessions'::regclass, 'session_timeline'::regclass)
         ORDER BY c.relname",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut dropped = Vec::new();
    for name in names {
        if Month::of_partition(&name).is_none_or(|month| month.end() > cutoff) {
            continue;
        }
        // Dropping needs the whole table for a moment. Writers behind us must not wait long
        // for a slow reader before us, so we give up soon and leave it to the next run.
        // The name is one that of_partition took apart: a table of ours and two numbers.
        let sql =
            format!("BEGIN; SET LOCAL lock_timeout = '2s'; DROP TABLE IF EXISTS {name}; COMMIT");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut *connection)
            .await?;
        tracing::info!(partition = name, "partition dropped");
        dropped.push(name);
    }
    Ok(dropped)
}

/// Deletes a batch of sessions with their timelines: (sessions, timeline entries).
async fn delete_sessions(
    connection: &mut PgConnection,
    before: PgTime,
) -> Result<(u64, u64), Error> {
    let rows = sqlx::query(
        r#"SELECT session_id, tenant_id, "timestamp" FROM sessions
           WHERE "timestamp" < $1 ORDER BY "timestamp" LIMIT $2"#,
    )
    .bind(before)
    .bind(BATCH_ROWS)
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Ok((0, 0));
    }
    let mut keys: (Vec<String>, Vec<String>, Vec<PgTime>) = Default::default();
    for row in &rows {
        keys.0.push(row.try_get(0)?);
        keys.1.push(row.try_get(1)?);
        keys.2.push(row.try_get(2)?);
    }
    let mut deleted = [0; 2];
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    for (count, sql) in deleted.iter_mut().zip([
        r#"DELETE FROM session_timeline t
           USING unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (session_id, tenant_id, "timestamp")
           WHERE t.session_id = k.session_id AND t.tenant_id = k.tenant_id AND t."timestamp" = k."timestamp""#,
        r#"DELETE FROM sessions s
           USING unnest($1::text[], $2::text[], $3::timestamptz[]) AS k (session_id, tenant_id, "timestamp")
           WHERE s.session_id = k.session_id AND s.tenant_id = k.tenant_id AND s."timestamp" = k."timestamp""#,
    ]) {
        let done = sqlx::query(sql).bind(&keys.0).bind(&keys.1).bind(&keys.2);
        *count = done.execute(&mut *connection).await?.rows_affected();
    }
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
    // Rows that a writer moved away meanwhile are not counted, but they are gone from here.
    Ok((deleted[1], deleted[0]))
}

/// Runs a DELETE of at most `$2` rows older than `$1` until nothing is left.
async fn delete_batches(
    connection: &mut PgConnection,
    sql: &'static str,
    before: PgTime,
) -> Result<u64, Error> {
    let mut deleted = 0;
    loop {
        let batch = sqlx::query(sql)
            .bind(before)
            .bind(BATCH_ROWS)
            .execute(&mut *connection)
            .await?;
        if batch.rows_affected() == 0 {
            return Ok(deleted);
        }
        deleted += batch.rows_affected();
        tokio::time::sleep(BREATH).await;
    }
}
