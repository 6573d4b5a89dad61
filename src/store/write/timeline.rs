//! Timeline entries that may be stored already: of reports that were not their session's
//! newest, or that begin before the last entry that is there.

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::row::{MAX_TIMELINE_ENTRIES, Write, Written};
use crate::report::Timeline;
use crate::store::Error;
use crate::store::types::{Json, PgTime};

/// Sessions whose stored entries are read at once. One session's may be some megabytes.
const SESSIONS_AT_ONCE: usize = 16;

/// Entries to be compared, by session: in the order in which rows are locked.
#[derive(Default)]
pub(super) struct Unsettled(BTreeMap<Uuid, (PgTime, Timeline)>);

/// A session with the entries that are in question.
type Entries = (Uuid, (PgTime, Timeline));

impl Unsettled {
    /// Notes the entries of `writes` that were not added.
    pub(super) fn note(&mut self, writes: &[Write<'_>], written: &[Written]) {
        for (write, after) in writes.iter().zip(written) {
            let Some(timeline) = write.timeline.as_ref().filter(|_| !after.entries_added) else {
                continue;
            };
            let merged = match self.0.remove(&write.key) {
                Some((_, before)) => Timeline::merged([&before, timeline]),
                None => Some(timeline.clone()),
            };
            self.0.extend(merged.map(|timeline| (write.key, (after.timestamp, timeline))));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Locks the sessions' rows, in the order of all writers.
    pub(super) async fn lock(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let (first, last) = span(self.0.values());
        sqlx::query(
            r#"SELECT FROM sessions WHERE session_key = ANY($1) AND "timestamp" BETWEEN $2 AND $3
               ORDER BY session_key FOR UPDATE"#,
        )
        .bind(self.0.keys().copied().collect::<Vec<_>>())
        .bind(first)
        .bind(last)
        .execute(connection)
        .await?;
        Ok(())
    }

    /// Adds the entries that are not there. The sessions' rows must be locked. Returns how many
    /// entries were dropped because their sessions are full.
    pub(super) async fn add_missing(self, connection: &mut PgConnection) -> Result<u64, Error> {
        let all: Vec<Entries> = self.0.into_iter().collect();
        let mut dropped = 0;
        for some in all.chunks(SESSIONS_AT_ONCE) {
            dropped += add_missing(connection, some).await?;
        }
        Ok(dropped)
    }
}

/// As [`Unsettled::add_missing`], for some of the sessions.
async fn add_missing(connection: &mut PgConnection, sessions: &[Entries]) -> Result<u64, Error> {
    let stored = stored(connection, sessions).await?;
    let mut dropped = 0;
    for (key, (timestamp, timeline)) in sessions {
        let chunks = stored.get(key).map(Vec::as_slice).unwrap_or_default();
        let Some(missing) = timeline.without(chunks.iter().map(|text| &**text)) else {
            continue;
        };
        // One statement for each session: rare, and a sharded Postgres runs it on one shard.
        let added = sqlx::query(
            r#"UPDATE sessions SET
                 timeline_until_ms = greatest(timeline_until_ms, $3),
                 timeline_entries = coalesce(timeline_entries, 0) + $4
               WHERE session_key = $1 AND "timestamp" = $2
                 AND coalesce(timeline_entries, 0) < $5"#,
        )
        .bind(key)
        .bind(timestamp)
        .bind(missing.until_ms)
        .bind(missing.count)
        .bind(MAX_TIMELINE_ENTRIES)
        .execute(&mut *connection)
        .await?;
        if added.rows_affected() == 0 {
            dropped += u64::try_from(missing.count).unwrap_or(0);
            continue;
        }
        sqlx::query(
            r#"INSERT INTO timeline_chunks (session_key, "timestamp", entries)
               VALUES ($1, $2, $3)"#,
        )
        .bind(key)
        .bind(timestamp)
        .bind(Json(&missing.json))
        .execute(&mut *connection)
        .await?;
    }
    Ok(dropped)
}

/// What is stored of these sessions, around the entries in question.
async fn stored(
    connection: &mut PgConnection,
    sessions: &[Entries],
) -> Result<HashMap<Uuid, Vec<String>>, Error> {
    let (first, last) = span(sessions.iter().map(|(_, entries)| entries));
    let timelines = || sessions.iter().map(|(_, (_, timeline))| timeline);
    let rows = sqlx::query(
        r#"SELECT session_key, entries::text FROM timeline_chunks
           WHERE session_key = ANY($1) AND "timestamp" BETWEEN $2 AND $3
             AND (entries #>> '{0,0}')::bigint <= $5 AND (entries #>> '{-1,0}')::bigint >= $4"#,
    )
    .bind(sessions.iter().map(|(key, _)| *key).collect::<Vec<_>>())
    .bind(first)
    .bind(last)
    .bind(timelines().map(|timeline| timeline.from_ms).min())
    .bind(timelines().map(|timeline| timeline.until_ms).max())
    .fetch_all(connection)
    .await?;
    let mut stored: HashMap<Uuid, Vec<String>> = HashMap::new();
    for row in rows {
        stored.entry(row.try_get(0)?).or_default().push(row.try_get(1)?);
    }
    Ok(stored)
}

/// The first and the last session time.
fn span<'a>(
    entries: impl Iterator<Item = &'a (PgTime, Timeline)> + Clone,
) -> (Option<PgTime>, Option<PgTime>) {
    let times = entries.map(|(timestamp, _)| *timestamp);
    (times.clone().min(), times.max())
}
