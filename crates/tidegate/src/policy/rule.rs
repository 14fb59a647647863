//! [`Rule`]: one layer of a policy.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use tidegate_core::{
    Cost, Decision, Denial, Held, HoldId, Key, Protocol, Seat, Table, Tally, Timestamp, WhenFull,
};

use super::engine::{Backend, EngineAsk, OnEngine};
use super::key::{caller_of, key_of, shared_key, text_of};
use super::{Call, KeyPart, Match, MissingKey, Policy, Reason, words};
use crate::limit::Limit;
use crate::memory::Memory;
use crate::money::{Currency, Money};
use crate::rate::Period;
use crate::reservation::book_in;
use crate::shared::{Notes, SharedFile, SharedFileError};

/// One layer of a policy: whom it applies to, by which key, with which limit, at what cost.
///
/// ```
/// use tidegate::Limit;
/// use tidegate::policy::{CostRule, KeyPart, Match, Policy, Rule};
///
/// let budget = Limit::fixed_window("10_000 per day".parse()?, None)?;
/// let budget = Rule::new("budget", budget, [KeyPart::User])?
///     .matching(Match::everyone().authenticated(true).on_path("/v1/*".parse()?))
///     .costing(CostRule::LlmTokens);
/// let policy = Policy::new([budget])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rule {
    name: String,
    key: Vec<KeyPart>,
    matching: Match,
    /// Whether the match has no conditions, as most have not.
    is_for_everyone: bool,
    cost: CostRule,
    missing_key: MissingKey,
    when_short: WhenShort,
    allows_debt: bool,
    ipv6_prefix: u8,
    dry_run: bool,
    table: Table<Limit, Memory>,
    hasher: RandomState,
    expiring: Option<Expiring>,
    counts: Arc<Counts>,
    /// That its state is on an engine. Then the table here only makes keys.
    engine: Option<OnEngine>,
}

/// What a rule of one name and limit has counted, in this process.
///
/// # Orderings
/// Lone counts that people read: nothing hangs on their order.
#[derive(Debug, Default)]
struct Counts {
    dry_run_denials: AtomicU64,
    /// Reservations that are not settled yet, and what they hold.
    open: AtomicU64,
    held: AtomicU64,
}

/// Where a rule's state is.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    /// The file; without one, it is in this process.
    pub(super) shared: Option<&'a SharedFile>,
    /// The policy whose rules go on, where they are the same.
    pub(super) former: Option<&'a Policy>,
    /// What keeps the rules that are not said to be this process's own.
    pub(super) backend: Option<&'a dyn Backend>,
}

/// That a rule's reservations expire: the notes of them, and how long they may take.
struct Expiring {
    notes: Arc<Notes>,
    lifetime: Duration,
}

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CostRule {
    /// So many units.
    Fixed(u64),
    /// The LLM tokens it uses: reserved by estimate, settled by the real number.
    LlmTokens,
    /// The money it costs, in nano-units of a currency: reserved by estimate, settled by the real amount.
    Money(Currency),
}

/// What becomes of a call whose estimate is more than is left, though it could do with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenShort {
    /// It is denied.
    #[default]
    Deny,
    /// The adapter lowers the call's ceiling to what is left, where it can.
    Lower,
}

impl WhenShort {
    pub(super) const NAMES: [(&'static str, Self); 2] =
        [("deny", Self::Deny), ("lower", Self::Lower)];
}

/// Whether a rule applies to a call.
pub(super) enum Applies<'p> {
    No,
    Yes(Applied),
    Missing(Reason<'p>),
}

/// What a rule that applies is asked: the key's place, and the call's cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    pub(super) seat: Seat,
    pub(super) cost: Cost,
}

impl Rule {
    /// Live keys that a rule has room for, unless said otherwise.
    pub const DEFAULT_KEYS: usize = 10_000;

    /// The length of the prefix that IPv6 addresses are told apart by, unless said otherwise.
    pub const DEFAULT_IPV6_PREFIX: u8 = 64;

    /// The most memory that a rule's keys may take: 16 GiB.
    pub const MAX_BYTES: usize = if cfg!(fuzzing) { 16 << 20 } else { 16 << 30 };

    /// How long the notes of concurrent calls last at most that nobody renews.
    const CONCURRENT_LIFETIME: Duration = Duration::from_secs(60);

    /// How long a count of concurrent calls lasts that nobody touches, where their places expire: longer than
    /// the notes of them, by far more than it takes to charge and then to note.
    const COUNT_LASTS: Duration = Duration::from_secs(90);

