//! What clients may cost: connections, time, and memory for bodies. What is over it is cut off
//! or answered with 503 at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a client may cost before it has sent a request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time; more wait in the kernel's queue.
    pub connections: usize,
    /// From the first byte of a request to the end of its head; for a new connection, from
    /// the accept.
    pub head: Duration,
    /// Between requests. Above 15 s, the pace of SDK 1.x, so that it can reuse connections.
    pub idle: Duration,
    /// For a body to arrive whole.
    pub body: Duration,
    /// For the next piece of a body.
    pub still: Duration,
    /// How long new connections are still taken once the server is stopping, so that those
    /// who are on their way get an answer, and probes see that it is not ready.
    pub linger: Duration,
    /// For requests to finish after that.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_mins(1),
            still: Duration::from_secs(10),
            linger: Duration::from_secs(1),
            drain: Duration::from_secs(20),
        }
    }
}

/// File descriptors that are not for clients: database connections, listeners, logs.
const RESERVED_FILES: u64 = 256;

impl Limits {
    /// File descriptors that all connections need.
    #[must_use]
    pub const fn files(&self) -> u64 {
        self.connections as u64 + RESERVED_FILES
    }

    /// With as many connections as `files` file descriptors permit.
    #[must_use]
    pub fn within_files(mut self, files: u64) -> Self {
        let permitted = files.saturating_sub(RESERVED_FILES).max(64);
        self.connections = self.connections.min(usize::try_from(permitted).unwrap_or(usize::MAX));
        self
    }
}

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
    #[must_use]
    pub fn open(&self) -> Room {
        Room { rooms: self.clone(), taken: None }
    }
}

/// What one body takes up; given back on drop.
pub struct Room {
    rooms: Rooms,
    taken: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Takes room as bytes arrive: a client that announces much and sends nothing holds nothing.
    /// False when there is no room for them.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        let Ok(permits) = u32::try_from(bytes) else { return false };
        let Ok(more) = Arc::clone(&self.rooms.0).try_acquire_many_owned(permits) else {
            return false;
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let rooms = Rooms::default();
        let mut first = rooms.open();
        assert!(first.take(MAX_BYTES - 10));
        let mut second = rooms.open();
        assert!(second.take(6));
        assert!(!second.take(5));
        drop(first);
        assert!(second.take(5));
    }
}
