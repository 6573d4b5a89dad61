//! Who has a connection, and who gives way when there are none left.
//!
//! A connection is idle while no request is in progress on it. Where every connection is taken,
//! or an address has its share of them, the longest idle one gives way to the new one. Where none
//! is idle, a few spare connections beyond the limit remain, on which only probes are answered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::clients::Limits;
use super::peers::{TrustedProxies, peer_group};

/// Later than any time at which a connection became idle.
const BUSY: u64 = u64::MAX;

/// The connections of one listener.
pub struct Connections {
    capacity: usize,
    share: usize,
    spare: usize,
    trusted: TrustedProxies,
    started: Instant,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_peer: HashMap<IpAddr, Vec<Arc<Slot>>>,
    /// How many those are.
    count: usize,
    spare: Vec<Arc<Slot>>,
}

struct Slot {
    peer: IpAddr,
    is_trusted: bool,
    is_spare: AtomicBool,
    /// Milliseconds from the start of the registry, or [`BUSY`]. Read without a lock: a look
    /// that is a moment too late picks another idle connection, no more.
    idle_since: AtomicU64,
    evicted: Notify,
}

impl Slot {
    fn idle_since(&self) -> u64 {
        self.idle_since.load(Ordering::Relaxed)
    }
}

/// Why a connection gave way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// Every connection was taken.
    Full,
    /// Its address had its share.
    Address,
}

impl Eviction {
    /// All reasons, for metrics that start at zero.
    pub const ALL: [Self; 2] = [Self::Full, Self::Address];

    /// The reason's name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
        }
    }
}

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: &Limits, trusted: TrustedProxies) -> Arc<Self> {
        Arc::new(Self {
            capacity: limits.connections,
            share: limits.connections_of_an_address,
            spare: limits.spare_connections,
            trusted,
            started: Instant::now(),
            open: Mutex::default(),
        })
    }

    /// A place for a new connection, and which limit it met, if any: then another one gave way for
    /// it, or it is a spare one.
    #[must_use]
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> (Place, Option<Eviction>) {
        let is_trusted = self.trusted.contains(peer);
        let peer = peer_group(peer);
        let mut open = self.open();
        let wanted = self.wanted_eviction(&open, peer, is_trusted);
        let is_spare = match wanted {
            None => false,
            Some(Eviction::Address) => !open.evict(Some(peer)),
            Some(Eviction::Full) => !open.evict(None),
        };
        let slot = Arc::new(Slot {
            peer,
            is_trusted,
            is_spare: AtomicBool::new(is_spare),
            idle_since: AtomicU64::new(self.now()),
            evicted: Notify::new(),
        });
        if is_spare {
            if open.spare.len() >= self.spare {
                open.evict_spare();
            }
            open.spare.push(Arc::clone(&slot));
        } else {
            open.insert(Arc::clone(&slot));
        }
        let place = Place { connections: Arc::clone(self), slot };
        (place, wanted)
    }

    /// Why an idle connection has to give way before another one of this peer fits.
    fn wanted_eviction(&self, open: &Open, peer: IpAddr, is_trusted: bool) -> Option<Eviction> {
        let own = open.by_peer.get(&peer).map_or(0, Vec::len);
        if !is_trusted && own >= self.share {
            Some(Eviction::Address)
        } else if open.count >= self.capacity {
            Some(Eviction::Full)
        } else {
            None
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(BUSY - 1)
    }
}

impl Open {
    fn insert(&mut self, slot: Arc<Slot>) {
        self.count += 1;
        self.by_peer.entry(slot.peer).or_default().push(slot);
    }

    /// Ends the longest idle connection, of one peer or of all. False when none is idle.
    fn evict(&mut self, peer: Option<IpAddr>) -> bool {
        let longest_idle = match peer {
            Some(peer) => longest_idle(self.by_peer.get(&peer).into_iter().flatten()),
            None => longest_idle(self.by_peer.values().flatten()),
        };
        match longest_idle.filter(|slot| slot.idle_since() != BUSY) {
            Some(slot) => self.end(&slot),
            None => return false,
        }
        true
    }

    /// Ends the longest idle spare connection, or else the oldest: a client that does not read
    /// the response to its probe must not keep others from theirs.
    fn evict_spare(&mut self) {
        if let Some(slot) = longest_idle(self.spare.iter()) {
            self.end(&slot);
        }
    }

    fn end(&mut self, slot: &Arc<Slot>) {
        self.remove(slot);
        slot.evicted.notify_one();
    }

    /// Forgets a connection, unless it has given way already.
    fn remove(&mut self, slot: &Arc<Slot>) {
        let position =
            |slots: &[Arc<Slot>]| slots.iter().position(|other| Arc::ptr_eq(other, slot));
        if let Some(at) = position(&self.spare) {
            // In the order of their age.
            self.spare.remove(at);
        } else if let Some(slots) = self.by_peer.get_mut(&slot.peer)
            && let Some(at) = position(slots)
        {
            slots.swap_remove(at);
            self.count -= 1;
            if slots.is_empty() {
                self.by_peer.remove(&slot.peer);
            }
        }
    }
}

/// The first of those that are idle for the longest; of those that are busy where none is idle.
fn longest_idle<'a>(slots: impl Iterator<Item = &'a Arc<Slot>>) -> Option<Arc<Slot>> {
    slots.min_by_key(|slot| slot.idle_since()).cloned()
}

/// A connection's place among the others; free again on drop.
pub struct Place {
    connections: Arc<Connections>,
    slot: Arc<Slot>,
}

impl Place {
    /// A request is in progress.
    pub fn is_busy(&self) {
        self.slot.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// None is, from now on.
    pub fn is_idle(&self) {
        self.slot.idle_since.store(self.connections.now(), Ordering::Relaxed);
    }

    /// Waits until the connection has to give way.
    pub async fn evicted(&self) {
        self.slot.evicted.notified().await;
    }

    /// The address that this connection is counted for.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.slot.peer
    }

    /// Whether only probes may be answered here. A spare connection becomes an ordinary one as
    /// soon as there is room.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        if !self.slot.is_spare.load(Ordering::Relaxed) {
            return false;
        }
        let mut open = self.connections.open();
        let wanted = self.connections.wanted_eviction(&open, self.slot.peer, self.slot.is_trusted);
        let is_known = open.spare.iter().any(|slot| Arc::ptr_eq(slot, &self.slot));
        if wanted.is_some() || !is_known {
            return true;
        }
        open.remove(&self.slot);
        open.insert(Arc::clone(&self.slot));
        self.slot.is_spare.store(false, Ordering::Relaxed);
        false
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().remove(&self.slot);
    }
}

#[cfg(test)]
mod tests;
