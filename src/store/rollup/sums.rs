//! What some sessions come to: sums, histograms, first and last time. They add up in any order.

use std::collections::BTreeMap;

use super::measures::MEASURES;

/// Microseconds since 2000, as Postgres counts them.
pub(super) type Micros = i64;

/// Histogram: sessions, and a sum of theirs, by bin.
pub(super) type Bins = BTreeMap<i16, (i64, i64)>;

/// Sums over sessions; those of [`MEASURES`] in that order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) first_at: Micros,
    pub(super) last_at: Micros,
    /// Of 128 bits: squares of milliseconds do not fit 64.
    pub(super) measures: [i128; MEASURES.len()],
    /// Watched time by startup time.
    pub(super) startup: Bins,
    /// Watched time by share of rebuffering.
    pub(super) rebuffering: Bins,
    /// Sessions by delay; the second number is not used.
    pub(super) delay: Bins,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            first_at: Micros::MAX,
            last_at: Micros::MIN,
            measures: [0; MEASURES.len()],
            startup: Bins::new(),
            rebuffering: Bins::new(),
            delay: Bins::new(),
        }
    }
}

impl Sums {
    /// How many sessions it is of.
    pub(super) const fn sessions(&self) -> i128 {
        self.measures[0]
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        for (sum, value) in self.measures.iter_mut().zip(&other.measures) {
            *sum += value;
        }
        add_bins(&mut self.startup, &other.startup);
        add_bins(&mut self.rebuffering, &other.rebuffering);
        add_bins(&mut self.delay, &other.delay);
    }

    /// Adds one session.
    pub(super) fn add_session(&mut self, session: &Session<'_>) {
        self.first_at = self.first_at.min(session.at);
        self.last_at = self.last_at.max(session.at);
        for (sum, value) in self.measures.iter_mut().zip(&session.measures) {
            *sum += value;
        }
        let put = |bins: &mut Bins, bin: Option<i16>, amount: i64| {
            if let Some(bin) = bin {
                let entry = bins.entry(bin).or_default();
                entry.0 += 1;
                entry.1 += amount;
            }
        };
        put(&mut self.startup, session.startup_bin, session.watched_ms);
        put(&mut self.rebuffering, session.rebuffering_bin, session.watched_ms);
        put(&mut self.delay, session.delay_bin, 0);
    }
}

fn add_bins(bins: &mut Bins, others: &Bins) {
    for (bin, other) in others {
        let entry = bins.entry(*bin).or_default();
        entry.0 += other.0;
        entry.1 += other.1;
    }
}

/// What one session adds.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) tenant: &'a str,
    pub(super) stream_type: Option<&'a str>,
    /// Its place on the time axis.
    pub(super) at: Micros,
    /// When it counts as left, unless it plays until then.
    pub(super) leaves_at: Option<Micros>,
    pub(super) measures: [i128; MEASURES.len()],
    pub(super) watched_ms: i64,
    pub(super) startup_bin: Option<i16>,
    pub(super) rebuffering_bin: Option<i16>,
    pub(super) delay_bin: Option<i16>,
}
