//! Timeline entries, and the compact JSON in which the entries of a report are stored.
//!
//! An entry is an array: `elapsed_ms, timestamp_ms, playback_state, current_bitrate,
//! network_type, total_dropped_frames, buffered_duration_ms, rebuffer_count, rebuffer_time_ms,
//! other fields`, without the nulls at its end. Equal entries are equal texts, so a retried
//! report is recognised without a look at the values.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde_json::value::RawValue;

const TYPICAL_ENTRY_BYTES: usize = 72;

/// One entry of a session's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// Device clock, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Milliseconds since the session began.
    pub elapsed_ms: i64,
    /// What the player was doing.
    pub playback_state: PlaybackState,
    /// Bits per second.
    pub current_bitrate: Option<i64>,
    /// As the SDK names it, for example `Wi-Fi`.
    pub network_type: Option<String>,
    /// Running total of the session.
    pub total_dropped_frames: Option<i64>,
    /// Media buffered ahead, milliseconds.
    pub buffered_duration_ms: Option<i64>,
    /// Running total of the session.
    pub rebuffer_count: Option<i32>,
    /// Running total of the session, milliseconds.
    pub rebuffer_time_ms: Option<i64>,
    /// Fields that no column is for, as a JSON object.
    pub other_fields: Option<String>,
}

/// Player states of a timeline entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PlaybackState {
    Idle,
    Buffering,
    Playing,
    Paused,
    Ended,
}

impl PlaybackState {
    /// All states, for messages and decoding.
    pub const ALL: [Self; 5] =
        [Self::Idle, Self::Buffering, Self::Playing, Self::Paused, Self::Ended];

    /// The name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "IDLE",
            Self::Buffering => "BUFFERING",
            Self::Playing => "PLAYING",
            Self::Paused => "PAUSED",
            Self::Ended => "ENDED",
        }
    }
}

impl TimelineEntry {
    /// Appends the entry as it is stored: a JSON array.
    fn write_json(&self, json: &mut String) {
        fn put(json: &mut String, end: &mut usize, value: Option<impl fmt::Display>) {
            match value {
                Some(value) => {
                    let _ = write!(json, ",{value}");
                    *end = json.len();
                }
                None => json.push_str(",null"),
            }
        }
        let state = self.playback_state.as_str();
        let _ = write!(json, r#"[{},{},"{state}""#, self.elapsed_ms, self.timestamp_ms);
        // Where the last value that is not null ends.
        let end = &mut json.len();
        put(json, end, self.current_bitrate);
        put(json, end, self.network_type.as_deref().map(serde_json::Value::from));
        put(json, end, self.total_dropped_frames);
        put(json, end, self.buffered_duration_ms);
        put(json, end, self.rebuffer_count);
        put(json, end, self.rebuffer_time_ms);
        put(json, end, self.other_fields.as_deref());
        json.truncate(*end);
        json.push(']');
    }
}

/// The entries of one or more reports of a session, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// `elapsed_ms` of the first entry.
    pub from_ms: i64,
    /// `elapsed_ms` of the last entry.
    pub until_ms: i64,
    /// How many entries there are.
    pub count: i32,
    /// The entries in order of `elapsed_ms`, as a JSON array.
    pub json: Box<str>,
}

impl Timeline {
    /// The timeline of a report; `None` without entries. Entries of one `elapsed_ms` stay in the
    /// order in which they were sent; equal ones count once.
    #[must_use]
    pub fn of(entries: &[TimelineEntry]) -> Option<Self> {
        let (first, last) = (entries.first()?, entries.last()?);
        if !entries.windows(2).all(|pair| pair[0].elapsed_ms < pair[1].elapsed_ms) {
            let entry = |entry: &TimelineEntry| {
                let mut json = String::new();
                entry.write_json(&mut json);
                (entry.elapsed_ms, json)
            };
            return Self::from_json(entries.iter().map(entry).collect());
        }
        let mut json = String::with_capacity(entries.len() * TYPICAL_ENTRY_BYTES);
        for entry in entries {
            json.push(if json.is_empty() { '[' } else { ',' });
            entry.write_json(&mut json);
        }
        json.push(']');
        let count = i32::try_from(entries.len()).unwrap_or(i32::MAX);
        Some(Self {
            from_ms: first.elapsed_ms,
            until_ms: last.elapsed_ms,
            count,
            json: json.into(),
        })
    }

