//! [`Providers`]: the upstreams, by whose API they have.

use std::net::IpAddr;

use axum::body::Body;
use http::{Request, Response};

use crate::llm::Maker;
use crate::upstream::{Upstream, UpstreamError, UpstreamUrl};

/// The upstreams as they are configured: one for all, or further ones for the APIs of some makers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProviderUrls {
    /// Without one, the demo.
    pub(crate) main: Option<UpstreamUrl>,
    pub(crate) anthropic: Option<UpstreamUrl>,
    pub(crate) gemini: Option<UpstreamUrl>,
}

/// The upstreams, with their connections.
pub(crate) struct Providers {
    main: Upstream,
    anthropic: Option<Upstream>,
    gemini: Option<Upstream>,
}

impl Providers {
    pub(crate) fn new(urls: ProviderUrls) -> Self {
        let upstream = |url: Option<UpstreamUrl>| url.map(|url| Upstream::new(Some(url)));
        Self {
            main: Upstream::new(urls.main),
            anthropic: upstream(urls.anthropic),
            gemini: upstream(urls.gemini),
        }
    }

    /// Passes a request to a path of this maker's API on, for a client at this address.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        client_ip: Option<IpAddr>,
        maker: Maker,
    ) -> Result<Response<Body>, UpstreamError> {
        let own = match maker {
            Maker::Anthropic => self.anthropic.as_ref(),
            Maker::Gemini => self.gemini.as_ref(),
            Maker::OpenAi | Maker::Nobody => None,
        };
        own.unwrap_or(&self.main).send(request, client_ip, maker).await
    }
}
