//! The columns that a report writes, and their values: the store's side of the one list.
//!
//! What a report says is listed in [`SessionReport::COLUMNS`]; what the server adds is listed
//! here, each column beside its value.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::PgRecordEncoder;
use sqlx::postgres::{PgArgumentBuffer, PgArguments};
use sqlx::{Arguments as _, Postgres};
use uuid::Uuid;

use crate::report::{ColumnType, ColumnValue, SessionReport, SessionTime, Timeline, UnixMs};
use crate::store::Received;
use crate::store::types::{Jsonb, PgTime};

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
    pub(super) timeline: Option<Timeline>,
}

/// What an update of a session's row does to a column.
pub(super) enum Update {
    /// It was settled by the first report.
    Keep,
    /// It takes the value of the newer report.
    Replace,
    /// It takes the value of an expression over `s`, the row, and `excluded`, the new values.
    To(&'static str),
}

/// A column of `sessions`.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) sql_type: &'static str,
    pub(super) update: Update,
}

/// A value on its way to Postgres.
enum Cell<'a> {
    Time(PgTime),
    Jsonb(Jsonb<'a>),
    Value(ColumnValue<'a>),
}

/// A session keeps so many timeline entries; what comes later is counted and dropped.
macro_rules! max_timeline_entries {
    () => {
        50_000
    };
}
pub(super) const MAX_TIMELINE_ENTRIES: i32 = max_timeline_entries!();

/// An expression for rows whose timeline entries must be compared with those that are stored,
/// because they begin before the last of these or the session is full; and one for all others.
macro_rules! compared_or_added {
    ($compared:literal, $added:literal) => {
        concat!(
            "CASE WHEN excluded.timeline_from_ms <= s.timeline_until_ms OR s.timeline_entries >= ",
            max_timeline_entries!(),
            " THEN ",
            $compared,
            " ELSE ",
            $added,
            " END"
        )
    };
}

const FROM: &str = compared_or_added!("NULL", "excluded.timeline_from_ms");
const UNTIL: &str = compared_or_added!(
    "s.timeline_until_ms",
    "coalesce(excluded.timeline_until_ms, s.timeline_until_ms)"
);
const ENTRIES: &str = compared_or_added!(
    "s.timeline_entries",
    "coalesce(s.timeline_entries + excluded.timeline_entries, s.timeline_entries, excluded.timeline_entries)"
);

/// The columns that the server adds, but for `session_key` and `"timestamp"`, which are bound
/// apart; in the order of [`Write::own_values`].
const OWN: [Column; 11] = [
    column("tenant_id", "text", Update::Keep),
    column("session_id", "text", Update::Keep),
    column("reported_at", "timestamptz", Update::Replace),
    column("received_at", "timestamptz", Update::Replace),
    column("created_at", "timestamptz", Update::Keep),
    column("report_count", "integer", Update::To("s.report_count + excluded.report_count")),
    column("clock_skew_ms", "bigint", Update::Keep),
    column("timeline_from_ms", "bigint", Update::To(FROM)),
    column("timeline_until_ms", "bigint", Update::To(UNTIL)),
    column("timeline_entries", "integer", Update::To(ENTRIES)),
    column("payload", "jsonb", Update::Replace),
];

const fn column(name: &'static str, sql_type: &'static str, update: Update) -> Column {
    Column { name, sql_type, update }
}

/// All columns but `session_key` and `"timestamp"`, in the order in which they are written.
pub(super) fn columns() -> impl Iterator<Item = Column> {
    let reported = SessionReport::COLUMNS.iter().map(|(name, kind)| {
        let sql_type = match kind {
            ColumnType::BigInt => "bigint",
            ColumnType::Integer => "integer",
            ColumnType::Real => "real",
            ColumnType::Text => "text",
        };
        column(name, sql_type, Update::Replace)
    });
    OWN.into_iter().chain(reported)
}

impl Write<'_> {
    /// The version that the row has once the report is applied.
    pub(super) fn version(&self) -> Version {
        Version::of(&self.received.report)
    }

    fn own_values(&self) -> [Cell<'_>; OWN.len()] {
        use ColumnValue::{BigInt, Integer, Text};
        let report = &self.received.report;
        let timeline = self.timeline.as_ref();
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
            Cell::Jsonb(Jsonb(&report.payload)),
        ]
    }

    /// The values of [`columns`].
    fn values(&self) -> impl Iterator<Item = Cell<'_>> {
        self.own_values().into_iter().chain(self.received.report.values().map(Cell::Value))
    }

    /// Adds key, session time and [`columns`] as parameters of a statement.
    pub(super) fn bind(&self, arguments: &mut PgArguments) -> Result<(), BoxDynError> {
        arguments.add(self.key)?;
        arguments.add(PgTime::from(self.time.timestamp))?;
        for cell in self.values() {
            match cell {
                Cell::Time(time) => arguments.add(time)?,
                Cell::Jsonb(json) => arguments.add(json)?,
                Cell::Value(ColumnValue::BigInt(value)) => arguments.add(value)?,
                Cell::Value(ColumnValue::Integer(value)) => arguments.add(value)?,
                Cell::Value(ColumnValue::Real(value)) => arguments.add(value)?,
                Cell::Value(ColumnValue::Text(value)) => arguments.add(value)?,
            }
        }
        Ok(())
    }
}

impl Write<'_> {
    /// Appends [`columns`] in the binary format of `COPY`.
    pub(super) fn copy(&self, out: &mut Vec<u8>) {
        for cell in self.values() {
            match cell {
                Cell::Time(time) => copy_value(out, Some(&time.to_bytes())),
                Cell::Jsonb(json) => copy_value(out, Some(&json.to_bytes())),
                Cell::Value(ColumnValue::BigInt(value)) => {
                    copy_value(out, value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
                }
                Cell::Value(ColumnValue::Integer(value)) => {
                    copy_value(out, value.map(i32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
                }
                Cell::Value(ColumnValue::Real(value)) => {
                    copy_value(out, value.map(f32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice));
                }
                Cell::Value(ColumnValue::Text(value)) => {
                    copy_value(out, value.map(str::as_bytes));
                }
            }
        }
    }
}

/// Appends a value in the binary format of `COPY`: its length and its bytes, or null.
pub(super) fn copy_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let length = value.map_or(-1, |bytes| i32::try_from(bytes.len()).expect("bounded by the body"));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

/// As a composite value of [`columns`].
impl Encode<'_, Postgres> for Write<'_> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut record = PgRecordEncoder::new(buf);
        for cell in self.values() {
            match cell {
                Cell::Time(time) => record.encode(time)?,
                Cell::Jsonb(json) => record.encode(json)?,
                Cell::Value(ColumnValue::BigInt(value)) => record.encode(value)?,
                Cell::Value(ColumnValue::Integer(value)) => record.encode(value)?,
                Cell::Value(ColumnValue::Real(value)) => record.encode(value)?,
                Cell::Value(ColumnValue::Text(value)) => record.encode(value)?,
            };
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