    /// How often the places of processes that have died are given back though nobody is denied for lack of
    /// them: well within the time between a note's expiry and the count's.
    const RETURN_EVERY: Duration = Duration::from_secs(10);

    /// A rule for everyone, at a cost of one per call, with room for
    /// [`DEFAULT_KEYS`](Self::DEFAULT_KEYS).
    ///
    /// # Errors
    /// When the name is empty or has other characters than letters, digits, `-`, `_` and `.`, when the
    /// key has no part, or when the limit takes too much memory per key.
    pub fn new(
        name: &str,
        limit: Limit,
        key: impl IntoIterator<Item = KeyPart>,
    ) -> Result<Self, RuleError> {
        Self::with_keys(name, limit, key, Self::DEFAULT_KEYS)
    }

    /// As [`Rule::new`], with room for so many live keys.
    ///
    /// # Errors
    /// As [`Rule::new`], and when there is not one key.
    pub fn with_keys(
        name: &str,
        limit: Limit,
        key: impl IntoIterator<Item = KeyPart>,
        keys: usize,
    ) -> Result<Self, RuleError> {
        Self::placed(name, limit, key, keys, Place::default())
    }

    /// As [`with_keys`](Self::with_keys), with its state in a place.
    pub(super) fn placed(
        name: &str,
        limit: Limit,
        key: impl IntoIterator<Item = KeyPart>,
        keys: usize,
        place: Place<'_>,
    ) -> Result<Self, RuleError> {
        let key = check(name, key, keys)?;
        let is_same =
            |rule: &&Self| rule.name == name && rule.limit().to_string() == limit.to_string();
        let former = place.former.and_then(|policy| policy.rules().iter().find(is_same));
        let counts = former.map(|rule| rule.counts.clone()).unwrap_or_default();
        let (memory, hasher) = match (place.shared, former) {
            (Some(file), _) => {
                (file.memory(name, &limit, keys).map_err(RuleError::Shared)?, file.hasher())
            }
            (None, Some(rule)) => (rule.table.storage().clone(), rule.hasher.clone()),
            (None, None) => (Self::fresh_memory(&limit, keys)?, RandomState::new()),
        };
        Ok(Self { counts, ..Self::in_memory(name, limit, key, memory, hasher) })
    }

    fn fresh_memory(limit: &Limit, keys: usize) -> Result<Memory, RuleError> {
        let bytes = Memory::bytes_for_keys(keys, limit.ring_words());
        if bytes.is_none_or(|bytes| bytes > Self::MAX_BYTES) {
            let words_per_key = limit.ring_words() + 2;
            return Err(RuleError::Memory { keys, bytes_per_key: words_per_key.saturating_mul(8) });
        }
        Ok(Memory::for_keys(keys, limit.ring_words()))
    }

    /// As [`with_keys`](Self::with_keys), with its state in a file, where all processes that have a rule
    /// of this name and limit share it. Give the policy the [file's clock](SharedFile::clock).
    ///
    /// # Errors
    /// As [`with_keys`](Self::with_keys), and when the file has no such table and no room for one.
    pub fn shared(
        name: &str,
        limit: Limit,
        key: impl IntoIterator<Item = KeyPart>,
        keys: usize,
        file: &SharedFile,
    ) -> Result<Self, RuleError> {
        Self::placed(name, limit, key, keys, Place { shared: Some(file), ..Place::default() })
    }

    fn in_memory(
        name: &str,
        limit: Limit,
        key: Vec<KeyPart>,
        memory: Memory,
        hasher: RandomState,
    ) -> Self {
        let Ok(table) = Table::new(limit, memory) else {
            unreachable!("the memory was made for this limit");
        };
        Self {
            name: name.to_owned(),
            key,
            matching: Match::everyone(),
            is_for_everyone: true,
            cost: CostRule::Fixed(1),
            missing_key: MissingKey::Deny,
            when_short: WhenShort::Deny,
            allows_debt: true,
            ipv6_prefix: Self::DEFAULT_IPV6_PREFIX,
            dry_run: false,
            table,
            hasher,
            expiring: None,
            counts: Arc::default(),
            engine: None,
        }
    }

