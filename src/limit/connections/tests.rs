//! Who gives way to whom.

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
    connections.admit(peer(number))
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
    assert!(spare.is_spare() && why == Some(Eviction::Full));
    let (second, _) = idle(&connections, 4);
    let (third, _) = idle(&connections, 5);
    assert!(gave_way(&spare).await && third.is_spare());
    second.is_busy();
    third.is_busy();
    // All are busy: the oldest spare one gives way.
    let (fourth, _) = idle(&connections, 6);
    assert!(gave_way(&second).await && !gave_way(&third).await);
    drop(busy);
    assert!(!third.is_spare() && !fourth.is_spare());
    drop((third, fourth));
    assert_eq!(connections.open().count, 0);
    assert!(!idle(&connections, 7).0.is_spare());
}
