//! Rows as the statements of the upsert are given them: one array of composite values.
//!
//! Not an array per column: Postgres would unnest each of them by itself, which takes a third
//! of the statement's time (docs/adr/0011-rows-as-one-array.md).

use std::collections::HashMap;

use sqlx::postgres::{PgHasArrayType, PgTypeInfo};
use sqlx::{PgConnection, Postgres, Row, Type};

use super::batch::Group;
use super::types::{Jsonb, PgTime};
use super::{Error, Received};
use crate::report::{Place, TimelineEntry, UnixMs};

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
pub(super) struct SessionWrite<'a> {
    pub(super) group: &'a Group,
    pub(super) settled: &'a Settled,
    pub(super) received: &'a Received,
    pub(super) created_at: UnixMs,
    pub(super) applied: i32,
}

impl SessionWrite<'_> {
    /// What tells the row from others in an answer of Postgres.
    fn key(&self) -> (&str, &str) {
        (&self.received.report.session_id, self.received.tenant.as_str())
    }
}

/// The composite type `session_row`: fields in its order.
#[derive(sqlx::Encode)]
struct SessionRow<'a> {
    tenant_id: &'a str,
    session_id: &'a str,
    timestamp: PgTime,
    reported_at: PgTime,
    received_at: PgTime,
    created_at: PgTime,
    report_count: i32,
    clock_skew_ms: Option<i64>,
    content_id: Option<&'a str>,
    stream_type: Option<&'static str>,
    player_startup_ms: Option<i64>,
    session_duration_ms: Option<i64>,
    play_time_ms: Option<i64>,
    rebuffer_time_ms: Option<i64>,
    seek_time_ms: Option<i64>,
    rebuffer_count: Option<i32>,
    seek_count: Option<i32>,
    quality_switch_count: Option<i32>,
    error_count: Option<i32>,
    rebuffer_ratio: Option<f32>,
    avg_bitrate_kbps: Option<i32>,
    dropped_frames: Option<i64>,
    last_error_code: Option<&'a str>,
    last_error_category: Option<&'static str>,
    device_model: Option<&'a str>,
    os_name: Option<&'a str>,
    os_version: Option<&'a str>,
    app_name: Option<&'a str>,
    app_version: Option<&'a str>,
    sdk_version: Option<&'a str>,
    connection_type: Option<&'a str>,
    payload: Jsonb<'a>,
}

impl<'a> From<&SessionWrite<'a>> for SessionRow<'a> {
    fn from(write: &SessionWrite<'a>) -> Self {
        let report = &write.received.report;
        Self {
            tenant_id: write.received.tenant.as_str(),
            session_id: &report.session_id,
            timestamp: write.settled.place.timestamp.into(),
            reported_at: report.reported_at.into(),
            received_at: write.received.at.into(),
            created_at: write.created_at.into(),
            report_count: write.applied,
            clock_skew_ms: write.settled.place.clock_skew_ms,
            content_id: report.content_id.as_deref(),
            stream_type: report.stream_type,
            player_startup_ms: report.player_startup_ms,
            session_duration_ms: report.session_duration_ms,
            play_time_ms: report.play_time_ms,
            rebuffer_time_ms: report.rebuffer_time_ms,
            seek_time_ms: report.seek_time_ms,
            rebuffer_count: report.rebuffer_count,
            seek_count: report.seek_count,
            quality_switch_count: report.quality_switch_count,
            error_count: report.error_count,
            rebuffer_ratio: report.rebuffer_ratio,
            avg_bitrate_kbps: report.avg_bitrate_kbps,
            dropped_frames: report.dropped_frames,
            last_error_code: report.last_error_code.as_deref(),
            last_error_category: report.last_error_category,
            device_model: report.device_model.as_deref(),
            os_name: report.os_name.as_deref(),
            os_version: report.os_version.as_deref(),
            app_name: report.app_name.as_deref(),
            app_version: report.app_version.as_deref(),
            sdk_version: report.sdk_version.as_deref(),
            connection_type: report.connection_type.as_deref(),
            payload: Jsonb(&report.payload),
        }
    }
}

