//! The write path on a sharded Postgres (Citus): plain statements that it plans well, in one
//! transaction (docs/adr/0021-statements-for-sharded-tables.md).
//!
//! Rows are multi-row `VALUES`, which Citus sends to their shards without a detour, or, where
//! all sessions are new, `COPY`. Statements run on one shard after the other, always in the same
//! order, and rows are sorted by key within each: writers cannot deadlock.

use std::collections::HashMap;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Arguments as _, AssertSqlSafe, PgConnection, Postgres, Row as _};
use uuid::Uuid;

use super::functions::{in_order, on_conflict};
use super::row::{Version, Write, Written, columns};
use crate::store::Error;
use crate::store::types::{Json, PgTime};

/// How the transaction of a batch begins.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
     SET LOCAL citus.multi_shard_modify_mode = 'sequential'";

/// Writes session times, rows and timeline entries of different sessions, sorted by key. What
/// became of each, in order.
pub(super) async fn upsert_reports(
    connection: &mut PgConnection,
    writes: &mut [Write<'_>],
) -> Result<Vec<Written>, Error> {
    let new = settle_times(connection, writes).await?;
    let sql = format!(
        "INSERT INTO sessions AS s ({}) VALUES {} {} RETURNING s.session_key, s.report_count, \
         s.session_duration_ms, s.reported_at, s.\"timestamp\", s.timeline_from_ms IS NOT NULL",
        names(),
        placeholders(writes.len(), columns().count() + 2),
        on_conflict(),
    );
    let mut arguments = PgArguments::default();
    for write in writes.iter() {
        write.bind(&mut arguments).map_err(sqlx::Error::Encode)?;
    }
    let rows = query(sql, arguments, writes.len()).fetch_all(&mut *connection).await?;
    let mut written = HashMap::with_capacity(writes.len());
    for row in &rows {
        insert_row(&mut written, row)?;
    }

    // A row was inserted for a session that had a time: see upsert_reports in functions.sql.
    let is_again = |write: &&Write<'_>| {
        let inserted = written.get(&write.key).and_then(|after| after.count) == Some(write.applied);
        inserted && !new.contains(&write.key)
    };
    let again: Vec<&Write<'_>> = writes.iter().filter(is_again).collect();
    if !again.is_empty() {
        let times = times(connection, again.iter().map(|write| write.key).collect()).await?;
        let is_pruned =
            |write: &&Write<'_>| times.get(&write.key) != Some(&PgTime::from(write.time.timestamp));
        if again.iter().any(is_pruned) {
            return Err(Error::transient("a session was pruned while it was written"));
        }
    }

    let old: Vec<&Write<'_>> =
        writes.iter().filter(|write| !written.contains_key(&write.key)).collect();
    if !old.is_empty() {
        // Locked since the upsert looked at them.
        let rows = sqlx::query(
            r#"SELECT session_key, NULL::integer, session_duration_ms, reported_at, "timestamp", false
               FROM sessions WHERE session_key = ANY($1) AND "timestamp" = ANY($2)"#,
        )
        .bind(old.iter().map(|write| write.key).collect::<Vec<_>>())
        .bind(old.iter().map(|write| PgTime::from(write.time.timestamp)).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            insert_row(&mut written, row)?;
        }
    }
    let written = in_order(writes, &written)?;
    let added = writes.iter().zip(&written).filter(|(_, after)| after.entries_added);
    insert_chunks(connection, added.map(|(write, _)| write)).await?;
    Ok(written)
}

