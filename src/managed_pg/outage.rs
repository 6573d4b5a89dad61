use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Since when the built-in PostgreSQL has been down, for those who must know. The default never
/// is: a database that others run.
#[derive(Debug, Clone, Default)]
pub struct Outage(Arc<Mutex<Option<Instant>>>);

impl Outage {
    /// Whether PostgreSQL is down, and has been for longer than `moment`.
    #[must_use]
    pub fn is_longer_than(&self, moment: Duration) -> bool {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > moment)
    }

    pub(super) fn begins(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn ends(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
