//! Which column of `sessions` holds which own field (`DIMENSIONS`, `VIEWER_ID`): table
//! `own_dimensions`, brought in line with the configuration when a server starts.
//!
//! A name keeps its slot for as long as it has one, configured or not. Only where all slots are
//! taken does a new name get the slot of one that is not configured any more. Another server may
//! still be writing that one: each batch says which assignment it knows ([`super::own_slots`]),
//! and whoever assigns waits for the batches in flight.

use std::time::Duration;

use sqlx::{PgConnection, Row as _};

use super::lease::Lease;
use super::types::PgTime;
use super::{Error, LOCK, Store, session_qoe};
use crate::report::{OwnField, Slot, UnixMs};

const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Reports that were received so soon after a slot changed hands may have been written before:
/// the locks of the change are waited for, and clocks of servers differ by a moment.
const SETTLING: Duration = Duration::from_secs(10);

/// Waits for the batches in flight that write own fields, and holds off others to the end of the
/// transaction; briefly, as they wait too. Who only reads the table, as a dump does, is not in the
/// way.
const HOLD_OFF_WRITERS: &str =
    "SET LOCAL lock_timeout = '1s'; LOCK TABLE own_dimensions IN EXCLUSIVE MODE";

/// An own field and the column that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDimension {
    /// Which column.
    pub slot: Slot,
    /// Its name in `session_qoe`.
    pub name: String,
    /// Where it is in a report, as configured.
    pub path: String,
    pub(super) assignment: i64,
    pub(super) since: UnixMs,
    pub(super) hides_older: bool,
    pub(super) filled_to: Option<PgTime>,
}

impl OwnDimension {
    /// Whether it is one of `DIMENSIONS`, and not `VIEWER_ID`.
    #[must_use]
    pub fn is_dimension(&self) -> bool {
        self.slot != Slot::VIEWER_ID
    }

    /// Its value as SQL, from a row of `sessions` whose columns are named with `prefix`, such as
    /// `s.`: null where the column still holds what the slot was used for before.
    #[must_use]
    pub fn value(&self, prefix: &str) -> String {
        let column = format!("{prefix}{}", self.slot.column());
        if !self.hides_older {
            return column;
        }
        format!("CASE WHEN {prefix}received_at > {} THEN {column} END", self.since_sql())
    }

    pub(super) fn since_sql(&self) -> String {
        format!("to_timestamp({}::numeric / 1000)", self.since.0)
    }

    pub(super) fn is(&self, field: &OwnField) -> bool {
        self.name == field.name && self.path == field.path.to_string()
    }
}

/// The columns that views and responses have, by name, each with its value as SQL: `viewer_id`
/// whether it is configured or not, then the own dimensions.
pub(super) fn columns<'a>(
    own: &'a [OwnDimension],
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, String)> {
    let viewer = own.iter().find(|own| !own.is_dimension());
    let plain = || format!("{prefix}{}", Slot::VIEWER_ID.column());
    let viewer = viewer.map_or_else(plain, |viewer| viewer.value(prefix));
    let dimensions = own.iter().filter(|own| own.is_dimension());
    std::iter::once((OwnField::VIEWER_ID, viewer))
        .chain(dimensions.map(move |own| (own.name.as_str(), own.value(prefix))))
}

pub(super) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Store {
    /// The own dimensions that columns hold values of, in the order of their slots; those that are
    /// not configured any more are among them until their slot is needed. `VIEWER_ID` is not.
    ///
    /// # Errors
    /// As classified by [`Error`].
    pub async fn own_dimensions(&self) -> Result<Vec<OwnDimension>, Error> {
        let mut own = self.all_own_fields().await?;
        own.retain(OwnDimension::is_dimension);
        Ok(own)
    }

    pub(super) async fn all_own_fields(&self) -> Result<Vec<OwnDimension>, Error> {
        let look = async {
            let mut lease = self.pool.take().await?;
            lease.open().await?;
            let own = read(&mut lease).await?;
            lease.close().await?;
            lease.finish();
            Ok(own)
        };
        self.within(READ_TIMEOUT, "own_dimensions", look).await
    }
}

