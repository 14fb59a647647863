//! Policy files: TOML, read strictly, with errors that say where and what would be right.
//!
//! ```toml
//! [[rule]]
//! name = "budget"                       # in answers, headers and metrics
//! limit = "10_000 per day"              # units per period; or "5 concurrent", or with cost = "money",
//!                                       # "2.50 USD per day"
//! algorithm = "fixed-window"            # or token-bucket, sliding-window-counter (default), -log
//! key = "user"                          # or ip, team, api-key, model, route, header:<name>, global, or
//!                                       # a list of them
//! cost = "llm-tokens"                   # or "money", or a number; default 1
//! # when_short = "deny"                 # or lower: lower a call's ceiling to what is left
//! # debt = true                         # false: end an answer that goes beyond what was reserved
//! match = { path = "/v1/*", method = "POST", authenticated = true, user = "alice", team = "red", model = "gpt-5*",
//!           header = { x-plan = "free" } }
//! time_zone = "Europe/Berlin"           # fixed-window by day, week or month; default UTC
//! # burst = 10                          # token-bucket; default as many as the limit
//! # epochs = 30                         # sliding-window-counter
//! # keys = 10_000                       # live keys there is room for
//! # when_full = "deny"                  # or take-over
//! # missing_key = "deny"                # or share, skip
//! # ipv6_prefix = 64                    # for the key ip
//! # reservation_expires_s = 3600        # llm-tokens, money and concurrent calls, state in a file: when what
//! #                                     # a dead process had reserved comes back
//! # dry_run = false                     # true: counted and reported, never enforced
//! # For rules that machines share, where there is a server for them:
//! # backend = "redis"                     # the default then; or local: each process for itself
//! # when_down = "deny"                    # or allow, or "share of 4": what each of 4 processes allows alone
//! # lease = true                          # or false (default), or the most milliseconds that a lease lasts
//! ```

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use tidegate_core::WhenFull;
pub use toml::Spanned;

use super::engine::{Backend, OnEngine};
use super::rule::Place;
use super::source::{FileError, Source, sorted};
use super::{CostRule, KeyPart, Match, MissingKey, PathPattern, Policy, Rule, WhenShort};
use crate::clock::{Clock, SystemClock};
use crate::limit::{AlgorithmName, Limit};
use crate::rate::{Period, Rate};
use crate::shared::SharedFile;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    rule: Vec<Spanned<RuleSpec>>,
}

pub(super) fn parse(
    source: &Source<'_>,
    clock: impl Clock + Send + Sync + 'static,
) -> Result<Policy, FileError> {
    let file: PolicyFile = source.parse()?;
    RuleSpec::policy(&file.rule, source, clock)
}

pub(super) fn parse_after(
    source: &Source<'_>,
    shared: Option<&SharedFile>,
    former: &Policy,
) -> Result<Policy, Vec<FileError>> {
    let (file, errors) = source.parse_all::<PolicyFile>();
    let Some(file) = file else { return Err(errors) };
    match RuleSpec::reload(&file.rule, source, shared, Some(former)) {
        Ok(policy) if errors.is_empty() => Ok(policy),
        Ok(_) => Err(errors),
        Err(more) => Err(sorted([errors, more].concat())),
    }
}

pub(super) fn parse_shared(source: &Source<'_>, shared: &SharedFile) -> Result<Policy, FileError> {
    let file: PolicyFile = source.parse()?;
    RuleSpec::shared_policy(&file.rule, source, shared)
}

/// What is wrong in a file, so far.
#[derive(Default)]
struct Wrong(Vec<FileError>);

impl Wrong {
    fn note<T>(&mut self, result: Result<T, FileError>) -> Option<T> {
        result.map_err(|error| self.0.push(error)).ok()
    }
}

/// The first of several errors, for those who want one.
fn first(errors: Vec<FileError>) -> FileError {
    match errors.into_iter().next() {
        Some(error) => error,
        None => unreachable!("there is no policy, so there is a reason"),
    }
}

