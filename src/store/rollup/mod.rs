//! Rollups: what the sessions of each hour come to, made anew when reports have touched it.
//!
//! A report leaves the hour of its session in `rollup_touches`, in its own transaction. A run
//! takes what is there, reads the sessions of these hours, and replaces their rows, in one
//! transaction for each hour: what a run sees of touches, it sees of sessions, so that the rows are
//! exact whenever nothing is left in `rollup_touches`; and an hour that is cut off has not changed. Longer buckets are added up from shorter ones once their time is over
//! (docs/adr/0024-rollups-are-remade-by-the-hour.md).

mod buckets;
mod dimensions;
pub(super) mod functions;
mod measures;
mod read;
mod rows;
mod seal;
mod status;
mod sums;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{AddAssign, Range};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Decode, PgConnection, Postgres, Row as _, Type};

use super::lease::Lease;
use super::types::PgTime;
use super::{Error, Store};
use buckets::{Bucket, Length};
use read::Source;
use sums::Micros;

pub use status::{Rebuild, RollupStatus};
pub(super) use status::{TOUCH_SETTINGS, touch_hours};

/// An hour of a large site takes seconds; what waits for a lock is left to the next run.
const ALONE: &str = "SET LOCAL statement_timeout = '5min'; SET LOCAL lock_timeout = '10s';
    SET LOCAL idle_in_transaction_session_timeout = 0;
    LOCK TABLE rollup_lock IN EXCLUSIVE MODE";
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// A run that takes longer goes on with the next one.
const RUN_TIMEOUT: Duration = Duration::from_hours(6);
/// With many hours to do, those of the last day are done again this often.
const LIVE_EVERY: Duration = Duration::from_secs(8);

/// Hours that are waiting.
const TOUCHED: &str = "SELECT hour FROM rollup_touches WHERE due <= now()";

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RolledUp {
    /// Hours whose rows were made anew.
    pub hours: u64,
    /// Sessions that were read for that.
    pub sessions: u64,
    /// Longer buckets that were added up.
    pub blocks: u64,
}

impl AddAssign for RolledUp {
    fn add_assign(&mut self, other: Self) {
        self.hours += other.hours;
        self.sessions += other.sessions;
        self.blocks += other.blocks;
    }
}

impl fmt::Display for RolledUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hours, sessions, blocks } = self;
        write!(f, "{hours} hours made of {sessions} sessions, {blocks} longer buckets added up")
    }
}

impl Store {
    /// Brings the rollups up to date, as far as no other instance is doing that now. `after_hour`
    /// is called after each hour.
    ///
    /// Safe at any moment: each hour is a transaction of its own.
    ///
    /// # Errors
    /// As classified by [`Error`]; hours that were done before stay done.
    pub async fn roll_up(&self, mut after_hour: impl FnMut(&RolledUp)) -> Result<RolledUp, Error> {
        let mut done = RolledUp::default();
        if !self.has_rollup_work().await? {
            return Ok(done);
        }
        let run = async {
            // Outside of the pool: it takes its time.
            let mut connection = self.pool.connect().await?;
            let mut left = touched_hours(&mut connection, Micros::MIN).await?;
            // Where viewers are.
            let live = left.last().map_or(Micros::MAX, |newest| newest - Length::DAY.micros());
            let mut looked_at = Instant::now();
            // Each hour once, whatever is touched meanwhile: there is always something.
            while let Some(hour) = left.pop_last() {
                let mut hours = BTreeSet::from([hour]);
                if looked_at.elapsed() >= LIVE_EVERY && !left.is_empty() {
                    hours.extend(touched_hours(&mut connection, live).await?);
                    looked_at = Instant::now();
                }
                for hour in hours.into_iter().rev() {
                    left.remove(&hour);
                    if !begin_alone(&mut connection).await? {
                        return Ok(done);
                    }
                    done += remake_touched(&mut connection, hour).await?;
                    connection.commit().await?;
                    after_hour(&done);
                }
            }
            done.blocks += merge_blocks(&mut connection).await?;
            Ok(done)
        };
        self.within(RUN_TIMEOUT, "rollup", run).await
    }