    /// The entries of several reports of one session.
    #[must_use]
    pub fn merged<'a>(timelines: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        Self::of_texts(timelines.into_iter().flat_map(Self::texts))
    }

    /// The entries that are in `wanted`, which are texts as in [`Self::texts`].
    #[must_use]
    pub fn only(&self, wanted: &HashSet<&str>) -> Option<Self> {
        Self::of_texts(self.texts().filter(|entry| wanted.contains(entry)))
    }

    /// The entries, or where there are more, as many as fit into so many entries and bytes, evenly
    /// spread, the first and the last among them.
    #[must_use]
    pub fn thinned(&self, entries: usize, bytes: usize) -> Option<Self> {
        let texts: Vec<&str> = self.texts().collect();
        let mut wanted = texts.len().min(entries);
        loop {
            let chosen = evenly(texts.len(), wanted);
            let thinned = Self::of_texts(chosen.map(|index| texts[index]))?;
            if thinned.json.len() <= bytes {
                return Some(thinned);
            }
            // At least one less, and about as many as there is room for.
            wanted = (wanted * bytes / thinned.json.len()).min(wanted - 1);
        }
    }

    /// Length of [`Self::json`].
    #[must_use]
    pub fn bytes(&self) -> i32 {
        i32::try_from(self.json.len()).unwrap_or(i32::MAX)
    }

    /// The entries, each as the text that it is stored as.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        Self::split(&self.json).map(RawValue::get)
    }

    /// The entries of a stored array. What is no such array was written by somebody else and
    /// holds nothing that equals an entry.
    pub fn split(json: &str) -> impl Iterator<Item = &RawValue> {
        serde_json::from_str::<Vec<&RawValue>>(json).unwrap_or_default().into_iter()
    }

    fn of_texts<'a>(entries: impl Iterator<Item = &'a str>) -> Option<Self> {
        Self::from_json(entries.map(|entry| (elapsed_ms(entry), entry.to_owned())).collect())
    }

    fn from_json(mut entries: Vec<(i64, String)>) -> Option<Self> {
        // Stable, so the first one sent comes first.
        entries.sort_by_key(|(elapsed_ms, _)| *elapsed_ms);
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            let mut seen = HashSet::new();
            entries.retain(|(_, json)| seen.insert(json.clone()));
        }
        let (from_ms, until_ms) = (entries.first()?.0, entries.last()?.0);
        let count = i32::try_from(entries.len()).unwrap_or(i32::MAX);
        let length: usize = entries.iter().map(|(_, json)| json.len() + 1).sum();
        let mut json = String::with_capacity(length + 1);
        for (_, entry) in &entries {
            json.push(if json.is_empty() { '[' } else { ',' });
            json.push_str(entry);
        }
        json.push(']');
        Some(Self { from_ms, until_ms, count, json: json.into() })
    }
}

/// Indexes of `wanted` of `total` things, evenly spread, the first and the last among them.
pub(super) fn evenly(total: usize, wanted: usize) -> impl Iterator<Item = usize> {
    let (last, steps) = (total.saturating_sub(1), wanted.saturating_sub(1).max(1));
    (0..wanted.min(total)).map(move |nth| nth * last / steps)
}