/// What the table says, in the order of the slots.
pub(super) async fn read(connection: &mut PgConnection) -> Result<Vec<OwnDimension>, Error> {
    let rows = sqlx::query(
        "SELECT slot, name, path, assignment, since, hides_older, filled_to FROM own_dimensions
         ORDER BY slot",
    )
    .fetch_all(connection)
    .await?;
    let own = rows.iter().map(|row| {
        Ok(OwnDimension {
            slot: Slot::of_number(row.try_get(0)?).expect("checked by the table"),
            name: row.try_get(1)?,
            path: row.try_get(2)?,
            assignment: row.try_get(3)?,
            since: row.try_get::<PgTime, _>(4)?.into(),
            hides_older: row.try_get(5)?,
            filled_to: row.try_get(6)?,
        })
    });
    own.collect()
}

/// Brings table and view in line with the configured fields. What the table says then.
pub(super) async fn ensure(
    connection: &mut Lease,
    fields: &[OwnField],
    now: UnixMs,
) -> Result<Vec<OwnDimension>, Error> {
    connection.open().await?;
    let found = read(connection).await?;
    let is_done = changes(&found, fields, now).is_empty()
        && session_qoe::is_current(connection, &found).await?;
    connection.close().await?;
    if is_done {
        return Ok(found);
    }
    // Instances that start together would assign the same slots.
    connection.begin(LOCK).await?;
    let before = read(connection).await?;
    let changes = changes(&before, fields, now);
    let mut own = before.clone();
    for change in &changes {
        own.retain(|old| old.slot != change.slot);
        own.push(change.clone());
    }
    own.sort_by_key(|own| own.slot);
    // The view first: it may have to wait for those who read it, writers must not.
    session_qoe::make(connection, &before, &own).await?;
    if changes.iter().any(|change| change.hides_older) {
        forget_rollups(connection, &before, &changes).await?;
        connection.begin(HOLD_OFF_WRITERS).await?;
    }
    for change in &changes {
        assign(connection, change).await?;
    }
    connection.commit().await?;
    for change in &changes {
        let old = before.iter().find(|old| old.slot == change.slot);
        tell(change, old);
    }
    Ok(own)
}

/// The slots that the configuration changes.
fn changes(found: &[OwnDimension], fields: &[OwnField], now: UnixMs) -> Vec<OwnDimension> {
    let mut changes: Vec<OwnDimension> = Vec::new();
    let last = found.iter().map(|own| own.assignment).max().unwrap_or(0);
    let new = fields.iter().filter(|field| !found.iter().any(|own| own.is(field)));
    for (assignment, field) in (last + 1..).zip(new) {
        let is_free = |slot: &Slot| {
            let mut taken = found.iter().chain(&changes);
            !taken.any(|own| own.slot == *slot)
        };
        // Not configured any more, and not given away yet; longest there.
        let abandoned = || {
            let is_wanted = |own: &&OwnDimension| {
                !own.is_dimension()
                    || fields.iter().any(|field| field.name == own.name)
                    || changes.iter().any(|change| change.slot == own.slot)
            };
            let abandoned = found.iter().filter(|own| !is_wanted(own));
            abandoned.min_by_key(|own| own.assignment).map(|own| own.slot)
        };
        let own_slot = found.iter().find(|own| own.name == field.name).map(|own| own.slot);
        let slot = match own_slot {
            Some(slot) => slot,
            None if field.name == OwnField::VIEWER_ID => Slot::VIEWER_ID,
            None => Slot::dimensions()
                .find(is_free)
                .or_else(abandoned)
                .expect("no more dimensions are configured than there are slots"),
        };
        let hides_older = found.iter().any(|own| own.slot == slot);
        changes.push(OwnDimension {
            slot,
            name: field.name.clone(),
            path: field.path.to_string(),
            assignment,
            since: if hides_older { now.plus(SETTLING) } else { now },
            hides_older,
            filled_to: None,
        });
    }
    changes
}

/// A name must not go on with the sums of what it meant before, nor of one that is gone.
async fn forget_rollups(
    connection: &mut PgConnection,
    before: &[OwnDimension],
    changes: &[OwnDimension],
) -> Result<(), Error> {
    let old = before.iter().filter(|old| changes.iter().any(|change| change.slot == old.slot));
    let names = old.chain(changes).map(|own| own.name.clone()).collect::<Vec<_>>();
    sqlx::query("DELETE FROM rollups WHERE dimension = ANY($1)")
        .bind(names)
        .execute(connection)
        .await?;
    Ok(())
}