    /// Whether a run would find something to do.
    async fn has_rollup_work(&self) -> Result<bool, Error> {
        self.ask_rollups(format!("SELECT EXISTS ({TOUCHED}) OR EXISTS ({MERGEABLE})")).await
    }

    /// One value about the rollups.
    async fn ask_rollups<T>(&self, sql: String) -> Result<T, Error>
    where
        T: Send + Unpin + for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let ask = async {
            let mut lease = self.pool.take().await?;
            lease.open().await?;
            // Made of our own names, nothing that a client sent.
            let value = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *lease).await?;
            lease.close().await?;
            lease.finish();
            Ok(value)
        };
        self.within(LOOK_TIMEOUT, "rollup_status", ask).await
    }
}

/// Begins a transaction that no other instance makes rollups beside; false where one does.
async fn begin_alone(connection: &mut Lease) -> Result<bool, Error> {
    match connection.begin(ALONE).await {
        Err(error) if error.is_lock_timeout() => {
            connection.rollback().await?;
            Ok(false)
        }
        begun => begun.map(|()| true),
    }
}

/// Hours from `start` on that are waiting.
async fn touched_hours(connection: &mut Lease, start: Micros) -> Result<BTreeSet<Micros>, Error> {
    connection.begin("SET LOCAL statement_timeout = '5min'").await?;
    let sql = format!("SELECT DISTINCT hour FROM ({TOUCHED}) AS t WHERE hour >= $1");
    let hours: Vec<PgTime> = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(PgTime::of_micros(start))
        .fetch_all(&mut **connection)
        .await?;
    connection.commit().await?;
    Ok(hours.into_iter().map(PgTime::micros).collect())
}

/// Makes an hour anew, if it is touched still.
async fn remake_touched(connection: &mut Lease, hour: Micros) -> Result<RolledUp, Error> {
    let taken = sqlx::query("DELETE FROM rollup_touches WHERE hour = $1 AND due <= now()")
        .bind(PgTime::of_micros(hour))
        .execute(&mut **connection)
        .await?
        .rows_affected();
    if taken == 0 {
        return Ok(RolledUp::default());
    }
    // Read after the touches were taken: who adds a dimension touches the hours afterwards.
    let source = Source::read_dimensions(connection).await?;
    let sessions = remake_hour(connection, &source, hour).await?;
    Ok(RolledUp { hours: 1, sessions, blocks: 0 })
}

/// Replaces the rows of an hour: the number of sessions they are of. What retention has settled of
/// it stays.
async fn remake_hour(connection: &mut Lease, source: &Source, hour: Micros) -> Result<u64, Error> {
    let (part, until) = seal::settled(connection, hour).await?;
    let start = until.unwrap_or(hour);
    let end = hour + Length::HOUR.micros();
    remake_part(connection, source, part, start..end).await
}

