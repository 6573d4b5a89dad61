//! The columns that a report writes, and their values: the store's side of the one list.
//!
//! What a report says is listed in [`SessionReport::columns`]; what the server adds is listed
//! here, each column beside its value.

use std::borrow::Cow;
use std::sync::LazyLock;

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::PgRecordEncoder;
use sqlx::postgres::{PgArgumentBuffer, PgRow};
use sqlx::{Postgres, Row as _};
use uuid::Uuid;

use super::cell::Cell;
use crate::report::{ColumnValue, SessionReport, SessionTime, Slot, Timeline, UnixMs};
use crate::store::own_slots::Writable;
use crate::store::types::PgTime;
use crate::store::{Error, Received};

/// What is to be written for one session.
pub(super) struct Write<'a> {
    /// `session_key` of the session.
    pub(super) key: Uuid,
    /// The session time, unless that is settled already.
    pub(super) time: SessionTime,
    /// The report whose values the row gets, where it is newer than the row.
    pub(super) received: &'a Received,
    /// Server clock at the session's first report, for a new row.
    pub(super) created_at: UnixMs,
    /// What `report_count` grows by.
    pub(super) applied: i32,
    /// Timeline entries that are added.
    pub(super) timeline: Option<Cow<'a, Timeline>>,
    /// The columns of own fields that may be filled.
    pub(super) writable: Writable,
}

/// What an update of a session's row does to a column.
pub(super) enum Update {
    /// It was settled by the first report.
    Keep,
    /// It takes the value of the newer report.
    Replace,
    /// It takes the value of an expression over `s`, the row, and `excluded`, the new values.
    To(String),
}

/// A column of `sessions`.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) sql_type: &'static str,
    pub(super) update: Update,
    /// Which own field it holds, if it is for one.
    slot: Option<Slot>,
}

/// What the timeline of a session may hold: what does not fit is thinned, and counted.
pub(super) const MAX_ENTRIES: i32 = 50_000;
pub(super) const MAX_BYTES: i32 = 8 * 1024 * 1024;

/// The columns that the server adds, but for `session_key` and `"timestamp"`, which are bound
/// apart; in the order of [`Write::own_values`].
fn own() -> [Column; OWN] {
    use Update::{Keep, Replace, To};
    let column = |name, sql_type, update| Column { name, sql_type, update, slot: None };
    // Entries must be compared with those that are stored where they begin before the last of
    // these, or do not fit. (As bigint: sums of these may be too large for an integer.)
    let unless_compared = |compared: &str, added: &str| {
        To(format!(
            "CASE WHEN excluded.timeline_from_ms <= s.timeline_until_ms \
             OR s.timeline_entries::bigint + excluded.timeline_entries > {MAX_ENTRIES} \
             OR s.timeline_bytes::bigint + excluded.timeline_bytes > {MAX_BYTES} \
             THEN {compared} ELSE {added} END"
        ))
    };
    // Null where nothing was ever counted.
    let grown = |name: &str| {
        unless_compared(
            &format!("s.{name}"),
            &format!("coalesce(s.{name} + excluded.{name}, s.{name}, excluded.{name})"),
        )
    };
    [
        column("tenant_id", "text", Keep),
        column("session_id", "text", Keep),
        column("reported_at", "timestamptz", Replace),
        column("received_at", "timestamptz", Replace),
        column("created_at", "timestamptz", Keep),
        column("report_count", "integer", To("s.report_count + excluded.report_count".to_owned())),
        column("clock_skew_ms", "bigint", Keep),
        column("timeline_from_ms", "bigint", unless_compared("NULL", "excluded.timeline_from_ms")),
        column(
            "timeline_until_ms",
            "bigint",
            unless_compared(
                "s.timeline_until_ms",
                "coalesce(excluded.timeline_until_ms, s.timeline_until_ms)",
            ),
        ),
        column("timeline_entries", "integer", grown("timeline_entries")),
        column("timeline_bytes", "integer", grown("timeline_bytes")),
        column("long_duration_ms", "bigint", Replace),
        column("payload", "jsonb", Replace),
    ]
}

/// How many columns the server adds.
const OWN: usize = 13;

/// All columns but `session_key` and `"timestamp"`, in the order in which they are written.
pub(super) static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let reported = SessionReport::columns().map(|(name, value)| {
        let sql_type = match value {
            ColumnValue::BigInt(_) => "bigint",
            ColumnValue::Integer(_) => "integer",
            ColumnValue::Real(_) => "real",
            ColumnValue::Text(_) => "text",
        };
        Column { name, sql_type, update: Update::Replace, slot: Slot::of_column(name) }
    });
    own().into_iter().chain(reported).collect()
});

/// All columns of `sessions`.
pub(in crate::store) fn column_names() -> impl Iterator<Item = &'static str> {
    ["session_key", "timestamp"].into_iter().chain(COLUMNS.iter().map(|column| column.name))
}

/// What becomes of a row that is there: a newer report replaces it. The row is locked either way.
pub(super) static ON_CONFLICT: LazyLock<String> = LazyLock::new(|| {
    let updates = COLUMNS.iter().filter_map(|column| match &column.update {
        Update::Keep => None,
        Update::Replace => Some(format!("{name} = excluded.{name}", name = column.name)),
        Update::To(expression) => Some(format!("{} = {expression}", column.name)),
    });
    format!(
        "ON CONFLICT (session_key, \"timestamp\") DO UPDATE SET {}
        WHERE ({}, s.reported_at) < ({}, excluded.reported_at)",
        updates.collect::<Vec<_>>().join(", "),
        duration("s"),
        duration("excluded"),
    )
});

