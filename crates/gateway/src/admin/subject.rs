//! [`Subject`]: whom an operator means.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use tidegate::policy::{AccountError, Call, Headers, Policy, RuleAccount};
use tidegate::{Decision, Key};

/// Whom an operator means: by the parts of a rule's key, or by the key itself as the page tells it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    /// The rule's key, in hexadecimal digits, as the overview tells it.
    pub(super) id: Option<String>,
    user: Option<String>,
    team: Option<String>,
    /// An API key, by its name.
    key: Option<String>,
    model: Option<String>,
    route: Option<String>,
    ip: Option<IpAddr>,
    /// The values of headers that rules tell callers apart by.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

impl Headers for Subject {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Subject {
    pub(super) fn call(&self) -> Call<'_> {
        let call = Call::new("", "").with_headers(self);
        let call = self.ip.map_or(call, |ip| call.from_ip(ip));
        let call = self.user.as_deref().map_or(call, |user| call.by_user(user));
        let call = self.team.as_deref().map_or(call, |team| call.of_team(team));
        let call = self.key.as_deref().map_or(call, |key| call.by_api_key(key));
        let call = self.model.as_deref().map_or(call, |model| call.on_model(model));
        self.route.as_deref().map_or(call, |route| call.on_route(route))
    }

    /// The account with a rule.
    pub(super) fn account<'p>(
        &self,
        policy: &'p Policy,
        rule: &str,
    ) -> Result<RuleAccount<'p>, NoAccount> {
        match self.key()? {
            None => Ok(policy.account(rule, &self.call())?),
            Some(key) => Ok(policy.account_of(rule, key)?),
        }
    }

    /// How it stands with a rule, which may be on a server.
    pub(super) async fn standing(
        &self,
        policy: &Policy,
        rule: &str,
    ) -> Result<Decision, NoAccount> {
        match self.key()? {
            None => {
                let standing = policy.standing(rule, &self.call());
                Ok(standing.await?)
            }
            Some(key) => Ok(policy.account_of(rule, key)?.standing()),
        }
    }

    /// The key that is meant, where it is told by its id.
    fn key(&self) -> Result<Option<Key>, NoAccount> {
        let Some(id) = &self.id else { return Ok(None) };
        match u64::from_str_radix(id, 16) {
            Ok(hash) => Ok(Some(Key::from_hash(hash))),
            Err(_) => Err(NoAccount::Id { id: id.clone() }),
        }
    }

    /// Whom it means, for logs.
    pub(super) fn in_words(&self) -> String {
        let parts = [
            self.user.as_ref().map(|user| format!("user {user}")),
            self.team.as_ref().map(|team| format!("team {team}")),
            self.key.as_ref().map(|key| format!("API key {key}")),
            self.model.as_ref().map(|model| format!("model {model}")),
            self.route.as_ref().map(|route| format!("route {route}")),
            self.ip.map(|ip| format!("address {ip}")),
            self.id.as_ref().map(|id| format!("what hashes to {id}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "everybody".to_owned() } else { parts.join(", ") }
    }
}

/// Why there is no account of whom an operator means.
#[derive(Debug)]
pub(super) enum NoAccount {
    /// What was given is no key.
    Id {
        id: String,
    },
    Policy(AccountError),
}

impl NoAccount {
    /// Whether the account is there, but on a server that machines share.
    pub(super) const fn is_on_server(&self) -> bool {
        matches!(self, Self::Policy(AccountError::OnEngine { .. }))
    }

    /// Whether the account is on a server that does not answer.
    pub(super) const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Policy(AccountError::NoAnswer { .. }))
    }
}

impl From<AccountError> for NoAccount {
    fn from(error: AccountError) -> Self {
        Self::Policy(error)
    }
}

impl fmt::Display for NoAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { id } => write!(f, "`{id}` is no key of the overview"),
            Self::Policy(error) => error.fmt(f),
        }
    }
}
