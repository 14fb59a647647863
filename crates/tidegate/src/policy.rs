//! [`Policy`]: layers of rules, all or nothing.

mod account;
mod call;
mod charged;
mod deciding;
mod engine;
mod file;
mod held;
mod key;
mod matching;
mod model;
mod path;
mod rule;
mod source;
mod verdict;
mod words;

pub use account::{AccountError, RuleAccount};
pub use call::{Call, Headers, NoHeaders};
pub use charged::Charged;
pub use engine::{
    Backend, DecidedBy, Deciding, Engine, EngineAnswer, EngineAsk, EngineHold, OnEngine, Told,
    UnknownWhenDown, WhenDown,
};
pub use file::{RuleSpec, Spanned};
pub use held::{Held, Usage};
pub use key::{KeyPart, MissingKey};
pub use matching::Match;
pub use model::{ModelPattern, ModelPatternError};
pub use path::{PathPattern, PathPatternError, canonical as canonical_path, has_dot_segments};
pub use rule::{CostRule, Rule, RuleError, WhenShort};
pub use source::{FileError, Source};
pub use verdict::{Grant, Reason, Refusal, Standing, Verdict};

use std::fmt;
use std::sync::Arc;

use tidegate_core::{Decision, Denial, Timestamp};

use crate::clock::{Clock, SystemClock};
use crate::reservation::Reservation;
use crate::shared::SharedFile;
use held::Account;
use rule::Applies;

/// Layers of rules that a call must pass, all or nothing.
///
/// Each [`Rule`] says whom it applies to, by which key, with which limit, and what a call costs. A
/// call is allowed when every rule that applies allows it, and only then is anything charged. The
/// answer names the rule that denied, and the longest wait.
///
/// # Guarantee
/// No rule ever admits more than its limit. A call that is denied is charged nowhere: all rules are
/// asked first, then charged in their order, and when another call was faster at a later rule, what
/// the earlier ones charged is refunded at once. In between, those earlier rules may deny a call that
/// the refund makes room for: as many units as there are calls in that state, and no longer than they
/// are.
///
/// ```
/// use std::net::IpAddr;
/// use tidegate::policy::{Call, Policy, Verdict};
///
/// let policy = Policy::from_toml(r#"
///     [[rule]]
///     name = "ip"
///     limit = "100 per minute"
///     key = "ip"
///
///     [[rule]]
///     name = "user"
///     limit = "2 per minute"
///     key = "user"
///     match = { authenticated = true }
/// "#)?;
/// let ip: IpAddr = "192.0.2.7".parse()?;
/// let call = Call::new("GET", "/chat").from_ip(ip).by_user("alice");
/// assert!(policy.decide(&call).is_allow());
/// assert!(policy.decide(&call).is_allow());
/// let Verdict::Deny(refusal) = policy.decide(&call) else { unreachable!() };
/// assert_eq!(refusal.rule().name(), "user");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Policy {
    inner: Arc<Inner>,
}

struct Inner {
    rules: Box<[Rule]>,
    clock: Box<dyn Clock + Send + Sync>,
    /// Whether any rule looks at the path, so that it must be brought into its canonical form.
    looks_at_paths: bool,
    /// Whether any rule is a dry run.
    has_dry_runs: bool,
    /// Whether any rule's charges are settled when the call ends.
    settles_later: bool,
    /// Whether any rule counts concurrent calls whose places expire.
    has_expiring_places: bool,
    /// What keeps the rules that are not this process's own.
    engine: Option<Arc<dyn Engine>>,
}

impl Policy {
    /// The most rules in a policy.
    pub const MAX_RULES: usize = 32;

