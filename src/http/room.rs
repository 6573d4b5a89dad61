//! Memory for bodies: what all requests hold together has a bound, and what is over it is
//! answered with 503 at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Error;

/// Bytes of bodies in memory, from their arrival to their answer. Room for eight batches of
/// the largest size; what waits for its commit is bounded once more by the ingest queue.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The memory that bodies share.
#[derive(Clone)]
pub struct Rooms(Arc<Semaphore>);

impl Default for Rooms {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BYTES)))
    }
}

impl Rooms {
    /// Room for one body, still empty.
    pub(super) fn open(&self) -> Room {
        Room { rooms: self.clone(), taken: None }
    }
}

/// What one body takes up; given back on drop.
pub(super) struct Room {
    rooms: Rooms,
    taken: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Takes room as bytes arrive: a client that announces much and sends nothing holds nothing.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let permits = u32::try_from(bytes).map_err(|_| Error::Overloaded)?;
        let more = Arc::clone(&self.rooms.0).try_acquire_many_owned(permits);
        let more = more.map_err(|_| Error::Overloaded)?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let rooms = Rooms::default();
        let mut first = rooms.open();
        first.take(MAX_BYTES - 10).expect("fits");
        let mut second = rooms.open();
        second.take(6).expect("fits");
        assert_eq!(second.take(5), Err(Error::Overloaded));
        drop(first);
        second.take(5).expect("fits now");
    }
}
