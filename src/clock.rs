//! The time. In a running server it is the database's: sessions are placed, and removed, by one
//! clock for all instances, and a machine whose own clock is months behind loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use crate::report::UnixMs;

/// Between the machine's clock and the database's, more than this is worth a warning. Times that
/// are off by ten minutes change where sessions are placed.
const TOLERANCE_MS: i64 = 2 * 60 * 1000;

/// Tells the time. Passed in, so that tests can tell another.
#[derive(Clone)]
pub struct Clock(Arc<Kind>);

enum Kind {
    Fixed(Box<dyn Fn() -> UnixMs + Send + Sync>),
    Following {
        machine: Box<dyn Fn() -> UnixMs + Send + Sync>,
        /// What is added to the time since the machine started. That time runs on evenly while
        /// somebody sets the machine's clock.
        started_at_ms: AtomicI64,
        /// The database's clock minus the machine's, when it was last looked at.
        difference_ms: AtomicI64,
    },
}

impl Clock {
    /// A clock that asks `now`, and nobody else.
    pub fn new(now: impl Fn() -> UnixMs + Send + Sync + 'static) -> Self {
        Self(Arc::new(Kind::Fixed(Box::new(now))))
    }

    /// The machine's clock, until it is told what the database's says.
    #[must_use]
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that all others ask")]
        Self::of_machine(|| SystemTime::now().into())
    }

    /// As [`Clock::system`], on a machine whose clock is `machine`.
    pub fn of_machine(machine: impl Fn() -> UnixMs + Send + Sync + 'static) -> Self {
        let started_at_ms = AtomicI64::new(machine().0 - since_start_ms());
        let difference_ms = AtomicI64::new(0);
        Self(Arc::new(Kind::Following { machine: Box::new(machine), started_at_ms, difference_ms }))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        match &*self.0 {
            Kind::Fixed(now) => now(),
            Kind::Following { started_at_ms, .. } => {
                UnixMs(started_at_ms.load(Ordering::Relaxed) + since_start_ms())
            }
        }
    }

    /// From now on, goes with the database's clock, which says `database` at this moment.
    pub fn follow(&self, database: UnixMs) {
        if let Kind::Following { machine, started_at_ms, difference_ms } = &*self.0 {
            started_at_ms.store(database.0 - since_start_ms(), Ordering::Relaxed);
            difference_ms.store(database.0 - machine().0, Ordering::Relaxed);
        }
    }

    /// By how much the database's clock is ahead of the machine's, milliseconds; negative if it is
    /// behind.
    #[must_use]
    pub fn difference_ms(&self) -> i64 {
        match &*self.0 {
            Kind::Fixed(_) => 0,
            Kind::Following { difference_ms, .. } => difference_ms.load(Ordering::Relaxed),
        }
    }

    /// What an operator should know: the machine's clock and the database's are minutes apart.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let difference = self.difference_ms();
        if difference.abs() < TOLERANCE_MS {
            return None;
        }
        let minutes = (difference.unsigned_abs() + 30_000) / 60_000;
        let (days, minutes) = (minutes / 1440, minutes % 1440);
        let which = if difference > 0 { "behind" } else { "ahead of" };
        Some(format!(
            "the clock of this machine is {days} days and {minutes} minutes {which} that of the \
             database, which is the one that counts; set one of them right (NTP)"
        ))
    }
}

/// Milliseconds since the machine started, including those in which it was suspended.
fn since_start_ms() -> i64 {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    let time = Duration::from(clock_gettime(CLOCK).expect("every system has this clock"));
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    #[test]
    fn the_database_decides_and_the_difference_is_said() {
        let clock = Clock::of_machine(|| NOW);
        assert!((clock.now().0 - NOW.0).abs() < 10_000);
        assert_eq!((clock.difference_ms(), clock.warning()), (0, None));
        let database = UnixMs(NOW.0 + 120 * 86_400_000 + 3 * 60_000);
        clock.follow(database);
        assert!((clock.now().0 - database.0).abs() < 10_000);
        let warning = clock.warning().expect("minutes apart");
        assert!(warning.contains("120 days and 3 minutes behind"), "{warning}");
        clock.follow(UnixMs(NOW.0 - TOLERANCE_MS));
        assert!(clock.warning().expect("minutes apart").contains("ahead of"));
    }

    #[test]
    fn a_fixed_clock_follows_nobody() {
        let clock = Clock::new(|| NOW);
        clock.follow(UnixMs(1));
        assert_eq!((clock.now(), clock.warning()), (NOW, None));
    }
}
