//! Sums by bucket and dimension, and within it by tenant, stream type and value.

use std::collections::{HashMap, HashSet};

use super::dimensions::TOTALS;
use super::sums::{Micros, Session, Sums};

/// Of a tenant and bucket, so many values of a dimension have a row of their own.
const MOST_VALUES: usize = 100;
/// With more groups than this, values are put together before the hour is read to its end: values
/// are clients' texts, and may be as many as there are sessions. A value that comes again later
/// then has a row with a part of its sessions.
const MOST_GROUPS: usize = 3_000;
/// How many values of a tenant stay then.
const KEPT_VALUES: usize = 1_000;
/// The value that stands for all the rest.
const OTHER: &[u8] = b"(other)";
/// Between the parts of a key. Postgres' texts do not hold it.
const SEPARATOR: u8 = 0;

/// One length of time, as in the column `minutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length(i16);

impl Length {
    pub(super) const HALF_HOUR: Self = Self(30);
    pub(super) const HOUR: Self = Self(60);
    pub(super) const QUARTER_DAY: Self = Self(360);
    pub(super) const DAY: Self = Self(1440);

    pub(super) const fn minutes(self) -> i16 {
        self.0
    }

    pub(super) fn micros(self) -> Micros {
        Micros::from(self.0) * 60_000_000
    }

    /// Begin of the bucket that a moment lies in.
    pub(super) fn bucket(self, at: Micros) -> Micros {
        at - at.rem_euclid(self.micros())
    }
}

/// All rows of one bucket and dimension.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) dimension: String,
    pub(super) length: Length,
    pub(super) start: Micros,
    /// By tenant, stream type and value, see [`Group`].
    groups: HashMap<Box<[u8]>, Sums>,
    /// More groups than this are too many.
    most_groups: usize,
}

/// What a group is of.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group<'a> {
    pub(super) tenant: &'a [u8],
    pub(super) stream_type: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl<'a> Group<'a> {
    /// As bytes. A null is empty, a text has a byte before it.
    fn put(&self, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.tenant);
        for text in [self.stream_type, self.value] {
            key.push(SEPARATOR);
            if let Some(text) = text {
                key.push(b'=');
                key.extend_from_slice(text);
            }
        }
    }

    fn read(key: &'a [u8]) -> Self {
        let mut parts = key.split(|byte| *byte == SEPARATOR);
        let tenant = parts.next().unwrap_or_default();
        let mut text = || parts.next().and_then(|part| part.strip_prefix(b"="));
        Self { tenant, stream_type: text(), value: text() }
    }
}

impl Bucket {
    pub(super) fn new(dimension: &str, length: Length, start: Micros) -> Self {
        Self {
            dimension: dimension.to_owned(),
            length,
            start,
            groups: HashMap::new(),
            most_groups: MOST_GROUPS,
        }
    }

    /// The bucket of all sessions that begin between two full half hours.
    pub(super) fn totals(start: Micros) -> Self {
        Self::new(TOTALS, Length::HALF_HOUR, start)
    }

    fn group(&mut self, group: &Group<'_>, key: &mut Vec<u8>) -> &mut Sums {
        group.put(key);
        // Not `entry`, which would have to own the key each time.
        if !self.groups.contains_key(key.as_slice()) {
            self.groups.insert(key.as_slice().into(), Sums::default());
        }
        self.groups.get_mut(key.as_slice()).expect("inserted")
    }

    /// Adds a session; `key` is memory to work in.
    pub(super) fn add_session(
        &mut self,
        session: &Session<'_>,
        value: Option<&[u8]>,
        key: &mut Vec<u8>,
    ) {
        let stream_type = session.stream_type.map(str::as_bytes);
        let group = Group { tenant: session.tenant.as_bytes(), stream_type, value };
        self.group(&group, key).add_session(session);
        if self.groups.len() > self.most_groups {
            self.fold_to(KEPT_VALUES);
            // Many tenants may need more; folding must stay rare.
            self.most_groups = MOST_GROUPS.max(2 * self.groups.len());
        }
    }

    /// Adds what the rows of a shorter bucket come to.
    pub(super) fn add(&mut self, group: &Group<'_>, sums: &Sums) {
        self.group(group, &mut Vec::new()).add(sums);
    }

    /// Puts the values with the fewest sessions together as "(other)", where a tenant has too
    /// many.
    pub(super) fn fold(&mut self) {
        self.fold_to(MOST_VALUES);
    }

