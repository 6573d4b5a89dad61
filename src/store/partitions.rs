//! Monthly partitions of `sessions` and `timeline_chunks`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use sqlx::AssertSqlSafe;

use super::lease::Lease;
use super::{Error, LOCK, Received, Store};
use crate::report::{SessionTime, UnixMs};

/// Months made ahead of the current one.
const MONTHS_AHEAD: i32 = 3;
const MAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// A partitioned table, and what its partitions do not inherit from it.
struct Table {
    name: &'static str,
    storage: &'static str,
    /// The column that is compressed.
    compressed: &'static str,
    identity: &'static str,
}

const TABLES: [Table; 2] = [
    // Rows of running sessions are updated in place, which needs room on their page.
    Table {
        name: "sessions",
        storage: "WITH (fillfactor = 70)",
        compressed: "payload",
        identity: "DEFAULT",
    },
    // It has no key, so rows are known by all their values where Citus moves shards, or replicas
    // follow, by logical replication.
    Table { name: "timeline_chunks", storage: "", compressed: "entries", identity: "FULL" },
];

/// A month of the time axis, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(Date);

impl Month {
    /// The month that a moment lies in.
    pub(super) fn of(time: UnixMs) -> Self {
        let time = Timestamp::from_millisecond(time.0).unwrap_or(Timestamp::MAX);
        Self(time.to_zoned(TimeZone::UTC).date().first_of_month())
    }

    /// The month that a partition holds, from its name.
    pub(super) fn of_partition(name: &str) -> Option<Self> {
        let month =
            TABLES.iter().find_map(|table| name.strip_prefix(table.name)?.strip_prefix('_'))?;
        let (year, month) = month.split_once('_')?;
        Some(Self(Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?))
    }

    fn plus(self, months: i32) -> Self {
        Self(self.0.saturating_add(months.months()))
    }

    /// The first moment after the month.
    pub(super) fn end(self) -> UnixMs {
        let end = self.plus(1).0.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp());
        UnixMs(end.unwrap_or(Timestamp::MAX).as_millisecond())
    }

    fn partition(self, table: &str) -> String {
        format!("{table}_{self}")
    }

    /// The names of its partitions.
    pub(super) fn partitions(self) -> [String; 2] {
        TABLES.map(|table| self.partition(table.name))
    }
}

/// As in the names of partitions: `2026_11`.
impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}_{:02}", self.0.year(), self.0.month())
    }
}

/// Months whose partitions this instance has seen to exist.
#[derive(Default)]
pub(super) struct Partitions {
    known: Mutex<HashSet<Month>>,
}

impl Partitions {
    fn known(&self) -> MutexGuard<'_, HashSet<Month>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The month was dropped.
    pub(super) fn forget(&self, month: Month) {
        self.known().remove(&month);
    }

    /// Looks which months there are: another instance may have made some, or dropped some.
    pub(super) async fn look(&self, connection: &mut Lease) -> Result<(), Error> {
        connection.open().await?;
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent IN ('sessions'::regclass, 'timeline_chunks'::regclass)
               AND NOT i.inhdetachpending",
        )
        .fetch_all(&mut **connection)
        .await?;
        connection.close().await?;
        let mut tables_of: HashMap<Month, usize> = HashMap::new();
        for month in names.iter().filter_map(|name| Month::of_partition(name)) {
            *tables_of.entry(month).or_default() += 1;
        }
        tables_of.retain(|_, tables| *tables == TABLES.len());
        *self.known() = tables_of.into_keys().collect();
        Ok(())
    }
}

impl Store {
    /// The month of a report's session, if this instance knows of no partition for it. Writing the
    /// report would fail.
    pub fn lacks_partition(&self, received: &Received) -> Option<Month> {
        let time = SessionTime::of(&received.report, received.at, self.retention);
        Some(Month::of(time.timestamp)).filter(|month| !self.has_partition(*month))
    }

