//! From a request to a [`Call`](tidegate::policy::Call): who calls, and from where.

use std::net::{IpAddr, SocketAddr};

use http::Extensions;
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use tidegate::TrustedProxies;
use tidegate::policy::Headers;

/// The address that a request's connection comes from, as an extension of the request.
///
/// Whoever accepts connections sets it. With the feature `axum`, axum's `ConnectInfo<SocketAddr>` does
/// as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address: the peer's (see [`PeerAddr`]), or what trusted proxies say. `None` when the
/// request does not have its peer's address.
pub fn client_ip(parts: &Parts, proxies: &TrustedProxies) -> Option<IpAddr> {
    let peer = peer_ip(&parts.extensions)?;
    let lines = parts.headers.get_all(FORWARDED_FOR).iter();
    Some(proxies.client(peer, lines.map(http::HeaderValue::as_bytes)))
}

fn peer_ip(extensions: &Extensions) -> Option<IpAddr> {
    if let Some(PeerAddr(address)) = extensions.get() {
        return Some(address.ip());
    }
    #[cfg(feature = "axum")]
    if let Some(axum::extract::ConnectInfo(address)) =
        extensions.get::<axum::extract::ConnectInfo<SocketAddr>>()
    {
        return Some(address.ip());
    }
    None
}

/// A request's headers, as rules look them up.
#[derive(Debug, Clone, Copy)]
pub struct HeadersOf<'a>(pub &'a HeaderMap);

impl Headers for HeadersOf<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}