    fn fold_to(&mut self, most_values: usize) {
        let mut sessions: HashMap<(&[u8], &[u8]), i128> = HashMap::new();
        for (key, sums) in &self.groups {
            let group = Group::read(key);
            if let Some(value) = group.value.filter(|value| *value != OTHER) {
                *sessions.entry((group.tenant, value)).or_default() += sums.sessions();
            }
        }
        let mut ranked: Vec<_> = sessions.into_iter().collect();
        // By tenant; the most sessions first; by name, where as many.
        ranked.sort_unstable_by(|((tenant, value), sessions), ((other, rival), more)| {
            tenant.cmp(other).then(more.cmp(sessions)).then(value.cmp(rival))
        });
        let mut folded: Vec<Box<[u8]>> = Vec::new();
        for of_tenant in ranked.chunk_by(|a, b| a.0.0 == b.0.0) {
            let rest = of_tenant.get(most_values..).unwrap_or_default();
            if rest.is_empty() {
                continue;
            }
            let rest: HashSet<_> = rest.iter().map(|(pair, _)| *pair).collect();
            folded.extend(
                self.groups
                    .keys()
                    .filter(|key| {
                        let group = Group::read(key);
                        group.value.is_some_and(|value| rest.contains(&(group.tenant, value)))
                    })
                    .cloned(),
            );
        }
        for key in folded {
            let Some(sums) = self.groups.remove(&key) else { continue };
            let group = Group { value: Some(OTHER), ..Group::read(&key) };
            self.add(&group, &sums);
        }
    }

    /// Its rows, in one order.
    pub(super) fn rows(&self) -> Vec<(Group<'_>, &Sums)> {
        let mut rows: Vec<_> =
            self.groups.iter().map(|(key, sums)| (Group::read(key), sums)).collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rollup::measures::MEASURES;

    fn sums(sessions: i128) -> Sums {
        let mut sums = Sums { first_at: 1, last_at: 2, ..Sums::default() };
        sums.measures[0] = sessions;
        sums
    }

    fn of(value: &str) -> Group<'_> {
        Group { tenant: b"default", stream_type: Some(b"VOD"), value: Some(value.as_bytes()) }
    }

    #[test]
    fn the_values_with_the_most_sessions_stay() {
        let mut bucket = Bucket::new("content_id", Length::HOUR, 0);
        for number in 0..120_u8 {
            bucket.add(&of(&format!("film-{number:03}")), &sums(number.into()));
        }
        let live = Group { stream_type: None, ..of("film-000") };
        bucket.add(&live, &sums(500));
        let reported_by_none = Group { value: None, ..of("") };
        bucket.add(&reported_by_none, &sums(1));
        bucket.fold();
        let rows = bucket.rows();
        let of_value = |value: &[u8]| {
            let found = rows.iter().filter(|(group, _)| group.value == Some(value));
            found.map(|(_, sums)| sums.sessions()).sum::<i128>()
        };
        // film-000 has the most, over both stream types; film-001 to film-020 are the smallest.
        assert_eq!(of_value(b"film-000"), 500);
        assert_eq!(of_value(b"film-020"), 0);
        assert_eq!(of_value(b"film-021"), 21);
        assert_eq!(of_value(OTHER), (1..=20).sum::<i128>());
        assert_eq!(rows.len(), 100 + 1 + 1 + 1, "one value has two stream types");
        assert!(rows.iter().any(|(group, _)| *group == reported_by_none));
    }

    #[test]
    fn as_many_values_as_sessions_take_no_more_memory() {
        let mut bucket = Bucket::new("url", Length::HOUR, 0);
        let mut key = Vec::new();
        for number in 0..20_000_u32 {
            let mut measures = [0; MEASURES.len()];
            measures[0] = 1;
            let session = Session {
                tenant: "default",
                stream_type: None,
                at: number.into(),
                leaves_at: None,
                measures,
                watched_ms: 0,
                startup_bin: None,
                rebuffering_bin: None,
                delay_bin: None,
            };
            // Every tenth is of the same film.
            let value = if number % 10 == 0 { "film".to_owned() } else { number.to_string() };
            bucket.add_session(&session, Some(value.as_bytes()), &mut key);
            assert!(bucket.groups.len() <= MOST_GROUPS);
        }
        bucket.fold();
        let rows = bucket.rows();
        assert_eq!(rows.len(), MOST_VALUES + 1);
        let sessions = |value: &[u8]| {
            let mut of_value = rows.iter().filter(|(group, _)| group.value == Some(value));
            of_value.next().map_or(0, |(_, sums)| sums.sessions())
        };
        assert_eq!(sessions(b"film"), 2_000);
        assert_eq!(sessions(OTHER), 18_000 - (MOST_VALUES as i128 - 1));
    }

    #[test]
    fn buckets_begin_at_full_lengths_before_2000_too() {
        let hour = Length::HOUR.micros();
        assert_eq!(Length::HOUR.bucket(hour + 1), hour);
        assert_eq!(Length::HOUR.bucket(-1), -hour);
        assert_eq!(Length::DAY.bucket(25 * hour), 24 * hour);
    }
}
