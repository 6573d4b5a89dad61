//! The timeline entries of a report: one that cannot be is left out alone.

use super::dropped::Dropped;
use super::number::{is_negative, required_duration, required_time, wrong_type};
use super::rejection::Rejection;
use super::timeline::{PlaybackState, TimelineEntry, evenly};
use super::validate::text;
use super::wire::{MAX_TIMELINE_ENTRIES, Report, Shaped, TimelineEvent, Value, all_entries};

const FIELD: &str = "timelineEvents";

/// The entries that are stored, in the order in which they were sent.
pub(super) fn of(
    report: &Report<'_>,
    whole_report: &str,
    dropped: &mut Dropped,
) -> Result<Vec<TimelineEntry>, Rejection> {
    let entries = match &report.timeline {
        Shaped::Unset => return Ok(Vec::new()),
        Shaped::Is(entries) => entries,
        Shaped::Other(kind) => return Err(wrong_type(FIELD, "an array", kind)),
    };
    let mut stored = Vec::with_capacity(entries.first.len());
    if entries.total <= MAX_TIMELINE_ENTRIES {
        for (index, entry) in entries.first.iter().enumerate() {
            stored.extend(checked(index, entry, dropped)?);
        }
        return Ok(stored);
    }
    for (index, entry) in all_entries(whole_report).enumerate() {
        stored.extend(checked(index, &entry, dropped)?);
    }
    Ok(thinned(stored, dropped))
}

/// As many entries as a report may bring, evenly spread, the first and the last among them.
fn thinned(entries: Vec<TimelineEntry>, dropped: &mut Dropped) -> Vec<TimelineEntry> {
    let left_out = entries.len().saturating_sub(MAX_TIMELINE_ENTRIES);
    if left_out == 0 {
        return entries;
    }
    dropped.thinned_entries = u32::try_from(left_out).unwrap_or(u32::MAX);
    let mut wanted = evenly(entries.len(), MAX_TIMELINE_ENTRIES);
    let mut next = wanted.next();
    let is_wanted = |(index, entry)| {
        (next == Some(index)).then(|| {
            next = wanted.next();
            entry
        })
    };
    entries.into_iter().enumerate().filter_map(is_wanted).collect()
}

/// The entry, unless it cannot be.
fn checked(
    index: usize,
    entry: &Shaped<TimelineEvent<'_>>,
    dropped: &mut Dropped,
) -> Result<Option<TimelineEntry>, Rejection> {
    let name = || format!("{FIELD}[{index}]");
    let event = match entry {
        Shaped::Is(event) => event,
        Shaped::Unset => return Err(wrong_type(&name(), "an object", "null")),
        Shaped::Other(kind) => return Err(wrong_type(&name(), "an object", kind)),
    };
    // Paths with an index are made for errors only: there may be 2,000 entries.
    let entry = entry_of(event, dropped).map_err(|rejection| Rejection {
        field: rejection.field.replacen(FIELD, &name(), 1),
        ..rejection
    })?;
    dropped.invalid_entries += u32::from(entry.is_none());
    Ok(entry)
}

fn entry_of(
    event: &TimelineEvent<'_>,
    dropped: &mut Dropped,
) -> Result<Option<TimelineEntry>, Rejection> {
    let timestamp_ms = required_time("timelineEvents.timestampMs", &event.timestamp_ms)?;
    let elapsed_ms = required_duration("timelineEvents.elapsedMs", &event.elapsed_ms)?;
    let playback_state = playback_state(&event.playback_state)?;
    let has_negative_total = is_negative("timelineEvents.rebufferCount", &event.rebuffer_count)?
        | is_negative("timelineEvents.rebufferTimeMs", &event.rebuffer_time_ms)?
        | is_negative("timelineEvents.totalDroppedFrames", &event.total_dropped_frames)?;
    // Everything is read before anything is left out: a wrong type is an error in any entry.
    let mut values = Dropped::default();
    let entry = TimelineEntry {
        timestamp_ms: timestamp_ms.unwrap_or_default(),
        elapsed_ms: elapsed_ms.unwrap_or_default(),
        playback_state: playback_state.unwrap_or(PlaybackState::Idle),
        current_bitrate: values.large("timelineEvents.currentBitrate", &event.current_bitrate)?,
        network_type: text("timelineEvents.networkType", &event.network_type)?,
        total_dropped_frames: values
            .large("timelineEvents.totalDroppedFrames", &event.total_dropped_frames)?,
        buffered_duration_ms: values
            .duration("timelineEvents.bufferedDurationMs", &event.buffered_duration_ms)?,
        rebuffer_count: values.count("timelineEvents.rebufferCount", &event.rebuffer_count)?,
        rebuffer_time_ms: values
            .duration("timelineEvents.rebufferTimeMs", &event.rebuffer_time_ms)?,
        other_fields: event.other.object(),
    };
    let is_possible = timestamp_ms.is_some() && elapsed_ms.is_some() && playback_state.is_some();
    if !is_possible || has_negative_total {
        return Ok(None);
    }
    for (field, _) in values.values {
        dropped.value(field);
    }
    Ok(Some(entry))
}

/// Nothing where the state is unknown or missing.
fn playback_state(value: &Value<'_>) -> Result<Option<PlaybackState>, Rejection> {
    match value {
        Value::Unset => Ok(None),
        Value::Text(text) => {
            Ok(PlaybackState::ALL.into_iter().find(|state| state.as_str() == text.as_ref()))
        }
        other => Err(wrong_type("timelineEvents.playbackState", "a string", other.kind())),
    }
}
