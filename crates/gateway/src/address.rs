//! Addresses and networks, as people write them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// An address to listen on.
pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let error = |_| format!("`{text}` is not an address; write it as in `127.0.0.1:8080`");
    text.parse().map_err(error)
}

/// A network, or a single address.
pub(crate) fn parse_network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| single()).map_err(|_| {
        format!("`{text}` is not a network; write it as in `10.0.0.0/8` or `2001:db8::/32`")
    })
}
