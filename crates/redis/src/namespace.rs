//! [`RemoteLimit`]: a limit whose state is on the server, and how its keys are called there.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tidegate::Limit;
use tidegate::policy::WhenDown;

use crate::limiter::{LeaseError, LeaseRules};
use crate::spec::{Spec, SpecError};

/// A name for limits that belong together, such as `shop` or `shop-staging`: all processes that use one
/// namespace share its limits.
///
/// All keys of a namespace begin with the hash tag `{tidegate:name}`, so a cluster keeps them in one slot.
/// That is what makes a call with several layers one step in one round trip: nothing is charged by half,
/// since no step of a cluster spans two slots. To use more of a cluster's nodes, have several namespaces,
/// such as one for each tenant or API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    tag: String,
}

impl Namespace {
    /// # Errors
    /// When the name is not 1 to 64 letters, digits, `-`, `_` and `.`.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Ok(Self { tag: format!("{{tidegate:{}}}", checked(name)?) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.tag
            .strip_prefix("{tidegate:")
            .and_then(|tag| tag.strip_suffix('}'))
            .unwrap_or(&self.tag)
    }

    /// What all its keys begin with.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

fn checked(name: &str) -> Result<&str, NameError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        return Err(NameError::Name { name: name.to_owned() });
    }
    Ok(name)
}

/// The layout of states. Machines that lay them out otherwise have keys of their own, and so limits.
const LAYOUT: u32 = 2;

/// A limit whose state is on the server.
///
/// Its state is found by the namespace, the limit's name, all that the [`Limit`] says, and how this version
/// lays states out: a limit that was changed begins fresh.
///
/// ```
/// use tidegate_redis::{Namespace, RemoteLimit};
///
/// let shop = Namespace::new("shop")?;
/// let users = RemoteLimit::new(&shop, "user", "fixed-window, 10000 per day, zone UTC".parse()?)?;
/// assert!(users.key("alice").as_str().starts_with("{tidegate:shop}:user:"));
/// assert_ne!(users.key("alice"), users.key("bob"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RemoteLimit {
    name: String,
    limit: Limit,
    spec: Spec,
    prefix: String,
    tag: String,
    leases: Option<LeaseRules>,
    when_down: WhenDown,
}

impl RemoteLimit {
    /// # Errors
    /// When the name is none, or the limit is one that the server's scripts cannot count.
    pub fn new(namespace: &Namespace, name: &str, limit: Limit) -> Result<Self, NameError> {
        let spec = Spec::new(&limit).map_err(NameError::Limit)?;
        let limit_hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(format!("{LAYOUT} {limit}"))[..6]);
        let prefix = format!("{}:{}:{limit_hash}:", namespace.tag, checked(name)?);
        let (name, tag) = (name.to_owned(), namespace.tag.clone());
        Ok(Self { name, limit, spec, prefix, tag, leases: None, when_down: WhenDown::Deny })
    }

    /// The same limit, of which a [`RemoteLimiter`](crate::RemoteLimiter) leases units for its hot keys.
    /// All processes that share the limit must have the same rules.
    ///
    /// # Errors
    /// When the rules are none for this limit: a sliding window log, which is exact to the microsecond, is
    /// not leased.
    pub fn with_leases(self, rules: LeaseRules) -> Result<Self, NameError> {
        rules.check(&self.spec).map_err(NameError::Leases)?;
        Ok(Self { leases: Some(rules), ..self })
    }

    /// The same limit, with another answer when the server does not give one.
    #[must_use]
    pub fn when_down(self, when_down: WhenDown) -> Self {
        Self { when_down, ..self }
    }

    /// How units are leased, if they are.
    #[must_use]
    pub const fn leases(&self) -> Option<LeaseRules> {
        self.leases
    }

    /// What happens when the server does not answer.
    #[must_use]
    pub const fn fallback(&self) -> WhenDown {
        self.when_down
    }

    /// How long leases last; 0 where there are none.
    pub(crate) fn lead_us(&self) -> u64 {
        self.leases.map_or(0, |rules| rules.lasts_us())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limit.
    #[must_use]
    pub const fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Where the state of a caller is: what the server calls it.
    ///
    /// The caller's name is hashed (128 bits of SHA-256), so that keys are short whatever callers send, hold
    /// nobody's address or name, and cannot be aimed at another's.
    #[must_use]
    pub fn key(&self, caller: &str) -> RemoteKey {
        self.key_of_hash(Sha256::digest(caller)[..16].try_into().expect("16 bytes"))
    }

    /// The same, for a caller whose name is hashed already.
    pub(crate) fn key_of_hash(&self, hash: [u8; 16]) -> RemoteKey {
        // Short: each byte of a key costs the server memory and time.
        let mut key = String::with_capacity(self.prefix.len() + 22);
        key.push_str(&self.prefix);
        URL_SAFE_NO_PAD.encode_string(hash, &mut key);
        RemoteKey(key)
    }

    pub(crate) const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where a hold is noted, in the same slot.
    pub(crate) fn hold(&self, id: u128) -> String {
        format!("{}:hold:{}", self.tag, URL_SAFE_NO_PAD.encode(id.to_be_bytes()))
    }

    /// The namespace's tag.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    pub(crate) fn shares_slot_with(&self, other: &Self) -> bool {
        self.tag == other.tag
    }
}

/// What the server calls one caller's state of a [`RemoteLimit`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteKey(String);

impl RemoteKey {
    /// The key on the server.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a name or a limit cannot be used on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The name does not fit a key.
    Name {
        /// The name.
        name: String,
    },
    /// The scripts cannot count the limit.
    Limit(SpecError),
    /// The limit cannot be leased like that.
    Leases(LeaseError),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name } => {
                write!(f, "`{name}` is not a name; use 1 to 64 letters, digits, `-`, `_` and `.`")
            }
            Self::Limit(error) => error.fmt(f),
            Self::Leases(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NameError {}
