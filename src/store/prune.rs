//! Retention: what is older than the cutoff goes, whole months at once, the edge in batches.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::lease::Lease;
use super::partitions::Month;
use super::types::PgTime;
use super::{Error, Store};
use crate::report::UnixMs;

/// A run that takes longer goes on with the next one.
const PRUNE_TIMEOUT: Duration = Duration::from_hours(6);
/// Deleting takes longer than what a client waits for, and may wait for one.
const SETTINGS: &str = "SET LOCAL statement_timeout = '5min'; SET LOCAL lock_timeout = '4s'";
/// Rows deleted per transaction: short enough that nobody waits.
const BATCH_ROWS: i64 = 2_000;
/// Attempts to drop a month, which a reader of the whole table keeps waiting.
const DROP_ATTEMPTS: u32 = 5;
const DROP_PAUSE: Duration = Duration::from_millis(500);
/// Times in a row that a batch may meet a writer.
const MEETINGS: u32 = 10;
/// Pause between batches, so that pruning never takes more than a share of the disk.
const BREATH: Duration = Duration::from_millis(20);
/// How long refused bodies are kept for the operator.
const REJECTED_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How long the rows of `backend_minutes` are kept: what a dashboard of the last month shows.
const MINUTES_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How long `job_runs` are kept.
const JOB_RUNS_LIFETIME: Duration = Duration::from_hours(90 * 24);

/// What a run of pruning removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names of dropped partitions.
    pub partitions: Vec<String>,
    /// Rows deleted from partitions that stay.
    pub sessions: u64,
    /// Rows of `timeline_chunks` of those sessions.
    pub timeline_chunks: u64,
    /// Rows of `session_times`.
    pub session_times: u64,
    /// Refused bodies.
    pub rejected: u64,
    /// Rows of `backend_minutes`.
    pub minutes: u64,
    /// Rows of `job_runs`.
    pub job_runs: u64,
}

impl Pruned {
    /// Rows deleted by table, partitions that were dropped whole not counted.
    pub fn rows(&self) -> [(&'static str, u64); 6] {
        [
            ("sessions", self.sessions),
            ("timeline_chunks", self.timeline_chunks),
            ("session_times", self.session_times),
            ("rejected_reports", self.rejected),
            ("backend_minutes", self.minutes),
            ("job_runs", self.job_runs),
        ]
    }
}

impl fmt::Display for Pruned {
    /// `dropped sessions_2026_01; deleted 12 sessions, 90 timeline_chunks`, or `nothing to do`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows().into_iter().filter(|(_, rows)| *rows > 0);
        let rows: Vec<String> = rows.map(|(table, rows)| format!("{rows} {table}")).collect();
        match (self.partitions.is_empty(), rows.is_empty()) {
            (true, true) => f.write_str("nothing to do"),
            (true, false) => write!(f, "deleted {}", rows.join(", ")),
            (false, true) => write!(f, "dropped {}", self.partitions.join(", ")),
            (false, false) => {
                write!(f, "dropped {}; deleted {}", self.partitions.join(", "), rows.join(", "))
            }
        }
    }
}

impl Store {
    /// Removes what has outlived its retention. `None` when another instance is at it.
    ///
    /// Safe at any moment: every step is a transaction of its own, and a run that was cut off
    /// is completed by the next. A session's time goes in the transaction in which its row
    /// goes, so that a late report finds both or neither.
    ///
    /// # Errors
    /// As classified by [`Error`]; what was removed before stays removed.
    pub async fn prune(&self, now: UnixMs) -> Result<Option<Pruned>, Error> {
        // Outside of the pool: it takes its time.
        let run = async {
            let Some(lock) = self.alone("retention_lock").await? else { return Ok(None) };
            let mut connection = self.pool.connect().await?;
            let pruned = self.prune_locked(&mut connection, now).await?;
            lock.end().await;
            Ok(Some(pruned))
        };
        self.within(PRUNE_TIMEOUT, "prune", run).await
    }

