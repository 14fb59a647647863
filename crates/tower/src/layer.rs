//! [`RateLimitLayer`]: the layer and its options.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use tidegate::TrustedProxies;
use tidegate::policy::Policy;
use tower_layer::Layer;

use crate::fields::WholePolicy;
use crate::{Fields, RateLimit};

/// Limits the calls to a service by a policy.
///
/// See the [crate's page](crate) for an example.
#[derive(Clone)]
pub struct RateLimitLayer {
    shared: Arc<Shared>,
}

/// What all services of a layer share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) policy: Policy,
    pub(crate) whole: WholePolicy,
    pub(crate) proxies: TrustedProxies,
    pub(crate) fields: Fields,
    pub(crate) user: Option<Arc<Identify>>,
    pub(crate) llm_tokens: Option<Arc<CountTokens>>,
}

type Identify = dyn Fn(&Parts) -> Option<String> + Send + Sync;
type CountTokens = dyn Fn(&Parts) -> Option<u64> + Send + Sync;

impl RateLimitLayer {
    /// A layer that trusts no proxy, knows no users, and answers with the IETF's fields.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let shared = Shared {
            whole: WholePolicy::of(&policy),
            policy,
            proxies: TrustedProxies::default(),
            fields: Fields::default(),
            user: None,
            llm_tokens: None,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The same layer, behind these proxies.
    #[must_use]
    pub fn behind(self, proxies: TrustedProxies) -> Self {
        self.with(|shared| shared.proxies = proxies)
    }

    /// The same layer, which asks `identify` for the authenticated user of a request: from an
    /// extension that an outer layer has set, say. `None` says that there is none.
    ///
    /// It must not believe what a client merely claims.
    #[must_use]
    pub fn identified_by(
        self,
        identify: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.user = Some(Arc::new(identify)))
    }

    /// The same layer, which asks `count` for the LLM tokens that a request will use at most, for
    /// rules that count them. The request then carries an
    /// [`LlmReservation`](crate::LlmReservation), to be settled by the handler.
    #[must_use]
    pub fn counting_llm_tokens(
        self,
        count: impl Fn(&Parts) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        self.with(|shared| shared.llm_tokens = Some(Arc::new(count)))
    }

    /// The same layer, with other fields in its responses.
    #[must_use]
    pub fn with_fields(self, fields: Fields) -> Self {
        self.with(|shared| shared.fields = fields)
    }

    fn with(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        change(Arc::make_mut(&mut self.shared));
        self
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimit<S>;

    fn layer(&self, inner: S) -> RateLimit<S> {
        RateLimit::new(inner, self.shared.clone())
    }
}

impl fmt::Debug for RateLimitLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer")
            .field("policy", &self.policy)
            .field("proxies", &self.proxies)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}
