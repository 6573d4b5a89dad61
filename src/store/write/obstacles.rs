//! What keeps single reports of a batch from being written: found so that the others can be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::report::SessionTime;
use crate::store::lease::Lease;
use crate::store::partitions::Month;
use crate::store::types::PgTime;
use crate::store::{Error, Received, Store};

impl Store {
    /// The sessions of a batch that somebody else has locked, or whose partition somebody has.
    /// Does not wait for locks. None where the tables are distributed: Citus cannot skip locked
    /// rows.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn locked(
        &self,
        batch: &[&Received],
        limit: Duration,
    ) -> Result<HashSet<Uuid>, Error> {
        if self.sharding.is_known() {
            return Ok(HashSet::new());
        }
        let look = async {
            let mut lease = self.pool.take().await?;
            let mut locked = HashSet::new();
            for (month, keys) in self.months(&mut lease, batch).await? {
                locked.extend(locked_in(&mut lease, month, keys).await?);
            }
            lease.finish();
            Ok(locked)
        };
        self.within(limit, "find_locked", look).await
    }

    /// The sessions of a batch for whose month there is no partition, after one of them was met.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn without_partition(
        &self,
        batch: &[&Received],
        limit: Duration,
    ) -> Result<HashMap<Uuid, Month>, Error> {
        let look = async {
            let mut lease = self.pool.take().await?;
            self.partitions.look(&mut lease).await?;
            let months = self.months(&mut lease, batch).await?;
            lease.finish();
            let missing = months.into_iter().filter(|(month, _)| !self.has_partition(*month));
            Ok(missing.flat_map(|(month, keys)| keys.into_iter().map(move |key| (key, month))))
        };
        Ok(self.within(limit, "find_partitions", look).await?.collect())
    }

    /// The sessions of a batch by the month in which they are, or will be.
    async fn months(
        &self,
        lease: &mut Lease,
        batch: &[&Received],
    ) -> Result<BTreeMap<Month, Vec<Uuid>>, Error> {
        let mut times: HashMap<Uuid, PgTime> = batch
            .iter()
            .map(|one| {
                let time = SessionTime::of(&one.report, one.at, self.retention);
                (one.key(), time.timestamp.into())
            })
            .collect();
        lease.open().await?;
        let settled: Vec<(Uuid, PgTime)> = sqlx::query_as(
            r#"SELECT session_key, "timestamp" FROM session_times WHERE session_key = ANY($1)"#,
        )
        .bind(times.keys().copied().collect::<Vec<_>>())
        .fetch_all(&mut **lease)
        .await?;
        lease.close().await?;
        times.extend(settled);
        let mut months: BTreeMap<Month, Vec<Uuid>> = BTreeMap::new();
        for (key, time) in times {
            months.entry(Month::of(time.into())).or_default().push(key);
        }
        Ok(months)
    }
}

/// Which of the sessions of a month are locked; all of them where its partition is.
async fn locked_in(lease: &mut Lease, month: Month, keys: Vec<Uuid>) -> Result<Vec<Uuid>, Error> {
    let [sessions, chunks] = month.partitions();
    // Names made of a table of ours and two numbers. ROW EXCLUSIVE is what writing takes.
    let lock = format!("LOCK TABLE {sessions}, {chunks} IN ROW EXCLUSIVE MODE NOWAIT");
    // What an update takes, too.
    let select = format!(
        "WITH free AS MATERIALIZED (
           SELECT session_key FROM {sessions} WHERE session_key = ANY($1)
           FOR NO KEY UPDATE SKIP LOCKED)
         SELECT session_key FROM {sessions} WHERE session_key = ANY($1)
           AND session_key NOT IN (SELECT session_key FROM free)"
    );
    lease.begin("").await?;
    let locked = match lease.begin(&lock).await {
        Ok(()) => {
            sqlx::query_scalar(AssertSqlSafe(select))
                .bind(keys)
                .persistent(false)
                .fetch_all(&mut **lease)
                .await?
        }
        Err(error) if error.is_lock_timeout() => keys,
        // Nobody locks a partition that is not there.
        Err(error) if error.is_missing_table() => Vec::new(),
        Err(error) => return Err(error),
    };
    lease.rollback().await?;
    Ok(locked)
}
