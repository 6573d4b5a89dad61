//! Rows as arrays: what the statements of the upsert are given, column by column.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use super::batch::Group;
use super::types::{Jsonb, PgTime};
use super::{Error, Received};
use crate::report::{Place, SessionReport, TimelineEntry, UnixMs};

/// Where a session lives, and whether this transaction was the one to say so.
#[derive(Clone, Copy)]
pub(super) struct Settled {
    pub(super) place: Place,
    pub(super) is_new: bool,
}

impl Settled {
    /// A place that was there before.
    pub(super) const fn known(timestamp: UnixMs) -> Self {
        Self { place: Place { timestamp, clock_skew_ms: None }, is_new: false }
    }
}

/// One row of `sessions` to be.
pub(super) struct SessionRow<'a> {
    pub(super) group: &'a Group,
    pub(super) settled: &'a Settled,
    pub(super) received: &'a Received,
    pub(super) created_at: UnixMs,
    pub(super) applied: i32,
}

impl SessionRow<'_> {
    /// What tells the row from others in an answer of Postgres.
    pub(super) fn key(&self) -> (String, String) {
        (self.received.report.session_id.clone(), self.received.tenant.as_str().to_owned())
    }
}

/// Writes the rows and returns, by (session, tenant), the report count of those that were
/// applied.
pub(super) async fn upsert_rows(
    connection: &mut PgConnection,
    rows: &[SessionRow<'_>],
) -> Result<HashMap<(String, String), i32>, Error> {
    fn of<'a, T>(rows: &'a [SessionRow<'a>], field: impl Fn(&'a SessionReport) -> T) -> Vec<T> {
        rows.iter().map(|row| field(&row.received.report)).collect()
    }
    let times = |time: fn(&SessionRow<'_>) -> UnixMs| -> Vec<PgTime> {
        rows.iter().map(|row| time(row).into()).collect()
    };
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    // In the order of the columns in the statement.
    let query = sqlx::query(include_str!("sql/upsert_sessions.sql"))
        .bind(rows.iter().map(|row| row.received.tenant.as_str()).collect::<Vec<_>>())
        .bind(of(rows, |r| r.session_id.as_str()))
        .bind(times(|row| row.settled.place.timestamp))
        .bind(times(|row| row.received.report.reported_at))
        .bind(times(|row| row.received.at))
        .bind(times(|row| row.created_at))
        .bind(rows.iter().map(|row| row.applied).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.settled.place.clock_skew_ms).collect::<Vec<_>>())
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
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?))).collect()
}

/// Adds the timeline entries of all reports, old ones included; the first one sent for an
/// `elapsed_ms` stays.
pub(super) async fn insert_timeline(
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
            rows.extend(received.report.timeline.iter().map(|entry| (received, timestamp, entry)));
        }
        // Stable, so the first one sent comes first.
        rows[start..].sort_by_key(|(_, _, entry)| entry.elapsed_ms);
    }
    rows.dedup_by_key(|(received, _, entry)| {
        (&*received.report.session_id, received.tenant.as_str(), entry.elapsed_ms)
    });
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/insert_timeline.sql"))
        .bind(rows.iter().map(|(received, _, _)| received.tenant.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(r, _, _)| r.report.session_id.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, timestamp, _)| *timestamp).collect::<Vec<_>>())
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
