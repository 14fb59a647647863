//! [`Call`]: what a policy is asked about.

use std::fmt;
use std::net::IpAddr;

use crate::money::Money;

/// A call to an API, as rules see it.
///
/// The adapter fills in what it knows. A rule whose key is not there falls back on its
/// [`MissingKey`](super::MissingKey).
#[derive(Clone, Copy)]
pub struct Call<'a> {
    method: &'a str,
    path: &'a str,
    ip: Option<IpAddr>,
    user: Option<&'a str>,
    team: Option<&'a str>,
    api_key: Option<&'a str>,
    model: Option<&'a str>,
    route: Option<&'a str>,
    headers: &'a dyn Headers,
    llm_tokens: Option<u64>,
    money: Option<Money>,
}

/// Where a call's headers can be looked up.
pub trait Headers {
    /// The value of a header, by its name in lower case; of several, the first. `None` when there is
    /// none, or when it is not text.
    fn header(&self, name: &str) -> Option<&str>;
}

/// No headers at all.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn header(&self, _: &str) -> Option<&str> {
        None
    }
}

impl<'a> Call<'a> {
    /// A call with this method and path (as it came: rules bring it into its canonical form).
    #[must_use]
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self {
            method,
            path,
            ip: None,
            user: None,
            team: None,
            api_key: None,
            model: None,
            route: None,
            headers: &NoHeaders,
            llm_tokens: None,
            money: None,
        }
    }

    /// The call of a client at this address: see [`TrustedProxies`](crate::TrustedProxies).
    #[must_use]
    pub fn from_ip(self, ip: IpAddr) -> Self {
        Self { ip: Some(ip), ..self }
    }

    /// The call of an authenticated user.
    #[must_use]
    pub fn by_user(self, user: &'a str) -> Self {
        Self { user: Some(user), ..self }
    }

    /// The call of a user of this team.
    #[must_use]
    pub fn of_team(self, team: &'a str) -> Self {
        Self { team: Some(team), ..self }
    }

    /// The call with this API key, by a name that is no secret: several keys may be one user's.
    #[must_use]
    pub fn by_api_key(self, id: &'a str) -> Self {
        Self { api_key: Some(id), ..self }
    }

    /// The call of this model.
    #[must_use]
    pub fn on_model(self, model: &'a str) -> Self {
        Self { model: Some(model), ..self }
    }

    /// The call of this route, as the adapter names it: one name for all paths that reach a handler.
    #[must_use]
    pub fn on_route(self, route: &'a str) -> Self {
        Self { route: Some(route), ..self }
    }

    /// The call with its headers.
    #[must_use]
    pub fn with_headers(self, headers: &'a dyn Headers) -> Self {
        Self { headers, ..self }
    }

    /// The call with an estimate of the LLM tokens it will use, or the number, if it is known.
    /// Zero for calls that use none.
    #[must_use]
    pub fn with_llm_tokens(self, tokens: u64) -> Self {
        Self { llm_tokens: Some(tokens), ..self }
    }

    /// The call with an estimate of the money it will cost, or the amount, if it is known. Nothing for
    /// calls that are free.
    #[must_use]
    pub fn with_money(self, money: Money) -> Self {
        Self { money: Some(money), ..self }
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> &'a str {
        self.method
    }

    /// The path as it came.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// The client's address.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The authenticated user.
    #[must_use]
    pub const fn user(&self) -> Option<&'a str> {
        self.user
    }

    /// The user's team.
    #[must_use]
    pub const fn team(&self) -> Option<&'a str> {
        self.team
    }

    /// The name of the API key.
    #[must_use]
    pub const fn api_key(&self) -> Option<&'a str> {
        self.api_key
    }

    /// The model.
    #[must_use]
    pub const fn model(&self) -> Option<&'a str> {
        self.model
    }

    /// The route.
    #[must_use]
    pub const fn route(&self) -> Option<&'a str> {
        self.route
    }

    /// The estimate of money.
    #[must_use]
    pub const fn money(&self) -> Option<Money> {
        self.money
    }

    /// The estimate of LLM tokens.
    #[must_use]
    pub const fn llm_tokens(&self) -> Option<u64> {
        self.llm_tokens
    }

    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.header(name)
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the headers: they hold credentials.
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("ip", &self.ip)
            .field("user", &self.user)
            .field("team", &self.team)
            .field("api_key", &self.api_key)
            .field("model", &self.model)
            .field("route", &self.route)
            .field("llm_tokens", &self.llm_tokens)
            .field("money", &self.money)
            .finish_non_exhaustive()
    }
}
