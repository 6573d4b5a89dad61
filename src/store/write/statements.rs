//! The write path on a sharded Postgres (Citus): plain statements that it plans well, in one
//! transaction (docs/adr/0021-statements-for-sharded-tables.md).
//!
//! Rows are multi-row `VALUES`, which Citus sends to their shards without a detour, or, where
//! all sessions are new, `COPY`. Statements run on one shard after the other, always in the same
//! order, and rows are sorted by key within each: writers cannot deadlock.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::LazyLock;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row as _};
use uuid::Uuid;

use super::cell::{Cell, bind};
use super::functions::in_order;
use super::row::{CHUNK_COLUMNS, COLUMNS, ON_CONFLICT, Write, Written, duration};
use crate::store::Error;
use crate::store::types::PgTime;

const TIME_COLUMNS: &str = "session_key, \"timestamp\"";

/// The columns of `sessions`, in the order of [`Write::session_row`].
static SESSION_COLUMNS: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    format!("{TIME_COLUMNS}, {}", columns.join(", "))
});

/// What the transaction of a batch is set to. Locks are waited for on the nodes, so the time for that
/// is set there too.
pub(super) const SETTINGS: &str = "SET LOCAL citus.multi_shard_modify_mode = 'sequential';
    SET LOCAL citus.propagate_set_commands = 'local'; SET LOCAL lock_timeout = '250ms'";

/// Writes session times, rows and timeline entries of different sessions, sorted by key. What
/// became of each, in order.
pub(super) async fn upsert_reports(
    connection: &mut PgConnection,
    writes: &mut [Write<'_>],
) -> Result<Vec<Written>, Error> {
    let new = settle_times(connection, writes).await?;
    let insert = format!("INSERT INTO sessions AS s ({})", *SESSION_COLUMNS);
    let rest = format!("{} RETURNING {}", *ON_CONFLICT, Written::returned());
    let rows = writes.iter().map(Write::session_row);
    let rows = values(&insert, rows, &rest)?.fetch_all(&mut *connection).await?;
    let mut written: HashMap<Uuid, Written> =
        rows.iter().map(Written::read).collect::<Result<_, _>>()?;

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
        let sql = format!(
            r#"SELECT s.session_key, NULL::integer, {}, s.reported_at, s."timestamp", false
               FROM sessions s WHERE s.session_key = ANY($1) AND s."timestamp" = ANY($2)"#,
            duration("s")
        );
        // Made of our own names, nothing that a client sent.
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(old.iter().map(|write| write.key).collect::<Vec<_>>())
            .bind(old.iter().map(|write| PgTime::from(write.time.timestamp)).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            written.extend([Written::read(row)?]);
        }
    }
    let written = in_order(writes, &written)?;
    if written.iter().any(|after| after.count.is_some()) {
        touch(connection, writes).await?;
    }
    let added = writes.iter().zip(&written).filter(|(_, after)| after.entries_added);
    insert_chunks(connection, added.filter_map(|(write, _)| write.chunk_row()).collect()).await?;
    Ok(written)
}