/// Replaces the rows of a part of an hour by what the sessions of a time within that hour come to:
/// the number of sessions.
async fn remake_part(
    connection: &mut Lease,
    source: &Source,
    part: i16,
    time: Range<Micros>,
) -> Result<u64, Error> {
    let hour = Length::HOUR.bucket(time.start);
    let end = hour + Length::HOUR.micros();
    let condition = format!(
        "\"timestamp\" >= '{}' AND \"timestamp\" < '{}'",
        rows::time(time.start),
        rows::time(time.end)
    );
    let mut totals: BTreeMap<Micros, Bucket> = BTreeMap::new();
    let mut by_dimension: Vec<Bucket> = source
        .dimensions
        .iter()
        .map(|dimension| Bucket::new(&dimension.name, Length::HOUR, hour))
        .collect();
    let (mut sessions, mut leaves_at, mut key) = (0, None::<Micros>, Vec::new());
    source
        .read(connection, &condition, |session, values| {
            sessions += 1;
            leaves_at = [leaves_at, session.leaves_at].into_iter().flatten().min();
            let half_hour = Length::HALF_HOUR.bucket(session.at);
            let total = totals.entry(half_hour).or_insert_with(|| Bucket::totals(half_hour));
            total.add_session(session, None, &mut key);
            for ((dimension, bucket), value) in
                source.dimensions.iter().zip(&mut by_dimension).zip(values)
            {
                if value.is_some() || !dimension.only_with_value {
                    bucket.add_session(session, *value, &mut key);
                }
            }
        })
        .await?;
    by_dimension.iter_mut().for_each(Bucket::fold);
    sqlx::query(
        "DELETE FROM rollups
         WHERE minutes IN (30, 60) AND bucket >= $1 AND bucket < $2 AND part = $3",
    )
    .bind(PgTime::of_micros(hour))
    .bind(PgTime::of_micros(end))
    .bind(part)
    .execute(&mut **connection)
    .await?;
    let buckets: Vec<Bucket> = totals.into_values().chain(by_dimension).collect();
    rows::insert(connection, part, &buckets).await?;
    note_change(connection, hour).await?;
    if let Some(leaves_at) = leaves_at {
        // No report will say so: the hour is looked at again.
        sqlx::query("INSERT INTO rollup_touches (hour, at, due) VALUES ($1, NULL, $2)")
            .bind(PgTime::of_micros(hour))
            .bind(PgTime::of_micros(leaves_at))
            .execute(&mut **connection)
            .await?;
    }
    Ok(sessions)
}

/// The longer buckets that an hour lies in are no longer what the shorter ones add up to.
async fn note_change(connection: &mut PgConnection, hour: Micros) -> Result<(), Error> {
    let of = |length: Length| PgTime::of_micros(length.bucket(hour));
    sqlx::query(
        "INSERT INTO rollup_blocks (minutes, bucket, is_merged, changed_at)
         VALUES (360, $1, false, now()), (1440, $2, false, now())
         ON CONFLICT (minutes, bucket) DO UPDATE SET is_merged = false, changed_at = now()",
    )
    .bind(of(Length::QUARTER_DAY))
    .bind(of(Length::DAY))
    .execute(connection)
    .await?;
    Ok(())
}

/// Longer buckets whose time is over and that have been quiet for a while. Sessions that began
/// before their end may go on for hours: each time, they are added up again.
const MERGEABLE: &str = "
    SELECT minutes, bucket FROM rollup_blocks
    WHERE NOT is_merged AND bucket + minutes * interval '1 minute' <= now()
      AND changed_at < now() - interval '2 minutes'";

/// Adds up the longer buckets that are due: how many.
async fn merge_blocks(connection: &mut Lease) -> Result<u64, Error> {
    let mut merged = 0;
    loop {
        if !begin_alone(connection).await? {
            return Ok(merged);
        }
        let next = format!("{MERGEABLE} ORDER BY bucket DESC LIMIT 1");
        let next = sqlx::query(AssertSqlSafe(next)).fetch_optional(&mut **connection).await?;
        let Some(row) = next else {
            connection.commit().await?;
            return Ok(merged);
        };
        let (minutes, start): (i16, PgTime) = (row.try_get(0)?, row.try_get(1)?);
        let length =
            if minutes == Length::DAY.minutes() { Length::DAY } else { Length::QUARTER_DAY };
        let buckets = rows::merged(connection, length, start.micros()).await?;
        for sql in [
            "DELETE FROM rollups WHERE minutes = $1 AND bucket = $2",
            "UPDATE rollup_blocks SET is_merged = true WHERE minutes = $1 AND bucket = $2",
        ] {
            sqlx::query(sql).bind(minutes).bind(start).execute(&mut **connection).await?;
        }
        rows::insert(connection, 0, &buckets).await?;
        connection.commit().await?;
        merged += 1;
    }
}