/// Sets the session time of each report to the settled one, settling those that are missing.
/// Returns the keys of the latter.
async fn settle_times(
    connection: &mut PgConnection,
    writes: &mut [Write<'_>],
) -> Result<Vec<Uuid>, Error> {
    let mut settled = times(connection, writes.iter().map(|write| write.key).collect()).await?;
    let missing: Vec<&Write<'_>> =
        writes.iter().filter(|write| !settled.contains_key(&write.key)).collect();
    let new: Vec<Uuid> = missing.iter().map(|write| write.key).collect();
    if !missing.is_empty() {
        // Not DO NOTHING: whoever comes second is to learn what the first one settled.
        let sql = format!(
            "INSERT INTO session_times AS t (session_key, \"timestamp\") VALUES {} \
             ON CONFLICT (session_key) DO UPDATE SET \"timestamp\" = t.\"timestamp\" \
             RETURNING session_key, \"timestamp\"",
            placeholders(missing.len(), 2),
        );
        let mut arguments = PgArguments::default();
        for write in &missing {
            arguments.add(write.key).map_err(sqlx::Error::Encode)?;
            arguments.add(PgTime::from(write.time.timestamp)).map_err(sqlx::Error::Encode)?;
        }
        for row in query(sql, arguments, missing.len()).fetch_all(connection).await? {
            settled.insert(row.try_get(0)?, row.try_get(1)?);
        }
    }
    for write in writes {
        let vanished = || Error::transient("a session time vanished while it was read");
        let time = settled.get(&write.key).copied().ok_or_else(vanished)?;
        write.time.timestamp = time.into();
    }
    Ok(new)
}

/// The session times that are settled.
async fn times(
    connection: &mut PgConnection,
    keys: Vec<Uuid>,
) -> Result<HashMap<Uuid, PgTime>, Error> {
    let rows = sqlx::query(
        r#"SELECT session_key, "timestamp" FROM session_times WHERE session_key = ANY($1)"#,
    )
    .bind(keys)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn insert_row(written: &mut HashMap<Uuid, Written>, row: &PgRow) -> Result<(), Error> {
    let after = Written {
        count: row.try_get(1)?,
        version: Version {
            duration_ms: row.try_get::<Option<i64>, _>(2)?.unwrap_or(0),
            reported_at: row.try_get(3)?,
        },
        timestamp: row.try_get(4)?,
        entries_added: row.try_get(5)?,
    };
    written.insert(row.try_get(0)?, after);
    Ok(())
}

async fn insert_chunks<'a>(
    connection: &mut PgConnection,
    writes: impl Iterator<Item = &'a Write<'a>>,
) -> Result<(), Error> {
    let mut arguments = PgArguments::default();
    let mut rows = 0;
    for write in writes {
        let Some(timeline) = &write.timeline else { continue };
        arguments.add(write.key).map_err(sqlx::Error::Encode)?;
        arguments.add(PgTime::from(write.time.timestamp)).map_err(sqlx::Error::Encode)?;
        arguments.add(Json(&timeline.json)).map_err(sqlx::Error::Encode)?;
        rows += 1;
    }
    if rows > 0 {
        let sql = format!(
            "INSERT INTO timeline_chunks (session_key, \"timestamp\", entries) VALUES {}",
            placeholders(rows, 3),
        );
        query(sql, arguments, rows).execute(connection).await?;
    }
    Ok(())
}

/// Writes reports of new sessions. Where one is not new, the transaction is broken: `false`.
pub(super) async fn insert_reports(
    connection: &mut PgConnection,
    writes: &[Write<'_>],
) -> Result<bool, Error> {
    match copy_all(connection, writes).await {
        Ok(()) => Ok(true),
        Err(error) if error.is_temporary() => Err(error),
        // Of a duplicate key on another node, Citus says only that there was an error. What else
        // it may be, the statements that follow will run into too.
        Err(_) => Ok(false),
    }
}

async fn copy_all(connection: &mut PgConnection, writes: &[Write<'_>]) -> Result<(), Error> {
    let mut times = CopyRows::default();
    let mut sessions = CopyRows::default();
    let mut chunks = CopyRows::default();
    for write in writes {
        let (key, time) = (write.key, PgTime::from(write.time.timestamp));
        times.row(2).key(key).time(time);
        sessions.row(columns().count() + 2).key(key).time(time);
        write.copy(&mut sessions.0);
        if let Some(timeline) = &write.timeline {
            chunks.row(3).key(key).time(time).bytes(timeline.json.as_bytes());
        }
    }
    let names = names();
    times.send(connection, "session_times (session_key, \"timestamp\")").await?;
    sessions.send(connection, &format!("sessions ({names})")).await?;
    chunks.send(connection, "timeline_chunks (session_key, \"timestamp\", entries)").await
}

/// Rows in the binary format of `COPY`.
#[derive(Default)]
struct CopyRows(Vec<u8>);

impl CopyRows {
    /// Signature, no flags, no extension.
    const HEAD: &'static [u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    const END: [u8; 2] = (-1_i16).to_be_bytes();

    /// Begins a row of so many values.
    fn row(&mut self, values: usize) -> &mut Self {
        if self.0.is_empty() {
            self.0.extend_from_slice(Self::HEAD);
        }
        let values = i16::try_from(values).expect("a table has fewer columns");
        self.0.extend_from_slice(&values.to_be_bytes());
        self
    }

    fn key(&mut self, key: Uuid) -> &mut Self {
        self.bytes(key.as_bytes())
    }

    fn time(&mut self, time: PgTime) -> &mut Self {
        self.bytes(&time.to_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        super::row::copy_value(&mut self.0, Some(bytes));
        self
    }

    async fn send(mut self, connection: &mut PgConnection, to: &str) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.extend_from_slice(&Self::END);
        let mut copy =
            connection.copy_in_raw(&format!("COPY {to} FROM STDIN (FORMAT binary)")).await?;
        copy.send(self.0).await?;
        copy.finish().await?;
        Ok(())
    }
}

/// The columns of `sessions`, in the order in which they are written.
fn names() -> String {
    let columns: Vec<&str> = columns().map(|column| column.name).collect();
    format!("session_key, \"timestamp\", {}", columns.join(", "))
}

/// `($1, $2), ($3, $4)`
fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let numbers: Vec<String> =
            (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", numbers.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// A statement for one row is kept prepared; others would only fill the connection's memory, and
/// Citus plans them anew each time.
fn query(
    sql: String,
    arguments: PgArguments,
    rows: usize,
) -> Query<'static, Postgres, PgArguments> {
    // Made of our own names and numbers, nothing that a client sent.
    sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(rows == 1)
}
