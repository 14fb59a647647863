//! The same service, alone and behind layers. Limits are by address, and kept as a token bucket by all.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use governor::middleware::StateInformationMiddleware;
use tidegate::policy::Policy;
use tidegate_tower::RateLimitLayer;
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;
use tower_governor::key_extractor::PeerIpKeyExtractor;

/// So much that it is never spent: a unit in 2 ns, a thousand million at once.
#[derive(Debug, Clone, Copy)]
pub struct Limited;

/// One, and then none for an hour.
#[derive(Debug, Clone, Copy)]
pub struct Spent;

/// A quota, in the words of both.
pub trait Quota {
    /// As a policy file has it.
    const LIMIT: &'static str;
    /// The nanoseconds until one more, and how many at once.
    const PERIOD_AND_BURST: (u64, u32);
}

impl Quota for Limited {
    const LIMIT: &'static str = "500000000 per second";
    const PERIOD_AND_BURST: (u64, u32) = (2, 500_000_000);
}

impl Quota for Spent {
    const LIMIT: &'static str = "1 per hour";
    const PERIOD_AND_BURST: (u64, u32) = (3_600_000_000_000, 1);
}

/// The service, with no layer.
pub fn plain() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// The service behind a layer that does nothing: what axum takes for any layer.
pub fn empty_layer() -> Router {
    plain().layer(tower_layer::Identity::new())
}

/// The service with the IETF's fields as they would be, written in its code: what sending them takes,
/// whoever decides.
pub fn same_fields() -> Router {
    let fields =
        [("ratelimit-policy", "\"ip\";q=500000000;w=1"), ("ratelimit", "\"ip\";r=499999999;t=1")];
    Router::new().route("/", get(move || async move { (fields, "hello") }))
}

/// Ours, with the IETF's fields.
#[must_use]
pub fn ours<Q: Quota>() -> RateLimitLayer {
    let limit = Q::LIMIT;
    let policy = Policy::from_toml(&format!(
        "[[rule]]\nname = \"ip\"\nkey = \"ip\"\nlimit = \"{limit}\"\nalgorithm = \"token-bucket\""
    ));
    RateLimitLayer::new(policy.expect("a policy"))
}

/// `tower_governor`, with its fields.
#[must_use]
pub fn governed<Q: Quota>() -> GovernorLayer<PeerIpKeyExtractor, StateInformationMiddleware, Body> {
    let (period_ns, burst) = Q::PERIOD_AND_BURST;
    let mut config = GovernorConfigBuilder::default();
    let config = config.per_nanosecond(period_ns).burst_size(burst).use_headers().finish();
    GovernorLayer::new(config.expect("a quota"))
}