    /// A rule whose state is on an engine. It needs no room for keys here.
    pub(super) fn on_engine(
        name: &str,
        limit: Limit,
        key: impl IntoIterator<Item = KeyPart>,
        engine: OnEngine,
    ) -> Result<Self, RuleError> {
        let key = check(name, key, 1)?;
        let memory = Self::fresh_memory(&limit, 1)?;
        let rule = Self::in_memory(name, limit, key, memory, RandomState::new());
        Ok(Self { engine: Some(engine), ..rule })
    }

    /// The same rule, only for some calls.
    #[must_use]
    pub fn matching(self, matching: Match) -> Self {
        Self { is_for_everyone: matching.is_everyone(), matching, ..self }
    }

    /// The same rule, at another cost.
    #[must_use]
    pub fn costing(self, cost: CostRule) -> Self {
        Self { cost, ..self }
    }

    /// The same rule, with another answer to calls without its key.
    #[must_use]
    pub fn on_missing_key(self, missing_key: MissingKey) -> Self {
        Self { missing_key, ..self }
    }

    /// The same rule, with another answer to calls that need more than is left, and could do with less.
    #[must_use]
    pub fn when_short(self, when_short: WhenShort) -> Self {
        Self { when_short, ..self }
    }

    /// The same rule, which does not allow a call to go on once it has used what was reserved for it, as
    /// far as the adapter sees that while the call lasts. What it has used is still charged.
    #[must_use]
    pub fn without_debt(self) -> Self {
        Self { allows_debt: false, ..self }
    }

    /// The same rule, telling IPv6 addresses apart by a prefix of this length.
    ///
    /// # Errors
    /// When it is not 32 to 128.
    pub fn with_ipv6_prefix(self, ipv6_prefix: u8) -> Result<Self, RuleError> {
        match ipv6_prefix {
            32..=128 => Ok(Self { ipv6_prefix, ..self }),
            _ => Err(RuleError::Ipv6Prefix { prefix: ipv6_prefix }),
        }
    }

    /// The same rule, with another answer to more live keys than fit.
    #[must_use]
    pub fn with_when_full(self, when_full: WhenFull) -> Self {
        Self { table: self.table.with_when_full(when_full), ..self }
    }

    /// The same rule, whose reservations expire after `lifetime`, as those of
    /// [`SharedHolds`](crate::SharedHolds) do: what a process had reserved when it died comes back. `file`
    /// is the one that the rule's state is in.
    ///
    /// Whoever lives [renews](super::Policy::renew_reservations) its reservations. Those of concurrent
    /// calls expire after a minute at the latest, so there it must. (Without expiry, a concurrent call of a
    /// process that has died is counted until the machine restarts.)
    ///
    /// # Errors
    /// When the lifetime is zero, or the file has no room.
    pub fn with_expiring_reservations(
        self,
        file: &SharedFile,
        lifetime: Duration,
    ) -> Result<Self, RuleError> {
        if lifetime.is_zero() {
            return Err(RuleError::NoLifetime);
        }
        let keys = self.table.slots();
        let notes = file.open_notes(&self.name, self.limit(), keys).map_err(RuleError::Shared)?;
        if !self.limit().is_concurrency() {
            return Ok(Self { expiring: Some(Expiring { notes, lifetime }), ..self });
        }
        let lifetime = lifetime.min(Self::CONCURRENT_LIFETIME);
        let limit = self.limit().clone().with_count_lasting(Self::COUNT_LASTS);
        let Ok(table) = Table::new(limit, self.table.storage().clone()) else {
            unreachable!("it is the memory of the same limit");
        };
        let table = table.with_when_full(self.table.when_full());
        Ok(Self { table, expiring: Some(Expiring { notes, lifetime }), ..self })
    }

    /// The same rule, counted and reported, but never enforced.
    #[must_use]
    pub fn dry_run(self) -> Self {
        Self { dry_run: true, ..self }
    }

    /// Its name, which answers give.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its limit.
    #[must_use]
    pub fn limit(&self) -> &Limit {
        self.table.protocol()
    }

    /// What a call costs.
    #[must_use]
    pub const fn cost(&self) -> CostRule {
        self.cost
    }

    /// What becomes of a call that needs more than is left, and could do with less.
    #[must_use]
    pub const fn is_lowering(&self) -> bool {
        matches!(self.when_short, WhenShort::Lower)
    }

    /// Whether a call may go on once it has used what was reserved for it.
    #[must_use]
    pub const fn allows_debt(&self) -> bool {
        self.allows_debt
    }

    /// Whether what a call is charged is settled when it ends.
    #[must_use]
    pub fn is_settled_later(&self) -> bool {
        !matches!(self.cost, CostRule::Fixed(_)) || self.limit().is_concurrency()
    }

