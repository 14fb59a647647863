//! [`Engine`]: rules whose state many machines share.

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tidegate_core::{Cost, Decision};

use super::Rule;

/// Where the state of rules is that many machines share: a server, such as Redis or Valkey.
///
/// A policy file says which rules are [on an engine](Rule::engine); a [`Backend`] makes it. The policy asks
/// the rules of this process first, and charges them; then the engine decides on all others of a call in
/// one step, all or nothing, and when it denies, this process takes its charges back.
pub trait Engine: fmt::Debug + Send + Sync {
    /// Decides on all rules of a call without waiting, if it can. `None` says that it cannot, and has
    /// charged nothing. Not asked of calls that [reserve](EngineAsk::is_settled_later).
    fn decide_here(&self, asks: &[EngineAsk]) -> Option<EngineAnswer>;

    /// Decides on all rules of a call: charges all of them if all allow, and none if not. What is settled
    /// later is in the [hold](EngineAnswer::hold).
    ///
    /// When the engine does not answer, each rule's [`WhenDown`] decides.
    fn decide<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a>;

    /// What [`decide`](Self::decide) would answer. Charges nothing.
    fn peek<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a>;

    /// How often things happened, by name: for metrics.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Whether the engine is left alone for a while, since it has not answered.
    fn is_given_up(&self) -> bool {
        false
    }

    /// Waits until what calls have settled is booked, and gives back what this process has leased: before it
    /// ends.
    fn finish(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// An engine at work on a call.
pub type Deciding<'a> = Pin<Box<dyn Future<Output = EngineAnswer> + Send + 'a>>;

/// What makes an [`Engine`] for the rules of a policy.
pub trait Backend {
    /// What policy files call it: `redis`.
    fn name(&self) -> &'static str;

    /// Whether the engine can keep such a rule.
    ///
    /// # Errors
    /// Why not, and what would do.
    fn check(&self, rule: &Rule) -> Result<(), String>;

    /// The engine of these rules, all of which it can keep.
    ///
    /// # Errors
    /// Why there is none.
    fn engine(&self, rules: &[&Rule]) -> Result<Arc<dyn Engine>, String>;
}

/// What one rule of a call asks of an engine.
#[derive(Debug, Clone)]
pub struct EngineAsk {
    pub(super) rule: usize,
    pub(super) caller: Caller,
    pub(super) cost: Cost,
    pub(super) dry_run: bool,
    pub(super) is_settled_later: bool,
}

impl EngineAsk {
    /// The rule, by its place among the engine's.
    #[must_use]
    pub const fn rule(&self) -> usize {
        self.rule
    }

    /// The call's key, the same in all processes.
    #[must_use]
    pub fn caller(&self) -> &str {
        self.caller.as_str()
    }

    /// What the call costs.
    #[must_use]
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    /// Whether the rule is only counted and reported.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Whether the cost is an estimate, to be settled when the call ends.
    #[must_use]
    pub const fn is_settled_later(&self) -> bool {
        self.is_settled_later
    }
}

/// What an engine decided on the rules of a call.
#[derive(Debug)]
pub struct EngineAnswer {
    /// Of each rule that was asked, in their order. The call is allowed when all that are no dry run allow.
    pub told: SmallVec<[Told; 4]>,
    /// The estimates that were charged, where there are any.
    pub hold: Option<Arc<dyn EngineHold>>,
}

/// What an engine told of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// What it decided.
    pub decision: Decision,
    /// Who did.
    pub by: DecidedBy,
}

/// Estimates that an engine has charged, to be settled. One that nobody settles stays charged.
pub trait EngineHold: fmt::Debug + Send + Sync {
    /// Books what was really used, of each ask that is settled later, in their order. Does not wait: the
    /// engine is told in the background, and once. Called at most once.
    fn settle(&self, used: &[Cost]);
}

/// Who decided on a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecidedBy {
    /// This process, or those that share its file.
    Process,
    /// The server.
    Server,
    /// A lease that this process holds, or a denial that it remembers.
    Lease,
    /// The rule's [`WhenDown`], since the server did not answer.
    Fallback,
}

/// What a limit says when the server does not answer.
///
/// ```
/// use tidegate::policy::WhenDown;
///
/// assert_eq!("share of 4".parse(), Ok(WhenDown::Share { of: 4 }));
/// assert!("never".parse::<WhenDown>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenDown {
    /// No call goes on.
    #[default]
    Deny,
    /// Each call goes on, as if there were no such limit.
    Allow,
    /// Each process admits its share of the limit on its own: one of so many. In a window in which the
    /// server goes away, up to twice the limit is admitted: what the server had, and the shares.
    Share {
        /// The number of processes.
        of: u64,
    },
}

/// That a text does not say what happens when the server does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWhenDown {
    text: String,
}

impl FromStr for WhenDown {
    type Err = UnknownWhenDown;

    fn from_str(text: &str) -> Result<Self, UnknownWhenDown> {
        let share = |text: &str| text.strip_prefix("share of ")?.parse().ok().filter(|of| *of > 0);
        match text {
            "deny" => Ok(Self::Deny),
            "allow" => Ok(Self::Allow),
            _ => share(text)
                .map(|of| Self::Share { of })
                .ok_or_else(|| UnknownWhenDown { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for WhenDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny => f.write_str("deny"),
            Self::Allow => f.write_str("allow"),
            Self::Share { of } => write!(f, "share of {of}"),
        }
    }
}

impl fmt::Display for UnknownWhenDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not known; use `deny`, `allow`, or, with the number of processes, `share of 4`",
            self.text
        )
    }
}

impl std::error::Error for UnknownWhenDown {}

/// What a rule says about the engine that it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnEngine {
    /// What happens when the engine does not answer.
    pub when_down: WhenDown,
    /// Whether units are leased to processes that call often, and for how long at most.
    pub lease: Option<Duration>,
}

/// A call's key as an engine has it: one text for each combination of values, the same in all processes.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller(SmallVec<[u8; 64]>);

impl Caller {
    /// Adds a part: what it is, and its value. The length keeps parts apart.
    pub(super) fn push(&mut self, kind: &str, value: &str) {
        use std::io::Write;
        // Writing to memory cannot fail.
        let _ = write!(self.0, "{kind}{}:{value}", value.len());
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default() // only whole texts are put in
    }
}