    /// A policy of these rules, asked and charged in their order, on the system's clock.
    ///
    /// # Errors
    /// When there are none or too many, or two have one name.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Result<Self, PolicyError> {
        Self::with_clock(rules, SystemClock::new())
    }

    /// A policy of these rules on a clock of one's own.
    ///
    /// # Errors
    /// As [`Policy::new`].
    pub fn with_clock(
        rules: impl IntoIterator<Item = Rule>,
        clock: impl Clock + Send + Sync + 'static,
    ) -> Result<Self, PolicyError> {
        Self::build(rules, clock, None)
    }

    fn build(
        rules: impl IntoIterator<Item = Rule>,
        clock: impl Clock + Send + Sync + 'static,
        engine: Option<Arc<dyn Engine>>,
    ) -> Result<Self, PolicyError> {
        let rules: Box<[Rule]> = rules.into_iter().collect();
        if rules.is_empty() || rules.len() > Self::MAX_RULES {
            return Err(PolicyError::RuleCount { rules: rules.len() });
        }
        for (index, rule) in rules.iter().enumerate() {
            if rules[..index].iter().any(|earlier| earlier.name() == rule.name()) {
                return Err(PolicyError::TwoOfOneName { name: rule.name().to_owned() });
            }
        }
        let is_wrong = |rule: &&Rule| {
            rule.limit().is_concurrency() && !matches!(rule.cost(), CostRule::Fixed(_))
        };
        if let Some(rule) = rules.iter().find(is_wrong) {
            return Err(PolicyError::CostOfConcurrent { name: rule.name().to_owned() });
        }
        let looks_at_paths = rules.iter().any(Rule::looks_at_path);
        let has_dry_runs = rules.iter().any(Rule::is_dry_run);
        let settles_later = rules.iter().any(Rule::is_settled_later);
        let has_expiring_places = rules.iter().any(Rule::has_expiring_places);
        let inner = Inner {
            rules,
            clock: Box::new(clock),
            looks_at_paths,
            has_dry_runs,
            settles_later,
            has_expiring_places,
            engine,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// A policy from the text of a policy file, on the system's clock.
    ///
    /// # Errors
    /// When the text is no policy; the error says where and what would be right.
    pub fn from_toml(text: &str) -> Result<Self, FileError> {
        file::parse(&Source::new("policy", text), SystemClock::new())
    }

    /// A policy from a text that says where it comes from, on a clock of one's own.
    ///
    /// # Errors
    /// As [`Policy::from_toml`].
    pub fn from_source(
        source: &Source<'_>,
        clock: impl Clock + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        file::parse(source, clock)
    }

    /// A policy from a text that says where it comes from, with its state in a file: all processes that
    /// do the same share its limits, and what was spent is still spent after a restart.
    ///
    /// A rule's state is found again by the rule's name and limit, whatever else has changed; a rule with
    /// another limit begins fresh. The policy goes by the [file's clock](SharedFile::clock). Reservations
    /// of LLM tokens [expire](Rule::with_expiring_reservations), after an hour unless a rule says
    /// otherwise.
    ///
    /// ```
    /// use tidegate::SharedFile;
    /// use tidegate::policy::{Call, Policy, Source};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("limits");
    /// let source = Source::new("policy", r#"
    ///     [[rule]]
    ///     name = "user"
    ///     limit = "1 per hour"
    ///     key = "user"
    /// "#);
    /// let call = Call::new("GET", "/chat").by_user("alice");
    /// let policy = Policy::shared(&source, &SharedFile::open(&path)?)?;
    /// assert!(policy.decide(&call).is_allow());
    /// let restarted = Policy::shared(&source, &SharedFile::open(&path)?)?;
    /// assert!(!restarted.decide(&call).is_allow());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Policy::from_toml`], and when the file has no room for a rule.
    pub fn shared(source: &Source<'_>, file: &SharedFile) -> Result<Self, FileError> {
        file::parse_shared(source, file)
    }

    /// A policy from a text, in place of a `former` one: rules that it had too, by name and limit, go on
    /// where they are, with what was spent and what is reserved. The state is in `shared`, where there is
    /// such a file, which must be that of `former`; else in this process, on the system's clock.
    ///
    /// ```
    /// use tidegate::policy::{Call, Policy, Source};
    ///
    /// let text = r#"
    ///     [[rule]]
    ///     name = "user"
    ///     limit = "1 per hour"
    ///     key = "user"
    /// "#;
    /// let call = Call::new("GET", "/chat").by_user("alice");
    /// let policy = Policy::from_toml(text)?;
    /// assert!(policy.decide(&call).is_allow());
    /// let reloaded = Policy::reload(&Source::new("policy", text), None, &policy).expect("a policy");
    /// assert!(!reloaded.decide(&call).is_allow());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// All that is wrong, in the order of the text; `former` is as it was.
    pub fn reload(
        source: &Source<'_>,
        shared: Option<&SharedFile>,
        former: &Self,
    ) -> Result<Self, Vec<FileError>> {
        file::parse_after(source, shared, former)
    }

    /// The rules, in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.inner.rules
    }

    /// What keeps the rules that are on an engine, where there are any. Such a policy is asked by
    /// [`decide_async`](Self::decide_async).
    #[must_use]
    pub fn engine(&self) -> Option<&Arc<dyn Engine>> {
        self.inner.engine.as_ref()
    }

    /// Whether the call may go on; charges it to every rule that applies if so.
    ///
    /// It never waits. So a rule that is on an [`Engine`] and applies denies, as one whose engine is not
    /// [available](Reason::Unavailable): ask such a policy by [`decide_async`](Self::decide_async).
    pub fn decide(&self, call: &Call<'_>) -> Verdict<'_> {
        let now = self.inner.clock.now();
        if self.inner.has_expiring_places {
            self.return_places(now);
        }
        let mut layers = Layers::new();
        let mut denied = self.ask(call, now, &mut layers);
        if denied.is_none() && self.inner.engine.is_some() {
            denied = self.cannot_wait(call);
        }
        if denied.is_none() {
            denied = charge_in_order(&mut layers, now).err();
        }
        if let Some((rule, reason)) = denied {
            // What a dead process had reserved may have come free; looking is rare.
            if rule.look_for_expired(now) {
                return self.decide(call);
            }
            return Verdict::Deny(Refusal::new(rule, reason, layers));
        }
        if self.inner.has_dry_runs {
            charge_dry_runs(&mut layers, now);
        }
        let reservation = self.reserve(&layers, now);
        Verdict::Allow(Grant::new(layers, reservation))
    }

    /// Gives back the places of calls whose processes have died, before their counts are void: what would be
    /// given back later was somebody else's by then.
    #[inline(never)]
    fn return_places(&self, now: Timestamp) {
        self.inner.rules.iter().for_each(|rule| rule.return_places(now));
    }

    /// The rule on an engine that applies to a call, if one does, which cannot be asked without waiting.
    #[cold]
    fn cannot_wait(&self, call: &Call<'_>) -> Option<Denied<'_>> {
        let path = self.inner.looks_at_paths.then(|| path::readings(call.path()));
        let mut rules = self.inner.rules.iter().filter(|rule| rule.engine().is_some());
        rules.find_map(|rule| match rule.applies_elsewhere(call, path.as_deref()) {
            Applies::No => None,
            _ if rule.is_dry_run() => None,
            Applies::Missing(reason) => Some((rule, reason)),
            Applies::Yes(_) => {
                Some((rule, Reason::Unavailable { retry_after: std::time::Duration::ZERO }))
            }
        })
    }

    /// What [`decide`](Self::decide) would answer. Charges nothing.
    pub fn peek(&self, call: &Call<'_>) -> Verdict<'_> {
        let mut layers = Layers::new();
        let mut denied = self.ask_only(call, self.inner.clock.now(), &mut layers);
        if denied.is_none() && self.inner.engine.is_some() {
            denied = self.cannot_wait(call);
        }
        match denied {
            None => {
                layers.iter_mut().for_each(|layer| layer.is_foreseen = true);
                Verdict::Allow(Grant::new(layers, None))
            }
            Some((rule, reason)) => Verdict::Deny(Refusal::new(rule, reason, layers)),
        }
    }

    /// Gives back what was reserved for calls whose time is over, and tells how many reservations that
    /// were. For a timer, where rules have [reservations that
    /// expire](Rule::with_expiring_reservations); a call that is denied looks for itself.
    pub fn return_expired(&self) -> usize {
        let now = self.inner.clock.now();
        self.inner.rules.iter().map(|rule| rule.return_expired(now)).sum()
    }

    /// Keeps what this process has reserved from expiring, and tells how many reservations that are. For
    /// a timer, where rules have [reservations that expire](Rule::with_expiring_reservations), several
    /// times in the shortest of their lifetimes: so they last as long as their calls, and come back soon
    /// after the process has died.
    ///
    /// Those of a former policy that this one was [reloaded](Self::reload) from are among them, where their
    /// rules went on. A process that was stopped for so long that its reservations have expired has lost
    /// those that somebody else had given back meanwhile; what their calls use is charged when they settle,
    /// and their places among concurrent calls are others' by then.
    pub fn renew_reservations(&self) -> usize {
        let now = self.inner.clock.now();
        self.inner.rules.iter().map(|rule| rule.renew_reservations(now)).sum()
    }

    /// Whether anybody else has this policy: a clone of it, or a reservation that it made. For who keeps a
    /// former policy only for as long as calls need it.
    ///
    /// ```
    /// use tidegate::policy::Policy;
    ///
    /// let rule = "[[rule]]\nname = \"all\"\nlimit = \"1 per hour\"\nkey = \"global\"\n";
    /// let policy = Policy::from_toml(rule)?;
    /// let other = policy.clone();
    /// assert!(policy.is_in_use());
    /// drop(other);
    /// assert!(!policy.is_in_use());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    /// Asks every rule of this process that applies, and charges none. The rule that denies, if one does: of
    /// several, the one with the longest wait.
    ///
    /// The layers are too large to be handed back without a copy.
    #[inline(always)]
    fn ask<'p>(
        &'p self,
        call: &Call<'_>,
        now: Timestamp,
        layers: &mut Layers<'p>,
    ) -> Option<Denied<'p>> {
        let path = self.inner.looks_at_paths.then(|| path::readings(call.path()));
        let mut longest: Option<(&Rule, Denial)> = None;
        for rule in self.inner.rules.iter().filter(|rule| rule.engine().is_none()) {
            let mut applied = match rule.applies(call, path.as_deref()) {
                Applies::Yes(applied) => applied,
                Applies::Missing(reason) if !rule.is_dry_run() => {
                    return Some((rule, reason));
                }
                Applies::Missing(_) | Applies::No => continue,
            };
            if rule.foresees(&mut applied, now) {
                layers.push(Standing::new(rule, applied, now));
            } else {
                ask_closely(Standing::new(rule, applied, now), layers, &mut longest);
            }
        }
        longest.map(|(rule, denial)| (rule, Reason::Limit(denial)))
    }

    /// As [`ask`](Self::ask), out of line: for who does not charge at once.
    #[inline(never)]
    fn ask_only<'p>(
        &'p self,
        call: &Call<'_>,
        now: Timestamp,
        layers: &mut Layers<'p>,
    ) -> Option<Denied<'p>> {
        self.ask(call, now, layers)
    }

    /// What a call that this policy has allowed was charged at fixed costs, to be taken back when
    /// somebody else refuses it after all. What an [`Engine`] charged is not in it, and stays.
    pub fn charged(&self, grant: &Grant<'_>) -> Charged {
        // A dry run that would have denied was not charged.
        let charges = grant.standings().iter();
        let is_here = |layer: &&Standing<'_>| layer.is_here() && !layer.is_denied();
        let charges = charges.filter(is_here).filter(|layer| !layer.rule.is_settled_later());
        let charges = charges.map(|layer| (self.index_of(layer.rule), layer.applied, layer.now));
        Charged::new(self.inner.clone(), charges)
    }

    /// The reservation of what rules charged for as long as the call lasts, or by an estimate.
    #[inline(always)]
    fn reserve(&self, layers: &Layers<'_>, now: Timestamp) -> Option<Reservation<Held>> {
        if !self.inner.settles_later {
            return None;
        }
        let mut charged = layers.iter().filter(|layer| layer.is_noted()).peekable();
        charged.peek()?;
        let accounts = charged.map(|layer| self.note(layer, now));
        Some(self.reservation(accounts, None, now))
    }

    /// Notes what a layer was charged, to be settled.
    #[inline(always)]
    fn note(&self, layer: &Standing<'_>, now: Timestamp) -> Account {
        Account {
            rule: self.index_of(layer.rule),
            key: layer.applied.seat.key(),
            charged: layer.applied.cost,
            hold: layer.rule.note_reservation(&layer.applied, now),
        }
    }

    #[inline(always)]
    fn reservation(
        &self,
        accounts: impl IntoIterator<Item = Account>,
        on_hold: Option<Box<held::OnHold>>,
        now: Timestamp,
    ) -> Reservation<Held> {
        let held = Held::new(self.inner.clone(), accounts, on_hold);
        let estimate = held.estimate();
        Reservation::new(held, estimate, now)
    }

    fn index_of(&self, rule: &Rule) -> usize {
        let rules = self.inner.rules.iter();
        rules.take_while(|other| !std::ptr::eq(*other, rule)).count()
    }
}

