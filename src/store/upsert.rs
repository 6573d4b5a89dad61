//! The upsert: a batch of reports in one transaction, exactly one row per session.
//!
//! 1. `session_places` says where on the time axis each session lives; new sessions are
//!    placed there first, and whoever inserts first settles it for all.
//! 2. The newest report of each session is upserted, if it is newer than what is stored.
//! 3. Timeline entries are added.
//!
//! Plain statements over arrays of rows, sorted by one key throughout, so that any number of
//! instances can write the same sessions at once without deadlocks.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::batch::{Group, Merge, group};
use super::connect::Lease;
use super::partitions::Month;
use super::rows::{SessionWrite, Settled, insert_timeline, upsert_rows};
use super::types::PgTime;
use super::{Applied, Error, Received, Store};
use crate::report::{Place, UnixMs};

/// After a batch of more than this, its connection gives back the memory that it took. Growing
/// the buffers again and again would cost more than it saves.
const LARGE_BATCH_BYTES: usize = 512 * 1024;

impl Store {
    /// Stores a batch and returns once it is committed: what became of each report, in order.
    /// Gives up after `limit`.
    ///
    /// # Errors
    /// Nothing of the batch is stored then, or, where the connection broke during the commit,
    /// maybe all of it; calling again with the same batch is always right.
    pub async fn upsert(&self, batch: &[Received], limit: Duration) -> Result<Vec<Applied>, Error> {
        let groups = group(batch);
        let write = async {
            let mut lease = Lease::take(&self.pool).await?;
            let applied = self.write(&mut lease, batch, &groups).await?;
            let weight: usize = batch.iter().map(|one| one.report.weight_bytes()).sum();
            if weight > LARGE_BATCH_BYTES {
                lease.shrink_buffers();
            }
            lease.finish();
            Ok(applied)
        };
        let result = self.within(limit, "upsert", write).await;
        if result.as_ref().is_err_and(Error::is_missing_partition) {
            self.partitions.forget_all();
        }
        result
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        batch: &[Received],
        groups: &[Group],
    ) -> Result<Vec<Applied>, Error> {
        let known = places(connection, groups.iter().map(|group| group.key).collect()).await?;
        let mut settled: Vec<Settled> = groups
            .iter()
            .map(|group| {
                if let Some(&timestamp) = known.get(&group.key) {
                    return Settled::known(timestamp);
                }
                let first = &batch[group.reports[0]];
                let place = Place::of(&first.report, first.at, self.retention);
                Settled { place, is_new: true }
            })
            .collect();
        for month in months(&settled) {
            self.ensure_partition(connection, month).await?;
        }

        sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *connection).await?;
        if settled.iter().any(|settled| settled.is_new) {
            self.settle(connection, groups, &mut settled).await?;
        }
        let applied = apply(connection, batch, groups, &settled).await?;
        insert_timeline(connection, batch, groups, &settled).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        Ok(applied)
    }

    /// Writes the places of new sessions. Where another transaction was faster, its place holds.
    async fn settle(
        &self,
        connection: &mut PgConnection,
        groups: &[Group],
        settled: &mut [Settled],
    ) -> Result<(), Error> {
        let new = || groups.iter().zip(&*settled).filter(|(_, settled)| settled.is_new);
        let keys: Vec<Uuid> = new().map(|(group, _)| group.key).collect();
        let times: Vec<PgTime> = new().map(|(_, s)| s.place.timestamp.into()).collect();
        let won: Vec<Uuid> = sqlx::query_scalar(
            r#"INSERT INTO session_places (key, "timestamp")
               SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
               ON CONFLICT (key) DO NOTHING
               RETURNING key"#,
        )
        .bind(&keys)
        .bind(&times)
        .fetch_all(&mut *connection)
        .await?;
        if won.len() == keys.len() {
            return Ok(());
        }
        let won: HashSet<Uuid> = won.into_iter().collect();
        let lost = keys.into_iter().filter(|key| !won.contains(key)).collect();
        let theirs = places(connection, lost).await?;
        for (group, settled) in groups.iter().zip(settled) {
            if let Some(&timestamp) = theirs.get(&group.key) {
                *settled = Settled::known(timestamp);
                if !self.partitions.is_known(Month::of(timestamp)) {
                    return Err(Error::transient("another instance placed a session elsewhere"));
                }
            } else if settled.is_new && !won.contains(&group.key) {
                return Err(Error::transient("a place vanished while it was read"));
            }
        }
        Ok(())
    }
}