    async fn prune_locked(&self, connection: &mut Lease, now: UnixMs) -> Result<Pruned, Error> {
        // A machine whose clock runs ahead must not delete what others would keep.
        connection.begin(SETTINGS).await?;
        let theirs: PgTime =
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut **connection).await?;
        connection.commit().await?;
        let now = now.min(theirs.into());
        let mut pruned = Pruned::default();
        let sessions = match self.retention.cutoff(now) {
            Some(cutoff) => self.prune_sessions(connection, cutoff, &mut pruned).await,
            None => Ok(()),
        };
        if sessions.is_err() {
            // What is in the way of sessions must not keep the rest.
            connection.rollback().await?;
        }
        pruned.rejected = delete_batches(
            connection,
            "DELETE FROM rejected_reports WHERE id = ANY(ARRAY(
               SELECT id FROM rejected_reports WHERE received_at < $1 LIMIT $2))",
            now.minus(REJECTED_LIFETIME).into(),
        )
        .await?;
        pruned.minutes = delete_batches(
            connection,
            r#"DELETE FROM backend_minutes WHERE "time" <= (SELECT max("time") FROM (
                 SELECT "time" FROM backend_minutes WHERE "time" < $1 ORDER BY "time" LIMIT $2) AS old)"#,
            now.minus(MINUTES_LIFETIME).into(),
        )
        .await?;
        pruned.job_runs = delete_batches(
            connection,
            "DELETE FROM job_runs WHERE id = ANY(ARRAY(
               SELECT id FROM job_runs WHERE started_at < $1 LIMIT $2))",
            now.minus(JOB_RUNS_LIFETIME).into(),
        )
        .await?;
        sessions.map(|()| pruned)
    }

    /// Removes the sessions before the cutoff, after their sums are settled.
    async fn prune_sessions(
        &self,
        connection: &mut Lease,
        cutoff: UnixMs,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        self.seal_rollups(connection, cutoff).await?;
        let months = self.drop_months(connection, cutoff, pruned).await;
        if months.is_err() {
            // A reader in the way of whole months must not keep the rest.
            connection.rollback().await?;
        }
        let mut met = 0;
        loop {
            match delete_sessions(connection, cutoff.into(), pruned).await {
                Ok(true) => met = 0,
                Ok(false) => break,
                // A deadlock with a late report, say, which holds the same rows in its order.
                Err(error @ Error::Transient(_)) if met < MEETINGS => {
                    met += 1;
                    tracing::debug!(%error, "deleting old sessions met a writer, once more");
                    connection.rollback().await?;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(BREATH).await;
        }
        // Places without a row: somebody deleted sessions by hand.
        pruned.session_times += delete_batches(
            connection,
            r#"DELETE FROM session_times WHERE session_key = ANY(ARRAY(
                 SELECT session_key FROM session_times WHERE "timestamp" < $1 LIMIT $2))"#,
            // No report that is being written now can get a time as far back.
            cutoff.minus(Duration::from_hours(24)).into(),
        )
        .await?;
        self.end_sealing(connection, cutoff).await?;
        months
    }

    /// Drops the partitions of months that lie wholly before the cutoff, with the session times in them.
    async fn drop_months(
        &self,
        connection: &mut Lease,
        cutoff: UnixMs,
        pruned: &mut Pruned,
    ) -> Result<(), Error> {
        connection.begin(SETTINGS).await?;
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent IN ('sessions'::regclass, 'timeline_chunks'::regclass)
             ORDER BY i.inhparent = 'timeline_chunks'::regclass, c.relname",
        )
        .fetch_all(&mut **connection)
        .await?;
        connection.commit().await?;
        let mut months: BTreeMap<Month, Vec<String>> = BTreeMap::new();
        for name in names {
            if let Some(month) = Month::of_partition(&name).filter(|month| month.end() <= cutoff) {
                months.entry(month).or_default().push(name);
            }
        }
        for (month, partitions) in months {
            let mut attempts = 1;
            let session_times = loop {
                match drop_month(connection, month, &partitions).await {
                    Err(error) if error.is_lock_timeout() && attempts < DROP_ATTEMPTS => {
                        attempts += 1;
                        connection.rollback().await?;
                        tokio::time::sleep(DROP_PAUSE).await;
                    }
                    dropped => break dropped?,
                }
            };
            self.partitions.forget(month);
            tracing::info!(?partitions, session_times, "month dropped");
            pruned.session_times += session_times;
            pruned.partitions.extend(partitions);
        }
        Ok(())
    }
}

