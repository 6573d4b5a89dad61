//! Before retention takes the sessions of an hour, what they come to is settled: the rows stay as
//! they are from then on. Sessions that come later have rows of their own, in the next part.

use std::time::Duration;

use super::buckets::Length;
use super::read::Source;
use super::sums::Micros;
use super::{ALONE, remake_touched};
use crate::report::UnixMs;
use crate::store::lease::Lease;
use crate::store::types::PgTime;
use crate::store::{Error, Store};

/// Reports that were accepted with a session time just after the cutoff are written by then.
const WRITTEN_BY_THEN: Duration = Duration::from_mins(1);

impl Store {
    /// Settles all hours before `cutoff` that hold sessions. Returns the moment before which
    /// sessions may be deleted: a full hour.
    pub(in crate::store) async fn seal_rollups(
        &self,
        connection: &mut Lease,
        cutoff: UnixMs,
    ) -> Result<UnixMs, Error> {
        let cutoff = PgTime::from(cutoff.minus(WRITTEN_BY_THEN)).micros();
        let cutoff = Length::HOUR.bucket(cutoff);
        let source = Source::new(self.rollup_dimensions());
        for day in days_before(connection, cutoff).await? {
            connection.begin(ALONE).await?;
            // What reports have touched comes first, in the same transaction.
            remake_touched(connection, &source, day).await?;
            seal(connection, day, cutoff).await?;
            connection.commit().await?;
        }
        Ok(PgTime::of_micros(cutoff).into())
    }

    /// The sessions before `cutoff` are deleted: their hours may take others again.
    pub(in crate::store) async fn end_sealing(
        &self,
        connection: &mut Lease,
        cutoff: UnixMs,
    ) -> Result<(), Error> {
        connection.begin(ALONE).await?;
        sqlx::query("UPDATE rollup_sealed SET is_deleting = false WHERE is_deleting AND hour < $1")
            .bind(PgTime::from(cutoff))
            .execute(&mut **connection)
            .await?;
        connection.commit().await
    }
}

/// Days that hold sessions from before the cutoff, ascending.
async fn days_before(connection: &mut Lease, cutoff: Micros) -> Result<Vec<Micros>, Error> {
    connection.begin("SET LOCAL statement_timeout = '5min'").await?;
    let days: Vec<PgTime> = sqlx::query_scalar(
        r#"SELECT DISTINCT date_trunc('day', "timestamp", 'UTC') FROM sessions
           WHERE "timestamp" < $1 ORDER BY 1"#,
    )
    .bind(PgTime::of_micros(cutoff))
    .fetch_all(&mut **connection)
    .await?;
    connection.commit().await?;
    Ok(days.into_iter().map(PgTime::micros).collect())
}

/// Settles the hours of a day before the cutoff that hold sessions, unless an earlier run has, and
/// was cut off before all of their sessions were deleted.
async fn seal(connection: &mut Lease, day: Micros, cutoff: Micros) -> Result<(), Error> {
    let end = cutoff.min(day + Length::DAY.micros());
    sqlx::query(
        r#"INSERT INTO rollup_sealed (hour, part, is_deleting)
           SELECT hour, 1, true FROM (
             SELECT DISTINCT date_trunc('hour', "timestamp", 'UTC') AS hour FROM sessions
             WHERE "timestamp" >= $1 AND "timestamp" < $2) AS hours
           ON CONFLICT (hour) DO UPDATE SET part = rollup_sealed.part + 1, is_deleting = true
           WHERE NOT rollup_sealed.is_deleting"#,
    )
    .bind(PgTime::of_micros(day))
    .bind(PgTime::of_micros(end))
    .execute(&mut **connection)
    .await?;
    Ok(())
}
