//! [`TrustedProxies`]: which address a call really comes from.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// Finds the client's address behind proxies: the first from the right that is not a trusted proxy.
///
/// Each proxy appends the address that it was called from to `X-Forwarded-For`, so entries are as
/// good as who wrote them: those to the right come from our own proxies, and anything to the left of
/// the first stranger is the stranger's say. The walk starts at the socket's peer. While the address
/// is a trusted proxy, the next entry from the right takes its place, over all lines of the header. An
/// entry that is no address ends the walk at the last good one. With no trusted proxy (the default),
/// the peer is the client, whatever it claims.
///
/// This is the walk of nginx's `real_ip_recursive`. It is written out here because it must stop at a
/// line or entry that it cannot read, where the libraries at hand skip it and go on to what a stranger
/// wrote.
///
/// ```
/// use std::net::IpAddr;
/// use tidegate::TrustedProxies;
///
/// let proxies = TrustedProxies::new(["10.0.0.0/8".parse()?]);
/// let peer: IpAddr = "10.0.0.1".parse()?;
/// let spoofed = [&b"1.2.3.4, 203.0.113.9"[..], b"10.0.0.7"];
/// assert_eq!(proxies.client(peer, spoofed), "203.0.113.9".parse::<IpAddr>()?);
/// let stranger: IpAddr = "198.51.100.1".parse()?;
/// assert_eq!(proxies.client(stranger, spoofed), stranger);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
}

impl TrustedProxies {
    /// The most entries of the header that are looked at.
    pub const MAX_HOPS: usize = 64;

    /// Trusts the proxies in these networks.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self { networks: networks.into_iter().map(canonical_network).collect() }
    }

    /// Whether an address is a trusted proxy's. IPv4-mapped IPv6 counts as IPv4.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The client behind `peer`, given the lines of `X-Forwarded-For` in their order.
    pub fn client<'a, L>(&self, peer: IpAddr, forwarded_for: L) -> IpAddr
    where
        L: IntoIterator<Item = &'a [u8]>,
        L::IntoIter: DoubleEndedIterator,
    {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let lines = forwarded_for.into_iter().rev();
        let entries = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
        for entry in entries.take(Self::MAX_HOPS) {
            let Some(address) = parse_entry(entry) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// A network of IPv4-mapped IPv6 addresses is one of IPv4 addresses.
fn canonical_network(network: IpNet) -> IpNet {
    match (network, network.network().to_canonical()) {
        (IpNet::V6(v6), IpAddr::V4(v4)) if v6.prefix_len() >= 96 => {
            Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text.parse::<IpAddr>();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok();
    let address = bare.ok().or_else(|| bracketed().map(IpAddr::V6));
    address.or_else(|| with_port().map(|socket| socket.ip())).map(|address| address.to_canonical())
}

/// The address that a limit is for: IPv4 whole, IPv6 by prefix, since one customer has a whole
/// network of those. IPv4-mapped IPv6 is IPv4, before anything is masked.
///
/// ```
/// use std::net::IpAddr;
/// use tidegate::masked;
///
/// let address: IpAddr = "2001:db8:1:2:3:4:5:6".parse()?;
/// assert_eq!(masked(address, 64), "2001:db8:1:2::".parse::<IpAddr>()?);
/// assert_eq!(masked("::ffff:192.0.2.1".parse()?, 64), "192.0.2.1".parse::<IpAddr>()?);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[must_use]
pub fn masked(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => masked_v6(v6, ipv6_prefix),
    }
}

// Out of line: a policy does this for each rule, and in line it would do most of it for IPv4, too.
#[inline(never)]
fn masked_v6(v6: Ipv6Addr, ipv6_prefix: u8) -> IpAddr {
    match v6.to_canonical() {
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(trusted: &[&str], peer: &str, lines: &[&str]) -> String {
        let proxies = TrustedProxies::new(trusted.iter().map(|net| net.parse().unwrap()));
        proxies.client(ip(peer), lines.iter().map(|line| line.as_bytes())).to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        assert_eq!(client(&[], "9.9.9.9", &["1.1.1.1"]), "9.9.9.9");
        assert_eq!(client(&["10.0.0.0/8"], "9.9.9.9", &["1.1.1.1", "10.0.0.1"]), "9.9.9.9");
    }

    #[test]
    fn entries_count_from_the_right_over_all_lines() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(client(trusted, "10.0.0.1", &["6.6.6.6, 5.5.5.5"]), "5.5.5.5");
        assert_eq!(client(trusted, "10.0.0.1", &["6.6.6.6", "5.5.5.5"]), "5.5.5.5");
        assert_eq!(
            client(trusted, "10.0.0.1", &["6.6.6.6,5.5.5.5", "10.1.1.1 , 10.2.2.2"]),
            "5.5.5.5"
        );
        assert_eq!(client(trusted, "10.0.0.1", &["10.3.3.3, 10.2.2.2"]), "10.3.3.3", "all trusted");
        assert_eq!(client(trusted, "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn an_entry_that_is_no_address_ends_the_walk_at_the_last_good_one() {
        let trusted = &["10.0.0.0/8"];
        for bad in ["unknown", "_hidden", "", "1.2.3", "1.2.3.4.5", "::g", "1.1.1.1;x", "\u{ff11}"]
        {
            let line = format!("6.6.6.6, {bad}, 10.2.2.2");
            assert_eq!(client(trusted, "10.0.0.1", &[&line]), "10.2.2.2", "{bad}");
        }
    }

    #[test]
    fn all_spellings_of_an_address_are_one() {
        let trusted = &["10.0.0.0/8"];
        for spelling in
            ["5.5.5.5", "5.5.5.5:443", "::ffff:5.5.5.5", "[::ffff:5.5.5.5]:1", "::FFFF:505:505"]
        {
            assert_eq!(client(trusted, "::ffff:10.0.0.1", &[spelling]), "5.5.5.5", "{spelling}");
        }
        for spelling in ["2001:db8::1", "2001:0DB8:0:0::1", "[2001:db8::1]", "[2001:db8::1]:443"] {
            assert_eq!(client(trusted, "10.0.0.1", &[spelling]), "2001:db8::1", "{spelling}");
        }
    }

    #[test]
    fn a_mapped_network_is_trusted_as_ipv4() {
        assert_eq!(client(&["::ffff:10.0.0.0/104"], "10.0.0.1", &["5.5.5.5"]), "5.5.5.5");
        assert_eq!(client(&["::ffff:10.0.0.0/104"], "11.0.0.1", &["5.5.5.5"]), "11.0.0.1");
    }

    #[test]
    fn ipv6_is_masked_after_mapped_ipv4_was_told_apart() {
        assert_eq!(masked(ip("2001:db8:1:2:3:4:5:6"), 64), ip("2001:db8:1:2::"));
        assert_eq!(masked(ip("2001:db8:1:2:3:4:5:6"), 48), ip("2001:db8:1::"));
        assert_eq!(masked(ip("2001:db8::1"), 128), ip("2001:db8::1"));
        assert_eq!(masked(ip("::ffff:1.2.3.4"), 64), ip("1.2.3.4"));
        assert_ne!(masked(ip("::ffff:1.2.3.4"), 64), masked(ip("::ffff:1.2.3.5"), 64));
    }

    #[test]
    fn the_walk_ends_after_so_many_hops() {
        let line = vec!["10.0.0.2"; 100_000].join(",");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["6.6.6.6", &line]), "10.0.0.2");
    }
}
