//! [`RuleAccount`]: how one key stands with one rule, for the people who look after it.

use std::fmt;

use tidegate_core::{Cost, Decision, Key, LiveKey, Timestamp};

use super::{Call, DecidedBy, EngineAsk, KeyPart, Policy, Rule};

/// How one key stands with one rule, to be looked at, topped up and reset by people.
///
/// ```
/// use tidegate::policy::{Call, Policy};
///
/// let policy = Policy::from_toml(r#"
///     [[rule]]
///     name = "user"
///     limit = "2 per hour"
///     key = "user"
/// "#)?;
/// let call = Call::new("GET", "/chat").by_user("alice");
/// assert!(policy.decide(&call).is_allow() && policy.decide(&call).is_allow());
/// assert!(!policy.decide(&call).is_allow());
/// assert_eq!(policy.account("user", &call)?.top_up(1).remaining(), 1);
/// assert!(policy.decide(&call).is_allow());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RuleAccount<'p> {
    policy: &'p Policy,
    rule: &'p Rule,
    key: Key,
}

/// The most times that a reset goes on while the key is being charged.
const MOST_ROUNDS: usize = 64;

impl Policy {
    /// The account, with the rule of that name, of the key that this call has. Whether the rule applies to
    /// the call makes no difference.
    ///
    /// # Errors
    /// When there is no such rule, or the call does not have all parts of its key.
    pub fn account(&self, rule: &str, call: &Call<'_>) -> Result<RuleAccount<'_>, AccountError> {
        let rule = self.rules().iter().find(|known| known.name() == rule).ok_or_else(|| {
            let names = self.rules().iter().map(|rule| rule.name().to_owned()).collect();
            AccountError::NoSuchRule { name: rule.to_owned(), names }
        })?;
        match rule.key_of(call) {
            (_, None) if rule.engine().is_some() => {
                Err(AccountError::OnEngine { rule: rule.name().to_owned() })
            }
            (key, None) => Ok(RuleAccount { policy: self, rule, key }),
            (_, Some(part)) => {
                Err(AccountError::MissingKey { rule: rule.name().to_owned(), part: part.clone() })
            }
        }
    }

    /// How the key that this call has stands with the rule of that name, wherever its state is: as
    /// [`account`](Self::account) tells it, or as the [`Engine`](super::Engine) does, which is waited for.
    ///
    /// # Errors
    /// As [`account`](Self::account), but for a rule on an engine only when that does not answer.
    pub fn standing<'p>(
        &'p self,
        rule: &str,
        call: &Call<'_>,
    ) -> impl Future<Output = Result<Decision, AccountError>> + Send + use<'p> {
        let here = match self.account(rule, call) {
            Err(AccountError::OnEngine { rule }) => Err((self.engine_ask_of(&rule, call), rule)),
            account => Ok(account.map(|account| account.standing())),
        };
        async move {
            let (ask, rule) = match here {
                Ok(standing) => return standing,
                Err((ask, rule)) => (ask?, rule),
            };
            let told = match &self.inner.engine {
                Some(engine) => engine.peek(&[ask]).await.told.first().copied(),
                None => None,
            };
            match told {
                Some(told) if told.by != DecidedBy::Fallback => Ok(told.decision),
                _ => Err(AccountError::NoAnswer { rule }),
            }
        }
    }

    /// What asks the engine how a call's key stands.
    fn engine_ask_of(&self, name: &str, call: &Call<'_>) -> Result<EngineAsk, AccountError> {
        let mut on_engine = self.rules().iter().filter(|rule| rule.engine().is_some()).enumerate();
        let found = on_engine.find(|(_, rule)| rule.name() == name);
        let (place, rule) =
            found.ok_or_else(|| AccountError::OnEngine { rule: name.to_owned() })?;
        match rule.key_of(call) {
            (_, None) => Ok(rule.engine_ask(place, call, Cost::ZERO)),
            (_, Some(part)) => {
                Err(AccountError::MissingKey { rule: name.to_owned(), part: part.clone() })
            }
        }
    }

    /// The account of a key that a [`Standing`](super::Standing) of the rule told.
    ///
    /// # Errors
    /// When there is no such rule.
    pub fn account_of(&self, rule: &str, key: Key) -> Result<RuleAccount<'_>, AccountError> {
        let nobody = Call::new("", "");
        match self.account(rule, &nobody) {
            Ok(account) => Ok(RuleAccount { key, ..account }),
            Err(AccountError::MissingKey { rule: name, part }) => {
                let rule = self.rules().iter().find(|rule| rule.name() == name);
                let rule = rule.ok_or(AccountError::MissingKey { rule: name, part })?;
                if rule.engine().is_some() {
                    return Err(AccountError::OnEngine { rule: rule.name().to_owned() });
                }
                Ok(RuleAccount { policy: self, rule, key })
            }
            Err(error) => Err(error),
        }
    }

    /// The time on the policy's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}