/// A `[[rule]]` as it stands in a file, for adapters whose files hold rules among other things.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    name: Spanned<String>,
    limit: Spanned<String>,
    algorithm: Option<Spanned<String>>,
    burst: Option<Spanned<u64>>,
    epochs: Option<Spanned<usize>>,
    time_zone: Option<Spanned<String>>,
    key: OneOrMany,
    #[serde(rename = "match", default)]
    matching: MatchSpec,
    cost: Option<Spanned<CostSpec>>,
    keys: Option<Spanned<usize>>,
    when_full: Option<Spanned<String>>,
    missing_key: Option<Spanned<String>>,
    ipv6_prefix: Option<Spanned<u8>>,
    reservation_expires_s: Option<Spanned<u64>>,
    when_short: Option<Spanned<String>>,
    debt: Option<Spanned<bool>>,
    #[serde(default)]
    dry_run: bool,
    backend: Option<Spanned<String>>,
    when_down: Option<Spanned<String>>,
    lease: Option<Spanned<LeaseSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchSpec {
    path: Option<OneOrMany>,
    method: Option<OneOrMany>,
    authenticated: Option<bool>,
    user: Option<OneOrMany>,
    team: Option<OneOrMany>,
    model: Option<OneOrMany>,
    #[serde(default)]
    header: HeaderSpec,
}

impl RuleSpec {
    /// The policy of these rules.
    ///
    /// # Errors
    /// When one of them is none, or when they make no policy.
    pub fn policy(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        clock: impl Clock + Send + Sync + 'static,
    ) -> Result<Policy, FileError> {
        Self::build_policy(rules, source, Place::default(), clock).map_err(first)
    }

    /// The policy of these rules, with their state in a file; see
    /// [`Policy::shared`](super::Policy::shared).
    ///
    /// # Errors
    /// As [`policy`](Self::policy), and when the file has no room.
    pub fn shared_policy(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        shared: &SharedFile,
    ) -> Result<Policy, FileError> {
        let place = Place { shared: Some(shared), ..Place::default() };
        Self::build_policy(rules, source, place, shared.clock()).map_err(first)
    }

    /// The policy of these rules after a `former` one: rules that it had too, by name and limit, go on
    /// where they are, with what was spent and what is reserved. The state is in `shared`, where there
    /// is such a file, which must be that of `former`; else in this process, on the system's clock.
    ///
    /// # Errors
    /// As [`policy`](Self::policy), but all that is wrong, in the order of the file.
    pub fn reload(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        shared: Option<&SharedFile>,
        former: Option<&Policy>,
    ) -> Result<Policy, Vec<FileError>> {
        Self::reload_on(rules, source, shared, former, None)
    }

    /// As [`reload`](Self::reload), with the rules that do not say `backend = "local"` on the engine that
    /// `backend` makes, where there is one. Such rules always go on, by name and limit.
    ///
    /// # Errors
    /// As [`reload`](Self::reload), and when the backend cannot keep a rule.
    pub fn reload_on(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        shared: Option<&SharedFile>,
        former: Option<&Policy>,
        backend: Option<&dyn Backend>,
    ) -> Result<Policy, Vec<FileError>> {
        let place = Place { shared, former, backend };
        match shared {
            None => Self::build_policy(rules, source, place, SystemClock::new()),
            Some(shared) => Self::build_policy(rules, source, place, shared.clock()),
        }
    }

    fn build_policy(
        rules: &[Spanned<Self>],
        source: &Source<'_>,
        place: Place<'_>,
        clock: impl Clock + Send + Sync + 'static,
    ) -> Result<Policy, Vec<FileError>> {
        let mut wrong = Wrong::default();
        let built: Vec<_> = rules
            .iter()
            .filter_map(|rule| rule.get_ref().build(source, place, &mut wrong))
            .collect();
        if !wrong.0.is_empty() {
            return Err(wrong.0);
        }
        let last = rules.last().map_or(0..0, |rule| rule.get_ref().name.span());
        let elsewhere: Vec<&Rule> = built.iter().filter(|rule| rule.engine().is_some()).collect();
        let engine = match place.backend {
            Some(backend) if !elsewhere.is_empty() => backend.engine(&elsewhere).map(Some),
            _ => Ok(None),
        };
        let engine = engine.map_err(|error| vec![source.error(last.clone(), "rule", &error)])?;
        Policy::build(built, clock, engine)
            .map_err(|error| vec![source.error(last, "rule", &error)])
    }

