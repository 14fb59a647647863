//! [`TrustedProxies`]: which address a request really comes from.

use std::net::IpAddr;

use ipnet::IpNet;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tidegate::policy::Rule;

/// Finds the client's address behind proxies: the first from the right of X-Forwarded-For that is not a
/// trusted proxy's. Without any, the peer is the client, whatever it claims.
#[pyclass(frozen, module = "tidegate")]
#[derive(Default)]
pub(crate) struct TrustedProxies(pub(crate) tidegate::TrustedProxies);

impl TrustedProxies {
    pub(crate) fn parse(networks: &[String]) -> PyResult<Self> {
        let networks: PyResult<Vec<_>> = networks
            .iter()
            .map(|text| {
                let single = || text.parse::<IpAddr>().map(IpNet::from);
                text.parse::<IpNet>().or_else(|_| single()).map_err(|_| {
                    PyValueError::new_err(format!(
                        "`{text}` is not a network; write it as in `10.0.0.0/8` or `192.0.2.1`"
                    ))
                })
            })
            .collect();
        Ok(Self(tidegate::TrustedProxies::new(networks?)))
    }
}

#[pymethods]
impl TrustedProxies {
    #[new]
    #[pyo3(signature = (networks = Vec::new(), /))]
    fn new(networks: Vec<String>) -> PyResult<Self> {
        Self::parse(&networks)
    }

    /// The client behind `peer`, given the lines of X-Forwarded-For in their order. A key for it: IPv6
    /// is cut to its network, since one customer has a whole one.
    #[pyo3(
        signature = (peer, forwarded_for = Vec::new(), *, ipv6_prefix = Rule::DEFAULT_IPV6_PREFIX),
        text_signature = "($self, peer, forwarded_for=[], *, ipv6_prefix=64)"
    )]
    fn client(&self, peer: &str, forwarded_for: Vec<String>, ipv6_prefix: u8) -> PyResult<String> {
        let peer: IpAddr = peer.parse().map_err(|_| {
            PyValueError::new_err(format!("`{peer}` is not an address; write it as in `192.0.2.1`"))
        })?;
        let lines = forwarded_for.iter().map(String::as_bytes);
        Ok(tidegate::masked(self.0.client(peer, lines), ipv6_prefix).to_string())
    }
}
