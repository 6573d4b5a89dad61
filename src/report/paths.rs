//! Own fields of an app, such as `custom.cdn`: where in a report they are, and their values.
//!
//! Values are those of PostgreSQL's `payload #>> path`, so that columns can be filled from stored
//! payloads too: numbers are written out, and of a key that appears twice the last one counts.

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::validate::column_text;
use super::wire::Key;

/// What has tables of its own.
const TIMELINE: &str = "timelineEvents";

/// Which column holds an own field: `dimension_1` to `dimension_8`, or `viewer_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// The column that has an index.
    pub const VIEWER_ID: Self = Self(0);
    /// Columns for dimensions.
    pub const DIMENSIONS: u8 = 8;
    const ALL: usize = 1 + Self::DIMENSIONS as usize;

    /// The columns for dimensions, in order.
    pub fn dimensions() -> impl Iterator<Item = Self> {
        (1..=Self::DIMENSIONS).map(Self)
    }

    /// The slot that table `own_dimensions` calls by this number.
    #[must_use]
    pub fn of_number(number: i16) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| *number <= Self::DIMENSIONS).map(Self)
    }

    /// How table `own_dimensions` calls it.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The name of its column.
    #[must_use]
    pub fn column(self) -> String {
        match self.0 {
            0 => "viewer_id".to_owned(),
            number => format!("dimension_{number}"),
        }
    }

    /// The slot of a column, if it is one of these.
    #[must_use]
    pub fn of_column(name: &str) -> Option<Self> {
        (0..=Self::DIMENSIONS).map(Self).find(|slot| slot.column() == name)
    }
}

/// The keys that lead to a value from the report's object on: `custom.cdn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<String>);

impl Path {
    /// What is allowed.
    pub const EXPECTED: &str =
        "keys of the report separated by dots, such as custom.cdn, none in timelineEvents";

    /// The keys, from the outermost on.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for Path {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let keys: Vec<String> = text.split('.').map(|key| key.trim().to_owned()).collect();
        let is_key = |key: &String| !key.is_empty() && !key.contains(char::is_control);
        if keys.iter().all(is_key) && keys[0] != TIMELINE {
            Ok(Self(keys))
        } else {
            Err(Self::EXPECTED)
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A field of an app's own that has a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnField {
    /// How SQL calls it.
    pub name: String,
    /// Where its value is.
    pub path: Path,
}

impl OwnField {
    /// The name of the field that tells who watched.
    pub const VIEWER_ID: &str = "viewer_id";
}

/// As `DIMENSIONS` has it.
impl fmt::Display for OwnField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.path)
    }
}

/// The value of each slot.
pub(super) type Values = [Option<String>; Slot::ALL];

/// The paths that values are read from, as a tree of their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths(Node);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    /// Slots whose path ends here.
    slots: Vec<Slot>,
    children: Vec<(String, Node)>,
}

impl Paths {
    /// No own fields.
    pub const NONE: Self = Self(Node { slots: Vec::new(), children: Vec::new() });

    /// The values that these paths have in a report's text, which is an object.
    pub(super) fn read(&self, text: &str) -> Values {
        let mut values = Values::default();
        if *self != Self::NONE {
            self.0.read(text, &mut values);
        }
        values
    }
}

impl<'a> FromIterator<(Slot, &'a Path)> for Paths {
    fn from_iter<I: IntoIterator<Item = (Slot, &'a Path)>>(paths: I) -> Self {
        let mut root = Node::default();
        for (slot, path) in paths {
            path.keys().iter().fold(&mut root, |node, key| node.child_made(key)).slots.push(slot);
        }
        Self(root)
    }
}

impl Node {
    fn child(&self, key: &str) -> Option<&Self> {
        self.children.iter().find(|(name, _)| name == key).map(|(_, child)| child)
    }

    fn child_made(&mut self, key: &str) -> &mut Self {
        let found = self.children.iter().position(|(name, _)| name == key);
        let index = found.unwrap_or_else(|| {
            self.children.push((key.to_owned(), Self::default()));
            self.children.len() - 1
        });
        &mut self.children[index].1
    }

    /// Reads the values below an object. The text was decoded before, so it is valid.
    fn read(&self, object: &str, values: &mut Values) {
        let mut deserializer = serde_json::Deserializer::from_str(object);
        let _ = Members { node: self, values }.deserialize(&mut deserializer);
    }

    /// Takes the JSON value that stands here, in place of one that stood here before.
    fn take(&self, value: &str, values: &mut Values) {
        self.forget(values);
        if value.starts_with('{') {
            self.read(value, values);
        } else if let Some(text) = scalar(value) {
            for slot in &self.slots {
                values[usize::from(slot.0)] = Some(text.clone());
            }
        }
    }

    fn forget(&self, values: &mut Values) {
        for slot in &self.slots {
            values[usize::from(slot.0)] = None;
        }
        for (_, child) in &self.children {
            child.forget(values);
        }
    }
}

/// The members of an object, of which those are read that a node has children for.
struct Members<'n, 'v> {
    node: &'n Node,
    values: &'v mut Values,
}

impl<'de> DeserializeSeed<'de> for Members<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match self.node.child(&key.0) {
                // As text: a number must keep its digits.
                Some(child) => child.take(map.next_value::<&RawValue>()?.get(), self.values),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A string, number or boolean as its column holds it.
fn scalar(value: &str) -> Option<String> {
    let text = match value.as_bytes().first()? {
        b'"' => serde_json::from_str(value).ok()?,
        b't' | b'f' => value.to_owned(),
        b'-' | b'0'..=b'9' => plain_number(value),
        _ => return None,
    };
    (!text.trim().is_empty()).then(|| column_text(&text))
}

/// A JSON number as `numeric` writes it: without an exponent, zeros behind the point as sent.
fn plain_number(literal: &str) -> String {
    let (sign, unsigned) = literal.strip_prefix('-').map_or(("", literal), |rest| ("-", rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // `json::clean` bounds exponents, so zeros are few.
    let exponent: isize = exponent.parse().unwrap_or(0);
    let decimals = fraction.len().saturating_add_signed(exponent.saturating_neg());
    let zeros = usize::try_from(exponent).unwrap_or(0).saturating_sub(fraction.len());
    let digits = format!("{whole}{fraction}{}", "0".repeat(zeros));
    let digits = format!("{digits:0>width$}", width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    let is_zero = digits.bytes().all(|digit| digit == b'0');
    format!("{}{whole}{point}{fraction}", if is_zero { "" } else { sign })
}
