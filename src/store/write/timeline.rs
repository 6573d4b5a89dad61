//! Timeline entries that may be stored already: of reports that were not their session's
//! newest, or that begin before the last entry that is there.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use uuid::Uuid;

use super::row::{MAX_BYTES, MAX_ENTRIES, Write, Written, chunk_row};
use super::statements::insert_chunks;
use crate::report::Timeline;
use crate::store::Error;
use crate::store::types::PgTime;

/// The chunks of some sessions that overlap their entries in question. Each session has a range
/// of its own: those that are long, or far on, must not make the others read everything. (Here and
/// below, `= ANY` lets the planner lock no partitions but theirs.)
const OVERLAPPING: &str = r#"
    SELECT c.session_key, c.entries::text
    FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::bigint[])
         AS k (session_key, "timestamp", from_ms, until_ms)
    JOIN timeline_chunks c ON c.session_key = k.session_key AND c."timestamp" = k."timestamp"
     AND c.from_ms <= k.until_ms AND c.until_ms >= k.from_ms
    WHERE c."timestamp" = ANY($2)"#;

const GROW: &str = r#"
    UPDATE sessions s SET
        timeline_until_ms = greatest(s.timeline_until_ms, k.until_ms),
        timeline_entries = coalesce(s.timeline_entries, 0) + k.entries,
        timeline_bytes = coalesce(s.timeline_bytes, 0) + k.bytes
    FROM unnest($1::uuid[], $2::timestamptz[], $3::bigint[], $4::integer[], $5::integer[])
         AS k (session_key, "timestamp", until_ms, entries, bytes)
    WHERE s.session_key = k.session_key AND s."timestamp" = k."timestamp"
      AND s."timestamp" = ANY($2)"#;

/// Entries and bytes that a session still takes.
#[derive(Clone, Copy)]
struct Room {
    entries: usize,
    bytes: usize,
}

impl Room {
    fn beside(entries: i32, bytes: i32) -> Self {
        Self { entries: count(MAX_ENTRIES - entries), bytes: count(MAX_BYTES - bytes) }
    }
}

fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// Entries to be compared, by session: in the order in which rows are locked.
#[derive(Default)]
pub(super) struct Unsettled(BTreeMap<Uuid, (PgTime, Timeline)>);

impl Unsettled {
    /// Notes the entries of `writes` that were not added.
    pub(super) fn note(&mut self, writes: &[Write<'_>], written: &[Written]) {
        for (write, after) in writes.iter().zip(written) {
            let Some(timeline) = write.timeline.as_deref().filter(|_| !after.entries_added) else {
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

    /// Adds the entries that are not there, in the transaction that the connection is in. Where
    /// the sessions' rows are not locked yet, locks them, in the order of all writers. Returns how
    /// many entries were dropped because there is no room in their sessions.
    pub(super) async fn add_missing(
        mut self,
        connection: &mut PgConnection,
        are_locked: bool,
    ) -> Result<u64, Error> {
        let room = self.room(connection, are_locked).await?;
        // Of sessions that are full, nothing is read.
        let full = room.iter().filter(|(_, room)| room.entries == 0 || room.bytes == 0);
        let mut dropped = self.thin(&full.map(|(key, room)| (*key, *room)).collect());
        self.drop_known(connection).await?;
        dropped += self.thin(&room);
        if self.is_empty() {
            return Ok(dropped);
        }
        let column = |value: fn(&Timeline) -> i32| -> Vec<i32> {
            self.0.values().map(|(_, timeline)| value(timeline)).collect()
        };
        sqlx::query(GROW)
            .bind(self.keys())
            .bind(self.times())
            .bind(self.0.values().map(|(_, timeline)| timeline.until_ms).collect::<Vec<_>>())
            .bind(column(|timeline| timeline.count))
            .bind(column(Timeline::bytes))
            .persistent(false)
            .execute(&mut *connection)
            .await?;
        let chunks =
            self.0.iter().map(|(key, (timestamp, timeline))| chunk_row(*key, *timestamp, timeline));
        insert_chunks(connection, chunks.collect()).await?;
        Ok(dropped)
    }

    /// The room that is left in the sessions. Those that were pruned meanwhile are left out.
    async fn room(
        &mut self,
        connection: &mut PgConnection,
        are_locked: bool,
    ) -> Result<HashMap<Uuid, Room>, Error> {
        // Citus locks no rows of several shards; there, they are locked since they were written.
        let lock = if are_locked { "" } else { "ORDER BY s.session_key FOR UPDATE" };
        let sql = format!(
            r#"SELECT s.session_key, coalesce(s.timeline_entries, 0), coalesce(s.timeline_bytes, 0)
               FROM sessions s WHERE s.session_key = ANY($1) AND s."timestamp" = ANY($2) {lock}"#
        );
        // Made of our own names, nothing that a client sent.
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(self.keys())
            .bind(self.times())
            .persistent(false)
            .fetch_all(connection)
            .await?;
        let mut room = HashMap::new();
        for row in &rows {
            room.insert(row.try_get(0)?, Room::beside(row.try_get(1)?, row.try_get(2)?));
        }
        self.0.retain(|key, _| room.contains_key(key));
        Ok(room)
    }

    /// Thins the entries of each session to the room that there is: how many were left out.
    fn thin(&mut self, room: &HashMap<Uuid, Room>) -> u64 {
        let mut dropped = 0;
        self.0.retain(|key, (_, timeline)| {
            let Some(room) = room.get(key) else { return true };
            if count(timeline.count) <= room.entries && timeline.json.len() <= room.bytes {
                return true;
            }
            let before = timeline.count;
            let thinned = timeline.thinned(room.entries, room.bytes);
            let left = thinned.as_ref().map_or(0, |thinned| thinned.count);
            dropped += u64::try_from(before - left).unwrap_or(0);
            thinned.map(|thinned| *timeline = thinned).is_some()
        });
        dropped
    }

    /// Leaves out entries that are stored already. One chunk is in memory at a time.
    async fn drop_known(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let column = |value: fn(&Timeline) -> i64| -> Vec<i64> {
            self.0.values().map(|(_, timeline)| value(timeline)).collect()
        };
        let mut missing: HashMap<Uuid, HashSet<&str>> =
            self.0.iter().map(|(key, (_, timeline))| (*key, timeline.texts().collect())).collect();
        let query = sqlx::query(OVERLAPPING)
            .bind(self.keys())
            .bind(self.times())
            .bind(column(|timeline| timeline.from_ms))
            .bind(column(|timeline| timeline.until_ms))
            .persistent(false);
        let mut chunks = query.fetch(connection);
        while let Some(row) = chunks.try_next().await? {
            let key: Uuid = row.try_get(0)?;
            let Some(missing) = missing.get_mut(&key) else { continue };
            for entry in Timeline::split(row.try_get(1)?) {
                missing.remove(entry.get());
            }
        }
        drop(chunks);
        let left = |(key, (timestamp, timeline)): (&Uuid, &(PgTime, Timeline))| {
            Some((*key, (*timestamp, timeline.only(missing.get(key)?)?)))
        };
        let left: BTreeMap<Uuid, (PgTime, Timeline)> = self.0.iter().filter_map(left).collect();
        self.0 = left;
        Ok(())
    }

    fn keys(&self) -> Vec<Uuid> {
        self.0.keys().copied().collect()
    }

    fn times(&self) -> Vec<PgTime> {
        self.0.values().map(|(timestamp, _)| *timestamp).collect()
    }
}