/// The duration by which a row of `sessions` is newer or older, see [`SessionReport::version`].
pub(super) fn duration(row: &str) -> String {
    format!("coalesce({row}.session_duration_ms, {row}.long_duration_ms, 0)")
}

impl Write<'_> {
    /// The version that the row has once the report is applied.
    pub(super) fn version(&self) -> Version {
        Version::of(&self.received.report)
    }

    fn own_values(&self) -> [Cell<'_>; OWN] {
        use ColumnValue::{BigInt, Integer, Text};
        let report = &self.received.report;
        let timeline = self.timeline.as_deref();
        [
            Cell::Value(Text(Some(self.received.tenant.as_str()))),
            Cell::Value(Text(Some(&report.session_id))),
            Cell::Time(report.reported_at.into()),
            Cell::Time(self.received.at.into()),
            Cell::Time(self.created_at.into()),
            Cell::Value(Integer(Some(self.applied))),
            Cell::Value(BigInt(self.time.clock_skew_ms)),
            Cell::Value(BigInt(timeline.map(|timeline| timeline.from_ms))),
            Cell::Value(BigInt(timeline.map(|timeline| timeline.until_ms))),
            Cell::Value(Integer(timeline.map(|timeline| timeline.count))),
            Cell::Value(Integer(timeline.map(Timeline::bytes))),
            Cell::Value(BigInt(report.long_duration_ms)),
            Cell::Jsonb(&report.payload),
        ]
    }

    /// The values of [`COLUMNS`].
    fn values(&self) -> impl Iterator<Item = Cell<'_>> {
        let reported = COLUMNS[OWN..].iter().zip(self.received.report.values());
        let reported = reported.map(|(column, value)| match column.slot {
            // Another field has the column now.
            Some(slot) if !self.writable.has(slot) => Cell::Value(ColumnValue::Text(None)),
            _ => Cell::Value(value),
        });
        self.own_values().into_iter().chain(reported)
    }

    /// The values of `session_key`, `"timestamp"` and [`COLUMNS`].
    pub(super) fn session_row(&self) -> impl Iterator<Item = Cell<'_>> {
        [Cell::Key(self.key), Cell::Time(self.time.timestamp.into())]
            .into_iter()
            .chain(self.values())
    }

    /// Its row of `timeline_chunks`, if it has entries.
    pub(super) fn chunk_row(&self) -> Option<[Cell<'_>; 5]> {
        let timeline = self.timeline.as_deref()?;
        Some(chunk_row(self.key, self.time.timestamp.into(), timeline))
    }
}

/// The columns of `timeline_chunks`.
pub(super) const CHUNK_COLUMNS: &str = "session_key, \"timestamp\", from_ms, until_ms, entries";

/// A row of [`CHUNK_COLUMNS`].
pub(super) fn chunk_row(key: Uuid, timestamp: PgTime, timeline: &Timeline) -> [Cell<'_>; 5] {
    [
        Cell::Key(key),
        Cell::Time(timestamp),
        Cell::Value(ColumnValue::BigInt(Some(timeline.from_ms))),
        Cell::Value(ColumnValue::BigInt(Some(timeline.until_ms))),
        Cell::Json(&timeline.json),
    ]
}

/// As a composite value of [`COLUMNS`].
impl Encode<'_, Postgres> for Write<'_> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut record = PgRecordEncoder::new(buf);
        for cell in self.values() {
            record.encode(cell)?;
        }
        record.finish();
        Ok(IsNull::No)
    }
}

/// Which of two reports of a session is the newer: [`SessionReport::version`], as Postgres
/// holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) duration_ms: i64,
    pub(super) reported_at: PgTime,
}

impl Version {
    pub(super) fn of(report: &SessionReport) -> Self {
        let (duration_ms, reported_at) = report.version();
        Self { duration_ms, reported_at: reported_at.into() }
    }
}

/// A session's row after a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// `report_count` where the report was applied; `None` where the row was as new, or newer.
    pub(super) count: Option<i32>,
    /// Version of the row.
    pub(super) version: Version,
    /// The session time.
    pub(super) timestamp: PgTime,
    /// Whether the entries were added. Otherwise they have to be compared with those that are
    /// there.
    pub(super) entries_added: bool,
}

impl Written {
    /// What statements return of a row, in this order.
    pub(super) fn returned() -> String {
        let duration = duration("s");
        format!(
            "s.session_key, s.report_count, {duration}, s.reported_at, s.\"timestamp\", \
             s.timeline_from_ms IS NOT NULL"
        )
    }

    /// The key and the state of a row, from the columns of [`Self::returned`].
    pub(super) fn read(row: &PgRow) -> Result<(Uuid, Self), Error> {
        let version = Version { duration_ms: row.try_get(2)?, reported_at: row.try_get(3)? };
        let written = Self {
            count: row.try_get(1)?,
            version,
            timestamp: row.try_get(4)?,
            entries_added: row.try_get(5)?,
        };
        Ok((row.try_get(0)?, written))
    }

    /// As the session's first report leaves it.
    pub(super) fn first(write: &Write<'_>) -> Self {
        Self {
            count: Some(write.applied),
            version: write.version(),
            timestamp: write.time.timestamp.into(),
            entries_added: true,
        }
    }
}