/// The rules that apply to a call, and how they stand.
type Layers<'p> = verdict::Standings<'p>;

type Denied<'p> = (&'p Rule, Reason<'p>);

/// Asks a rule whose key is not where it is looked for first, or that denies. The longest wait so far is in
/// `longest`.
#[inline(never)]
fn ask_closely<'p>(
    mut layer: Standing<'p>,
    layers: &mut Layers<'p>,
    longest: &mut Option<(&'p Rule, Denial)>,
) {
    let rule = layer.rule;
    let denial = rule.foresee(&mut layer.applied, layer.now).err();
    layer.told = denial.map(Decision::Deny);
    layers.push(layer);
    if let Some(denial) = denial
        && !rule.is_dry_run()
        && longest.is_none_or(|(_, longest)| verdict::is_longer(denial, longest))
    {
        *longest = Some((rule, denial));
    }
}

/// Charges the enforced rules in their order. When one of them denies after all, what was charged is
/// refunded.
#[inline(always)]
fn charge_in_order<'p>(layers: &mut Layers<'p>, now: Timestamp) -> Result<(), Denied<'p>> {
    for index in 0..layers.len() {
        let rule = layers[index].rule;
        if rule.is_dry_run() {
            continue;
        }
        if !rule.admits(&layers[index].applied, now) {
            charge_or_refund(layers, index, now)?;
        }
    }
    Ok(())
}

