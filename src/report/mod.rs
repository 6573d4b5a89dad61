//! From bytes to a validated [`SessionReport`]: pure, no I/O, knows neither HTTP nor SQL.
//!
//! ```text
//! bytes ─ json::clean ─▶ text that Postgres can hold ─ wire ─▶ as sent ─ validate ─▶ SessionReport
//! ```
//!
//! What this module accepts, Postgres stores; what it refuses, it refuses with a [`Rejection`]
//! that names the field. No input panics, recurses or costs more than its own length.

mod date;
mod dropped;
mod entries;
mod json;
mod model;
mod number;
mod paths;
mod rejection;
mod session_time;
#[cfg(test)]
mod tests;
mod timeline;
mod validate;
mod wire;

pub use dropped::{Dropped, NUMBER_FIELDS};
pub use json::{Split, split_array, split_lines};
pub use model::{ColumnValue, SessionReport, UnixMs};
pub use paths::{OwnField, Path, Paths, Slot};
pub use rejection::{Code, Rejection};
pub use session_time::{Retention, SessionTime};
pub use timeline::{PlaybackState, Timeline, TimelineEntry};
pub(crate) use validate::MAX_COLUMN_CHARS;

/// Decodes and validates one report of any SDK generation; `own` leads to the app's own fields.
///
/// # Errors
/// The first problem found, with the JSON path of the field.
pub fn parse(body: &[u8], own: &Paths) -> Result<SessionReport, Rejection> {
    let cleaned = json::clean(body)?;
    let report = wire::decode(cleaned.text())?;
    validate::validate(&report, &cleaned, own)
}

/// The `sessionId` of a report that was refused, where it can be made out: for the answer.
#[must_use]
pub fn peek_session_id(body: &[u8]) -> Option<String> {
    let cleaned = json::clean(body).ok()?;
    let report = wire::decode(cleaned.text()).ok()?;
    validate::session_id(&report.session_id, cleaned.was_changed()).ok()
}