    /// Whether this instance knows of a partition for the month.
    pub fn has_partition(&self, month: Month) -> bool {
        self.partitions.known().contains(&month)
    }

    /// Makes the partitions of this month and the next ones, where they are missing. Notices, too,
    /// if the tables were distributed meanwhile.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn ensure_partitions(&self, now: UnixMs) -> Result<(), Error> {
        let this_month = Month::of(now);
        // The month before too: around midnight of the first, sessions of both arrive.
        self.make_partitions((-1..=MONTHS_AHEAD).map(|ahead| this_month.plus(ahead))).await?;
        let look = async {
            let mut lease = self.pool.take().await?;
            self.sharding.look_again(&mut lease).await?;
            lease.finish();
            Ok(())
        };
        self.within(MAKE_TIMEOUT, "sharding", look).await
    }

    /// Makes the partitions of months, where they are missing. Not within the transaction of a
    /// batch: whoever vacuums or analyzes the whole table keeps us waiting.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn make_partitions(
        &self,
        months: impl IntoIterator<Item = Month>,
    ) -> Result<(), Error> {
        let make = async {
            let mut lease = self.pool.take().await?;
            self.partitions.look(&mut lease).await?;
            for month in months {
                if !self.has_partition(month) {
                    make_partition(&mut lease, month).await?;
                    self.partitions.known().insert(month);
                }
            }
            lease.finish();
            Ok(())
        };
        self.within(MAKE_TIMEOUT, "make_partition", make).await
    }
}

async fn make_partition(connection: &mut Lease, month: Month) -> Result<(), Error> {
    let (start, end) = (month.0, month.plus(1).0);
    // The lock lets one instance at a time look and make. Attaching, unlike CREATE … PARTITION OF,
    // does not wait for running queries of the whole table. A table of that name that was detached
    // is attached again.
    let mut sql = String::new();
    for Table { name: table, storage, compressed, identity } in TABLES {
        let partition = month.partition(table);
        let compress = compress(&partition, compressed);
        sql.push_str(&format!(
            "DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = '{table}'::regclass
                              AND inhrelid = to_regclass('{partition}')) THEN
                 CREATE TABLE IF NOT EXISTS {partition} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES) {storage};
                 {compress}
                 ALTER TABLE {partition} REPLICA IDENTITY {identity};
                 ALTER TABLE {table} ATTACH PARTITION {partition}
                   FOR VALUES FROM ('{start} 00:00:00+00') TO ('{end} 00:00:00+00');
               END IF;
             END $$;"
        ));
    }
    connection.begin(LOCK).await?;
    // Built from dates and names of our own, nothing that a client sent.
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **connection).await?;
    connection.commit().await
}

/// LZ4 for a column, in PL/pgSQL: reports of running sessions are compressed again and again,
/// and with Postgres' own method an update takes a seventh longer
/// (docs/adr/0015-lz4-for-payloads.md). Not every Postgres is built with it.
fn compress(partition: &str, column: &str) -> String {
    format!(
        "IF (SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression') THEN
           ALTER TABLE {partition} ALTER COLUMN {column} SET COMPRESSION lz4;
         END IF;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_utc_and_named_by_year_and_month() {
        let last_ms_of_november = UnixMs(1_796_083_199_999);
        let november = Month::of(last_ms_of_november);
        assert_eq!(november.partition("sessions"), "sessions_2026_11");
        assert_eq!(november.end(), UnixMs(last_ms_of_november.0 + 1));
        assert_eq!(Month::of(november.end()), november.plus(1));
        assert_eq!(november.plus(2).partition("timeline_chunks"), "timeline_chunks_2027_01");
    }

    #[test]
    fn partition_names_are_read_back() {
        let november = Month::of(UnixMs(1_795_000_000_000));
        assert_eq!(Month::of_partition("sessions_2026_11"), Some(november));
        assert_eq!(Month::of_partition("timeline_chunks_2026_11"), Some(november));
        assert_eq!(Month::of_partition("sessions_archive"), None);
    }
}
