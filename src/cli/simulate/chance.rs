//! Seeded randomness: one generator for each thing simulated, so that concurrency changes nothing.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::StandardNormal;

/// What a generator is for. Each domain draws numbers of its own, so that a live run and a
/// history with the same seed do not produce the same session ids.
#[derive(Debug, Clone, Copy)]
pub(super) enum Domain {
    /// The device of a live viewer.
    Viewer,
    /// One session of a live viewer.
    LiveSession,
    /// One session of the past.
    HistorySession,
}

/// The generator of thing number `index` of `domain` under `seed`.
pub(super) fn generator(seed: u64, domain: Domain, index: u64) -> StdRng {
    let domain: u64 = match domain {
        Domain::Viewer => 1,
        Domain::LiveSession => 2,
        Domain::HistorySession => 3,
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&domain.to_le_bytes());
    bytes[16..24].copy_from_slice(&index.to_le_bytes());
    StdRng::from_seed(bytes)
}

/// A log-normal draw: `median` times e to the power of a normal with deviation `sigma`.
pub(super) fn log_normal(rng: &mut StdRng, median: f64, sigma: f64) -> f64 {
    let normal: f64 = rng.sample(StandardNormal);
    median * (sigma * normal).exp()
}

/// An exponential draw: the wait for something that happens once in `mean` on average.
pub(super) fn exponential(rng: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

/// One of `choices`, by weight.
pub(super) fn pick<'a, T>(rng: &mut StdRng, choices: &'a [(T, u32)]) -> &'a T {
    let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
    let mut ticket = rng.random_range(0..total);
    for (choice, weight) in choices {
        if ticket < *weight {
            return choice;
        }
        ticket -= weight;
    }
    unreachable!("the ticket is smaller than the sum of the weights")
}

/// A non-negative float as whole milliseconds (or whatever unit it has), rounded down.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and all values here are clamped durations and counts"
)]
pub(super) fn whole(value: f64) -> u64 {
    value as u64
}
