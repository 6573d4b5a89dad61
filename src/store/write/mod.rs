//! The upsert: a batch of reports in one transaction, exactly one row per session.
//!
//! On one Postgres that is nearly always one call of a function, one round trip
//! ([`functions`]); on a sharded one, a few plain statements ([`statements`]). Only where a
//! session has several reports in one batch are there two rounds: the first report of each
//! session, and then what the others come to, once it is known which version the row holds, and
//! the row is locked. Timeline entries that may be stored already are compared last
//! ([`timeline`]).

mod batch;
mod cell;
pub(super) mod functions;
mod obstacles;
mod row;
mod statements;
mod timeline;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection};

pub(super) use batch::session_key;
pub(super) use row::column_names;

use super::lease::{Kept, Lease};
use super::own_slots::Writable;
use super::{Applied, Error, Received, Store};
use crate::report::{SessionTime, Timeline};
use batch::{Group, Merge, group};
use row::{Version, Write, Written};
use timeline::Unsettled;

/// After a batch of more than this, its connection gives back the memory that it took. Growing
/// the buffers again and again would cost more than it saves.
const LARGE_BATCH_BYTES: usize = 512 * 1024;

/// After so many batches in a row of nothing but new sessions, the next one is expected to be
/// another. Where it is not, the attempt leaves dead rows, so it must be rare: with this, 4 % of
/// the batches where those that hold other sessions too come at random, one in nine at worst.
const NEW_IN_A_ROW: u32 = 8;

/// Batches in a row that held nothing but new sessions.
#[derive(Default)]
pub(super) struct NewSessionStreak(AtomicU32);

impl NewSessionStreak {
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
    /// On an error, either nothing was stored or, if Postgres never responded, all of it may have
    /// been. Retrying the same batch is always safe: what was stored is a duplicate then.
    pub async fn upsert(
        &self,
        kept: &mut Kept,
        batch: &[&Received],
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
        match result {
            Err(error) if error.is_missing_function() => {
                self.within(limit / 2, "make_functions", self.make_functions()).await?;
                Err(Error::transient("the functions that write were gone"))
            }
            Err(error) if error.is_other_assignment() => {
                self.look_at_assignment().await?;
                Err(error)
            }
            Err(error) if error.may_be_of_shards() && self.became_sharded(limit / 2).await? => {
                Err(Error::transient("the tables are distributed now"))
            }
            // A node was lost while it committed: Citus has no code of its own for that.
            Err(Error::Bug(cause)) if self.sharding.is_known() && cause.is_internal() => {
                Err(Error::Transient(cause))
            }
            result => result,
        }
    }

    async fn write(
        &self,
        connection: &mut Lease,
        batch: &[&Received],
        groups: &[Group],
    ) -> Result<Vec<Applied>, Error> {
        let is_sharded = self.sharding.of(connection).await?;
        let writable = self.own.writable();
        let mut firsts: Vec<Write<'_>> = groups
            .iter()
            .map(|group| {
                let received = batch[group.reports[0]];
                Write {
                    key: group.key,
                    time: SessionTime::of(&received.report, received.at, self.retention),
                    received,
                    created_at: received.at,
                    applied: 1,
                    timeline: received.report.timeline.as_ref().map(Cow::Borrowed),
                    writable,
                }
            })
            .collect();

        let mut outcomes = vec![Applied::Stale; batch.len()];
        let mut unsettled = Unsettled::default();
        let several = groups.len() < batch.len();
        let mut dropped = 0;
        if several || is_sharded {
            begin(connection, is_sharded, writable).await?;
        } else {
            connection.open().await?;
        }
        let written = self.write_firsts(connection, &mut firsts, is_sharded, writable).await?;
        for (write, (group, written)) in firsts.iter().zip(groups.iter().zip(&written)) {
            outcomes[group.reports[0]] = outcome(write, written);
        }
        unsettled.note(&firsts, &written);
        if several {
            let mut others = others(batch, groups, &firsts, &written, &mut outcomes);
            let written = upsert_reports(connection, &mut others, is_sharded).await?;
            unsettled.note(&others, &written);
        }
        if !unsettled.is_empty() {
            let are_locked = connection.is_in_transaction();
            if !are_locked {
                begin(connection, is_sharded, writable).await?;
            }
            dropped = unsettled.add_missing(connection, are_locked).await?;
        }
        if connection.is_in_transaction() {
            connection.commit().await?;
        }
        self.metrics.timeline_entries_dropped("session_full", dropped);
        Ok(outcomes)
    }

