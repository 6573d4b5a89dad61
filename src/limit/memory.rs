//! Memory for what clients send and for what they have not read yet.

use std::net::IpAddr;
use std::sync::Arc;

use super::budget::{Budget, Permit};
use crate::auth::{KeyId, Scope};

const MIB: usize = 1024 * 1024;

/// Bodies up to this size, as nearly all with a single report are, have a budget of their own, so
/// that large uploads, however slow, cannot use it up.
const SMALL_BODY_BYTES: usize = 64 * 1024;
const SMALL_BODIES: usize = 16 * MIB;
const SMALL_BODIES_OF_A_KEY: usize = 12 * MIB;
/// Six batches of the largest size; four of one key.
const LARGE_BODIES: usize = 48 * MIB;
const LARGE_BODIES_OF_A_KEY: usize = 32 * MIB;

/// Responses with and without a key: forty sessions with long timelines; a few hundred scrapes.
const KEYED_RESPONSES: usize = 64 * MIB;
const KEYED_RESPONSES_OF_A_KEY: usize = 24 * MIB;
const PUBLIC_RESPONSES: usize = 8 * MIB;
const PUBLIC_RESPONSES_OF_A_PEER: usize = MIB;

/// Memory for bodies, from their arrival to their outcome. What waits for its commit is bounded
/// once more by the ingest queue.
pub struct BodyBudget {
    small: Arc<Budget<KeyId>>,
    large: Arc<Budget<KeyId>>,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self {
            small: Budget::new(SMALL_BODIES, SMALL_BODIES_OF_A_KEY),
            large: Budget::new(LARGE_BODIES, LARGE_BODIES_OF_A_KEY),
        }
    }
}

impl BodyBudget {
    /// A permit for one body; `announced` is its `Content-Length`, or 0. It takes memory only as
    /// bytes arrive, so a large announcement alone holds none.
    #[must_use]
    pub fn permit(&self, key: &KeyId, announced: usize) -> BodyPermit {
        BodyPermit {
            small: self.small.permit(key.clone()),
            large: self.large.permit(key.clone()),
            is_large: announced > SMALL_BODY_BYTES,
        }
    }
}

/// The memory of one body, given back on drop.
pub struct BodyPermit {
    small: Permit<KeyId>,
    large: Permit<KeyId>,
    is_large: bool,
}

impl BodyPermit {
    /// Takes memory for bytes that arrived. False when there is none.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> bool {
        if !self.is_large && self.small.bytes() + bytes <= SMALL_BODY_BYTES {
            return self.small.take(bytes);
        }
        self.is_large = true;
        // A body that turns out to be large moves over with what it has.
        if !self.large.take(self.small.bytes() + bytes) {
            return false;
        }
        self.small.give_back();
        true
    }

    /// Whether the body is, or is announced to be, larger than 64 KiB.
    #[must_use]
    pub const fn is_large(&self) -> bool {
        self.is_large
    }
}

/// Who is to read a response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reader {
    /// A client with a key, and what it used the key for: sessions that nobody reads must not
    /// hold up the results of batches.
    Key(KeyId, Scope),
    /// A client without one, by its address.
    Peer(IpAddr),
}

/// Memory for responses that are not written yet.
pub struct ResponseBudget {
    keyed: Arc<Budget<Reader>>,
    public: Arc<Budget<Reader>>,
}

impl Default for ResponseBudget {
    fn default() -> Self {
        Self {
            keyed: Budget::new(KEYED_RESPONSES, KEYED_RESPONSES_OF_A_KEY),
            public: Budget::new(PUBLIC_RESPONSES, PUBLIC_RESPONSES_OF_A_PEER),
        }
    }
}

impl ResponseBudget {
    /// Memory for a response. `None` when there is none.
    #[must_use]
    pub fn take(&self, reader: Reader, bytes: usize) -> Option<ResponsePermit> {
        let budget = match reader {
            Reader::Key(..) => &self.keyed,
            Reader::Peer(_) => &self.public,
        };
        let mut permit = budget.permit(reader);
        permit.take(bytes).then_some(ResponsePermit { _permit: permit })
    }
}

/// The memory of one response, given back on drop.
pub struct ResponsePermit {
    _permit: Permit<Reader>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Keys, PlainKey};

    fn key() -> KeyId {
        let keys = Keys::from_environment(&PlainKey::new("k".to_owned()));
        keys.authenticate(b"k").expect("known").key.clone()
    }

    #[test]
    fn large_bodies_leave_the_memory_of_small_ones_alone() {
        let (budget, key) = (BodyBudget::default(), key());
        let mut large = Vec::new();
        loop {
            let mut permit = budget.permit(&key, 8 * MIB);
            if !permit.take(8 * MIB) {
                break;
            }
            large.push(permit);
        }
        assert_eq!(large.len(), 4, "of one key");
        let mut small = budget.permit(&key, 600);
        assert!(small.take(600) && !small.is_large());
    }

    #[test]
    fn a_body_that_turns_out_to_be_large_is_counted_once() {
        let (budget, key) = (BodyBudget::default(), key());
        let mut permit = budget.permit(&key, 0);
        assert!(permit.take(SMALL_BODY_BYTES) && !permit.is_large());
        assert!(permit.take(1) && permit.is_large());
        assert_eq!((permit.small.bytes(), permit.large.bytes()), (0, SMALL_BODY_BYTES + 1));
    }
}