/// Drops the partitions of a month, with its session times, of which most went with the edge, day by
/// day: how many were left.
async fn drop_month(
    connection: &mut Lease,
    month: Month,
    partitions: &[String],
) -> Result<u64, Error> {
    // The sessions' partition is locked before the timeline's, as writers do. Dropping comes last:
    // it needs the whole table for a moment, and writers behind us must not wait long for a slow
    // reader before us, or they would set their reports aside. A late report that is being written
    // meanwhile is waited for, and dropped with the month.
    connection.begin(SETTINGS).await?;
    connection.begin("SET LOCAL lock_timeout = '200ms'").await?;
    let session_times = sqlx::query(r#"DELETE FROM session_times WHERE "timestamp" < $1"#)
        .bind(PgTime::from(month.end()))
        .execute(&mut **connection)
        .await?
        .rows_affected();
    // Names that of_partition took apart: a table of ours and two numbers.
    let drop = format!("DROP TABLE {}", partitions.join(", "));
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut **connection).await?;
    connection.commit().await?;
    Ok(session_times)
}

/// Deletes a batch of sessions with their timelines and session times; false when none was left.
async fn delete_sessions(
    connection: &mut Lease,
    before: PgTime,
    pruned: &mut Pruned,
) -> Result<bool, Error> {
    connection.begin(SETTINGS).await?;
    let rows = sqlx::query(
        r#"SELECT session_key, "timestamp" FROM sessions
           WHERE "timestamp" < $1 ORDER BY "timestamp" LIMIT $2"#,
    )
    .bind(before)
    .bind(BATCH_ROWS)
    .fetch_all(&mut **connection)
    .await?;
    let mut keys: Vec<Uuid> = Vec::with_capacity(rows.len());
    let mut times: Vec<PgTime> = Vec::with_capacity(rows.len());
    for row in &rows {
        keys.push(row.try_get(0)?);
        times.push(row.try_get(1)?);
    }
    let span = (times.iter().min().copied(), times.iter().max().copied());
    // The row first: a report that is being written holds it, and is waited for. A key has one
    // session time, so the span only spares Postgres the partitions that hold none of them.
    let mut deleted = [0; 3];
    for (deleted, sql) in deleted.iter_mut().zip([
        r#"DELETE FROM sessions WHERE session_key = ANY($1) AND "timestamp" BETWEEN $2 AND $3"#,
        r#"DELETE FROM timeline_chunks WHERE session_key = ANY($1) AND "timestamp" BETWEEN $2 AND $3"#,
        r#"DELETE FROM session_times WHERE session_key = ANY($1) AND "timestamp" BETWEEN $2 AND $3"#,
    ]) {
        let delete = sqlx::query(sql).bind(&keys).bind(span.0).bind(span.1);
        *deleted = delete.execute(&mut **connection).await?.rows_affected();
    }
    connection.commit().await?;
    let [sessions, timeline_chunks, session_times] = deleted;
    pruned.sessions += sessions;
    pruned.timeline_chunks += timeline_chunks;
    pruned.session_times += session_times;
    Ok(sessions > 0)
}

/// Runs a DELETE of at most `$2` rows older than `$1` until nothing is left.
async fn delete_batches(
    connection: &mut Lease,
    sql: &'static str,
    before: PgTime,
) -> Result<u64, Error> {
    let mut deleted = 0;
    loop {
        connection.begin(SETTINGS).await?;
        let batch =
            sqlx::query(sql).bind(before).bind(BATCH_ROWS).execute(&mut **connection).await?;
        connection.commit().await?;
        if batch.rows_affected() == 0 {
            return Ok(deleted);
        }
        deleted += batch.rows_affected();
        tokio::time::sleep(BREATH).await;
    }
}