    /// Writes the first report of each session.
    async fn write_firsts(
        &self,
        connection: &mut Lease,
        firsts: &mut [Write<'_>],
        is_sharded: bool,
        writable: Writable,
    ) -> Result<Vec<Written>, Error> {
        if self.new_sessions.is_expected() {
            let all_new = if is_sharded {
                statements::insert_reports(connection, firsts).await?
            } else {
                functions::insert_reports(connection, firsts).await?
            };
            if all_new {
                return Ok(firsts.iter().map(Written::first).collect());
            }
            self.new_sessions.seen(false);
            if is_sharded {
                connection.rollback().await?;
                begin(connection, is_sharded, writable).await?;
            }
        }
        let written = upsert_reports(connection, firsts, is_sharded).await?;
        let is_new = |written: &Written| written.count == Some(1);
        self.new_sessions.seen(written.iter().all(is_new));
        Ok(written)
    }

    /// Somebody dropped the functions of this version, or restored a database without them.
    async fn make_functions(&self) -> Result<(), Error> {
        let mut lease = self.pool.take().await?;
        functions::ensure(&mut lease).await?;
        lease.finish();
        Ok(())
    }

    /// Whether somebody has distributed the tables since this instance looked.
    async fn became_sharded(&self, limit: Duration) -> Result<bool, Error> {
        let look = async {
            let mut lease = self.pool.take().await?;
            let became = self.sharding.look_again(&mut lease).await?;
            lease.finish();
            Ok(became)
        };
        self.within(limit, "sharding", look).await
    }
}

async fn begin(connection: &mut Lease, is_sharded: bool, writable: Writable) -> Result<(), Error> {
    if !is_sharded {
        return connection.begin("").await;
    }
    connection.begin(statements::SETTINGS).await?;
    writable.check(connection).await
}

async fn upsert_reports(
    connection: &mut PgConnection,
    writes: &mut [Write<'_>],
    is_sharded: bool,
) -> Result<Vec<Written>, Error> {
    if is_sharded {
        statements::upsert_reports(connection, writes).await
    } else {
        functions::upsert_reports(connection, writes).await
    }
}

/// What the second and later reports of each session come to.
fn others<'a>(
    batch: &[&'a Received],
    groups: &[Group],
    firsts: &[Write<'a>],
    written: &[Written],
    outcomes: &mut [Applied],
) -> Vec<Write<'a>> {
    let mut writes = Vec::new();
    for (group, (first, written)) in groups.iter().zip(firsts.iter().zip(written)) {
        let others = &group.reports[1..];
        let Some(&second) = others.first() else { continue };
        let merge = Merge::of(others, batch, written.version);
        for (&index, outcome) in others.iter().zip(merge.outcomes) {
            outcomes[index] = outcome;
        }
        let timelines = others.iter().filter_map(|&index| batch[index].report.timeline.as_ref());
        writes.push(Write {
            key: group.key,
            time: first.time,
            // Where all are old, any will do: it changes nothing but the timeline.
            received: batch[merge.newest.unwrap_or(second)],
            created_at: first.created_at,
            applied: merge.applied,
            timeline: Timeline::merged(timelines).map(Cow::Owned),
            writable: first.writable,
        });
    }
    writes
}

/// What became of a session's first report in a batch.
fn outcome(write: &Write<'_>, written: &Written) -> Applied {
    match written.count {
        // Only an insert starts at what it brought.
        Some(count) if count == write.applied => Applied::Stored,
        Some(_) => Applied::Updated,
        None if written.version == Version::of(&write.received.report) => Applied::Duplicate,
        None => Applied::Stale,
    }
}