    /// So many of its units, as people say them: `12 requests`, `0.25 USD`.
    #[must_use]
    pub fn units_text(&self, units: u64) -> String {
        let name = match self.cost {
            CostRule::Money(currency) => return Money::from_nanos(units, currency).to_string(),
            CostRule::LlmTokens => "LLM token",
            CostRule::Fixed(1) if self.limit().is_concurrency() => "concurrent call",
            CostRule::Fixed(1) => "request",
            CostRule::Fixed(_) => "unit",
        };
        let plural = if units == 1 { "" } else { "s" };
        format!("{units} {name}{plural}")
    }

    /// Its limit, as people say it: `20 requests per minute`, `5 USD per day`, `3 concurrent calls`.
    #[must_use]
    pub fn limit_text(&self) -> String {
        let rate = self.limit().rate();
        let units = self.units_text(rate.units());
        match (rate.period(), rate.count()) {
            (Period::Concurrent, _) => units,
            (period, 1) => format!("{units} per {}", period.name()),
            (period, count) => format!("{units} per {count} {}s", period.name()),
        }
    }

    /// Whether it is only counted and reported.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// How many calls it would have denied, were it not a dry run.
    #[must_use]
    pub fn dry_run_denials(&self) -> u64 {
        self.counts.dry_run_denials.load(Ordering::Relaxed)
    }

    /// The reservations that are not settled yet, and the units that they hold: of all who share the rule's
    /// state, where reservations [expire](Self::with_expiring_reservations); else of this process.
    #[must_use]
    pub fn open_reservations(&self) -> (u64, u128) {
        match &self.expiring {
            Some(expiring) => {
                let (open, held) = expiring.notes.total();
                (open as u64, held)
            }
            None => {
                let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
                (load(&self.counts.open), load(&self.counts.held).into())
            }
        }
    }

    /// That its state is on an [`Engine`](super::Engine) which many machines share, and what it says about
    /// that; `None` when it is in this process, or a file.
    #[must_use]
    pub const fn engine(&self) -> Option<OnEngine> {
        self.engine
    }

    /// What the rule asks the engine about a call, as the rule of this place among the engine's.
    pub(super) fn engine_ask(&self, place: usize, call: &Call<'_>, cost: Cost) -> EngineAsk {
        EngineAsk {
            rule: place,
            caller: caller_of(&self.key, call, self.ipv6_prefix),
            cost,
            dry_run: self.dry_run,
            is_settled_later: self.is_settled_later(),
        }
    }

