//! Counts what became of the rows, and prints progress and a summary.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::config::Config;
use crate::ingest::Outcome;
use crate::report::Rejection;
use crate::telemetry::say;

const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// So many rejected rows are named; the others are only counted.
const NAMED: u64 = 10;
/// So many fields have a count of their own: the keys of a payload are unbounded.
const COUNTED_FIELDS: usize = 20;

/// Counts of one run.
pub(super) struct Tally {
    /// About how many rows there are.
    expected: u64,
    stored: u64,
    duplicate: u64,
    stale: u64,
    past_retention: u64,
    rejected: u64,
    /// Rejections by field.
    fields: BTreeMap<String, u64>,
    printed_at: Instant,
}

impl Tally {
    pub(super) fn new(expected: u64) -> Self {
        Self {
            expected,
            stored: 0,
            duplicate: 0,
            stale: 0,
            past_retention: 0,
            rejected: 0,
            fields: BTreeMap::new(),
            printed_at: Instant::now(),
        }
    }

    fn read(&self) -> u64 {
        self.stored + self.duplicate + self.stale + self.past_retention + self.rejected
    }

    pub(super) fn past_retention(&mut self) {
        self.past_retention += 1;
    }

    /// Counts a row that is no valid report, and names the first few.
    pub(super) fn reject(&mut self, session_id: &str, rejection: &Rejection) {
        self.rejected += 1;
        if self.rejected <= NAMED {
            say(&format!("session {session_id:?} cannot be imported: {rejection}"));
        }
        let is_counted =
            |field: &str| self.fields.contains_key(field) || self.fields.len() < COUNTED_FIELDS;
        let field = if is_counted(&rejection.field) { &rejection.field } else { "other fields" };
        *self.fields.entry(field.to_owned()).or_default() += 1;
    }

    /// Counts a row whose reports were written.
    pub(super) fn settle(&mut self, session_id: &str, outcome: &Outcome) {
        match outcome {
            Outcome::Duplicate => self.duplicate += 1,
            Outcome::Stale => self.stale += 1,
            Outcome::Rejected(rejection) => self.reject(session_id, rejection),
            _ => self.stored += 1,
        }
    }

    /// Prints how many sessions are done, at most once a second.
    pub(super) fn progress(&mut self) {
        if self.printed_at.elapsed() >= PROGRESS_EVERY {
            self.printed_at = Instant::now();
            let (read, expected) = (self.read(), self.expected.max(self.read()));
            say(&format!("{read} of about {expected} sessions"));
        }
    }

    /// Prints why sessions were not imported.
    pub(super) fn explain(&self, config: &Config) {
        if self.past_retention > 0 {
            let days = config.settings().iter().find(|setting| setting.name == "RETENTION_DAYS");
            let days = days.map_or("", |setting| &setting.value);
            say(&format!(
                "{} sessions are older than RETENTION_DAYS ({days}) and were left out",
                self.past_retention
            ));
        }
        if self.rejected > 0 {
            let by_field = self.fields.iter().map(|(field, count)| format!("{field} {count}"));
            let by_field = by_field.collect::<Vec<_>>().join(", ");
            say(&format!("{} sessions cannot be imported: {by_field}", self.rejected));
        }
    }

    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "read": self.read(), "stored": self.stored, "duplicate": self.duplicate,
            "stale": self.stale, "past_retention": self.past_retention, "rejected": self.rejected,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stored, duplicate, stale, past_retention, rejected, .. } = self;
        write!(
            f,
            "{} sessions read: {stored} stored, {duplicate} duplicate, {stale} stale, \
             {past_retention} past retention, {rejected} rejected",
            self.read()
        )
    }
}