    /// What the rule says about the engine that it is on, if it is on one.
    fn on_engine(
        &self,
        source: &Source<'_>,
        place: Place<'_>,
        wrong: &mut Wrong,
    ) -> Option<Option<OnEngine>> {
        let name = place.backend.map(Backend::name);
        let is_local = match &self.backend {
            None => name.is_none(),
            Some(text) if text.get_ref() == "local" => true,
            Some(text) if Some(text.get_ref().as_str()) == name => false,
            Some(text) => {
                let message = match name {
                    None => format!(
                        "`{}` is not known here; use `local`, or say in a section of its own where the server is",
                        text.get_ref()
                    ),
                    Some(name) => {
                        format!("`{}` is not known; use `{name}` or `local`", text.get_ref())
                    }
                };
                wrong.note::<()>(Err(self.error(source, text, "backend", &message)))?;
                true
            }
        };
        if is_local {
            let spans = [
                ("when_down", self.when_down.as_ref().map(Spanned::span)),
                ("lease", self.lease.as_ref().map(Spanned::span)),
            ];
            for (field, span) in spans {
                let Some(span) = span else { continue };
                let message = "is for rules on a server that machines share, and this one is local";
                wrong.note::<()>(Err(self.error_at(source, span, field, &message)))?;
            }
            return Some(None);
        }
        if let Some(seconds) = &self.reservation_expires_s {
            let message = "is for rules in a file; what is reserved on a server stays charged when its process dies";
            let error = self.error(source, seconds, "reservation_expires_s", &message);
            wrong.note::<()>(Err(error))?;
        }
        let when_down = match &self.when_down {
            None => super::WhenDown::default(),
            Some(text) => wrong.note(
                text.get_ref()
                    .parse()
                    .map_err(|error| self.error(source, text, "when_down", &error)),
            )?,
        };
        let lease = self.lease.as_ref().and_then(|lease| lease.get_ref().0);
        Some(Some(OnEngine { when_down, lease }))
    }

    /// The rule, or what is wrong with it.
    fn build(&self, source: &Source<'_>, place: Place<'_>, wrong: &mut Wrong) -> Option<Rule> {
        let limit = wrong.note(self.build_limit(source));
        // When the limit is wrong, its cost is taken for granted: one error is enough.
        let cost = limit.as_ref().map_or(CostRule::LlmTokens, |limit| limit.1);
        let limit = limit.map(|limit| limit.0);
        let parse_key = |part: &Spanned<String>| {
            let parsed = part.get_ref().parse::<KeyPart>();
            wrong.note(parsed.map_err(|error| self.error(source, part, "key", &error)))
        };
        let key: Vec<Option<KeyPart>> = self.key.0.iter().map(parse_key).collect();
        let matching = wrong.note(self.build_match(source));
        let when_full = [("deny", WhenFull::Deny), ("take-over", WhenFull::TakeOver)];
        let when_full = wrong.note(self.choice(source, &self.when_full, "when_full", when_full));
        let missing_key = self.choice(source, &self.missing_key, "missing_key", MissingKey::NAMES);
        let missing_key = wrong.note(missing_key);
        let lifetime = wrong.note(self.lifetime(source, (limit.as_ref(), cost), place.shared));
        let (when_short, debt) = self.shortage(source, cost);
        let (when_short, debt) = (wrong.note(when_short), wrong.note(debt));
        let engine = self.on_engine(source, place, wrong);
        let key = key.into_iter().collect::<Option<Vec<_>>>()?;

        let (engine, limit) = (engine?, limit?);
        let keys = self.keys.as_ref().map_or(Rule::DEFAULT_KEYS, |keys| *keys.get_ref());
        let rule = match engine {
            None => Rule::placed(self.name.get_ref(), limit, key, keys, place),
            Some(engine) => Rule::on_engine(self.name.get_ref(), limit, key, engine),
        };
        let rule = wrong.note(rule.map_err(|error| {
            let span = self.keys.as_ref().map_or(self.name.span(), Spanned::span);
            self.error_at(source, span, error.field(), &error)
        }))?;
        let rule = rule
            .matching(matching?)
            .costing(cost)
            .with_when_full(when_full?)
            .on_missing_key(missing_key?);
        let rule = match &self.ipv6_prefix {
            None => rule,
            Some(prefix) => wrong.note(
                rule.with_ipv6_prefix(*prefix.get_ref())
                    .map_err(|error| self.error(source, prefix, "ipv6_prefix", &error)),
            )?,
        };
        let rule = match (place.shared, lifetime?) {
            (Some(file), Some(lifetime)) if engine.is_none() => wrong.note(
                rule.with_expiring_reservations(file, lifetime)
                    .map_err(|error| self.error(source, &self.name, error.field(), &error)),
            )?,
            _ => rule,
        };
        if let (Some(backend), Some(_)) = (place.backend, engine) {
            let checked = backend.check(&rule);
            wrong
                .note(checked.map_err(|error| self.error(source, &self.limit, "limit", &error)))?;
        }
        let rule = rule.when_short(when_short?);
        let rule = if debt? { rule } else { rule.without_debt() };
        Some(if self.dry_run { rule.dry_run() } else { rule })
    }