impl<'p> RuleAccount<'p> {
    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> &'p Rule {
        self.rule
    }

    /// The key, as the rule's table has it.
    #[must_use]
    pub const fn key(&self) -> Key {
        self.key
    }

    /// How it stands now.
    pub fn standing(&self) -> Decision {
        self.rule.table().peek(self.key, Cost::ZERO, self.policy.now())
    }

    /// Gives back up to so many units of those that were used and still count: debt first, if there is
    /// any. Nobody has more than the limit at once, so what goes beyond it is lost; and how it stands
    /// afterwards.
    ///
    /// All that the key is ever admitted stays within its limit and what was given back so, whoever calls
    /// meanwhile. Calls that are under way settle as they would without.
    pub fn top_up(&self, units: u64) -> Decision {
        self.rule.table().forgive(self.key, Cost::new(units), self.policy.now());
        self.standing()
    }

    /// Gives back all that was used, with the debt; and how it stands afterwards. What calls that are under
    /// way have reserved is given back too, once; what they charge on top later counts.
    pub fn reset(&self) -> Decision {
        // A round frees no more than the limit in some algorithms, and debt may be many times that.
        for _ in 0..MOST_ROUNDS {
            let standing = self.top_up(u64::MAX);
            if standing.reset_after().is_zero() {
                return standing;
            }
        }
        self.standing()
    }

    /// Charges so many units, whether they fit or not: for what was spent somewhere else.
    pub fn charge(&self, units: u64) -> Decision {
        // When there is no slot for the key, the table's tally counts it.
        let _ = self.rule.table().charge(self.key, Cost::new(units), self.policy.now());
        self.standing()
    }
}

impl Rule {
    /// How many keys are live (not idle) at `now`. Looks at every slot.
    #[must_use]
    pub fn live_keys(&self, now: Timestamp) -> usize {
        self.table().live_keys(now)
    }

    /// How many keys it has slots for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.table().slots()
    }

    /// The keys with the least left at `now`, and of those with as little, the ones that must wait
    /// longest; at most so many. Looks at every slot.
    #[must_use]
    pub fn top_consumers(&self, most: usize, now: Timestamp) -> Vec<LiveKey> {
        let mut keys = Vec::new();
        self.table().each_live(now, |key| keys.push(key));
        let order = |key: &LiveKey| {
            (key.standing.remaining(), std::cmp::Reverse(key.standing.reset_after()))
        };
        if keys.len() > most {
            keys.select_nth_unstable_by_key(most, order);
            keys.truncate(most);
        }
        keys.sort_by_key(order);
        keys
    }
}

/// Why there is no account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountError {
    /// The policy has no rule of that name.
    NoSuchRule {
        /// The name.
        name: String,
        /// Those that it has.
        names: Vec<String>,
    },
    /// The call does not have this part of the rule's key.
    MissingKey {
        /// The rule.
        rule: String,
        /// The part.
        part: KeyPart,
    },
    /// The rule's state is on an [`Engine`](super::Engine), not in this process.
    OnEngine {
        /// The rule.
        rule: String,
    },
    /// The rule's state is on an [`Engine`](super::Engine), which does not answer.
    NoAnswer {
        /// The rule.
        rule: String,
    },
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchRule { name, names } => {
                write!(f, "there is no rule `{name}`; the rules are `{}`", names.join("`, `"))
            }
            Self::OnEngine { rule } => write!(
                f,
                "the state of the rule `{rule}` is on a server that machines share; it can be changed only there"
            ),
            Self::NoAnswer { rule } => write!(
                f,
                "the state of the rule `{rule}` is on a server that machines share, which does not answer"
            ),
            Self::MissingKey { rule, part } => {
                write!(f, "the rule `{rule}` tells callers apart by `{part}`; say which")
            }
        }
    }
}

impl std::error::Error for AccountError {}
