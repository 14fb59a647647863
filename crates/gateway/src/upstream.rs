//! The API behind: the demo, or a server that requests are passed on to.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{
    AUTHORIZATION, CONNECTION, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use smallvec::SmallVec;
use tower::ServiceExt;

use crate::client::BodyError;
use crate::demo;
use crate::idle::Idle;
use crate::lanes::PerLane;
use crate::llm::Maker;

/// Where requests are passed on to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct UpstreamUrl {
    scheme: Scheme,
    authority: Authority,
    /// Put before every path; without a slash at the end.
    base: String,
    api_key: Option<ApiKey>,
    /// Whose API it is; without one, that is told by the path.
    maker: Option<Maker>,
    timeouts: Timeouts,
}

/// The key of the upstream, as headers have it.
#[derive(Clone, PartialEq, Eq)]
struct ApiKey {
    plain: HeaderValue,
    bearer: HeaderValue,
}

impl ApiKey {
    /// Puts the key in the place of whatever the caller was known by.
    fn put_into(&self, headers: &mut HeaderMap, maker: Maker) {
        for name in CREDENTIALS {
            headers.remove(name);
        }
        match maker {
            Maker::Anthropic => headers.insert(X_API_KEY, self.plain.clone()),
            Maker::Gemini => headers.insert(X_GOOG_API_KEY, self.plain.clone()),
            Maker::OpenAi | Maker::Nobody => headers.insert(AUTHORIZATION, self.bearer.clone()),
        };
    }
}

/// The fields that callers are known by.
pub(crate) const CREDENTIALS: [HeaderName; 3] = [AUTHORIZATION, X_API_KEY, X_GOOG_API_KEY];
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

impl UpstreamUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let error = || UrlError { text: text.to_owned() };
        let parts = text.parse::<Uri>().map_err(|_| error())?.into_parts();
        let scheme =
            parts.scheme.filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        let path = parts.path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(error());
        }
        // A password in the URL would show up in logs; `api_key_env` is for those.
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
        Ok(Self {
            scheme: scheme.ok_or_else(error)?,
            authority: authority.ok_or_else(error)?,
            base: path.path().trim_end_matches('/').to_owned(),
            api_key: None,
            maker: None,
            timeouts: Timeouts::default(),
        })
    }

    /// The same server, to which this key is sent in place of the callers' own.
    pub(crate) fn with_api_key(self, key: &str) -> Result<Self, http::header::InvalidHeaderValue> {
        let secret = |text: String| {
            HeaderValue::try_from(text).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        let bearer = secret(format!("Bearer {}", key.trim()))?;
        Ok(Self { api_key: Some(ApiKey { plain: secret(key.trim().to_owned())?, bearer }), ..self })
    }

    /// The same server, which may take so long.
    pub(crate) fn within(self, timeouts: Timeouts) -> Self {
        Self { timeouts, ..self }
    }

    /// The same server, which has this maker's API on every path.
    pub(crate) fn made_by(self, maker: Maker) -> Self {
        Self { maker: Some(maker), ..self }
    }

    /// The request's target with this server in place of ours.
    fn target(&self, uri: &Uri, maker: Maker) -> Result<Uri, http::Error> {
        let is_google = maker == Maker::Gemini;
        // Most have nothing that is to be changed.
        if self.base.is_empty()
            && let Some(whole) = uri.path_and_query()
            && ((self.api_key.is_none() && !is_google) || whole.query().is_none())
        {
            let mut parts = uri::Parts::default();
            parts.scheme = Some(self.scheme.clone());
            parts.authority = Some(self.authority.clone());
            parts.path_and_query = Some(whole.clone());
            return Ok(Uri::from_parts(parts)?);
        }
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = match path.split_once('?') {
            Some((path, query)) if self.api_key.is_some() || is_google => {
                let is_dropped = |pair: &&str| {
                    let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
                    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
                    // Gemini's clients may be known by a parameter, too.
                    (self.api_key.is_some() && name == "key")
                        || (is_google
                            && GOOGLES_SYSTEM.iter().any(|one| name.eq_ignore_ascii_case(one)))
                };
                let rest = query.split('&').filter(|pair| !is_dropped(pair));
                let rest = rest.collect::<Vec<_>>().join("&");
                let mark = if rest.is_empty() { "" } else { "?" };
                std::borrow::Cow::Owned(format!("{path}{mark}{rest}"))
            }
            _ => path.into(),
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path}", self.base))
            .build()
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.base)
    }
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpstreamUrl({self})")
    }
}