/// Charges a layer whose rule has just denied, if there is room after all; else refunds those before.
#[cold]
fn charge_or_refund<'p>(
    layers: &mut Layers<'p>,
    index: usize,
    now: Timestamp,
) -> Result<(), Denied<'p>> {
    let rule = layers[index].rule;
    let Err(denial) = rule.admit(&layers[index].applied, now) else { return Ok(()) };
    layers[index].told = Some(Decision::Deny(denial));
    for charged in layers[..index].iter().filter(|layer| !layer.rule.is_dry_run()) {
        charged.rule.refund(&charged.applied, now, now);
    }
    Err((rule, Reason::Limit(denial)))
}

/// Charges this process's dry runs for a call that is allowed, and counts those that would have denied it.
#[inline(always)]
fn charge_dry_runs(layers: &mut Layers<'_>, now: Timestamp) {
    for layer in layers.iter_mut().filter(|layer| layer.is_here() && layer.rule.is_dry_run()) {
        layer.told = layer.rule.admit(&layer.applied, now).err().map(Decision::Deny);
        if layer.is_denied() {
            layer.rule.count_dry_run_denial();
        }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("rules", &self.inner.rules).finish_non_exhaustive()
    }
}

/// Why rules make no policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// No rules, which would limit nothing, or more than [`Policy::MAX_RULES`].
    RuleCount {
        /// How many there are.
        rules: usize,
    },
    /// Two rules have one name, so answers could not tell them apart.
    TwoOfOneName {
        /// The name.
        name: String,
    },
    /// A rule counts concurrent calls by what they use, which nobody gives back.
    CostOfConcurrent {
        /// The rule's name.
        name: String,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RuleCount { rules: 0 } => {
                f.write_str("a policy without rules limits nothing; give at least one [[rule]]")
            }
            Self::RuleCount { rules } => {
                write!(f, "{rules} rules are too many; give at most {}", Policy::MAX_RULES)
            }
            Self::TwoOfOneName { name } => {
                write!(f, "two rules are called `{name}`; give each a name of its own")
            }
            Self::CostOfConcurrent { name } => write!(
                f,
                "the rule `{name}`: concurrent calls are counted one by one; leave the cost out"
            ),
        }
    }
}