/// Sets the session time of each report to the settled one, settling those that are missing.
/// Returns the keys of the latter.
async fn settle_times(
    connection: &mut PgConnection,
    writes: &mut [Write<'_>],
) -> Result<HashSet<Uuid>, Error> {
    let mut settled = times(connection, writes.iter().map(|write| write.key).collect()).await?;
    let missing: Vec<&Write<'_>> =
        writes.iter().filter(|write| !settled.contains_key(&write.key)).collect();
    let new: HashSet<Uuid> = missing.iter().map(|write| write.key).collect();
    if !missing.is_empty() {
        // Not DO NOTHING: whoever comes second is to learn what the first one settled.
        let insert = format!("INSERT INTO session_times AS t ({TIME_COLUMNS})");
        let rest = "ON CONFLICT (session_key) DO UPDATE SET \"timestamp\" = t.\"timestamp\" \
                    RETURNING session_key, \"timestamp\"";
        let rows = missing.iter().map(|write| time_row(write));
        for row in values(&insert, rows, rest)?.fetch_all(connection).await? {
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

fn time_row<'a>(write: &Write<'_>) -> [Cell<'a>; 2] {
    [Cell::Key(write.key), Cell::Time(write.time.timestamp.into())]
}

/// Adds rows of `timeline_chunks`.
pub(super) async fn insert_chunks(
    connection: &mut PgConnection,
    rows: Vec<[Cell<'_>; 5]>,
) -> Result<(), Error> {
    if !rows.is_empty() {
        let insert = format!("INSERT INTO timeline_chunks ({CHUNK_COLUMNS})");
        values(&insert, rows, "")?.execute(connection).await?;
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
    let times = writes.iter().map(time_row);
    copy(connection, &format!("session_times ({TIME_COLUMNS})"), times).await?;
    let rows = writes.iter().map(Write::session_row);
    copy(connection, &format!("sessions ({})", *SESSION_COLUMNS), rows).await?;
    let chunks = writes.iter().filter_map(Write::chunk_row);
    copy(connection, &format!("timeline_chunks ({CHUNK_COLUMNS})"), chunks).await?;
    touch(connection, writes).await
}

/// The hours of these sessions are no longer what the rollups say.
async fn touch(connection: &mut PgConnection, writes: &[Write<'_>]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO rollup_touches (hour, at, due)
         SELECT DISTINCT date_trunc('hour', t, 'UTC'), now(), now() FROM unnest($1) AS t",
    )
    .bind(writes.iter().map(|write| PgTime::from(write.time.timestamp)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Adds rows by `COPY`, in its binary format.
async fn copy<'a>(
    connection: &mut PgConnection,
    to: &str,
    rows: impl Iterator<Item: IntoIterator<Item = Cell<'a>>>,
) -> Result<(), Error> {
    /// Signature, no flags, no extension.
    const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    let mut bytes = HEAD.to_vec();
    for row in rows {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 2]);
        let mut values = 0_i16;
        for cell in row {
            let length_at = bytes.len();
            bytes.extend_from_slice(&(-1_i32).to_be_bytes());
            if cell.put(&mut bytes) {
                let length = i32::try_from(bytes.len() - length_at - 4).expect("bounded by a body");
                bytes[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
            }
            values += 1;
        }
        bytes[start..start + 2].copy_from_slice(&values.to_be_bytes());
    }
    if bytes.len() == HEAD.len() {
        return Ok(());
    }
    bytes.extend_from_slice(&(-1_i16).to_be_bytes());
    let mut copy = connection.copy_in_raw(&format!("COPY {to} FROM STDIN (FORMAT binary)")).await?;
    copy.send(bytes).await?;
    copy.finish().await?;
    Ok(())
}

/// `insert VALUES ($1, $2), ($3, $4) rest`. A statement for one row is kept prepared; others would
/// only fill the connection's memory, and Citus plans them anew each time.
fn values<'a>(
    insert: &str,
    rows: impl IntoIterator<Item: IntoIterator<Item = Cell<'a>>>,
    rest: &str,
) -> Result<Query<'static, Postgres, PgArguments>, Error> {
    let mut sql = insert.to_owned();
    let mut arguments = PgArguments::default();
    let (mut number, mut count) = (0, 0);
    for row in rows {
        sql.push_str(if count == 0 { " VALUES (" } else { ", (" });
        count += 1;
        for (column, cell) in row.into_iter().enumerate() {
            number += 1;
            let comma = if column == 0 { "" } else { ", " };
            let _ = write!(sql, "{comma}${number}");
            bind(&mut arguments, [cell])?;
        }
        sql.push(')');
    }
    let _ = write!(sql, " {rest}");
    // Made of our own names and numbers, nothing that a client sent.
    Ok(sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(count == 1))
}
