//! Reading one session.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::own_dimensions::{self, OwnDimension, quote_literal};
use super::types::PgTime;
use super::{Error, Store, write};
use crate::auth::Tenant;
use crate::report::Slot;

/// A session with a page of its timeline is read by its key.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Sessions that are read at the same time: reports need the other connections, and each session
/// read is in memory as a whole.
pub(super) const READERS: usize = 4;

/// A part of a session's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelinePage {
    /// Entries at most.
    pub limit: u32,
    /// What came before.
    pub after: TimelinePosition,
}

/// A place in the order of a timeline's entries: `30000` is behind all entries with this
/// `elapsed_ms` and less, `30000.5` behind the first five with this one and all with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelinePosition {
    from_ms: i64,
    skip: u32,
}

impl TimelinePosition {
    /// Before all entries.
    pub const START: Self = Self { from_ms: 0, skip: 0 };
}

/// The text is no position.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAPosition;

impl fmt::Display for NotAPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected timelineNext of the page before, or an elapsedMs")
    }
}

impl FromStr for TimelinePosition {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotAPosition);
        let (elapsed_ms, skip) = match text.split_once('.') {
            Some((elapsed_ms, skip)) => (elapsed_ms, Some(number(skip)?)),
            None => (text, None),
        };
        let elapsed_ms: i64 = elapsed_ms.parse().map_err(|_| NotAPosition)?;
        Ok(match skip {
            Some(skip) => Self { from_ms: elapsed_ms, skip },
            None => Self { from_ms: elapsed_ms.saturating_add(1), skip: 0 },
        })
    }
}

impl Store {
    /// One session with its payload and a page of its timeline, as the text of a JSON object.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn session(
        &self,
        tenant: &Tenant,
        session_id: &str,
        page: TimelinePage,
    ) -> Result<Option<String>, Error> {
        let read = async {
            let _reader = self.readers.acquire().await.expect("never closed");
            let key = write::session_key(tenant.as_str(), session_id);
            let mut lease = self.pool.take().await?;
            lease.open().await?;
            let time: Option<PgTime> = sqlx::query_scalar(
                r#"SELECT "timestamp" FROM session_times WHERE session_key = $1"#,
            )
            .bind(key)
            .fetch_optional(&mut *lease)
            .await?;
            let mut found = None;
            if let Some(time) = time {
                let own = own_dimensions::read(&mut lease).await?;
                // A plan of its own, which locks no partition but that of the session.
                found = sqlx::query_scalar(AssertSqlSafe(select(&own)))
                    .bind(key)
                    .bind(tenant.as_str())
                    .bind(session_id)
                    .bind(page.after.from_ms)
                    .bind(i64::from(page.after.skip))
                    .bind(i64::from(page.limit))
                    .bind(time)
                    .persistent(false)
                    .fetch_optional(&mut *lease)
                    .await?;
            }
            lease.close().await?;
            lease.finish();
            Ok(found)
        };
        self.within(READ_TIMEOUT, "select_session", read).await
    }
}

/// The statement that reads a session, with own fields under their names, which are quoted.
fn select(own: &[OwnDimension]) -> String {
    let members: Vec<String> = own_dimensions::columns(own, "s.")
        .map(|(name, value)| format!("{}, {value}", quote_literal(name)))
        .collect();
    let columns: Vec<String> =
        Slot::dimensions().map(|slot| quote_literal(&slot.column())).collect();
    include_str!("sql/select_session.sql")
        .replace("{slots}", &columns.join(", "))
        .replace("{own}", &members.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_behind_an_entry() {
        let position = |text: &str| text.parse::<TimelinePosition>();
        assert_eq!(position("30000"), Ok(TimelinePosition { from_ms: 30_001, skip: 0 }));
        assert_eq!(position("30000.5"), Ok(TimelinePosition { from_ms: 30_000, skip: 5 }));
        for text in ["", "x", "1.", ".1", "1.-2", "1.2.3", " 1", "1e3"] {
            assert_eq!(position(text), Err(NotAPosition), "{text}");
        }
    }
}
