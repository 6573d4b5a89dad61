//! When people watch: the day's curve with its evening peak, and more on weekends. UTC.

const HOUR_MS: u64 = 3_600_000;

/// Viewers by hour of the day, in arbitrary units.
const BY_HOUR: [f64; 24] = [
    3.0, 1.8, 1.1, 0.8, 0.7, 0.8, 1.3, 2.2, 2.8, 3.0, 3.2, 3.6, //
    4.2, 4.2, 4.0, 4.1, 4.6, 5.6, 7.2, 9.0, 10.0, 9.4, 7.4, 5.0,
];
/// From Sunday on.
const BY_WEEKDAY: [f64; 7] = [1.35, 0.95, 0.95, 1.0, 1.0, 1.15, 1.4];

fn weight(unix_ms: u64) -> f64 {
    let hour = unix_ms / HOUR_MS;
    // The epoch was a Thursday, day 4 when Sunday is 0.
    let weekday = (hour / 24 + 4) % 7;
    let (hour, weekday) = (usize::try_from(hour % 24), usize::try_from(weekday));
    BY_HOUR[hour.unwrap_or_default()] * BY_WEEKDAY[weekday.unwrap_or_default()]
}

/// A stretch of the past, to spread sessions over.
#[derive(Debug, Clone)]
pub(super) struct Rhythm {
    from_ms: u64,
    until_ms: u64,
    /// Weight of everything before the end of each hour slot.
    cumulative: Vec<f64>,
}

impl Rhythm {
    /// From `from_ms` to `until_ms` (Unix, milliseconds); an empty stretch counts as one
    /// millisecond.
    pub(super) fn new(from_ms: u64, until_ms: u64) -> Self {
        let until_ms = until_ms.max(from_ms + 1);
        let mut cumulative = Vec::new();
        let mut sum = 0.0;
        let mut slot_ms = from_ms;
        while slot_ms < until_ms {
            let slot_end_ms = (slot_ms + HOUR_MS).min(until_ms);
            let middle_ms = u64::midpoint(slot_ms, slot_end_ms);
            sum += weight(middle_ms) * (slot_end_ms - slot_ms) as f64;
            cumulative.push(sum);
            slot_ms = slot_end_ms;
        }
        Self { from_ms, until_ms, cumulative }
    }

    /// The moment at which `share` (0 to 1) of all sessions have begun.
    pub(super) fn moment(&self, share: f64) -> u64 {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let target = share.clamp(0.0, 1.0) * total;
        let slot = self.cumulative.partition_point(|&sum| sum <= target);
        let slot = slot.min(self.cumulative.len() - 1);
        let before = if slot == 0 { 0.0 } else { self.cumulative[slot - 1] };
        let within = (target - before) / (self.cumulative[slot] - before);
        let slot_ms = self.from_ms + slot as u64 * HOUR_MS;
        let slot_length_ms = HOUR_MS.min(self.until_ms - slot_ms);
        let offset_ms = super::chance::whole(within * slot_length_ms as f64);
        (slot_ms + offset_ms).min(self.until_ms - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * HOUR_MS;
    /// A Monday, midnight.
    const MONDAY_MS: u64 = 20_409 * DAY_MS;

    fn starts(from_ms: u64, until_ms: u64, count: u32) -> Vec<u64> {
        let rhythm = Rhythm::new(from_ms, until_ms);
        (0..count).map(|i| rhythm.moment((f64::from(i) + 0.5) / f64::from(count))).collect()
    }

    #[test]
    fn moments_grow_and_stay_inside() {
        let (from, until) = (MONDAY_MS + 1_234_567, MONDAY_MS + 3 * DAY_MS + 99);
        let starts = starts(from, until, 5_000);
        assert!(starts.is_sorted());
        assert!(starts.iter().all(|start| (from..until).contains(start)));
    }

    #[test]
    fn evenings_are_busier_than_nights() {
        let starts = starts(MONDAY_MS, MONDAY_MS + DAY_MS, 10_000);
        let in_hours = |hours: std::ops::Range<u64>| {
            starts.iter().filter(|start| hours.contains(&(*start % DAY_MS / HOUR_MS))).count()
        };
        assert!(in_hours(19..22) > 6 * in_hours(2..5));
    }

    #[test]
    fn weekends_are_busier_than_weekdays() {
        let starts = starts(MONDAY_MS, MONDAY_MS + 7 * DAY_MS, 20_000);
        let on_day =
            |day: u64| starts.iter().filter(|start| (*start - MONDAY_MS) / DAY_MS == day).count();
        assert!(on_day(5) > on_day(1) * 13 / 10, "Saturday against Tuesday");
    }

    #[test]
    fn the_shortest_stretch_works() {
        assert_eq!(Rhythm::new(5, 5).moment(0.7), 5);
    }
}