/// A text is no URL of an upstream.
#[derive(Debug)]
pub(crate) struct UrlError {
    text: String,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.contains('@') {
            // It may have a password, which is for no log.
            return f.write_str(
                "an upstream's URL has no `user:password@`; give its key by `api_key_env`",
            );
        }
        write!(f, "`{}` is not an upstream; write it as in `https://api.example.com`", self.text)
    }
}

/// The API behind.
pub(crate) enum Upstream {
    Demo(Router),
    Server(Box<Server>),
}

pub(crate) struct Server {
    url: UpstreamUrl,
    clients: PerLane<Client<HttpsConnector<HttpConnector>, Body>>,
}

/// How long connecting to the upstream may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next call: less than servers keep one, since a call that meets its end
/// may have been done, for all that is known here.
const POOL_IDLE: Duration = Duration::from_secs(45);

/// How long an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// To begin its answer. Models think for minutes.
    pub(crate) answer: Duration,
    /// From one part of its answer to the next.
    pub(crate) idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { answer: Duration::from_secs(600), idle: Duration::from_secs(300) }
    }
}

impl Upstream {
    pub(crate) fn new(url: Option<UpstreamUrl>) -> Self {
        let Some(url) = url else { return Self::Demo(demo::router()) };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(POOL_IDLE);
        let clients = PerLane::new(|| builder.build(https.clone()));
        Self::Server(Box::new(Server { url, clients }))
    }

    /// Passes a request to a path of this maker's API on, for a client at this address.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        client_ip: Option<IpAddr>,
        maker: Maker,
    ) -> Result<Response<Body>, UpstreamError> {
        let (url, client) = match self {
            Self::Demo(router) => {
                let Ok(response) = router.clone().oneshot(request).await;
                return Ok(response);
            }
            Self::Server(server) => (&server.url, server.clients.get()),
        };
        let (mut parts, body) = request.into_parts();
        let maker = url.maker.unwrap_or(maker);
        parts.uri = url.target(&parts.uri, maker).map_err(|_| UpstreamError::NotSent)?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(HOST);
        parts.headers.remove(FORWARDED);
        if let Some(ip) = client_ip.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok()) {
            parts.headers.insert(X_FORWARDED_FOR, ip);
        }
        if let Some(key) = &url.api_key {
            key.put_into(&mut parts.headers, maker);
        }
        if maker == Maker::Gemini {
            GOOGLES_FIELDS.iter().for_each(|name| drop(parts.headers.remove(*name)));
        }
        let answer = client.request(Request::from_parts(parts, body));
        let mut response = match tokio::time::timeout(url.timeouts.answer, answer).await {
            Err(_) => return Err(UpstreamError::TimedOut),
            Ok(Err(error)) if error.is_connect() => return Err(UpstreamError::NotSent),
            Ok(Err(error)) => {
                let ours = UpstreamError::Broken;
                return Err(BodyError::beneath(&error).map_or(ours, UpstreamError::Body));
            }
            Ok(Ok(response)) => response.map(|body| Body::new(Idle::new(body, url.timeouts.idle))),
        };
        strip_hop_by_hop(response.headers_mut());
        Ok(response)
    }
}

/// Parameters that Google's servers take for themselves: they leave parts out of an answer, such as its usage,
/// or take a request for one of another method.
const GOOGLES_SYSTEM: [&str; 4] = ["fields", "$fields", "$httpMethod", "httpMethod"];

