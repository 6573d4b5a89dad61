//! The report as the SDKs send it: every known field, whatever its type turned out to be.
//!
//! Decoding never fails on a wrong type; it records what was there, so that validation can
//! name the field. A key that appears twice counts once, the last one, as in jsonb.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::path_at;
use super::rejection::Rejection;

/// Timeline entries that a report may bring; of more, as many are kept.
pub(super) const MAX_TIMELINE_ENTRIES: usize = 2_000;

/// A scalar of any type, or the name of what stood there instead.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) enum Value<'a> {
    /// Absent or null: the SDKs mean the same by both.
    #[default]
    Unset,
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Other(&'static str),
}

impl Value<'_> {
    /// The JSON type, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Unset => "null",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
            Self::Other(kind) => kind,
        }
    }
}

/// Something that should have a certain shape (`T`), or what stood there instead.
#[derive(Debug, Default)]
pub(super) enum Shaped<T> {
    #[default]
    Unset,
    Is(T),
    Other(&'static str),
}

/// The first elements of an array, up to [`MAX_TIMELINE_ENTRIES`], and how many there were.
#[derive(Debug)]
pub(super) struct Entries<T> {
    pub(super) first: Vec<Shaped<T>>,
    pub(super) total: usize,
}

/// What an array or an object becomes; a type overrides the one that it is made from.
trait Shape<'de>: Sized {
    fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Shaped<Self>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Shaped::Other("an object"))
    }

    fn from_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Shaped<Self>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Shaped::Other("an array"))
    }
}

macro_rules! wire_object {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty = $key:literal),* $(,)? } $other:ty) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> { $(pub(super) $field: $ty,)* pub(super) other: $other }

        impl<'de> Shape<'de> for $name<'de> {
            fn from_map<A: MapAccess<'de>>(mut map: A) -> Result<Shaped<Self>, A::Error> {
                let mut object = Self::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    match key.0.as_ref() {
                        $($key => object.$field = map.next_value()?,)*
                        _ => object.other.keep(key, &mut map)?,
                    }
                }
                Ok(Shaped::Is(object))
            }
        }
    };
}

/// What becomes of the fields that nobody knows.
trait Unknown<'de> {
    fn keep<A: MapAccess<'de>>(&mut self, key: Key<'de>, map: &mut A) -> Result<(), A::Error>;
}

/// They are in the payload, and nowhere else.
#[derive(Debug, Default)]
pub(super) struct Ignored;

impl<'de> Unknown<'de> for Ignored {
    fn keep<A: MapAccess<'de>>(&mut self, _: Key<'de>, map: &mut A) -> Result<(), A::Error> {
        map.next_value::<IgnoredAny>().map(drop)
    }
}

/// They stay with their object.
#[derive(Debug, Default)]
pub(super) struct OtherFields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Unknown<'de> for OtherFields<'de> {
    fn keep<A: MapAccess<'de>>(&mut self, key: Key<'de>, map: &mut A) -> Result<(), A::Error> {
        self.0.push((key.0, map.next_value()?));
        Ok(())
    }
}

impl OtherFields<'_> {
    /// The fields as a JSON object; `None` where there are none.
    pub(super) fn object(&self) -> Option<String> {
        let field = |(key, value): &(Cow<'_, str>, &RawValue)| {
            format!("{}:{}", serde_json::Value::from(key.as_ref()), value.get())
        };
        let fields: Vec<String> = self.0.iter().map(field).collect();
        (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(",")))
    }
}

wire_object! {
    /// Fields of all three SDK generations.
    Report {
        schema_version: Value<'a> = "schemaVersion",
        session_id: Value<'a> = "sessionId",
        timestamp: Value<'a> = "timestamp",
        session_start: Value<'a> = "sessionStartDateIso",
        session_duration_ms: Value<'a> = "sessionDurationMs",
        content_id: Value<'a> = "contentId",
        stream_type: Value<'a> = "streamType",
        startup_time_ms: Value<'a> = "startupTimeMs",
        play_time_ms: Value<'a> = "playTimeMs",
        rebuffer_time_ms: Value<'a> = "rebufferTimeMs",
        rebuffer_count: Value<'a> = "rebufferCount",
        rebuffer_ratio: Value<'a> = "rebufferRatio",
        error_count: Value<'a> = "errorCount",
        last_error_code: Value<'a> = "lastErrorCode",
        last_error_category: Value<'a> = "lastErrorCategory",
        quality_switch_count: Value<'a> = "qualitySwitchCount",
        avg_bitrate_kbps: Value<'a> = "avgBitrateKbps",
        mean_video_format_bitrate: Value<'a> = "meanVideoFormatBitrate",
        dropped_frames: Value<'a> = "droppedFrames",
        total_dropped_frames: Value<'a> = "totalDroppedFrames",
        total_seek_count: Value<'a> = "totalSeekCount",
        total_seek_time_ms: Value<'a> = "totalSeekTimeMs",
        device: Shaped<Device<'a>> = "device",
        app: Shaped<AppInfo<'a>> = "app",
        device_model: Value<'a> = "deviceModel",
        os_version: Value<'a> = "osVersion",
        sdk_version: Value<'a> = "sdkVersion",
        connection_type: Value<'a> = "connectionType",
        timeline: Shaped<Entries<TimelineEvent<'a>>> = "timelineEvents",
    } Ignored
}