    /// What it means, in plain words.
    #[must_use]
    pub fn in_words(&self) -> impl fmt::Display + '_ {
        struct Words<'a>(&'a Rule);
        impl fmt::Display for Words<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                words::write(self.0, f)
            }
        }
        Words(self)
    }

    /// What a call's key is called, for people: the values of its parts, but those of headers that hold
    /// secrets.
    #[must_use]
    pub fn key_text(&self, call: &Call<'_>) -> String {
        text_of(&self.key, call, self.ipv6_prefix)
    }

    /// By what it tells callers apart.
    #[must_use]
    pub fn key(&self) -> &[KeyPart] {
        &self.key
    }

    /// Whom it applies to.
    #[must_use]
    pub const fn matches(&self) -> &Match {
        &self.matching
    }

    /// What it does with calls that do not have its key.
    #[must_use]
    pub const fn missing_key(&self) -> MissingKey {
        self.missing_key
    }

    /// The length of the prefix that IPv6 addresses are told apart by.
    #[must_use]
    pub const fn ipv6_prefix(&self) -> u8 {
        self.ipv6_prefix
    }

    /// How often its table was full.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        self.table.tally()
    }

    pub(super) fn looks_at_path(&self) -> bool {
        self.matching.looks_at_path()
    }

    /// Whether the rule applies to a call, and with which key and cost. The key has no place yet.
    ///
    /// In line where this process's rules are asked: it is half of what a decision takes.
    #[inline(always)]
    pub(super) fn applies(&self, call: &Call<'_>, path: Option<&str>) -> Applies<'_> {
        if !self.is_for_everyone && !self.matching.applies(call, path) {
            return Applies::No;
        }
        // Whether it applies at all, before what the call says about its cost.
        let (mut key, missing) = self.key_of(call);
        if let Some(part) = missing {
            match self.missing_key {
                MissingKey::Deny => return Applies::Missing(Reason::MissingKey(part)),
                MissingKey::Skip => return Applies::No,
                MissingKey::Share => key = shared_key(&self.hasher),
            }
        }
        let cost = match self.cost {
            CostRule::Fixed(units) => units,
            CostRule::LlmTokens => match call.llm_tokens() {
                Some(tokens) => tokens,
                None => return Applies::Missing(Reason::MissingCost),
            },
            CostRule::Money(currency) => match call.money() {
                Some(money) if money.currency() == currency => money.nanos(),
                _ => return Applies::Missing(Reason::MissingCost),
            },
        };
        Applies::Yes(Applied { seat: Seat::unknown(key), cost: Cost::new(cost) })
    }

    /// As [`applies`](Self::applies), for calls that an engine is asked about.
    #[inline(never)]
    pub(super) fn applies_elsewhere(&self, call: &Call<'_>, path: Option<&str>) -> Applies<'_> {
        self.applies(call, path)
    }

    /// The key of a call, and the first part that the call does not have, if any.
    #[inline(always)]
    pub(super) fn key_of(&self, call: &Call<'_>) -> (Key, Option<&KeyPart>) {
        key_of(&self.key, call, self.ipv6_prefix, &self.hasher)
    }

    pub(super) const fn table(&self) -> &Table<Limit, Memory> {
        &self.table
    }

    /// Charges the call, if it fits.
    #[inline(never)]
    pub(super) fn admit(&self, applied: &Applied, now: Timestamp) -> Result<(), Denial> {
        self.table.admit_in(&applied.seat, applied.cost, now)
    }

    /// The same in line, without the denial: who is told no may [ask](Self::admit) once more.
    #[inline(always)]
    pub(super) fn admits(&self, applied: &Applied, now: Timestamp) -> bool {
        self.table.admit_in(&applied.seat, applied.cost, now).is_ok()
    }

    /// Whether the call would fit, with the key's place for the charge. Charges nothing.
    #[inline(never)]
    pub(super) fn foresee(&self, applied: &mut Applied, now: Timestamp) -> Result<(), Denial> {
        applied.seat = self.table.seat(applied.seat.key());
        self.table.foresee_in(&applied.seat, applied.cost, now)
    }

    /// The same in line, for a key that is where it is looked for first. False says nothing.
    #[inline(always)]
    pub(super) fn foresees(&self, applied: &mut Applied, now: Timestamp) -> bool {
        let seat = self.table.seat_if_fits(applied.seat.key(), applied.cost, now);
        applied.seat = seat.unwrap_or(applied.seat);
        seat.is_some()
    }

    /// How the key stands, with nothing more charged; or, of a cost, what it would be told.
    pub(super) fn peek(&self, seat: &Seat, cost: Cost, now: Timestamp) -> Decision {
        self.table.peek_in(seat, cost, now)
    }

    pub(super) fn refund(&self, applied: &Applied, charged_at: Timestamp, now: Timestamp) {
        self.table.refund(applied.seat.key(), applied.cost, charged_at, now);
    }

    /// Counts an open reservation.
    pub(super) fn count_reservation(&self, reserved: Cost) {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        self.counts.held.fetch_add(reserved.units(), Ordering::Relaxed);
    }

    /// Counts that a reservation has ended.
    pub(super) fn count_end(&self, reserved: Cost) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
        self.counts.held.fetch_sub(reserved.units(), Ordering::Relaxed);
    }

    /// Notes what was reserved, if that expires and there is room for a note.
    pub(super) fn note_reservation(&self, applied: &Applied, now: Timestamp) -> Option<HoldId> {
        self.count_reservation(applied.cost);
        let Expiring { notes, lifetime } = self.expiring.as_ref()?;
        let held = Held { key: applied.seat.key(), cost: applied.cost, charged_at: now };
        notes.note(&self.table, held, now + *lifetime)
    }

    /// Books that `used` was used of what was reserved.
    pub(super) fn settle(
        &self,
        (key, hold): (Key, Option<HoldId>),
        reserved: Cost,
        used: Cost,
        times: (Timestamp, Timestamp),
    ) {
        self.count_end(reserved);
        let end = |expiring: &Expiring| expiring.notes.end(hold, reserved);
        let charged = self.expiring.as_ref().map_or(reserved, end);
        book_in(&self.table, key, charged, used, times);
    }

    /// Gives back what has expired, for who was denied; whether that was anything.
    pub(super) fn look_for_expired(&self, now: Timestamp) -> bool {
        let look = |expiring: &Expiring| expiring.notes.look_for_expired(&self.table, now) > 0;
        self.expiring.as_ref().is_some_and(look)
    }

    /// Whether it counts concurrent calls whose places expire.
    pub(super) fn has_expiring_places(&self) -> bool {
        self.limit().is_concurrency() && self.expiring.is_some()
    }

    /// Gives back the places that have expired, if nobody has for a while.
    pub(super) fn return_places(&self, now: Timestamp) {
        if let Some(Expiring { notes, .. }) = &self.expiring
            && self.limit().is_concurrency()
            && !notes.has_returned(now, Self::RETURN_EVERY)
        {
            notes.return_expired(&self.table, now);
        }
    }

    /// Keeps what this process has reserved from expiring, and tells how many reservations that are.
    pub(super) fn renew_reservations(&self, now: Timestamp) -> usize {
        let Some(Expiring { notes, lifetime }) = &self.expiring else { return 0 };
        let mut renewed = 0;
        notes.renew(now + *lifetime, |held| {
            renewed += 1;
            if self.limit().is_concurrency() {
                // So that the count is not void.
                let _ = self.table.charge(held.key, Cost::ZERO, now);
            }
        });
        renewed
    }

    /// Gives back what has expired, and tells how many reservations that were.
    pub(super) fn return_expired(&self, now: Timestamp) -> usize {
        let returned = |expiring: &Expiring| expiring.notes.return_expired(&self.table, now);
        self.expiring.as_ref().map_or(0, returned)
    }

    pub(super) fn count_dry_run_denial(&self) {
        self.counts.dry_run_denials.fetch_add(1, Ordering::Relaxed); // nothing hangs on its order
    }
}

