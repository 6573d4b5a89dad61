//! The own fields that this server writes: where they are in reports, and which of their columns
//! it may still write.

use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgConnection;

use super::own_dimensions::OwnDimension;
use super::{Error, Store};
use crate::report::{OwnField, Paths, Slot};

/// What is known about own fields, since the schema was brought up to date.
#[derive(Default)]
pub(super) struct OwnSlots {
    fields: Vec<OwnField>,
    known: RwLock<Known>,
}

#[derive(Default, Clone)]
struct Known {
    paths: Arc<Paths>,
    assigned: Vec<(Slot, OwnField)>,
    writable: Writable,
}

/// The columns that a batch may fill, as long as no slot is assigned anew.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Writable {
    /// The last assignment of all; `None` where no own fields are configured, so that there is
    /// nothing to fill.
    pub(super) assignment: Option<i64>,
    /// A bit for each slot.
    slots: u16,
}

impl Writable {
    pub(super) const fn has(self, slot: Slot) -> bool {
        self.slots & (1 << slot.number()) != 0
    }

    /// Fails if a slot was assigned anew. Otherwise holds off whoever wants to do that, to the end
    /// of the transaction. (On one Postgres, functions.sql does the same.)
    pub(super) async fn check(self, connection: &mut PgConnection) -> Result<(), Error> {
        let Some(known) = self.assignment else { return Ok(()) };
        sqlx::raw_sql("LOCK TABLE own_dimensions IN ROW SHARE MODE")
            .execute(&mut *connection)
            .await?;
        let last: Option<i64> = sqlx::query_scalar("SELECT max(assignment) FROM own_dimensions")
            .fetch_one(connection)
            .await?;
        if last.unwrap_or(0) == known { Ok(()) } else { Err(Error::other_assignment()) }
    }
}

impl OwnSlots {
    pub(super) fn new(fields: Vec<OwnField>) -> Self {
        Self { fields, known: RwLock::default() }
    }

    pub(super) fn fields(&self) -> &[OwnField] {
        &self.fields
    }

    pub(super) fn writable(&self) -> Writable {
        self.known.read().unwrap_or_else(PoisonError::into_inner).writable
    }

    /// All fields have just got their slots.
    pub(super) fn assigned(&self, own: &[OwnDimension]) {
        let slot_of = |field: &OwnField| own.iter().find(|own| own.name == field.name);
        let assigned: Vec<(Slot, OwnField)> = self
            .fields
            .iter()
            .filter_map(|field| Some((slot_of(field)?.slot, field.clone())))
            .collect();
        let paths = Arc::new(assigned.iter().map(|(slot, field)| (*slot, &field.path)).collect());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        *known = Known { paths, assigned, writable: Writable::default() };
        known.look(own);
    }

    /// Somebody has assigned slots anew.
    fn look_again(&self, own: &[OwnDimension]) {
        let lost = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            let before = known.writable;
            known.look(own);
            let is_lost = |slot: Slot| before.has(slot) && !known.writable.has(slot);
            let lost = known.assigned.iter().filter(|(slot, _)| is_lost(*slot));
            lost.map(|(_, field)| field.clone()).collect::<Vec<_>>()
        };
        for OwnField { name, path } in lost {
            tracing::warn!(
                name,
                %path,
                "another server has other DIMENSIONS or another VIEWER_ID and took the column of \
                 {name}: this server stores its values in payloads only; set both variables alike \
                 on all servers and restart them"
            );
        }
    }
}

impl Known {
    /// A field that got another slot or path meanwhile is lost until a restart: reports are read
    /// for the one that it had.
    fn look(&mut self, own: &[OwnDimension]) {
        let is_kept =
            |slot: Slot, field: &OwnField| own.iter().any(|own| own.slot == slot && own.is(field));
        let kept = self.assigned.iter().filter(|(slot, field)| is_kept(*slot, field));
        let slots = kept.fold(0, |slots, (slot, _)| slots | 1 << slot.number());
        let last = own.iter().map(|own| own.assignment).max().unwrap_or(0);
        let assignment = (!self.assigned.is_empty()).then_some(last);
        self.writable = Writable { assignment, slots };
    }
}

impl Store {
    /// Where reports have the own fields that are configured; none before the schema was brought
    /// up to date.
    #[must_use]
    pub fn paths(&self) -> Arc<Paths> {
        Arc::clone(&self.own.known.read().unwrap_or_else(PoisonError::into_inner).paths)
    }

    /// Looks which columns this server may still write, after somebody assigned slots anew.
    pub(super) async fn look_at_assignment(&self) -> Result<(), Error> {
        let own = self.all_own_fields().await?;
        self.own.look_again(&own);
        Ok(())
    }
}
