//! The upsert: a batch of reports in one transaction, exactly one row per session.
//!
//! 1. `session_places` says where on the time axis each session lives; new sessions are
//!    placed there first, and whoever inserts first settles it for all.
//! 2. The newest report of each session is upserted, if it is newer than what is stored.
//! 3. Timeline entries are added.
//!
//! Plain statements over arrays, sorted by one key throughout, so that any number of
//! instances can write the same sessions at once without deadlocks.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::batch::{Group, Merge, group};
use super::partitions::Month;
use super::types::{Jsonb, PgTime};
use super::{Applied, Error, Received, Store};
use crate::report::{Place, SessionReport, TimelineEntry, UnixMs};

/// Longest that one try of a batch may take. Two tries fit into the time a report is held.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a session lives, and whether this transaction was the one to say so.
#[derive(Clone, Copy)]
struct Settled {
    place: Place,
    is_new: bool,
}

/// One row of `sessions` to be.
struct SessionRow<'a> {
    received: &'a Received,
    place: Place,
    created_at: UnixMs,
    applied: i32,
}

impl Store {
    /// Stores a batch and returns once it is committed: what became of each report, in order.
    ///
    /// # Errors
    /// Nothing of the batch is stored then, or, where the connection broke during the commit,
    /// maybe all of it; calling again with the same batch is always right.
    pub async fn upsert(&self, batch: &[Received]) -> Result<Vec<Applied>, Error> {
        let groups = group(batch);
        let mut connection = self
            .pool
            .acquire()
            .await
            .map_err(|e| self.distrust(e.into()))?;
        let write = self.timed("upsert", self.write(&mut connection, batch, &groups));
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(error)) => {
                if error.is_missing_partition() {
                    self.partitions.forget_all();
                }
                Err(self.give_up(connection, error))
            }
            // The statement may still run: only a new connection is in a known state.
            Err(_) => Err(self.give_up(connection, Error::timed_out("writing a batch"))),
        }
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        batch: &[Received],
        groups: &[Group],
    ) -> Result<Vec<Applied>, Error> {
        let known = places(connection, groups.iter().map(|group| group.key).collect()).await?;
        let now = batch
            .iter()
            .map(|received| received.at)
            .max()
            .unwrap_or_default();
        let oldest_writable = self.retention.oldest_writable(now);
        let mut settled: Vec<Settled> = groups
            .iter()
            .map(|group| match known.get(&group.key) {
                Some(&timestamp) if timestamp >= oldest_writable => Settled {
                    place: Place {
                        timestamp,
                        clock_skew_ms: None,
                    },
                    is_new: false,
                },
                _ => {
                    let first = &batch[group.reports[0]];
                    let place = Place::of(&first.report, first.at, self.retention);
                    Settled {
                        place,
                        is_new: true,
                    }
                }
            })
            .collect();
        for month in months(&settled) {
            self.ensure_partition(connection, month).await?;
        }

        sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED")
            .execute(&mut *connection)
            .await?;
        if settled.iter().any(|settled| settled.is_new) {
            self.settle(connection, groups, &mut settled, oldest_writable)
                .await?;
            let expired: Vec<&Received> = groups
                .iter()
                .filter(|group| known.get(&group.key).is_some_and(|t| *t < oldest_writable))
                .map(|group| &batch[group.reports[0]])
                .collect();
            if !expired.is_empty() {
                delete_expired(connection, &expired, oldest_writable).await?;
            }
        }
        let applied = self.apply(connection, batch, groups, &settled).await?;
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
        oldest_writable: UnixMs,
    ) -> Result<(), Error> {
        let new = || {
            groups
                .iter()
                .zip(&*settled)
                .filter(|(_, settled)| settled.is_new)
        };
        let keys: Vec<Uuid> = new().map(|(group, _)| group.key).collect();
        let times: Vec<PgTime> = new().map(|(_, s)| s.place.timestamp.into()).collect();
        // The update is for a session that outlived its retention and was not pruned yet.
        let won: Vec<Uuid> = sqlx::query_scalar(
            r#"INSERT INTO session_places (key, "timestamp")
               SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
               ON CONFLICT (key) DO UPDATE SET "timestamp" = excluded."timestamp"
               WHERE session_places."timestamp" < $3
               RETURNING key"#,
        )
        .bind(&keys)
        .bind(&times)
        .bind(PgTime::from(oldest_writable))
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
                *settled = Settled {
                    place: Place {
                        timestamp,
                        clock_skew_ms: None,
                    },
                    is_new: false,
                };
                if !self.partitions.is_known(Month::of(timestamp)) {
                    return Err(Error::transient(
                        "another instance placed a session elsewhere",
                    ));
                }
            } else if settled.is_new && !won.contains(&group.key) {
                return Err(Error::transient("a place vanished while it was read"));
            }
        }
        Ok(())
    }

    /// Upserts one row per session and says what became of each report.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        batch: &[Received],
        groups: &[Group],
        settled: &[Settled],
    ) -> Result<Vec<Applied>, Error> {
        // A session with several reports in one batch is merged as if they came one by one;
        // that needs the stored version, locked. All rows are locked then, in the order in
        // which they are written, and no other.
        let several = groups.iter().any(|group| group.reports.len() > 1);
        let stored = if several {
            versions(connection, batch, groups, settled).await?
        } else {
            HashMap::new()
        };
        let mut outcomes = vec![Applied::Stale; batch.len()];
        let mut rows = Vec::with_capacity(groups.len());
        let mut written = Vec::with_capacity(groups.len());
        for (at, (group, settled)) in groups.iter().zip(settled).enumerate() {
            let merge = Merge::of(group, batch, stored.get(&group.key).copied());
            for (&index, outcome) in group.reports.iter().zip(merge.outcomes) {
                outcomes[index] = outcome;
            }
            if let Some(newest) = merge.newest {
                let created_at = batch[group.reports[0]].at;
                let (received, place, applied) = (&batch[newest], settled.place, merge.applied);
                rows.push(SessionRow {
                    received,
                    place,
                    created_at,
                    applied,
                });
                written.push(at);
            }
        }
        let returned = upsert_rows(connection, &rows).await?;
        if several {
            return Ok(outcomes);
        }
        // One report per session from here on: written[i] is the group of rows[i].
        let mut refused = Vec::new();
        for (row, &at) in rows.iter().zip(&written) {
            let report = &row.received.report;
            if returned.len() < rows.len()
                && !returned.contains(&(
                    report.session_id.clone(),
                    row.received.tenant.as_str().to_owned(),
                ))
            {
                refused.push(at);
            } else if !settled[at].is_new {
                outcomes[groups[at].reports[0]] = Applied::Updated;
            }
        }
        if refused.is_empty() {
            return Ok(outcomes);
        }
        let stored = versions(connection, batch, groups, settled).await?;
        for at in refused {
            let index = groups[at].reports[0];
            let own = PgTime::from(batch[index].report.reported_at);
            let is_same = stored.get(&groups[at].key) == Some(&own);
            outcomes[index] = if is_same {
                Applied::Duplicate
            } else {
                Applied::Stale
            };
        }
        Ok(outcomes)
    }
}

