//! Where clients connect from.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// `TRUSTED_PROXIES`: the addresses that many clients share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Whether a peer is one of them; IPv4 addresses that a socket for IPv6 reports as
    /// `::ffff:a.b.c.d` included.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let networks = parts.map(|part| network(part).ok_or(()));
        networks.collect::<Result<_, _>>().map(Self).map_err(|()| {
            "addresses or networks separated by commas, such as 10.0.0.0/8,192.0.2.7,fd00::/8"
                .to_owned()
        })
    }
}

/// A network, or an address as the network of itself.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    let IpNet::V6(v6) = network else { return Some(network) };
    // A mapped network is the IPv4 network that it means.
    match v6.addr().to_ipv4_mapped() {
        Some(v4) if v6.prefix_len() >= 96 => IpNet::new(v4.into(), v6.prefix_len() - 96).ok(),
        _ => Some(network),
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (number, network) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

/// The peer as limits count it: an IPv6 client has a network of 64 bits to itself.
#[must_use]
pub fn peer_group(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_and_networks_match_mapped_ones_too() {
        let proxies: TrustedProxies =
            " 10.0.0.0/8, 192.0.2.7,fd00::/8,,::ffff:198.51.100.0/120".parse().expect("valid");
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "fd12::1", "198.51.100.9"] {
            assert!(proxies.contains(address(inside)), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "::ffff:192.0.2.8", "fe80::1", "::10.1.2.3"] {
            assert!(!proxies.contains(address(outside)), "{outside}");
        }
        assert_eq!(proxies.to_string(), "10.0.0.0/8,192.0.2.7/32,fd00::/8,198.51.100.0/24");
        assert!(!TrustedProxies::default().contains(address("127.0.0.1")));
    }

    #[test]
    fn what_is_no_address_is_an_error() {
        for wrong in ["proxy", "10.0.0.0/33", "10.0.0.1-10.0.0.9", "10.0.0.1 10.0.0.2", "*"] {
            assert!(wrong.parse::<TrustedProxies>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        assert_eq!(peer_group(address("2001:db8::1")), peer_group(address("2001:db8::2:3")));
        assert_ne!(peer_group(address("2001:db8::1")), peer_group(address("2001:db8:0:1::1")));
        assert_eq!(peer_group(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_ne!(peer_group(address("192.0.2.1")), peer_group(address("192.0.2.2")));
    }
}
