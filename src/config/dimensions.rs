//! `DIMENSIONS` and `VIEWER_ID`: an app's own fields, and the columns that they become.

use super::source::{Reader, Source};
use super::variables as var;
use crate::report::{OwnField, Path, Slot};
use crate::store;

const MAX_NAME_CHARS: usize = 63;
const EXPECTED_ITEM: &str = "name:path, such as cdn:custom.cdn";
const EXPECTED_NAME: &str =
    "a name of lower-case letters, digits and _ with a letter first, at most 63 characters";

/// Names that are no column, but mean something else to commands, labels and responses.
const RESERVED: [&str; 6] =
    ["stream_type", "tenant", "error", "error_category", "error_code", "timeline"];

/// Reads both variables; each wrong item is a problem of its own.
pub(super) fn own_fields(reader: &mut Reader<'_>) -> Vec<OwnField> {
    let mut fields = dimensions(reader);
    fields.extend(viewer_id(reader));
    fields
}

fn dimensions(reader: &mut Reader<'_>) -> Vec<OwnField> {
    let Some((text, source)) = reader.raw(var::DIMENSIONS) else {
        reader.setting(var::DIMENSIONS, "none".to_owned(), Source::Default);
        return Vec::new();
    };
    let mut fields: Vec<OwnField> = Vec::new();
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    for item in &items {
        match dimension(item) {
            Ok(field) if fields.iter().any(|other| other.name == field.name) => {
                reader.problem(var::DIMENSIONS.name, &format!("{item:?}"), "each name only once");
            }
            Ok(field) => fields.push(field),
            Err(expected) => {
                reader.problem(var::DIMENSIONS.name, &format!("{item:?}"), expected);
            }
        }
    }
    if items.len() > usize::from(Slot::DIMENSIONS) {
        let found = format!("a list of {}", items.len());
        let expected = format!("at most {} dimensions", Slot::DIMENSIONS);
        reader.problem(var::DIMENSIONS.name, &found, &expected);
    }
    let shown: Vec<String> = fields.iter().map(ToString::to_string).collect();
    reader.setting(var::DIMENSIONS, shown.join(","), source);
    fields
}

fn dimension(item: &str) -> Result<OwnField, &'static str> {
    let (name, path) = item.split_once(':').ok_or(EXPECTED_ITEM)?;
    let name = name.trim();
    if !is_name(name) {
        return Err(EXPECTED_NAME);
    }
    if RESERVED.contains(&name) || store::is_column(name) {
        return Err("a name that is no column of sessions or session_qoe and has no other meaning");
    }
    Ok(OwnField { name: name.to_owned(), path: path.parse()? })
}

/// A name that needs no quotes in SQL, unless it is one of its words.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_CHARS
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn viewer_id(reader: &mut Reader<'_>) -> Option<OwnField> {
    let Some((text, source)) = reader.raw(var::VIEWER_ID) else {
        reader.setting(var::VIEWER_ID, "none".to_owned(), Source::Default);
        return None;
    };
    match text.parse::<Path>() {
        Ok(path) => {
            reader.setting(var::VIEWER_ID, path.to_string(), source);
            Some(OwnField { name: OwnField::VIEWER_ID.to_owned(), path })
        }
        Err(expected) => {
            reader.problem(var::VIEWER_ID.name, &format!("{text:?}"), expected);
            None
        }
    }
}