/// The parts of the key, once they and the name are found to be sound.
fn check(
    name: &str,
    key: impl IntoIterator<Item = KeyPart>,
    keys: usize,
) -> Result<Vec<KeyPart>, RuleError> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        return Err(RuleError::Name { name: name.to_owned() });
    }
    let key: Vec<_> = key.into_iter().collect();
    if key.is_empty() || keys == 0 {
        return Err(RuleError::NoKey);
    }
    Ok(key)
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the hasher: its secret is what keeps callers from aiming at each other's slots.
        f.debug_struct("Rule")
            .field("name", &self.name)
            .field("limit", self.limit())
            .field("key", &self.key)
            .field("matching", &self.matching)
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

/// Why a rule cannot exist.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuleError {
    /// The name does not fit a header.
    Name {
        /// The name.
        name: String,
    },
    /// The key has no part, or the table no room for one.
    NoKey,
    /// The keys would take more than [`Rule::MAX_BYTES`].
    Memory {
        /// The number of keys.
        keys: usize,
        /// The bytes that each takes.
        bytes_per_key: usize,
    },
    /// The file has no table for the rule.
    Shared(SharedFileError),
    /// Reservations would expire at once.
    NoLifetime,
    /// The prefix is not 32 to 128.
    Ipv6Prefix {
        /// The prefix.
        prefix: u8,
    },
}

impl RuleError {
    /// The field of a policy file that is wrong.
    pub(super) const fn field(&self) -> &'static str {
        match self {
            Self::Name { .. } | Self::Shared(_) => "name",
            Self::NoKey => "key",
            Self::Memory { .. } => "keys",
            Self::Ipv6Prefix { .. } => "ipv6_prefix",
            Self::NoLifetime => "reservation_expires_s",
        }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name } => {
                write!(f, "`{name}` is not a name; use 1 to 64 letters, digits, `-`, `_` and `.`")
            }
            Self::NoKey => f.write_str(
                "a rule needs a key, and room for at least 1; use `global` for one limit for all",
            ),
            Self::Memory { keys, bytes_per_key } => write!(
                f,
                "{keys} keys of {bytes_per_key} bytes take more than {} GiB; give fewer keys, or use the algorithm `sliding-window-counter`",
                Rule::MAX_BYTES >> 30
            ),
            Self::Shared(error) => error.fmt(f),
            Self::NoLifetime => f.write_str(
                "reservations that expire at once would give back what runs; give the time that a call may take",
            ),
            Self::Ipv6Prefix { prefix } => {
                write!(f, "an IPv6 prefix of {prefix} bits is not one; give 32 to 128")
            }
        }
    }
}

impl std::error::Error for RuleError {}
