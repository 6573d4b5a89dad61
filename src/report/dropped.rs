//! What of a report is not stored because it cannot be: a player's quirk must not cost the
//! session.

/// Optional numbers by their key in the report, as `field` of `report_values_dropped_total` names
/// them.
pub const NUMBER_FIELDS: [&str; 19] = [
    "avgBitrateKbps",
    "droppedFrames",
    "errorCount",
    "meanVideoFormatBitrate",
    "playTimeMs",
    "qualitySwitchCount",
    "rebufferCount",
    "rebufferRatio",
    "rebufferTimeMs",
    "sessionDurationMs",
    "startupTimeMs",
    "timelineEvents.bufferedDurationMs",
    "timelineEvents.currentBitrate",
    "timelineEvents.rebufferCount",
    "timelineEvents.rebufferTimeMs",
    "timelineEvents.totalDroppedFrames",
    "totalDroppedFrames",
    "totalSeekCount",
    "totalSeekTimeMs",
];

/// What of one report was not stored. The payload has all of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Values that cannot be, by field, and how many of each.
    pub values: Vec<(&'static str, u32)>,
    /// Timeline entries that cannot be.
    pub invalid_entries: u32,
    /// Timeline entries beyond those that a report may bring.
    pub thinned_entries: u32,
}

impl Dropped {
    /// Whether all of the report was stored.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty() && self.invalid_entries == 0 && self.thinned_entries == 0
    }

    /// Counts a value of one of [`NUMBER_FIELDS`].
    pub(super) fn value(&mut self, field: &'static str) {
        debug_assert!(NUMBER_FIELDS.contains(&field), "{field}");
        match self.values.iter_mut().find(|(known, _)| *known == field) {
            Some((_, count)) => *count += 1,
            None => self.values.push((field, 1)),
        }
    }
}
