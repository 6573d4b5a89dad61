//! Filling the column of an own field from payloads: sessions that were stored before the field had
//! the column get their values, and nothing is hidden any more. What the rollups know of them is
//! made anew afterwards.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};

use super::own_dimensions::{self, OwnDimension, quote_literal};
use super::rollup::{TOUCH_SETTINGS, touch_hours};
use super::types::PgTime;
use super::{Error, LOCK, Store, session_qoe};
use crate::report::{MAX_COLUMN_CHARS, Path, UnixMs};

const SETTINGS: &str = "SET LOCAL statement_timeout = '2min'; SET LOCAL lock_timeout = '4s'";

/// Sessions filled per transaction: short enough that no report waits long for one of them.
const BATCH_ROWS: i64 = 500;
/// Pause between batches.
const BREATH: Duration = Duration::from_millis(5);

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

    /// Fills the columns of new own dimensions, and of `viewer_id`, from payloads. Returns what was
    /// filled; `None` where another instance does that. `progress` is called after each batch.
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
        lock.end().await;
        Ok(Some(names))
    }

    /// Fills the column of an own dimension, or of `viewer_id`, from the payloads of all sessions,
    /// the newest first, and has the rollups of a dimension made anew. `progress` is called after
    /// each batch. How many sessions got another value.
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
            match self.fill_batch(&own, &update, to).await {
                Ok(Some((oldest, filled))) => {
                    sessions += filled;
                    to = Some(oldest);
                    attempts = 0;
                    progress(Backfilled { to: oldest.into(), sessions });
                    tokio::time::sleep(BREATH).await;
                }
                Ok(None) => break,
                Err(BackfillError::Database(error))
                    if error.is_temporary() && attempts < ATTEMPTS =>
                {
                    attempts += 1;
                    tracing::debug!(%error, name, "a batch could not be filled; retrying");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        self.show_older(&own).await?;
        Ok(sessions)
    }

    /// Fills the newest sessions before `to`: the oldest of their session times, and the number of
    /// changed rows; `None` where there are none.
    async fn fill_batch(
        &self,
        own: &OwnDimension,
        update: &str,
        to: Option<PgTime>,
    ) -> Result<Option<(PgTime, u64)>, BackfillError> {
        let mut connection = self.pool.connect().await?;
        connection.begin(SETTINGS).await?;
        let (oldest, newest): (Option<PgTime>, Option<PgTime>) = sqlx::query_as(
            r#"SELECT min("timestamp"), max("timestamp") FROM (
                 SELECT "timestamp" FROM sessions WHERE "timestamp" < coalesce($1, 'infinity')
                 ORDER BY "timestamp" DESC LIMIT $2) AS batch"#,
        )
        .bind(to)
        .bind(BATCH_ROWS)
        .fetch_one(&mut *connection)
        .await
        .map_err(Error::from)?;
        let (Some(oldest), Some(newest)) = (oldest, newest) else { return Ok(None) };
        let filled = sqlx::query(AssertSqlSafe(update))
            .bind(oldest)
            .bind(newest)
            .execute(&mut *connection)
            .await
            .map_err(Error::from)?;
        let is_noted = sqlx::query(
            "UPDATE own_dimensions SET filled_to = $1 WHERE slot = $2 AND assignment = $3",
        )
        .bind(oldest)
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
        Ok(Some((oldest, filled.rows_affected())))
    }

    /// All sessions have this field's values: the view need hide none of them, and the rollups are
    /// made anew. What is cut off between the two is done again.
    async fn show_older(&self, own: &OwnDimension) -> Result<(), BackfillError> {
        let mut connection = self.pool.connect().await?;
        connection.begin(LOCK).await?;
        let before = own_dimensions::read(&mut connection).await?;
        let mut after = before.clone();
        let assigned = after.iter_mut().find(|found| found.assignment == own.assignment);
        let assigned = assigned.ok_or_else(|| BackfillError::Reassigned(own.name.clone()))?;
        assigned.hides_older = false;
        session_qoe::make(&mut connection, &before, &after).await?;
        Self::update_own(&mut connection, own, "hides_older = false").await?;
        connection.commit().await?;

        connection.begin(TOUCH_SETTINGS).await?;
        if own.is_dimension() {
            touch_hours(&mut connection, None, None).await?;
        }
        Self::update_own(&mut connection, own, "filled_to = '-infinity'").await?;
        connection.commit().await?;
        Ok(())
    }

    async fn update_own(
        connection: &mut PgConnection,
        own: &OwnDimension,
        change: &str,
    ) -> Result<(), Error> {
        let sql = format!("UPDATE own_dimensions SET {change} WHERE assignment = $1");
        sqlx::query(AssertSqlSafe(sql)).bind(own.assignment).execute(connection).await?;
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