    /// What becomes of calls that the rule has too little for, and whether it allows debt.
    fn shortage(
        &self,
        source: &Source<'_>,
        cost: CostRule,
    ) -> (Result<WhenShort, FileError>, Result<bool, FileError>) {
        let only_reserving = |field: &str, span: Option<Range<usize>>| match (cost, span) {
            (CostRule::Fixed(_), Some(span)) => {
                Err(self.error_at(source, span, field, &ONLY_RESERVING))
            }
            _ => Ok(()),
        };
        let span = self.when_short.as_ref().map(Spanned::span);
        let when_short = only_reserving("when_short", span)
            .and_then(|()| self.choice(source, &self.when_short, "when_short", WhenShort::NAMES));
        let debt = only_reserving("debt", self.debt.as_ref().map(Spanned::span))
            .map(|()| self.debt.as_ref().is_none_or(|debt| *debt.get_ref()));
        (when_short, debt)
    }

    /// How long reservations may take, if the rule makes any.
    fn lifetime(
        &self,
        source: &Source<'_>,
        (limit, cost): (Option<&Limit>, CostRule),
        shared: Option<&SharedFile>,
    ) -> Result<Option<Duration>, FileError> {
        const FIELD: &str = "reservation_expires_s";
        let is_settled_later =
            !matches!(cost, CostRule::Fixed(_)) || limit.is_some_and(Limit::is_concurrency);
        let seconds = match &self.reservation_expires_s {
            Some(seconds) if !is_settled_later => {
                return Err(self.error(source, seconds, FIELD, &ONLY_RESERVING));
            }
            Some(seconds) if *seconds.get_ref() == 0 => {
                let message = "would give back at once; give the seconds that a call may take";
                return Err(self.error(source, seconds, FIELD, &message));
            }
            seconds => seconds.as_ref().map(|seconds| Duration::from_secs(*seconds.get_ref())),
        };
        let usual = shared.map(SharedFile::reservation_lifetime);
        Ok(seconds.or(usual).filter(|_| is_settled_later))
    }

    fn build_limit(&self, source: &Source<'_>) -> Result<(Limit, CostRule), FileError> {
        let (rate, cost) = self.build_rate(source)?;
        let algorithm = match &self.algorithm {
            None if rate.period() == Period::Concurrent => AlgorithmName::Concurrency,
            None => AlgorithmName::SlidingWindowCounter,
            Some(name) => name
                .get_ref()
                .parse()
                .map_err(|error| self.error(source, name, "algorithm", &error))?,
        };
        let only = |belongs: AlgorithmName, field: &str, span: Option<Range<usize>>| match span {
            Some(span) if belongs != algorithm => {
                let message =
                    format!("is for the algorithm `{belongs}`, and this one is `{algorithm}`");
                Err(self.error_at(source, span, field, &message))
            }
            _ => Ok(()),
        };
        only(AlgorithmName::TokenBucket, "burst", self.burst.as_ref().map(Spanned::span))?;
        only(
            AlgorithmName::SlidingWindowCounter,
            "epochs",
            self.epochs.as_ref().map(Spanned::span),
        )?;
        only(AlgorithmName::FixedWindow, "time_zone", self.time_zone.as_ref().map(Spanned::span))?;
        let limit = match algorithm {
            AlgorithmName::TokenBucket => {
                Limit::token_bucket(rate, self.burst.as_ref().map(|burst| *burst.get_ref()))
            }
            AlgorithmName::FixedWindow => {
                let zone = self.time_zone.as_ref().map(|zone| zone.get_ref().as_str());
                Limit::fixed_window(rate, zone)
            }
            AlgorithmName::SlidingWindowCounter => {
                let epochs = self.epochs.as_ref().map_or(Limit::DEFAULT_EPOCHS, |n| *n.get_ref());
                Limit::sliding_window_counter(rate, epochs)
            }
            AlgorithmName::SlidingWindowLog => Limit::sliding_window_log(rate),
            AlgorithmName::Concurrency if rate.period() == Period::Concurrent => {
                Limit::concurrent(rate.units())
            }
            AlgorithmName::Concurrency => {
                let message = "counts calls at a time; write the limit as in `5 concurrent`";
                return Err(self.error(source, &self.limit, "limit", &message));
            }
        };
        let limit = limit.map_err(|error| self.error(source, &self.limit, "limit", &error))?;
        if limit.is_concurrency() && !matches!(cost, CostRule::Fixed(_)) {
            let message = "concurrent calls are counted one by one; leave `cost` out";
            return Err(self.error(source, &self.limit, "limit", &message));
        }
        Ok((limit, cost))
    }