impl std::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FakeClock;

    const LAYERS: &str = r#"
        [[rule]]
        name = "ip"
        limit = "3 per minute"
        algorithm = "sliding-window-log"
        key = "ip"

        [[rule]]
        name = "user"
        limit = "1 per minute"
        key = "user"
    "#;

    #[test]
    fn who_is_overtaken_between_asking_and_charging_is_charged_nowhere() {
        let clock = FakeClock::at(Timestamp::from_secs(1_700_000_000));
        let source = Source::new("test.toml", LAYERS);
        let policy = Policy::from_source(&source, Arc::new(clock)).unwrap();
        let call = Call::new("GET", "/").from_ip([192, 0, 2, 1].into()).by_user("alice");
        let now = policy.inner.clock.now();
        let mut late = Layers::new();
        assert!(policy.ask(&call, now, &mut late).is_none(), "there is room");
        let verdict = policy.decide(&call);
        assert_eq!(verdict.standings()[0].decision().remaining(), 2);

        let (rule, _) = charge_in_order(&mut late, now).unwrap_err();
        assert_eq!(rule.name(), "user");
        let other = call.by_user("bob");
        let verdict = policy.decide(&other);
        assert_eq!(
            verdict.standings()[0].decision().remaining(),
            1,
            "one of each user's, no third"
        );
    }

    /// What is given back is what was charged just now: nothing of the rule that denied, and nothing of a
    /// dry run, which is charged last.
    #[test]
    fn a_late_denial_gives_back_only_what_this_call_was_charged() {
        let clock = FakeClock::at(Timestamp::from_secs(1_700_000_000));
        let trial =
            "[[rule]]\nname = \"trial\"\nlimit = \"3 per minute\"\nkey = \"ip\"\ndry_run = true\n";
        let text = format!("{trial}{LAYERS}");
        let policy =
            Policy::from_source(&Source::new("test.toml", &text), Arc::new(clock)).unwrap();
        let call = Call::new("GET", "/").from_ip([192, 0, 2, 1].into()).by_user("alice");
        let now = policy.inner.clock.now();
        let mut late = Layers::new();
        assert!(policy.ask(&call, now, &mut late).is_none(), "there is room");
        assert!(policy.decide(&call).is_allow());

        let (rule, _) = charge_in_order(&mut late, now).unwrap_err();
        assert_eq!(rule.name(), "user");
        let left = ["trial", "ip", "user"]
            .map(|rule| policy.account(rule, &call).unwrap().standing().remaining());
        assert_eq!(left, [2, 2, 0]);
    }

    #[test]
    fn a_dry_run_whose_key_is_missing_denies_nobody() {
        let trial = "[[rule]]\nname = \"trial\"\nlimit = \"3 per minute\"\nkey = \"user\"\n";
        for (text, allows) in
            [(trial.to_owned(), false), (format!("{trial}dry_run = true\n"), true)]
        {
            let policy = Policy::from_toml(&text).unwrap();
            let call = Call::new("GET", "/");
            assert_eq!(policy.peek(&call).is_allow(), allows);
            assert_eq!(policy.decide(&call).is_allow(), allows);
        }
    }

    #[test]
    fn a_policy_has_so_many_rules_at_most_and_a_name_for_each() {
        let limit = crate::Limit::token_bucket("1 per day".parse().unwrap(), None).unwrap();
        let rule = |name: &str| Rule::with_keys(name, limit.clone(), [KeyPart::Global], 1).unwrap();
        let of = |rules: usize| Policy::new((0..rules).map(|index| rule(&format!("rule-{index}"))));
        assert!(of(1).is_ok() && of(Policy::MAX_RULES).is_ok());
        for rules in [0, Policy::MAX_RULES + 1] {
            assert_eq!(of(rules).map(drop), Err(PolicyError::RuleCount { rules }));
        }
        let name = "one".to_owned();
        let twice = Policy::new(["one", "other", "one"].map(rule)).map(drop);
        assert_eq!(twice, Err(PolicyError::TwoOfOneName { name }));
    }
}
