//! What clients may cost: connections and time. What is over it is cut off.

use std::time::Duration;

const CONNECTIONS: usize = 8_192;
/// One address has at most this part of them.
const ADDRESS_SHARE: usize = 8;

/// Bytes a second that a client must read of a large response, on average.
const WRITE_RATE: u32 = 16 * 1024;
/// Bytes a second in which a large body must arrive.
const READ_RATE: u32 = 32 * 1024;

/// What a client may cost before it has sent a request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// Connections at the same time of one peer address that is no trusted proxy.
    pub connections_of_an_address: usize,
    /// Connections beyond the limit, on which only probes are answered.
    pub spare_connections: usize,
    /// From the first byte of a request to the end of its head; for a new connection, from
    /// the accept.
    pub head: Duration,
    /// Between requests. Above 15 s, the pace of SDK 1.x, so that it can reuse connections.
    pub idle: Duration,
    /// For a body to arrive whole.
    pub body: Duration,
    /// For the next piece of a body, and for the rest of one that nobody wants to read.
    pub still: Duration,
    /// For a large response to be written, beside the time that [`Self::write_for`] adds for its
    /// size.
    pub write: Duration,
    /// How long new connections are still taken once the server is stopping, so that those
    /// who are on their way get an answer, and probes see that it is not ready.
    pub linger: Duration,
    /// For requests to finish after that.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            connections_of_an_address: CONNECTIONS / ADDRESS_SHARE,
            spare_connections: 64,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_mins(1),
            still: Duration::from_secs(10),
            write: Duration::from_secs(30),
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
        (self.connections + self.spare_connections) as u64 + RESERVED_FILES
    }

    /// With as many connections as `files` file descriptors permit.
    #[must_use]
    pub fn within_files(mut self, files: u64) -> Self {
        let reserved = RESERVED_FILES + self.spare_connections as u64;
        let permitted = files.saturating_sub(reserved).max(64);
        self.connections = self.connections.min(usize::try_from(permitted).unwrap_or(usize::MAX));
        self.connections_of_an_address = self.connections.div_ceil(ADDRESS_SHARE).max(64);
        self
    }

    /// How long the client may take to read a response of so many bytes.
    #[must_use]
    pub fn write_for(&self, bytes: usize) -> Duration {
        self.write + at_rate(bytes, WRITE_RATE)
    }

    /// How much time the arrival of so many bytes of a large body buys it.
    #[must_use]
    pub fn bought_by(bytes: usize) -> Duration {
        at_rate(bytes, READ_RATE)
    }
}

fn at_rate(bytes: usize, bytes_per_second: u32) -> Duration {
    Duration::from_secs(bytes as u64) / bytes_per_second
}
