//! A batch as the functions of migrations/0004_new_sessions.sql are given it: one array of
//! composite values, whose fields are in the order of the types `session_report` and
//! `timeline_entry`.
//!
//! Not an array per column: Postgres would unnest each of them by itself, which takes a third
//! of the statement's time (docs/adr/0011-rows-as-one-array.md).

use std::collections::HashMap;

use sqlx::postgres::{PgArguments, PgHasArrayType, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row, Type};
use uuid::Uuid;

use super::types::{Jsonb, PgTime};
use super::{Error, Received};
use crate::report::{Place, TimelineEntry, UnixMs};

/// What is to be written for one session.
pub(super) struct Write<'a> {
    /// Key in `session_places`.
    pub(super) key: Uuid,
    /// Where the session lives, unless that is settled already.
    pub(super) place: Place,
    /// The report whose values the row gets, where it is newer than the row.
    pub(super) received: &'a Received,
    /// Server clock at the session's first report, for a new row.
    pub(super) created_at: UnixMs,
    /// What `report_count` grows by.
    pub(super) applied: i32,
    /// Reports whose timeline entries are added, in order of arrival.
    pub(super) entries_of: Vec<&'a Received>,
}

impl Write<'_> {
    /// What tells the row from others in an answer of Postgres.
    fn name(&self) -> (&str, &str) {
        (&self.received.report.session_id, self.received.tenant.as_str())
    }
}

/// A session's row after a write.
#[derive(Clone, Copy)]
pub(super) struct Written {
    /// `report_count` where the report was applied; `None` where the row was as new, or newer.
    pub(super) count: Option<i32>,
    /// `reported_at` of the row.
    pub(super) version: PgTime,
}

impl Written {
    /// As the session's first report leaves it.
    pub(super) fn first(write: &Write<'_>) -> Self {
        let version = write.received.report.reported_at.into();
        Self { count: Some(write.applied), version }
    }
}

/// The composite type `session_report`.
#[derive(sqlx::Encode)]
struct SessionRow<'a> {
    tenant_id: &'a str,
    session_id: &'a str,
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
    timeline: Vec<EntryRow<'a>>,
}

impl<'a> From<&Write<'a>> for SessionRow<'a> {
    fn from(write: &Write<'a>) -> Self {
        let report = &write.received.report;
        Self {
            tenant_id: write.received.tenant.as_str(),
            session_id: &report.session_id,
            reported_at: report.reported_at.into(),
            received_at: write.received.at.into(),
            created_at: write.created_at.into(),
            report_count: write.applied,
            clock_skew_ms: write.place.clock_skew_ms,
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
            timeline: entries(&write.entries_of),
        }
    }
}

/// The composite type `timeline_entry`.
#[derive(sqlx::Encode)]
struct EntryRow<'a> {
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

impl<'a> From<&'a TimelineEntry> for EntryRow<'a> {
    fn from(entry: &'a TimelineEntry) -> Self {
        Self {
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

/// The entries of a session's reports: the first one sent for an `elapsed_ms` stays.
fn entries<'a>(reports: &[&'a Received]) -> Vec<EntryRow<'a>> {
    let all = reports.iter().flat_map(|received| &received.report.timeline);
    let mut rows: Vec<EntryRow<'_>> = all.map(EntryRow::from).collect();
    // Stable, so the first one sent comes first.
    rows.sort_by_key(|row| row.elapsed_ms);
    rows.dedup_by_key(|row| row.elapsed_ms);
    rows
}

impl Type<Postgres> for SessionRow<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("session_report")
    }
}

impl PgHasArrayType for SessionRow<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of("session_report")
    }
}

impl Type<Postgres> for EntryRow<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timeline_entry")
    }
}

impl PgHasArrayType for EntryRow<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::array_of("timeline_entry")
    }
}

/// Writes rows, places and timeline entries of different sessions, sorted by key, in one call
/// and, unless the connection is in one, one transaction, if all of the sessions are new.
/// Otherwise writes nothing: `false`.
pub(super) async fn insert_reports(
    connection: &mut PgConnection,
    writes: &[Write<'_>],
) -> Result<bool, Error> {
    let answer = call("SELECT insert_reports($1, $2, $3, $4)", writes).fetch_one(connection);
    Ok(answer.await?.try_get(0)?)
}

/// The same, whatever the sessions are. What became of each, in order.
pub(super) async fn upsert_reports(
    connection: &mut PgConnection,
    writes: &[Write<'_>],
) -> Result<Vec<Written>, Error> {
    const SQL: &str = "SELECT session, tenant, count, version FROM upsert_reports($1, $2, $3, $4)";
    let answers = call(SQL, writes).fetch_all(connection).await?;
    let index: HashMap<(&str, &str), usize> =
        writes.iter().enumerate().map(|(index, write)| (write.name(), index)).collect();
    let mut written = vec![None; writes.len()];
    for row in &answers {
        let name = (row.try_get(0)?, row.try_get(1)?);
        let index = *index.get(&name).expect("Postgres answers with rows of this batch");
        // Those that were applied come first.
        if written[index].is_none() {
            written[index] = Some(Written { count: row.try_get(2)?, version: row.try_get(3)? });
        }
    }
    let vanished = || Error::transient("a row vanished while it was written");
    written.into_iter().map(|written| written.ok_or_else(vanished)).collect()
}

/// A call of one of the functions, which take the same.
fn call<'a>(sql: &'static str, writes: &'a [Write<'a>]) -> Query<'a, Postgres, PgArguments> {
    let rows: Vec<SessionRow<'_>> = writes.iter().map(SessionRow::from).collect();
    let with_timeline = rows.iter().any(|row| !row.timeline.is_empty());
    sqlx::query(sql)
        .bind(writes.iter().map(|write| write.key).collect::<Vec<_>>())
        .bind(writes.iter().map(|write| PgTime::from(write.place.timestamp)).collect::<Vec<_>>())
        .bind(rows)
        .bind(with_timeline)
}
