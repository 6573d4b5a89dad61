//! Log lines about what may happen all the time.

use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_mins(1);

/// Events of one kind, of which the log has at most one line a minute.
#[derive(Debug, Default)]
pub struct OnceAMinute {
    events: u64,
    logged_at: Option<Instant>,
}

impl OnceAMinute {
    /// Counts an event. Returns how many there were since the last line, if a line is due.
    pub fn count(&mut self) -> Option<u64> {
        self.count_all(1)
    }

    /// Counts so many events at once.
    pub fn count_all(&mut self, events: u64) -> Option<u64> {
        self.events += events;
        if self.logged_at.is_some_and(|at| at.elapsed() < EVERY) {
            return None;
        }
        self.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut self.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_what_came_since_the_one_before() {
        let mut events = OnceAMinute::default();
        assert_eq!([events.count(), events.count(), events.count()], [Some(1), None, None]);
        events.logged_at = Instant::now().checked_sub(EVERY);
        assert_eq!([events.count(), events.count()], [Some(3), None]);
    }
}
