//! A batch as the database wants it: by session, in one order that all writers share.

use std::cmp::Ordering;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::row::Version;
use crate::store::{Applied, Received};

/// The reports of one session within a batch, in order of arrival.
pub(super) struct Group {
    /// `session_key`; batches are sorted by it, so that concurrent writers lock
    /// rows in the same order and cannot deadlock.
    pub(super) key: Uuid,
    /// Indexes into the batch, never empty.
    pub(super) reports: Vec<usize>,
}

/// Key of a session: the first 128 bits of
/// SHA-256(tenant, 0x1F, session), as the SQL function `session_key` computes it.
pub(in crate::store) fn session_key(tenant: &str, session_id: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(tenant.as_bytes());
    hash.update([0x1f]);
    hash.update(session_id.as_bytes());
    let digest = hash.finalize();
    Uuid::from_slice(&digest[..16]).expect("16 bytes")
}

/// Groups a batch by session, sorted by key.
pub(super) fn group(batch: &[&Received]) -> Vec<Group> {
    let mut keys: Vec<(Uuid, usize)> =
        batch.iter().enumerate().map(|(index, received)| (received.key, index)).collect();
    keys.sort_unstable();
    keys.chunk_by(|a, b| a.0 == b.0)
        .map(|run| Group { key: run[0].0, reports: run.iter().map(|(_, index)| *index).collect() })
        .collect()
}

/// What becomes of reports of one session, as if they were applied one by one in order of
/// arrival to a row that holds version `stored`.
pub(super) struct Merge {
    /// The report whose values the row gets; `None` where all are old.
    pub(super) newest: Option<usize>,
    /// Reports that were the newest when their turn came: what `report_count` grows by.
    pub(super) applied: i32,
    /// Outcome of each report, in order of arrival.
    pub(super) outcomes: Vec<Applied>,
}

impl Merge {
    pub(super) fn of(reports: &[usize], batch: &[&Received], stored: Version) -> Self {
        let mut version = stored;
        let mut merge = Self { newest: None, applied: 0, outcomes: Vec::new() };
        for &index in reports {
            let reported = Version::of(&batch[index].report);
            merge.outcomes.push(match reported.cmp(&version) {
                Ordering::Greater => Applied::Updated,
                Ordering::Equal => Applied::Duplicate,
                Ordering::Less => Applied::Stale,
            });
            if reported > version {
                version = reported;
                merge.newest = Some(index);
                merge.applied += 1;
            }
        }
        merge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Tenant;
    use crate::report::{self, UnixMs};

    fn received(body: &str) -> Received {
        let report = report::parse(body.as_bytes(), &report::Paths::NONE).expect("valid");
        Received::new(Tenant::new("default"), report, UnixMs(1_795_000_000_000))
    }

    fn batch(reports: &[(&str, i64)]) -> Vec<Received> {
        let body =
            |(id, time): &(&str, i64)| format!(r#"{{"sessionId":"{id}","timestamp":{time}}}"#);
        reports.iter().map(|report| received(&body(report))).collect()
    }

    #[test]
    fn groups_are_sorted_by_key_and_keep_arrival_order() {
        let batch = batch(&[("b", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 1)]);
        let batch: Vec<&Received> = batch.iter().collect();
        let groups = group(&batch);
        assert_eq!(groups.len(), 3);
        assert!(groups.is_sorted_by_key(|group| group.key));
        for group in &groups {
            assert!(group.reports.is_sorted());
            let ids = group.reports.iter().map(|i| &batch[*i].report.session_id);
            assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 1);
        }
    }

    #[test]
    fn merging_is_what_one_by_one_would_do() {
        use Applied::{Duplicate, Stale, Updated};
        let batch = batch(&[("s", 10), ("s", 30), ("s", 20), ("s", 30), ("s", 40)]);
        let batch: Vec<&Received> = batch.iter().collect();
        let reports = &group(&batch)[0].reports;
        let version = |duration_ms, at| Version { duration_ms, reported_at: UnixMs(at).into() };
        let merge = |stored| Merge::of(reports, &batch, version(0, stored));
        let all = merge(5);
        assert_eq!(all.outcomes, [Updated, Updated, Stale, Duplicate, Updated]);
        assert_eq!((all.newest, all.applied), (Some(4), 3));
        let one = merge(30);
        assert_eq!(one.outcomes, [Stale, Duplicate, Stale, Duplicate, Updated]);
        assert_eq!((one.newest, one.applied), (Some(4), 1));
        let none = merge(50);
        assert_eq!((none.newest, none.applied), (None, 0));
    }

    #[test]
    fn the_monotonic_clock_decides_before_the_wall_clock() {
        let report = |duration: &str, time: i64| {
            received(&format!(
                r#"{{"sessionId":"s","timestamp":{time},"sessionDurationMs":{duration}}}"#
            ))
        };
        // The wall clock is set back by two hours after the first report.
        let batch = [report("14000", 7_214_000), report("29000", 29_000), report("null", 44_000)];
        let batch: Vec<&Received> = batch.iter().collect();
        let merge = Merge::of(&[0, 1, 2], &batch, Version::of(&batch[2].report));
        assert_eq!(merge.outcomes, [Applied::Updated, Applied::Updated, Applied::Stale]);
        assert_eq!(merge.newest, Some(1));
    }
}
