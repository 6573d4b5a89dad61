//! Filling the column of an own field from payloads: sessions that were stored before the field had
//! the column get their values, and nothing is hidden any more.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::own_dimensions::{self, OwnDimension, quote_literal};
use super::types::PgTime;
use super::{Error, LOCK, Store, session_qoe};
use crate::report::{MAX_COLUMN_CHARS, OwnField, Path, UnixMs};

const HOUR_MS: i64 = 3_600_000;

/// An hour of sessions may take a while. Who waits for a row of it waits for that long.
const SETTINGS: &str = "SET LOCAL statement_timeout = '2min'; SET LOCAL lock_timeout = '4s'";

/// Reports that are written meanwhile may lock rows in another order.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What a backfill has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backfilled {
    /// All sessions from this session time on are filled.
    pub to: UnixMs,
    /// Sessions that got another value.
    pub sessions: u64,
}

/// Why a column could not be filled. Hours that were filled stay so; another run continues there.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// Postgres cannot be reached or refused.
    #[error(transparent)]
    Database(#[from] Error),
    /// No column is assigned to that name.
    #[error("there is no own dimension {0}: start a server with it in DIMENSIONS first")]
    Unknown(String),
    /// A server started with another configuration meanwhile.
    #[error("the column of {0} was assigned anew while it was filled")]
    Reassigned(String),
}