/// Upserts one row per session and says what became of each report.
async fn apply(
    connection: &mut PgConnection,
    batch: &[Received],
    groups: &[Group],
    settled: &[Settled],
) -> Result<Vec<Applied>, Error> {
    // A session with several reports in one batch is merged as if they came one by one; that
    // needs the stored version, locked. All rows are locked then, in the order in which they
    // are written, and no other.
    let several = groups.iter().any(|group| group.reports.len() > 1);
    let stored =
        if several { versions(connection, batch, groups, settled).await? } else { HashMap::new() };
    let mut outcomes = vec![Applied::Stale; batch.len()];
    let mut rows = Vec::with_capacity(groups.len());
    for (group, settled) in groups.iter().zip(settled) {
        let merge = Merge::of(group, batch, stored.get(&group.key).copied());
        for (&index, outcome) in group.reports.iter().zip(merge.outcomes) {
            outcomes[index] = outcome;
        }
        if let Some(newest) = merge.newest {
            let created_at = batch[group.reports[0]].at;
            let (received, applied) = (&batch[newest], merge.applied);
            rows.push(SessionWrite { group, settled, received, created_at, applied });
        }
    }
    let counts = upsert_rows(connection, &rows).await?;

    let mut refused = Vec::new();
    let mut lost = Vec::new();
    for (row, count) in rows.iter().zip(counts) {
        match count {
            None => refused.push(row.group),
            Some(count) if row.settled.is_new => debug_assert!(count >= row.applied),
            Some(count) if count == row.applied => lost.push(row),
            Some(_) if several => {}
            Some(_) => outcomes[row.group.reports[0]] = Applied::Updated,
        }
    }
    if !lost.is_empty() {
        // Sessions with a place had no row: they were pruned, place and row together, after
        // their places were read, and may live elsewhere by now. The next try finds out.
        let now = places(connection, lost.iter().map(|row| row.group.key).collect()).await?;
        let is_there =
            |row: &&SessionWrite<'_>| now.get(&row.group.key) == Some(&row.settled.place.timestamp);
        if !lost.iter().all(is_there) {
            return Err(Error::transient("a session was pruned while it was written"));
        }
    }
    if !refused.is_empty() {
        let stored = versions(connection, batch, groups, settled).await?;
        for group in refused {
            let index = group.reports[0];
            let own = PgTime::from(batch[index].report.reported_at);
            let is_same = stored.get(&group.key) == Some(&own);
            outcomes[index] = if is_same { Applied::Duplicate } else { Applied::Stale };
        }
    }
    Ok(outcomes)
}

fn months(settled: &[Settled]) -> HashSet<Month> {
    settled.iter().map(|settled| Month::of(settled.place.timestamp)).collect()
}

async fn places(
    connection: &mut PgConnection,
    keys: Vec<Uuid>,
) -> Result<HashMap<Uuid, UnixMs>, Error> {
    let rows = sqlx::query(r#"SELECT key, "timestamp" FROM session_places WHERE key = ANY($1)"#)
        .bind(keys)
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<PgTime, _>(1)?.into()))).collect()
}

/// Versions of the rows that exist, by key, locked in the order in which rows are written.
async fn versions(
    connection: &mut PgConnection,
    batch: &[Received],
    groups: &[Group],
    settled: &[Settled],
) -> Result<HashMap<Uuid, PgTime>, Error> {
    let first = |group: &Group| &batch[group.reports[0]];
    let rows = sqlx::query(include_str!("sql/select_versions.sql"))
        .bind(groups.iter().map(|group| group.key).collect::<Vec<_>>())
        .bind(groups.iter().map(|g| first(g).report.session_id.as_str()).collect::<Vec<_>>())
        .bind(groups.iter().map(|group| first(group).tenant.as_str()).collect::<Vec<_>>())
        .bind(settled.iter().map(|s| PgTime::from(s.place.timestamp)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
