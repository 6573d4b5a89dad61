//! Memory that clients share, counted in bytes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many bytes in all, of which each holder may have its share.
pub(super) struct Budget<H> {
    capacity: usize,
    share: usize,
    taken: Mutex<Taken<H>>,
}

struct Taken<H> {
    total: usize,
    by_holder: HashMap<H, usize>,
}

impl<H: Clone + Eq + Hash> Budget<H> {
    /// A budget of `capacity` bytes, of which one holder has at most `share`.
    #[must_use]
    pub(super) fn new(capacity: usize, share: usize) -> Arc<Self> {
        let taken = Mutex::new(Taken { total: 0, by_holder: HashMap::new() });
        Arc::new(Self { capacity, share, taken })
    }

    /// A permit for no bytes yet.
    #[must_use]
    pub(super) fn permit(self: &Arc<Self>, holder: H) -> Permit<H> {
        Permit { budget: Arc::clone(self), holder, bytes: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, Taken<H>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a budget that one holder has, given back on drop.
pub(super) struct Permit<H: Clone + Eq + Hash> {
    budget: Arc<Budget<H>>,
    holder: H,
    bytes: usize,
}

impl<H: Clone + Eq + Hash> Permit<H> {
    /// Takes more bytes. False, and nothing is taken, when that is over the budget or the share.
    #[must_use]
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let mut taken = self.budget.taken();
        let own = taken.by_holder.get(&self.holder).copied().unwrap_or(0);
        let fits =
            |held: usize, limit: usize| held.checked_add(bytes).is_some_and(|all| all <= limit);
        if !fits(taken.total, self.budget.capacity) || !fits(own, self.budget.share) {
            return false;
        }
        taken.total += bytes;
        *taken.by_holder.entry(self.holder.clone()).or_default() += bytes;
        self.bytes += bytes;
        true
    }

    /// Bytes taken so far.
    #[must_use]
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives everything back.
    pub(super) fn give_back(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes == 0 {
            return;
        }
        let mut taken = self.budget.taken();
        taken.total -= bytes;
        if let Some(own) = taken.by_holder.get_mut(&self.holder) {
            *own -= bytes;
            if *own == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
    }
}

impl<H: Clone + Eq + Hash> Drop for Permit<H> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_the_share_and_all_together_no_more_than_there_is() {
        let budget = Budget::new(100, 60);
        let mut first = budget.permit("a");
        let mut second = budget.permit("a");
        assert!(first.take(50) && second.take(10));
        assert!(!second.take(1), "over the share of a");
        let mut other = budget.permit("b");
        assert!(other.take(40));
        assert!(!other.take(1), "over the capacity");
        drop(first);
        assert!(other.take(20) && second.take(20));
        assert!(!other.take(usize::MAX));
        drop((second, other));
        let taken = budget.taken();
        assert!(taken.total == 0 && taken.by_holder.is_empty());
    }
}