    /// What the limit says, in units of what a call costs.
    fn build_rate(&self, source: &Source<'_>) -> Result<(Rate, CostRule), FileError> {
        let error = |message: &dyn fmt::Display| {
            self.error(source, &self.limit, "limit", &message.to_string())
        };
        let text = self.limit.get_ref();
        let cost = match self.cost.as_ref().map(|cost| *cost.get_ref()) {
            None => CostRule::Fixed(1),
            Some(CostSpec::Of(cost)) => cost,
            Some(CostSpec::Money) => {
                let (rate, currency) = Rate::of_money(text).map_err(|wrong| error(&wrong))?;
                return Ok((rate, CostRule::Money(currency)));
            }
        };
        match text.parse() {
            Ok(rate) => Ok((rate, cost)),
            Err(_) if Rate::of_money(text).is_ok() => {
                Err(error(&"an amount of money needs `cost = \"money\"` beside it"))
            }
            Err(wrong) => Err(error(&wrong)),
        }
    }

    fn build_match(&self, source: &Source<'_>) -> Result<Match, FileError> {
        let spec = &self.matching;
        let mut matching = Match::everyone();
        for path in spec.path.iter().flat_map(|paths| &paths.0) {
            let pattern: Result<PathPattern, _> = path.get_ref().parse();
            let error = |error| self.error(source, path, "match.path", &error);
            matching = matching.on_path(pattern.map_err(error)?);
        }
        for method in spec.method.iter().flat_map(|methods| &methods.0) {
            if method.get_ref().is_empty()
                || !method.get_ref().bytes().all(|b| b.is_ascii_alphabetic())
            {
                let message =
                    format!("`{}` is not a method; write it as in `POST`", method.get_ref());
                return Err(self.error(source, method, "match.method", &message));
            }
            matching = matching.by_method(method.get_ref());
        }
        for user in spec.user.iter().flat_map(|users| &users.0) {
            matching = matching.by_user(user.get_ref());
        }
        for team in spec.team.iter().flat_map(|teams| &teams.0) {
            matching = matching.of_team(team.get_ref());
        }
        for model in spec.model.iter().flat_map(|models| &models.0) {
            let error = |error| self.error(source, model, "match.model", &error);
            matching = matching.on_model(model.get_ref().parse().map_err(error)?);
        }
        for (name, value) in &spec.header.0 {
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.get_ref().is_empty() || !name.get_ref().bytes().all(is_token) {
                let message = format!(
                    "`{}` is not the name of a header; write it as in `x-plan`",
                    name.get_ref()
                );
                return Err(self.error(source, name, "match.header", &message));
            }
            matching = matching.with_header(name.get_ref(), value);
        }
        Ok(match spec.authenticated {
            Some(authenticated) => matching.authenticated(authenticated),
            None => matching,
        })
    }