/// The first number of a stored entry.
fn elapsed_ms(entry: &str) -> i64 {
    let number = entry[1..].split([',', ']']).next().unwrap_or_default();
    number.parse().expect("written by write_json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(elapsed_ms: i64, playback_state: PlaybackState) -> TimelineEntry {
        TimelineEntry {
            timestamp_ms: 1_795_000_000_000 + elapsed_ms,
            elapsed_ms,
            playback_state,
            current_bitrate: None,
            network_type: None,
            total_dropped_frames: None,
            buffered_duration_ms: None,
            rebuffer_count: None,
            rebuffer_time_ms: None,
            other_fields: None,
        }
    }

    fn json(entry: &TimelineEntry) -> String {
        let mut json = String::new();
        entry.write_json(&mut json);
        json
    }

    use PlaybackState::{Buffering, Paused, Playing};

    #[test]
    fn an_entry_is_an_array_without_the_nulls_at_its_end() {
        assert_eq!(json(&entry(7, Playing)), r#"[7,1795000000007,"PLAYING"]"#);
        let full = TimelineEntry {
            current_bitrate: Some(3_200_000),
            network_type: Some("Wi-\"Fi".to_owned()),
            rebuffer_time_ms: Some(9),
            ..entry(7, Playing)
        };
        let expected = r#"[7,1795000000007,"PLAYING",3200000,"Wi-\"Fi",null,null,null,9]"#;
        assert_eq!(json(&full), expected);
        let other = TimelineEntry { other_fields: Some(r#"{"a":1}"#.to_owned()), ..full };
        assert_eq!(json(&other), expected.replace(']', r#",{"a":1}]"#));
    }

    #[test]
    fn entries_are_ordered_and_equal_ones_count_once() {
        let sent = [entry(9, Playing), entry(7, Paused), entry(7, Buffering), entry(7, Paused)];
        let timeline = Timeline::of(&sent).expect("entries");
        assert_eq!((timeline.from_ms, timeline.until_ms, timeline.count), (7, 9, 3));
        let expected = [&sent[1], &sent[2], &sent[0]].map(json).join(",");
        assert_eq!(*timeline.json, format!("[{expected}]"));
        assert_eq!(Timeline::of(&[]), None);
    }

    #[test]
    fn a_timeline_is_thinned_evenly() {
        let all: Vec<TimelineEntry> = (0..100).map(|at| entry(at, Playing)).collect();
        let timeline = Timeline::of(&all).expect("entries");
        let elapsed = |timeline: &Timeline| timeline.texts().map(elapsed_ms).collect::<Vec<_>>();
        assert_eq!(timeline.thinned(100, 10_000), Some(timeline.clone()));
        assert_eq!(elapsed(&timeline.thinned(4, 10_000).expect("some")), [0, 33, 66, 99]);
        assert_eq!(elapsed(&timeline.thinned(1, 10_000).expect("one")), [0]);
        assert_eq!(timeline.thinned(0, 10_000), None);
        assert_eq!(timeline.thinned(100, 10), None);
        let half = timeline.thinned(100, timeline.json.len() / 2).expect("some");
        assert!(half.json.len() <= timeline.json.len() / 2 && half.count >= 45, "{half:?}");
        assert_eq!((half.from_ms, half.until_ms), (0, 99));
    }

    #[test]
    fn timelines_merge_and_are_narrowed() {
        let one = Timeline::of(&[entry(1, Buffering), entry(2, Playing)]).expect("entries");
        let two = Timeline::of(&[entry(2, Playing), entry(2, Paused)]).expect("entries");
        let both = Timeline::of(&[entry(1, Buffering), entry(2, Playing), entry(2, Paused)]);
        assert_eq!(Timeline::merged([&one, &two]), both);
        assert_eq!(Timeline::merged([&one]), Some(one.clone()));
        assert_eq!(Timeline::merged([]), None);
        assert_eq!(two.only(&one.texts().collect()), Timeline::of(&[entry(2, Playing)]));
        assert_eq!(two.only(&two.texts().collect()), Some(two.clone()));
        assert_eq!(two.only(&HashSet::from(["nonsense"])), None);
        assert_eq!(Timeline::split("nonsense").count(), 0);
        assert_eq!(usize::try_from(two.bytes()).expect("positive"), two.json.len());
    }
}