/// The composite type `timeline_row`: fields in its order.
#[derive(sqlx::Encode)]
struct TimelineRow<'a> {
    tenant_id: &'a str,
    session_id: &'a str,
    timestamp: PgTime,
    elapsed_ms: i64,
    timestamp_ms: i64,
    playback_state: &'static str,
    current_bitrate: Option<i64>,
    network_type: Option<&'a str>,
    total_dropped_frames: Option<i64>,
    buffered_duration_ms: Option<i64>,
    rebuffer_count: Option<i32>,
    rebuffer_time_ms: Option<i64>,
}

impl<'a> TimelineRow<'a> {
    fn new(received: &'a Received, timestamp: PgTime, entry: &'a TimelineEntry) -> Self {
        Self {
            tenant_id: received.tenant.as_str(),
            session_id: &received.report.session_id,
            timestamp,
            elapsed_ms: entry.elapsed_ms,
            timestamp_ms: entry.timestamp_ms,
            playback_state: entry.playback_state.as_str(),
            current_bitrate: entry.current_bitrate,
            network_type: entry.network_type.as_deref(),
            total_dropped_frames: entry.total_dropped_frames,
            buffered_duration_ms: entry.buffered_duration_ms,
            rebuffer_count: entry.rebuffer_count,
            rebuffer_time_ms: entry.rebuffer_time_ms,
        }
    }
}

impl Type<Postgres> for SessionRow<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("session_row")
    }
}

impl PgHasArrayType for SessionRow<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of("session_row")
    }
}

impl Type<Postgres> for TimelineRow<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timeline_row")
    }
}

impl PgHasArrayType for TimelineRow<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of("timeline_row")
    }
}

/// Writes the rows and returns, row by row, the report count of those that were applied.
pub(super) async fn upsert_rows(
    connection: &mut PgConnection,
    writes: &[SessionWrite<'_>],
) -> Result<Vec<Option<i32>>, Error> {
    let mut counts = vec![None; writes.len()];
    if writes.is_empty() {
        return Ok(counts);
    }
    let rows: Vec<SessionRow<'_>> = writes.iter().map(SessionRow::from).collect();
    let query = sqlx::query(include_str!("sql/upsert_sessions.sql")).bind(rows);
    let index: HashMap<(&str, &str), usize> =
        writes.iter().enumerate().map(|(index, write)| (write.key(), index)).collect();
    for row in &query.fetch_all(connection).await? {
        let key = (row.try_get(0)?, row.try_get(1)?);
        let index = *index.get(&key).expect("Postgres answers with rows of this batch");
        counts[index] = Some(row.try_get(2)?);
    }
    Ok(counts)
}

/// Adds the timeline entries of all reports, old ones included; the first one sent for an
/// `elapsed_ms` stays.
pub(super) async fn insert_timeline(
    connection: &mut PgConnection,
    batch: &[Received],
    groups: &[Group],
    settled: &[Settled],
) -> Result<(), Error> {
    let mut rows: Vec<TimelineRow<'_>> = Vec::new();
    for (group, settled) in groups.iter().zip(settled) {
        let start = rows.len();
        let timestamp = settled.place.timestamp.into();
        for &index in &group.reports {
            let received = &batch[index];
            let entries = received.report.timeline.iter();
            rows.extend(entries.map(|entry| TimelineRow::new(received, timestamp, entry)));
        }
        // Stable, so the first one sent comes first.
        rows[start..].sort_by_key(|row| row.elapsed_ms);
    }
    rows.dedup_by_key(|row| (row.session_id, row.tenant_id, row.elapsed_ms));
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/insert_timeline.sql")).bind(rows).execute(connection).await?;
    Ok(())
}
