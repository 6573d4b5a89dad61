//! Before retention takes the sessions of an hour, what they come to is settled: the rows stay as
//! they are from then on. Sessions that stay, or come later, have rows of their own, in the next
//! part.

use super::buckets::Length;
use super::read::Source;
use super::sums::Micros;
use super::{ALONE, remake_part};
use crate::report::UnixMs;
use crate::store::lease::Lease;
use crate::store::types::PgTime;
use crate::store::{Error, Store};

impl Store {
    /// Settles what the sessions before `cutoff` come to, before they are deleted.
    pub(in crate::store) async fn seal_rollups(
        &self,
        connection: &mut Lease,
        cutoff: UnixMs,
    ) -> Result<(), Error> {
        let cutoff = PgTime::from(cutoff).micros();
        for hour in hours_before(connection, cutoff).await? {
            connection.begin(ALONE).await?;
            seal(connection, hour, cutoff.min(hour + Length::HOUR.micros())).await?;
            connection.commit().await?;
        }
        Ok(())
    }

    /// The sessions before `cutoff` are gone.
    pub(in crate::store) async fn end_sealing(
        &self,
        connection: &mut Lease,
        cutoff: UnixMs,
    ) -> Result<(), Error> {
        connection.begin(ALONE).await?;
        sqlx::query("UPDATE rollup_sealed SET until = NULL WHERE until <= $1")
            .bind(PgTime::from(cutoff))
            .execute(&mut **connection)
            .await?;
        connection.commit().await
    }
}

/// Hours with sessions before the cutoff that are not settled yet, ascending. (A run that was cut
/// off may have settled some, and left them to be deleted.)
async fn hours_before(connection: &mut Lease, cutoff: Micros) -> Result<Vec<Micros>, Error> {
    connection.begin("SET LOCAL statement_timeout = '5min'").await?;
    let hours: Vec<PgTime> = sqlx::query_scalar(
        r#"SELECT hour FROM (
             SELECT date_trunc('hour', "timestamp", 'UTC') AS hour, max("timestamp") AS last_at
             FROM sessions WHERE "timestamp" < $1 GROUP BY 1
           ) AS h
           LEFT JOIN rollup_sealed AS s USING (hour)
           WHERE s.until IS NULL OR s.until <= h.last_at
           ORDER BY 1"#,
    )
    .bind(PgTime::of_micros(cutoff))
    .fetch_all(&mut **connection)
    .await?;
    connection.commit().await?;
    Ok(hours.into_iter().map(PgTime::micros).collect())
}

/// The part of an hour's rows that is made anew, and until which time its sessions are settled and
/// about to be deleted.
pub(super) async fn settled(
    connection: &mut Lease,
    hour: Micros,
) -> Result<(i16, Option<Micros>), Error> {
    let settled: Option<(i16, Option<PgTime>)> =
        sqlx::query_as("SELECT part, until FROM rollup_sealed WHERE hour = $1")
            .bind(PgTime::of_micros(hour))
            .fetch_optional(&mut **connection)
            .await?;
    let (part, until) = settled.unwrap_or_default();
    Ok((part, until.map(PgTime::micros)))
}

/// Settles the sessions of an hour before `until`: they keep their part of the rollups, and all
/// others of the hour get the next one.
async fn seal(connection: &mut Lease, hour: Micros, until: Micros) -> Result<(), Error> {
    let end = hour + Length::HOUR.micros();
    let source = Source::read_dimensions(connection).await?;
    let (part, from) = settled(connection, hour).await?;
    let from = from.unwrap_or(hour);
    remake_part(connection, &source, part, from..until).await?;
    if until < end {
        remake_part(connection, &source, part + 1, until..end).await?;
    }
    sqlx::query(
        "INSERT INTO rollup_sealed (hour, part, until) VALUES ($1, $2, $3)
         ON CONFLICT (hour) DO UPDATE SET part = excluded.part, until = excluded.until",
    )
    .bind(PgTime::of_micros(hour))
    .bind(part + 1)
    .bind(PgTime::of_micros(until))
    .execute(&mut **connection)
    .await?;
    Ok(())
}
