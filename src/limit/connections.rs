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

    /// A place for a new connection, and why another one gave way for it, if so.
    ///
    /// # Errors
    /// Why another one would have to give way, when all are busy, the spare ones too.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<(Place, Option<Eviction>), Eviction> {
        let is_trusted = self.trusted.contains(peer);
        let peer = peer_group(peer);
        let mut open = self.open();
        let wanted = self.wanted_eviction(&open, peer, is_trusted);
        let is_spare = match wanted {
            None => false,
            Some(Eviction::Address) => !open.evict(Some(peer)),
            Some(Eviction::Full) => !open.evict(None),
        };
        if let Some(why) = wanted
            && is_spare
            && open.spare.len() >= self.spare
            && !open.evict_spare()
        {
            return Err(why);
        }
        let slot = Arc::new(Slot {
            peer,
            is_trusted,
            is_spare: AtomicBool::new(is_spare),
            idle_since: AtomicU64::new(self.now()),
            evicted: Notify::new(),
        });
        if is_spare {
            open.spare.push(Arc::clone(&slot));
        } else {
            open.insert(Arc::clone(&slot));
        }
        let place = Place { connections: Arc::clone(self), slot };
        Ok((place, wanted.filter(|_| !is_spare)))
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
        let slot = match peer {
            Some(peer) => longest_idle(self.by_peer.get(&peer).into_iter().flatten()),
            None => longest_idle(self.by_peer.values().flatten()),
        };
        let Some(slot) = slot else { return false };
        self.remove(&slot);
        slot.evicted.notify_one();
        true
    }

    fn evict_spare(&mut self) -> bool {
        let Some(slot) = longest_idle(self.spare.iter()) else { return false };
        self.remove(&slot);
        slot.evicted.notify_one();
        true
    }

    /// Forgets a connection, unless it has given way already.
    fn remove(&mut self, slot: &Arc<Slot>) {
        let position =
            |slots: &[Arc<Slot>]| slots.iter().position(|other| Arc::ptr_eq(other, slot));
        if let Some(at) = position(&self.spare) {
            self.spare.swap_remove(at);
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

fn longest_idle<'a>(slots: impl Iterator<Item = &'a Arc<Slot>>) -> Option<Arc<Slot>> {
    let slot = slots.min_by_key(|slot| slot.idle_since())?;
    (slot.idle_since() != BUSY).then(|| Arc::clone(slot))
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn connections(capacity: usize, share: usize, trusted: &str) -> Arc<Connections> {
        let limits = Limits {
            connections: capacity,
            connections_of_an_address: share,
            spare_connections: 2,
            ..Limits::default()
        };
        Connections::new(&limits, trusted.parse().expect("networks"))
    }

    fn peer(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// Idle since another millisecond than the one before.
    fn idle(connections: &Arc<Connections>, number: u8) -> (Place, Option<Eviction>) {
        std::thread::sleep(Duration::from_millis(2));
        connections.admit(peer(number)).expect("a place")
    }

    async fn gave_way(place: &Place) -> bool {
        tokio::time::timeout(Duration::ZERO, place.evicted()).await.is_ok()
    }

    #[tokio::test]
    async fn when_full_the_longest_idle_one_gives_way() {
        let connections = connections(3, 3, "");
        let (first, _) = idle(&connections, 1);
        let (second, _) = idle(&connections, 2);
        let (third, none) = idle(&connections, 3);
        assert_eq!(none, None);
        first.is_busy();
        let (_fourth, why) = idle(&connections, 4);
        assert_eq!(why, Some(Eviction::Full));
        assert!(gave_way(&second).await && !gave_way(&first).await && !gave_way(&third).await);
        // One that gave way frees no second place when it ends.
        drop(second);
        assert_eq!(idle(&connections, 5).1, Some(Eviction::Full));
        assert!(gave_way(&third).await);
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_trusted_ones_have_more() {
        let connections = connections(10, 2, "10.0.0.9");
        let (other, _) = idle(&connections, 1);
        let own = [idle(&connections, 2).0, idle(&connections, 2).0];
        let (_third, why) = idle(&connections, 2);
        assert_eq!(why, Some(Eviction::Address));
        assert!(gave_way(&own[0]).await && !gave_way(&own[1]).await && !gave_way(&other).await);
        let proxied: Vec<_> = (0..5).map(|_| idle(&connections, 9)).collect();
        assert!(proxied.iter().all(|(_, why)| why.is_none()));
    }

    #[tokio::test]
    async fn when_all_are_busy_spare_ones_remain_until_there_is_room() {
        let connections = connections(2, 2, "");
        let busy = [idle(&connections, 1).0, idle(&connections, 2).0];
        busy.iter().for_each(Place::is_busy);
        let (spare, why) = idle(&connections, 3);
        assert!(spare.is_spare() && why.is_none());
        let (second, _) = idle(&connections, 4);
        let (third, _) = idle(&connections, 5);
        assert!(gave_way(&spare).await && third.is_spare());
        second.is_busy();
        third.is_busy();
        assert_eq!(connections.admit(peer(6)).err(), Some(Eviction::Full), "all are busy");
        drop(busy);
        assert!(!second.is_spare() && !third.is_spare());
        drop((second, third));
        assert_eq!(connections.open().count, 0);
        assert!(!idle(&connections, 7).0.is_spare());
    }
}