/// Fields of a request that do the same, or ask for a dearer service tier.
const GOOGLES_FIELDS: [&str; 5] = [
    "x-goog-fieldmask",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-vertex-ai-llm-shared-request-type",
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");

/// Removes the fields that are for one connection only (RFC 9110, section 7.6.1), and those that
/// `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have one of them, or none: looking for each would take longer.
    let is_named = headers.contains_key(CONNECTION);
    let is_hop = |name: &&HeaderName| HOP_BY_HOP.contains(name);
    let found: SmallVec<[HeaderName; 2]> = headers.keys().filter(is_hop).cloned().collect();
    if is_named {
        let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
        let named: Vec<HeaderName> = lines
            .flat_map(|line| line.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
    found.iter().for_each(|name| drop(headers.remove(name)));
}

/// Fields of one connection, whether `Connection` names them or not.
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Why there is no answer from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamError {
    /// It could not be reached, so it has seen nothing of the request.
    NotSent,
    /// It broke off. It may have seen the request, and charge for it.
    Broken,
    /// It took too long. It may have seen the request, and charge for it.
    TimedOut,
    /// The client has not sent it the whole request.
    Body(BodyError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_refused_and_not_told() {
        let error = UpstreamUrl::parse("http://u:secret@a.example").err().unwrap().to_string();
        assert!(!error.contains("secret") && error.contains("api_key_env"), "{error}");
    }

    #[test]
    fn targets_are_put_behind_the_base() {
        let target = |url: &str, uri: &str| {
            let url = UpstreamUrl::parse(url).unwrap();
            url.target(&uri.parse().unwrap(), Maker::OpenAi).unwrap().to_string()
        };
        assert_eq!(target("https://a.example", "/v1/chat?x=1"), "https://a.example/v1/chat?x=1");
        assert_eq!(target("http://a.example:81/base/", "/v1"), "http://a.example:81/base/v1");
        let keyed = UpstreamUrl::parse("https://a.example").unwrap().with_api_key("k").unwrap();
        for (uri, expected) in [
            ("/v1beta/m:x?key=secret&alt=sse", "https://a.example/v1beta/m:x?alt=sse"),
            ("/v1beta/m:x?key=secret", "https://a.example/v1beta/m:x"),
            ("/v1/x?monkey=1", "https://a.example/v1/x?monkey=1"),
        ] {
            let target = keyed.target(&uri.parse().unwrap(), Maker::OpenAi).unwrap();
            assert_eq!(target.to_string(), expected);
        }
        for wrong in ["", "a.example", "/v1", "ftp://a", "http://a?x=1", "http://", "http://u:p@a"]
        {
            assert!(UpstreamUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn googles_servers_are_not_told_to_hide_the_usage_nor_to_take_another_method() {
        let url = UpstreamUrl::parse("https://a.example").unwrap();
        let target =
            |uri: &str, maker| url.target(&uri.parse().unwrap(), maker).unwrap().to_string();
        for query in [
            "fields=candidates",
            "%66ields=candidates",
            "$fields=candidates",
            "%24fields=candidates",
            "FIELDS=candidates",
            "fields",
            "$httpMethod=POST",
        ] {
            let expected = "https://a.example/v1beta/m:x?alt=sse";
            assert_eq!(target(&format!("/v1beta/m:x?{query}&alt=sse"), Maker::Gemini), expected);
        }
        let other = "/search?fields=name&$httpMethod=x";
        assert_eq!(target(other, Maker::Nobody), format!("https://a.example{other}"));
    }

    #[test]
    fn the_upstreams_key_takes_the_place_of_every_credential_of_the_caller() {
        let url = UpstreamUrl::parse("https://a.example").unwrap().with_api_key(" k\n").unwrap();
        for (maker, field, value) in [
            (Maker::OpenAi, "authorization", "Bearer k"),
            (Maker::Anthropic, "x-api-key", "k"),
            (Maker::Gemini, "x-goog-api-key", "k"),
        ] {
            let mut headers: HeaderMap = CREDENTIALS
                .map(|name| (name, HeaderValue::from_static("caller")))
                .into_iter()
                .collect();
            url.api_key.as_ref().unwrap().put_into(&mut headers, maker);
            assert_eq!(headers.len(), 1);
            assert_eq!(headers[field], value);
        }
    }

    #[test]
    fn fields_of_one_connection_are_not_passed_on() {
        let mut headers: HeaderMap = [
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