    /// The value of a field with few choices; without the field, the default.
    fn choice<T: Default, const N: usize>(
        &self,
        source: &Source<'_>,
        field: &Option<Spanned<String>>,
        name: &str,
        choices: [(&str, T); N],
    ) -> Result<T, FileError> {
        let Some(text) = field else { return Ok(T::default()) };
        let names = choices.each_ref().map(|(name, _)| *name).join("`, `");
        let chosen = choices.into_iter().find(|(name, _)| name == text.get_ref());
        chosen.map(|(_, choice)| choice).ok_or_else(|| {
            let message = format!("`{}` is not known; use one of `{names}`", text.get_ref());
            self.error(source, text, name, &message)
        })
    }

    fn error<T>(
        &self,
        source: &Source<'_>,
        at: &Spanned<T>,
        field: &str,
        message: &impl fmt::Display,
    ) -> FileError {
        self.error_at(source, at.span(), field, message)
    }

    fn error_at(
        &self,
        source: &Source<'_>,
        span: Range<usize>,
        field: &str,
        message: &impl fmt::Display,
    ) -> FileError {
        source.error(span, &format!("rule `{}`: {field}", self.name.get_ref()), message)
    }
}

const ONLY_RESERVING: &str =
    "is for rules with `cost = \"llm-tokens\"` or `\"money\"`, which reserve";

/// How long leases of a rule last at most, if there are any: `true`, `false`, or milliseconds.
#[derive(Debug, Clone, Copy)]
struct LeaseSpec(Option<Duration>);

/// How long a lease lasts at most, unless it is said otherwise.
const LEASE: Duration = Duration::from_millis(500);

impl<'de> Deserialize<'de> for LeaseSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LeaseVisitor;

        impl Visitor<'_> for LeaseVisitor {
            type Value = LeaseSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or a number of milliseconds from 10")
            }

            fn visit_bool<E>(self, leases: bool) -> Result<LeaseSpec, E> {
                Ok(LeaseSpec(leases.then_some(LEASE)))
            }

            fn visit_i64<E: serde::de::Error>(self, millis: i64) -> Result<LeaseSpec, E> {
                match u64::try_from(millis) {
                    Ok(millis) if millis >= 10 => {
                        Ok(LeaseSpec(Some(Duration::from_millis(millis))))
                    }
                    _ => Err(E::invalid_value(serde::de::Unexpected::Signed(millis), &self)),
                }
            }
        }

        deserializer.deserialize_any(LeaseVisitor)
    }
}

/// A text, or a list of them.
#[derive(Debug)]
struct OneOrMany(Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Texts>::deserialize(deserializer)?;
        let span = spanned.span();
        Ok(match spanned.into_inner() {
            Texts::One(text) => Self(vec![spanned_text(span, text)]),
            Texts::Many(texts) => Self(texts),
        })
    }
}

fn spanned_text(span: Range<usize>, text: String) -> Spanned<String> {
    Spanned::new(span, text)
}

enum Texts {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;

        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Texts::Many(texts))
            }
        }

        deserializer.deserialize_any(TextsVisitor)
    }
}

/// `"llm-tokens"`, `"money"`, or a number of units.
#[derive(Debug, Clone, Copy)]
enum CostSpec {
    Of(CostRule),
    /// Of the currency that the limit names.
    Money,
}

impl<'de> Deserialize<'de> for CostSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CostVisitor;

        impl Visitor<'_> for CostVisitor {
            type Value = CostSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`\"llm-tokens\"`, `\"money\"` or a number of units from 1")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<CostSpec, E> {
                match text {
                    "llm-tokens" => Ok(CostSpec::Of(CostRule::LlmTokens)),
                    "money" => Ok(CostSpec::Money),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, units: i64) -> Result<CostSpec, E> {
                match u64::try_from(units) {
                    Ok(units) if units > 0 => Ok(CostSpec::Of(CostRule::Fixed(units))),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Signed(units), &self)),
                }
            }
        }

        deserializer.deserialize_any(CostVisitor)
    }
}

/// A table of header names and values.
#[derive(Debug, Default)]
struct HeaderSpec(Vec<(Spanned<String>, String)>);

impl<'de> Deserialize<'de> for HeaderSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = HeaderSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of header names and their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut headers: A) -> Result<HeaderSpec, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = headers.next_entry()? {
                    pairs.push(pair);
                }
                Ok(HeaderSpec(pairs))
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}
