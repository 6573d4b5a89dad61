//! How far the rollups are, and having them made anew.

use sqlx::{PgConnection, Row as _};

use super::LOOK_TIMEOUT;
use super::buckets::Length;
use crate::report::UnixMs;
use crate::store::types::PgTime;
use crate::store::{Error, Store};

/// How far the rollups are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RollupStatus {
    /// Age of the oldest report that is not in the rollups yet, seconds; 0 without any.
    pub lag_seconds: f64,
    /// Hours that are to be made anew now.
    pub waiting_hours: i64,
    /// Hours that retention has taken sessions from.
    pub sealed_hours: i64,
    /// Longer buckets that are not added up, of those whose time is over.
    pub waiting_blocks: i64,
    /// Rows, as Postgres estimates them.
    pub rows: i64,
    /// Bytes on disk, indexes included.
    pub bytes: i64,
    /// First and last hour with rows.
    pub first_hour: Option<UnixMs>,
    #[expect(missing_docs, reason = "see above")]
    pub last_hour: Option<UnixMs>,
}

/// Hours that are to be made anew on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuild {
    /// How many.
    pub hours: u64,
    at: UnixMs,
}

impl Store {
    /// Age of the oldest report that is not in the rollups yet, in seconds; 0 without any.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn rollup_lag_seconds(&self) -> Result<f64, Error> {
        let lag = "date_part('epoch', clock_timestamp() - min(at))";
        self.ask_rollups(format!("SELECT coalesce(greatest({lag}, 0), 0) FROM rollup_touches"))
            .await
    }

    /// How far the rollups are.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn rollup_status(&self) -> Result<RollupStatus, Error> {
        let look = async {
            let mut lease = self.pool.take().await?;
            lease.open().await?;
            let row = sqlx::query(
                "SELECT coalesce(greatest(date_part('epoch', clock_timestamp() - min(at)), 0), 0),
                        count(DISTINCT hour) FILTER (WHERE due <= now()),
                        (SELECT count(*) FROM rollup_sealed),
                        (SELECT count(*) FROM rollup_blocks
                         WHERE NOT is_merged AND bucket + minutes * interval '1 minute' <= now()),
                        (SELECT greatest(reltuples, 0)::bigint FROM pg_class
                         WHERE oid = 'rollups'::regclass),
                        pg_total_relation_size('rollups'),
                        (SELECT min(bucket) FROM rollups), (SELECT max(bucket) FROM rollups
                         WHERE minutes IN (30, 60))
                 FROM rollup_touches",
            )
            .fetch_one(&mut *lease)
            .await?;
            let time = |column| {
                Ok::<_, sqlx::Error>(row.try_get::<Option<PgTime>, _>(column)?.map(UnixMs::from))
            };
            let status = RollupStatus {
                lag_seconds: row.try_get(0)?,
                waiting_hours: row.try_get(1)?,
                sealed_hours: row.try_get(2)?,
                waiting_blocks: row.try_get(3)?,
                rows: row.try_get(4)?,
                bytes: row.try_get(5)?,
                first_hour: time(6)?,
                last_hour: time(7)?,
            };
            lease.close().await?;
            lease.finish();
            Ok(status)
        };
        self.within(LOOK_TIMEOUT, "rollup_status", look).await
    }

    /// Hours of a rebuild that are left to be made anew.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn rebuilding_hours(&self, rebuild: &Rebuild) -> Result<i64, Error> {
        // Later touches are none of its business: as long as reports arrive, there are some.
        let waiting = format!(
            "SELECT count(DISTINCT hour) FROM rollup_touches
             WHERE at IS NULL AND due <= to_timestamp({}::float8 / 1000)",
            rebuild.at.0
        );
        self.ask_rollups(waiting).await
    }

    /// Has all hours with sessions or rows made anew by the next runs, of a range or of all time,
    /// rounded outward to whole hours.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn touch_rollups(
        &self,
        from: Option<UnixMs>,
        to: Option<UnixMs>,
    ) -> Result<Rebuild, Error> {
        // Outside of the pool: the index of all sessions is read.
        let mut connection = self.pool.connect().await?;
        connection.begin(TOUCH_SETTINGS).await?;
        let hours = touch_hours(&mut connection, from, to).await?;
        // Rounded up to the millisecond: it lies after the touches.
        let at: PgTime = sqlx::query_scalar("SELECT now() + interval '1 millisecond'")
            .fetch_one(&mut *connection)
            .await?;
        connection.commit().await?;
        Ok(Rebuild { hours, at: at.into() })
    }
}

/// What [`touch_hours`] needs.
pub(in crate::store) const TOUCH_SETTINGS: &str = "SET LOCAL statement_timeout = '10min'";

/// As [`Store::touch_rollups`], within a transaction: how many hours.
pub(in crate::store) async fn touch_hours(
    connection: &mut PgConnection,
    from: Option<UnixMs>,
    to: Option<UnixMs>,
) -> Result<u64, Error> {
    let hour = Length::HOUR;
    let start = from.map_or(i64::MIN, |from| hour.bucket(PgTime::from(from).micros()));
    let end = to.map_or(i64::MAX, |to| hour.bucket(PgTime::from(to).micros() + hour.micros() - 1));
    let mut hours = 0;
    // One after the other: with both in one, Citus would have to move rows between nodes.
    for sql in [
        r#"INSERT INTO rollup_touches (hour, at, due)
           SELECT DISTINCT date_trunc('hour', "timestamp", 'UTC'), NULL::timestamptz, now()
           FROM sessions WHERE "timestamp" >= $1 AND "timestamp" < $2"#,
        "INSERT INTO rollup_touches (hour, at, due)
         SELECT DISTINCT date_trunc('hour', bucket, 'UTC'), NULL::timestamptz, now()
         FROM rollups AS r
         WHERE minutes = 30 AND bucket >= $1 AND bucket < $2
           AND NOT EXISTS (SELECT FROM rollup_touches AS t
                           WHERE t.hour = date_trunc('hour', r.bucket, 'UTC'))",
    ] {
        let touch = sqlx::query(sql)
            .bind(PgTime::of_micros(start))
            .bind(PgTime::of_micros(end))
            .execute(&mut *connection);
        hours += touch.await?.rows_affected();
    }
    Ok(hours)
}