fn months(settled: &[Settled]) -> HashSet<Month> {
    settled
        .iter()
        .map(|settled| Month::of(settled.place.timestamp))
        .collect()
}

async fn places(
    connection: &mut PgConnection,
    keys: Vec<Uuid>,
) -> Result<HashMap<Uuid, UnixMs>, Error> {
    let rows = sqlx::query(r#"SELECT key, "timestamp" FROM session_places WHERE key = ANY($1)"#)
        .bind(keys)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get::<PgTime, _>(1)?.into())))
        .collect()
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
        .bind(
            groups
                .iter()
                .map(|g| first(g).report.session_id.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            groups
                .iter()
                .map(|group| first(group).tenant.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            settled
                .iter()
                .map(|s| PgTime::from(s.place.timestamp))
                .collect::<Vec<_>>(),
        )
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// Removes what is left of sessions that outlived their retention and begin anew.
async fn delete_expired(
    connection: &mut PgConnection,
    expired: &[&Received],
    oldest_writable: UnixMs,
) -> Result<(), Error> {
    for sql in [
        r#"DELETE FROM session_timeline t USING unnest($1::text[], $2::text[]) AS k (session_id, tenant_id)
           WHERE t.session_id = k.session_id AND t.tenant_id = k.tenant_id AND t."timestamp" < $3"#,
        r#"DELETE FROM sessions s USING unnest($1::text[], $2::text[]) AS k (session_id, tenant_id)
           WHERE s.session_id = k.session_id AND s.tenant_id = k.tenant_id AND s."timestamp" < $3"#,
    ] {
        sqlx::query(sql)
            .bind(
                expired
                    .iter()
                    .map(|r| r.report.session_id.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                expired
                    .iter()
                    .map(|r| r.tenant.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(PgTime::from(oldest_writable))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Writes the rows and returns (session, tenant) of those that were applied.
async fn upsert_rows(
    connection: &mut PgConnection,
    rows: &[SessionRow<'_>],
) -> Result<HashSet<(String, String)>, Error> {
    fn of<'a, T>(rows: &'a [SessionRow<'a>], field: impl Fn(&'a SessionReport) -> T) -> Vec<T> {
        rows.iter().map(|row| field(&row.received.report)).collect()
    }
    let times = |time: fn(&SessionRow<'_>) -> UnixMs| -> Vec<PgTime> {
        rows.iter().map(|row| time(row).into()).collect()
    };
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    // In the order of the columns in the statement.
    let query = sqlx::query_as(include_str!("sql/upsert_sessions.sql"))
        .bind(
            rows.iter()
                .map(|row| row.received.tenant.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(of(rows, |r| r.session_id.as_str()))
        .bind(times(|row| row.place.timestamp))
        .bind(times(|row| row.received.report.reported_at))
        .bind(times(|row| row.received.at))
        .bind(times(|row| row.created_at))
        .bind(rows.iter().map(|row| row.applied).collect::<Vec<_>>())
        .bind(
            rows.iter()
                .map(|row| row.place.clock_skew_ms)
                .collect::<Vec<_>>(),
        )
        .bind(of(rows, |r| r.content_id.as_deref()))
        .bind(of(rows, |r| r.stream_type))
        .bind(of(rows, |r| r.player_startup_ms))
        .bind(of(rows, |r| r.session_duration_ms))
        .bind(of(rows, |r| r.play_time_ms))
        .bind(of(rows, |r| r.rebuffer_time_ms))
        .bind(of(rows, |r| r.seek_time_ms))
        .bind(of(rows, |r| r.rebuffer_count))
        .bind(of(rows, |r| r.seek_count))
        .bind(of(rows, |r| r.quality_switch_count))
        .bind(of(rows, |r| r.error_count))
        .bind(of(rows, |r| r.rebuffer_ratio))
        .bind(of(rows, |r| r.avg_bitrate_kbps))
        .bind(of(rows, |r| r.dropped_frames))
        .bind(of(rows, |r| r.last_error_code.as_deref()))
        .bind(of(rows, |r| r.last_error_category))
        .bind(of(rows, |r| r.device_model.as_deref()))
        .bind(of(rows, |r| r.os_name.as_deref()))
        .bind(of(rows, |r| r.os_version.as_deref()))
        .bind(of(rows, |r| r.app_name.as_deref()))
        .bind(of(rows, |r| r.app_version.as_deref()))
        .bind(of(rows, |r| r.sdk_version.as_deref()))
        .bind(of(rows, |r| r.connection_type.as_deref()))
        .bind(of(rows, |r| Jsonb(&r.payload)));
    Ok(query.fetch_all(connection).await?.into_iter().collect())
}

/// Adds the timeline entries of all reports, old ones included; the first one sent for an
/// `elapsed_ms` stays.
async fn insert_timeline(
    connection: &mut PgConnection,
    batch: &[Received],
    groups: &[Group],
    settled: &[Settled],
) -> Result<(), Error> {
    fn of<'a, T>(
        rows: &'a [(&'a Received, PgTime, &'a TimelineEntry)],
        field: impl Fn(&'a TimelineEntry) -> T,
    ) -> Vec<T> {
        rows.iter().map(|(_, _, entry)| field(entry)).collect()
    }
    let mut rows: Vec<(&Received, PgTime, &TimelineEntry)> = Vec::new();
    for (group, settled) in groups.iter().zip(settled) {
        let start = rows.len();
        let timestamp = settled.place.timestamp.into();
        for &index in &group.reports {
            let received = &batch[index];
            rows.extend(
                received
                    .report
                    .timeline
                    .iter()
                    .map(|entry| (received, timestamp, entry)),
            );
        }
        // Stable, so the first one sent comes first.
        rows[start..].sort_by_key(|(_, _, entry)| entry.elapsed_ms);
    }
    rows.dedup_by_key(|(received, _, entry)| {
        (
            &*received.report.session_id,
            received.tenant.as_str(),
            entry.elapsed_ms,
        )
    });
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/insert_timeline.sql"))
        .bind(
            rows.iter()
                .map(|(received, _, _)| received.tenant.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|(r, _, _)| r.report.session_id.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            rows.iter()
                .map(|(_, timestamp, _)| *timestamp)
                .collect::<Vec<_>>(),
        )
        .bind(of(&rows, |entry| entry.elapsed_ms))
        .bind(of(&rows, |entry| entry.timestamp_ms))
        .bind(of(&rows, |entry| entry.playback_state.as_str()))
        .bind(of(&rows, |entry| entry.current_bitrate))
        .bind(of(&rows, |entry| entry.network_type.as_deref()))
        .bind(of(&rows, |entry| entry.total_dropped_frames))
        .bind(of(&rows, |entry| entry.buffered_duration_ms))
        .bind(of(&rows, |entry| entry.rebuffer_count))
        .bind(of(&rows, |entry| entry.rebuffer_time_ms))
        .execute(connection)
        .await?;
    Ok(())
}