impl Store {
    /// The fields of `DIMENSIONS` and `VIEWER_ID` whose columns have no values yet of sessions that
    /// were stored before.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn unfilled_fields(&self) -> Result<Vec<String>, Error> {
        let all = self.all_own_fields().await?;
        let configured = all.into_iter().filter(|own| self.own.fields().iter().any(|f| own.is(f)));
        let unfilled = configured.filter(|own| own.filled_to.is_none_or(|to| !to.is_earliest()));
        Ok(unfilled.map(|own| own.name).collect())
    }

    /// Fills the columns of new own dimensions, and of `viewer_id`, from payloads, and has the
    /// rollups made anew where dimensions are among them. Returns what was filled; `None` where
    /// another instance does that. `progress` is called after each hour of sessions.
    ///
    /// # Errors
    /// [`BackfillError`] says what to do.
    pub async fn backfill(
        &self,
        mut progress: impl FnMut(&str, Backfilled),
    ) -> Result<Option<Vec<String>>, BackfillError> {
        let Some(lock) = self.alone("backfill_lock").await? else { return Ok(None) };
        let names = self.unfilled_fields().await?;
        for name in &names {
            self.backfill_dimension(name, |done| progress(name, done)).await?;
        }
        if names.iter().any(|name| name != OwnField::VIEWER_ID) {
            self.touch_rollups(None, None).await?;
        }
        lock.end().await;
        Ok(Some(names))
    }

    /// Fills the column of an own dimension, or of `viewer_id`, from the payloads of all sessions:
    /// hour by hour, the newest first. `progress` is called after each hour. How many sessions got
    /// another value.
    ///
    /// # Errors
    /// [`BackfillError`] says what to do.
    pub async fn backfill_dimension(
        &self,
        name: &str,
        mut progress: impl FnMut(Backfilled),
    ) -> Result<u64, BackfillError> {
        let all = self.all_own_fields().await?;
        let own = all.into_iter().find(|own| own.name == name);
        let own = own.ok_or_else(|| BackfillError::Unknown(name.to_owned()))?;
        let update = update(&own);
        let (mut to, mut sessions) = (own.filled_to, 0);
        let mut attempts = 0;
        loop {
            match self.fill_hour(&own, &update, to).await {
                Ok(Some((hour, filled))) => {
                    sessions += filled;
                    to = Some(hour.into());
                    attempts = 0;
                    progress(Backfilled { to: hour, sessions });
                }
                Ok(None) => break,
                Err(BackfillError::Database(error))
                    if error.is_temporary() && attempts < ATTEMPTS =>
                {
                    attempts += 1;
                    tracing::debug!(%error, name, "an hour could not be filled; retrying");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.show_older(&own).await?;
        Ok(sessions)
    }

    /// Fills the newest hour with sessions before `to`: its begin, and the number of changed rows;
    /// `None` where there is none.
    async fn fill_hour(
        &self,
        own: &OwnDimension,
        update: &str,
        to: Option<PgTime>,
    ) -> Result<Option<(UnixMs, u64)>, BackfillError> {
        let mut connection = self.pool.connect().await?;
        connection.begin(SETTINGS).await?;
        let newest: Option<PgTime> = sqlx::query_scalar(
            r#"SELECT max("timestamp") FROM sessions WHERE "timestamp" < coalesce($1, 'infinity')"#,
        )
        .bind(to)
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::from)?;
        let Some(newest) = newest else { return Ok(None) };
        let hour = UnixMs(UnixMs::from(newest).0.div_euclid(HOUR_MS) * HOUR_MS);
        let filled = sqlx::query(AssertSqlSafe(update))
            .bind(PgTime::from(hour))
            .bind(newest)
            .execute(&mut *connection)
            .await
            .map_err(Error::from)?;
        let is_noted = sqlx::query(
            "UPDATE own_dimensions SET filled_to = $1 WHERE slot = $2 AND assignment = $3",
        )
        .bind(PgTime::from(hour))
        .bind(i16::from(own.slot.number()))
        .bind(own.assignment)
        .execute(&mut *connection)
        .await
        .map_err(Error::from)?;
        // The transaction ends with its connection.
        if is_noted.rows_affected() == 0 {
            return Err(BackfillError::Reassigned(own.name.clone()));
        }
        connection.commit().await?;
        Ok(Some((hour, filled.rows_affected())))
    }

    /// All sessions have this field's values: the view need hide none of them.
    async fn show_older(&self, own: &OwnDimension) -> Result<(), BackfillError> {
        let mut connection = self.pool.connect().await?;
        connection.begin(LOCK).await?;
        let before = own_dimensions::read(&mut connection).await?;
        let mut after = before.clone();
        let assigned = after.iter_mut().find(|found| found.assignment == own.assignment);
        let assigned = assigned.ok_or_else(|| BackfillError::Reassigned(own.name.clone()))?;
        assigned.hides_older = false;
        session_qoe::make(&mut connection, &before, &after).await?;
        sqlx::query(
            "UPDATE own_dimensions SET hides_older = false, filled_to = '-infinity'
             WHERE assignment = $1",
        )
        .bind(own.assignment)
        .execute(&mut *connection)
        .await
        .map_err(Error::from)?;
        connection.commit().await?;
        Ok(())
    }
}

/// The statement that fills sessions from `$1` to `$2`, with the values that `report::Paths` reads.
/// A session whose payload is gone keeps its value, unless that is of what the slot was used for
/// before.
fn update(own: &OwnDimension) -> String {
    let path: Path = own.path.parse().expect("written by a server that had parsed it");
    let keys: Vec<String> = path.keys().iter().map(|key| quote_literal(key)).collect();
    // Not `#>`, which would take a number among the keys for an index of an array.
    let found = format!("(payload -> {})", keys.join(" -> "));
    let value = format!(
        "CASE WHEN jsonb_typeof{found} IN ('string', 'number', 'boolean')
           AND {found} #>> '{{}}' ~ '\\S' THEN left({found} #>> '{{}}', {MAX_COLUMN_CHARS}) END"
    );
    let column = own.slot.column();
    let is_older = format!("{} AND received_at <= {}", own.hides_older, own.since_sql());
    format!(
        r#"UPDATE sessions SET {column} = {value}
           WHERE "timestamp" BETWEEN $1 AND $2 AND (payload IS NOT NULL OR {is_older})
             AND {column} IS DISTINCT FROM {value}"#
    )
}