wire_object! {
    /// `device` of generation A.
    Device { model: Value<'a> = "model", os: Value<'a> = "os", os_version: Value<'a> = "osVersion" }
    Ignored
}

wire_object! {
    /// `app` of generation A.
    AppInfo { name: Value<'a> = "name", version: Value<'a> = "version" } Ignored
}

wire_object! {
    /// One entry of `timelineEvents` of generation C.
    TimelineEvent {
        timestamp_ms: Value<'a> = "timestampMs",
        elapsed_ms: Value<'a> = "elapsedMs",
        playback_state: Value<'a> = "playbackState",
        current_bitrate: Value<'a> = "currentBitrate",
        network_type: Value<'a> = "networkType",
        total_dropped_frames: Value<'a> = "totalDroppedFrames",
        buffered_duration_ms: Value<'a> = "bufferedDurationMs",
        rebuffer_count: Value<'a> = "rebufferCount",
        rebuffer_time_ms: Value<'a> = "rebufferTimeMs",
    } OtherFields<'a>
}

wire_object! {
    /// The timeline of a report as text.
    TimelineText { entries: Option<&'a RawValue> = "timelineEvents" } Ignored
}

/// All timeline entries in the text of a report, decoded one at a time: in memory, one takes
/// several times its length as text.
pub(super) fn all_entries(text: &str) -> impl Iterator<Item = Shaped<TimelineEvent<'_>>> {
    let entries = match serde_json::from_str::<Shaped<TimelineText<'_>>>(text) {
        Ok(Shaped::Is(report)) => report.entries.map_or("[]", RawValue::get),
        _ => "[]",
    };
    let entries: Vec<&RawValue> = serde_json::from_str(entries).unwrap_or_default();
    entries.into_iter().map(|entry| serde_json::from_str(entry.get()).unwrap_or_default())
}

/// Decodes the text of one report.
pub(super) fn decode(text: &str) -> Result<Report<'_>, Rejection> {
    match serde_json::from_str::<Shaped<Report<'_>>>(text) {
        Ok(Shaped::Is(report)) => Ok(report),
        Ok(Shaped::Unset) => Err(Rejection::invalid("$", "expected an object, found null")),
        Ok(Shaped::Other(kind)) => {
            Err(Rejection::invalid("$", format!("expected an object, found {kind}")))
        }
        Err(error) => Err(syntax_error(text, &error)),
    }
}

fn syntax_error(text: &str, error: &serde_json::Error) -> Rejection {
    if text.trim_ascii().is_empty() {
        return Rejection::invalid("$", "the body is empty, expected a JSON object");
    }
    if error.is_eof() {
        let field = path_at(text, text.len());
        return Rejection::invalid(field, format!("not valid JSON: {error}"));
    }
    let line_start: usize =
        text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let field = path_at(text, line_start + error.column().saturating_sub(1));
    Rejection::invalid(field, format!("not valid JSON: {error}"))
}

/// A key of an object, without its escapes.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Value::Other("a boolean"))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Self::Value, E> {
                Ok(Value::Int(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
                Ok(i64::try_from(v).map_or(Value::Float(v as f64), Value::Int))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Self::Value, E> {
                Ok(Value::Float(v))
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Value::Text(Cow::Owned(v.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Value::Unset)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Value::Other("an array"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Value::Other("an object"))
            }
        }
        deserializer.deserialize_any(ValueVisitor)
    }
}

impl<'de, T: Shape<'de>> Shape<'de> for Entries<T> {
    fn from_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Shaped<Self>, A::Error> {
        let mut first = Vec::new();
        while first.len() < MAX_TIMELINE_ENTRIES {
            let Some(entry) = seq.next_element()? else {
                return Ok(Shaped::Is(Self { total: first.len(), first }));
            };
            first.push(entry);
        }
        let mut total = first.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            total += 1;
        }
        Ok(Shaped::Is(Self { first, total }))
    }
}

impl<'de, T: Shape<'de>> Deserialize<'de> for Shaped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapedVisitor<T>(PhantomData<T>);
        impl<'de, T: Shape<'de>> Visitor<'de> for ShapedVisitor<T> {
            type Value = Shaped<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Shaped::Other("a boolean"))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Shaped::Other("a number"))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Shaped::Other("a number"))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Shaped::Other("a number"))
            }
            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Shaped::Other("a string"))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Shaped::Unset)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                T::from_seq(seq)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::from_map(map)
            }
        }
        deserializer.deserialize_any(ShapedVisitor(PhantomData))
    }
}
