//! The upsert: a batch of reports in one transaction, exactly one row per session.
//!
//! Nearly always that is one call of a function (migrations/0004_new_sessions.sql), one round
//! trip: `upsert_reports`, or `insert_reports` where batch after batch had only new sessions.
//! Only where a session has several reports in one batch are there two calls: the first report
//! of each session, and then what the others come to, once it is known which version the row
//! holds, and the row is locked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::batch::{Group, Merge, group};
use super::connect::{Kept, Lease};
use super::partitions::Month;
use super::rows::{Write, Written, insert_reports, upsert_reports};
use super::types::PgTime;
use super::{Applied, Error, Received, Store};
use crate::report::Place;

/// After a batch of more than this, its connection gives back the memory that it took. Growing
/// the buffers again and again would cost more than it saves.
const LARGE_BATCH_BYTES: usize = 512 * 1024;

/// After so many batches in a row of nothing but new sessions, the next one is expected to be
/// another. Where it is not, the attempt leaves dead rows, so it must be rare: with this, 4 % of
/// the batches where those that hold other sessions too come at random, one in nine at worst.
const NEW_IN_A_ROW: u32 = 8;

/// Batches in a row that held nothing but new sessions.
#[derive(Default)]
pub(super) struct AllNew(AtomicU32);

impl AllNew {
    fn is_expected(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= NEW_IN_A_ROW
    }

    /// A hint: batches that end at the same time may count as one.
    fn seen(&self, all_new: bool) {
        let before = self.0.load(Ordering::Relaxed);
        let after = if all_new { before.saturating_add(1) } else { 0 };
        self.0.store(after, Ordering::Relaxed);
    }
}

impl Store {
    /// Stores a batch and returns once it is committed: what became of each report, in order.
    /// Gives up after `limit`. Uses the connection that is kept from the batch before, if one is.
    ///
    /// # Errors
    /// Nothing of the batch is stored then, or, where Postgres did not answer (the connection
    /// broke, the time was up), maybe all of it, maybe a moment later. Calling again with the
    /// same batch is always right; what was stored is a duplicate then.
    pub async fn upsert(
        &self,
        kept: &mut Kept,
        batch: &[Received],
        limit: Duration,
    ) -> Result<Vec<Applied>, Error> {
        let groups = group(batch);
        let write = async {
            let (mut lease, since) = kept.take(&self.pool).await?;
            let applied = self.write(&mut lease, batch, &groups).await?;
            let weight: usize = batch.iter().map(|one| one.report.weight_bytes()).sum();
            if weight > LARGE_BATCH_BYTES {
                lease.shrink_buffers();
            }
            kept.put(lease, since, &self.pool);
            Ok(applied)
        };
        let result = self.within(limit, "upsert", write).await;
        if result.as_ref().is_err_and(Error::is_missing_partition) {
            let make = self.make_missing(&groups);
            self.within(limit / 2, "make_partition", make).await?;
        }
        result
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        batch: &[Received],
        groups: &[Group],
    ) -> Result<Vec<Applied>, Error> {
        let firsts: Vec<Write<'_>> = groups
            .iter()
            .map(|group| {
                let received = &batch[group.reports[0]];
                Write {
                    key: group.key,
                    place: Place::of(&received.report, received.at, self.retention),
                    received,
                    created_at: received.at,
                    applied: 1,
                    entries_of: vec![received],
                }
            })
            .collect();
        let months: HashSet<Month> =
            firsts.iter().map(|write| Month::of(write.place.timestamp)).collect();
        for month in months {
            self.ensure_partition(connection, month).await?;
        }

        let mut outcomes = vec![Applied::Stale; batch.len()];
        let several = groups.len() < batch.len();
        if several {
            sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *connection).await?;
        }
        let written = self.write_firsts(connection, &firsts).await?;
        for (write, (group, written)) in firsts.iter().zip(groups.iter().zip(&written)) {
            outcomes[group.reports[0]] = outcome(write, written);
        }
        if several {
            apply_others(connection, batch, groups, &firsts, &written, &mut outcomes).await?;
            sqlx::raw_sql("COMMIT").execute(connection).await?;
        }
        Ok(outcomes)
    }

    /// Writes the first report of each session.
    async fn write_firsts(
        &self,
        connection: &mut PgConnection,
        firsts: &[Write<'_>],
    ) -> Result<Vec<Written>, Error> {
        if self.all_new.is_expected() {
            if insert_reports(connection, firsts).await? {
                return Ok(firsts.iter().map(Written::first).collect());
            }
            self.all_new.seen(false);
        }
        let written = upsert_reports(connection, firsts).await?;
        let is_new = |written: &Written| written.count == Some(1);
        self.all_new.seen(written.iter().all(is_new));
        Ok(written)
    }

    /// A partition is gone that this instance saw, or sessions live in a month that it did not
    /// expect: makes what is missing, so that the next try succeeds.
    async fn make_missing(&self, groups: &[Group]) -> Result<(), Error> {
        self.partitions.forget_all();
        let mut lease = Lease::take(&self.pool).await?;
        let places: Vec<PgTime> =
            sqlx::query_scalar(r#"SELECT "timestamp" FROM session_places WHERE key = ANY($1)"#)
                .bind(groups.iter().map(|group| group.key).collect::<Vec<_>>())
                .fetch_all(&mut *lease)
                .await?;
        let months: HashSet<Month> =
            places.into_iter().map(|time| Month::of(time.into())).collect();
        for month in months {
            self.ensure_partition(&mut lease, month).await?;
        }
        lease.finish();
        Ok(())
    }
}

/// Writes what the second and later reports of each session come to.
async fn apply_others(
    connection: &mut PgConnection,
    batch: &[Received],
    groups: &[Group],
    firsts: &[Write<'_>],
    written: &[Written],
    outcomes: &mut [Applied],
) -> Result<(), Error> {
    let mut writes = Vec::new();
    for (group, (first, written)) in groups.iter().zip(firsts.iter().zip(written)) {
        let others = &group.reports[1..];
        let Some(&second) = others.first() else { continue };
        let merge = Merge::of(others, batch, written.version);
        for (&index, outcome) in others.iter().zip(merge.outcomes) {
            outcomes[index] = outcome;
        }
        writes.push(Write {
            key: group.key,
            place: first.place,
            // Where all are old, any will do: it changes nothing but the timeline.
            received: &batch[merge.newest.unwrap_or(second)],
            created_at: first.created_at,
            applied: merge.applied,
            entries_of: others.iter().map(|&index| &batch[index]).collect(),
        });
    }
    upsert_reports(connection, &writes).await.map(drop)
}

/// What became of a session's first report in a batch.
fn outcome(write: &Write<'_>, written: &Written) -> Applied {
    match written.count {
        // Only an insert starts at what it brought.
        Some(count) if count == write.applied => Applied::Stored,
        Some(_) => Applied::Updated,
        None if written.version == PgTime::from(write.received.report.reported_at) => {
            Applied::Duplicate
        }
        None => Applied::Stale,
    }
}