async fn assign(connection: &mut PgConnection, own: &OwnDimension) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO own_dimensions (slot, name, path, assignment, since, hides_older, filled_to)
         VALUES ($1, $2, $3, $4, $5, $6, NULL)
         ON CONFLICT (slot) DO UPDATE SET (name, path, assignment, since, hides_older, filled_to)
           = ROW (excluded.name, excluded.path, excluded.assignment, excluded.since,
                  excluded.hides_older, NULL)",
    )
    .bind(i16::from(own.slot.number()))
    .bind(&own.name)
    .bind(&own.path)
    .bind(own.assignment)
    .bind(PgTime::from(own.since))
    .bind(own.hides_older)
    .execute(connection)
    .await?;
    Ok(())
}

fn tell(own: &OwnDimension, old: Option<&OwnDimension>) {
    let (name, path, column) = (own.name.as_str(), own.path.as_str(), own.slot.column());
    match old {
        None => tracing::info!(name, path, column, "own dimension {name} has a column now"),
        Some(old) => tracing::warn!(
            name,
            path,
            column,
            old_name = old.name,
            old_path = old.path,
            "own dimension {name} ({path}) takes the column of {} ({}), whose stored values are \
             hidden from now on; payloads still have them",
            old.name,
            old.path,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_795_000_000_000);

    fn fields(items: &[&str]) -> Vec<OwnField> {
        let field = |item: &&str| {
            let (name, path) = item.split_once(':').expect("a colon");
            OwnField { name: name.to_owned(), path: path.parse().expect("a path") }
        };
        items.iter().map(field).collect()
    }

    /// `slot name` of what the table holds after servers with these configurations started.
    fn after(starts: &[&[&str]]) -> Vec<String> {
        let mut own: Vec<OwnDimension> = Vec::new();
        for start in starts {
            for change in changes(&own, &fields(start), NOW) {
                own.retain(|old| old.slot != change.slot);
                own.push(change);
            }
        }
        own.sort_by_key(|own| own.slot);
        own.iter().map(|own| format!("{} {}", own.slot.number(), own.name)).collect()
    }

    #[test]
    fn names_keep_their_slots_whatever_the_order() {
        let (first, second) = (["cdn:a", "plan:b"], ["plan:b", "viewer_id:c", "isp:d", "cdn:a"]);
        assert_eq!(after(&[&first]), ["1 cdn", "2 plan"]);
        assert_eq!(after(&[&first, &second]), ["0 viewer_id", "1 cdn", "2 plan", "3 isp"]);
        assert_eq!(after(&[&first, &["isp:d"], &first]), ["1 cdn", "2 plan", "3 isp"]);
    }

    #[test]
    fn a_slot_is_taken_from_those_not_configured_once_none_is_free() {
        let full = ["a:a", "b:b", "c:c", "d:d", "e:e", "f:f", "g:g", "h:h"];
        let changed = ["x:x", "c:c", "d:d", "e:e", "f:f", "g:g", "h:h", "y:y"];
        let expected = ["1 x", "2 y", "3 c", "4 d", "5 e", "6 f", "7 g", "8 h"];
        assert_eq!(after(&[&full, &changed]), expected);
        // Whoever has been there for longest goes first.
        assert_eq!(after(&[&full, &changed, &["z:z"]])[2], "3 z");
    }

    #[test]
    fn only_what_was_used_before_hides_anything() {
        let first = changes(&[], &fields(&["cdn:a", "viewer_id:v"]), NOW);
        assert!(first.iter().all(|own| !own.hides_older && own.since == NOW));
        assert_eq!(first[0].value("s."), "s.dimension_1");
        let second = changes(&first, &fields(&["cdn:b", "viewer_id:v"]), NOW);
        assert_eq!(second.len(), 1);
        assert_eq!((second[0].slot, second[0].assignment), (first[0].slot, 3));
        assert_eq!(
            second[0].value(""),
            "CASE WHEN received_at > to_timestamp(1795000010000::numeric / 1000) THEN dimension_1 END"
        );
    }
}
