//! [`RemoteLimiter::decide`]: from leases where there are, and from the server for the rest.

use std::sync::Arc;

use smallvec::SmallVec;
use tidegate::core::Spent;
use tidegate::{Allowance, Clock, Cost, Decision, Denial, Timestamp};

use super::account::{Account, OwnerRef};
use super::tally::Event;
use super::{Inner, RemoteLimiter};
use crate::answer::Answer;
use crate::server::{Layer, Server, ServerError};
use tidegate::policy::DecidedBy;

/// One of a limiter's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitId(pub(crate) usize);

/// One layer of a call: by which limit, who calls, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    pub(super) limit: LimitId,
    pub(super) caller: &'a str,
    pub(super) cost: Cost,
    pub(super) dry_run: bool,
}

impl<'a> Ask<'a> {
    /// A call by `caller`, at this cost.
    #[must_use]
    pub const fn new(limit: LimitId, caller: &'a str, cost: Cost) -> Self {
        Self { limit, caller, cost, dry_run: false }
    }

    /// The same, counted and answered, but never a reason to deny the call.
    #[must_use]
    pub const fn dry_run(self) -> Self {
        Self { dry_run: true, ..self }
    }

    pub(super) const fn owner(&self) -> OwnerRef<'a> {
        OwnerRef { limit: self.limit.0, caller: self.caller }
    }
}

/// A layer that was decided here.
pub(super) struct Here {
    pub(super) account: Arc<Account>,
    pub(super) spent: Spent,
}

/// What the layers of a call have spent here, or will ask the server for.
pub(super) type Layers = SmallVec<[Option<Here>; 4]>;

impl RemoteLimiter {
    /// Whether all layers have room for their costs; charges all of them if so, and none if not.
    ///
    /// When the server does not answer, each limit's [`WhenDown`](tidegate::policy::WhenDown) decides.
    ///
    /// # Errors
    /// When the layers are none that can be decided together.
    pub async fn decide(&self, asks: &[Ask<'_>]) -> Result<Answer, ServerError> {
        match self.decide_here(asks) {
            Some(answer) => Ok(answer),
            None => self.inner.decide_with_server(asks).await,
        }
    }

    /// The same, if it can be decided from leases and memory alone; that takes no time to speak of, and
    /// does not wait. `None` says that the server must be asked, and that nothing was charged.
    #[inline]
    pub fn decide_here(&self, asks: &[Ask<'_>]) -> Option<Answer> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        if let [ask] = asks {
            return inner.decide_one_here(ask, now);
        }
        two_of_one_key(asks).is_none().then_some(())?;
        let (layers, denied) = inner.spend_here(asks, now);
        if denied.is_none() && layers.iter().all(Option::is_some) && !asks.is_empty() {
            let decisions = layers.iter().flatten().map(|here| allowed_here(here.spent));
            return Some(answer_here(asks, decisions));
        }
        undo(asks, &layers);
        let (place, denial) = denied?;
        inner.tally.note(Event::denied_here);
        let stands = |(index, ask)| match index == place {
            true => Decision::Deny(denial),
            false => inner.stands_here(ask, now),
        };
        Some(answer_here(asks, asks.iter().enumerate().map(stands)))
    }

    /// Whether `caller` may spend `cost`, where a lease that this process holds says so: a yes in
    /// nanoseconds. `false` is no denial: it says that the server must be asked.
    #[inline]
    #[must_use]
    pub fn admit_here(&self, limit: LimitId, caller: &str, cost: Cost) -> bool {
        let inner = &*self.inner;
        let accounts = inner.accounts.pin();
        let owner = OwnerRef { limit: limit.0, caller };
        accounts.get(&owner).is_some_and(|account| {
            account.note_call();
            account.leased.spend(cost, inner.clock.now()).is_some()
        })
    }
}

impl Inner {
    #[inline]
    fn decide_one_here(&self, ask: &Ask<'_>, now: Timestamp) -> Option<Answer> {
        let accounts = self.accounts.pin();
        let account = accounts.get(&ask.owner())?;
        account.note_call();
        if let Some(spent) = account.leased.spend(ask.cost, now) {
            return Some(answer_here(&[*ask], [allowed_here(spent)]));
        }
        let denial = account.denial(ask.cost, now)?;
        self.tally.note(Event::denied_here);
        Some(answer_here(&[*ask], [Decision::Deny(denial)]))
    }

    /// How a layer stands that nobody has decided on: what is leased of it, since more is not known here.
    fn stands_here(&self, ask: &Ask<'_>, now: Timestamp) -> Decision {
        let accounts = self.accounts.pin();
        let left = accounts.get(&ask.owner()).map_or(0, |account| account.leased.left(now));
        Decision::Allow(Allowance::new(left, 0))
    }

    /// Spends what is leased of each layer. The layer that is known to deny, if there is one.
    pub(super) fn spend_here(
        &self,
        asks: &[Ask<'_>],
        now: Timestamp,
    ) -> (Layers, Option<(usize, Denial)>) {
        let accounts = self.accounts.pin();
        let mut layers = Layers::new();
        for (index, ask) in asks.iter().enumerate() {
            let Some(account) = accounts.get(&ask.owner()) else {
                layers.push(None);
                continue;
            };
            account.note_call();
            let spent = account.leased.spend(ask.cost, now);
            if spent.is_none()
                && !ask.dry_run
                && let Some(denial) = account.denial(ask.cost, now)
            {
                return (layers, Some((index, denial)));
            }
            layers.push(spent.map(|spent| Here { account: account.clone(), spent }));
        }
        (layers, None)
    }

    /// Spends what is leased of one layer.
    pub(super) fn spend_one_here(&self, ask: &Ask<'_>, now: Timestamp) -> Option<Here> {
        let accounts = self.accounts.pin();
        let account = accounts.get(&ask.owner())?;
        account.note_call();
        let spent = account.leased.spend(ask.cost, now)?;
        Some(Here { account: account.clone(), spent })
    }

    async fn decide_with_server(self: &Arc<Self>, asks: &[Ask<'_>]) -> Result<Answer, ServerError> {
        self.check(asks)?;
        let now = self.clock.now();
        let (mut layers, denied) = self.spend_here(asks, now);
        if denied.is_some() {
            // Somebody was denied meanwhile. The server says more about all layers.
            layers.resize_with(asks.len(), || None);
        }
        let missing: SmallVec<[usize; 4]> =
            (0..asks.len()).filter(|index| layers[*index].is_none()).collect();
        let asked = if missing.iter().any(|index| self.is_hot(&asks[*index], now)) {
            self.renew(asks, &mut layers, &missing, now).await
        } else {
            self.tally.note(Event::by_server);
            let sent: SmallVec<[Layer<'_>; 4]> =
                missing.iter().map(|index| self.layer(&asks[*index])).collect();
            let answer = self.server.decide(&sent).await;
            if let Ok(answer) = &answer {
                // Waits count from when the server said so, which was before this.
                self.remember(asks, &missing, answer, self.clock.now());
            }
            answer.map(|answer| answer.decisions)
        };
        let (decisions, by) = match asked {
            Ok(decisions) => (decisions, DecidedBy::Server),
            Err(error) if error.is_outage() => {
                self.tally.note(Event::without_server);
                let now = self.share_clock.now();
                (self.decide_without_server(asks, &layers, true, now), DecidedBy::Fallback)
            }
            Err(error) => {
                undo(asks, &layers);
                return Err(error);
            }
        };
        Ok(self.join(asks, layers, decisions, by))
    }

    /// Remembers denials of hot keys.
    fn remember(&self, asks: &[Ask<'_>], missing: &[usize], answer: &Answer, now: Timestamp) {
        for (index, decision) in missing.iter().zip(&answer.decisions) {
            let ask = &asks[*index];
            let rules = self.limits[ask.limit.0].limit.leases();
            if let (Some(denial), Some(rules)) = (decision.denial(), rules)
                && let Some(account) = self.accounts.pin().get(&ask.owner())
            {
                account.deny(ask.cost, denial, now, rules.lasts());
            }
        }
    }

    /// The layer as the server is asked about it.
    pub(super) fn layer(&self, ask: &Ask<'_>) -> Layer<'_> {
        let limit = &*self.limits[ask.limit.0].limit;
        let layer = Layer::new(limit, limit.key(ask.caller), ask.cost);
        if ask.dry_run { layer.dry_run() } else { layer }
    }

    /// One answer of what was decided here and elsewhere. When a layer elsewhere denies, what was spent
    /// here is given back.
    pub(super) fn join(
        &self,
        asks: &[Ask<'_>],
        layers: Layers,
        elsewhere: SmallVec<[Decision; 4]>,
        by: DecidedBy,
    ) -> Answer {
        let mut elsewhere = elsewhere.into_iter();
        let mut answer = answer_here(asks, []);
        answer.decided_by.clear();
        for layer in &layers {
            let (decision, by) = match layer {
                Some(here) => (allowed_here(here.spent), DecidedBy::Lease),
                None => (elsewhere.next().unwrap_or_else(|| closed(self.retry())), by),
            };
            answer.decisions.push(decision);
            answer.decided_by.push(by);
        }
        if !answer.is_allow() {
            let lost = undo(asks, &layers);
            self.tally.add(Event::lost_units, lost);
        }
        answer
    }

    /// Decides on the layers that the server would have decided on: all or nothing. Charges them if so, and
    /// if it `charges`.
    pub(super) fn decide_without_server(
        &self,
        asks: &[Ask<'_>],
        layers: &Layers,
        charges: bool,
        now: Timestamp,
    ) -> SmallVec<[Decision; 4]> {
        let missing =
            asks.iter().zip(layers).filter(|(_, here)| here.is_none()).map(|(ask, _)| ask);
        let share = |ask: &Ask<'_>| &self.limits[ask.limit.0].share;
        let mut decisions = SmallVec::new();
        let mut charged: SmallVec<[&Ask<'_>; 4]> = SmallVec::new();
        let mut is_denied = false;
        for ask in missing {
            let decision = share(ask).decide(ask.caller, ask.cost, charges, now);
            let decision = decision.unwrap_or_else(|| closed(self.retry()));
            if decision.is_allow() {
                charged.push(ask);
            } else {
                is_denied |= !ask.dry_run;
            }
            decisions.push(decision);
        }
        if is_denied && charges {
            charged.iter().for_each(|ask| share(ask).undo(ask.caller, ask.cost, now));
        }
        decisions
    }

    /// Whether these can be decided together.
    pub(super) fn check(&self, asks: &[Ask<'_>]) -> Result<(), ServerError> {
        if asks.is_empty() {
            return Err(ServerError::NoLayers);
        }
        if asks.len() > Server::MAX_LAYERS {
            return Err(ServerError::TooManyLayers { layers: asks.len() });
        }
        let name = |limit: LimitId| self.limits[limit.0].limit.name().to_owned();
        match two_of_one_key(asks) {
            Some(limit) => Err(ServerError::TwoOfOneKey { limit: name(limit) }),
            None => Ok(()),
        }
    }

    /// When it may be worth to come again, while the server is down: in ns.
    fn retry(&self) -> u64 {
        self.server.retry_hint().as_nanos() as u64
    }
}

/// A denial of a limit that nobody can look at.
fn closed(retry_ns: u64) -> Decision {
    Decision::Deny(Denial::exhausted(0, retry_ns, retry_ns))
}

fn allowed_here(spent: Spent) -> Decision {
    Decision::Allow(Allowance::new(spent.left(), 0))
}

fn answer_here(asks: &[Ask<'_>], decisions: impl IntoIterator<Item = Decision>) -> Answer {
    answer_by(asks, decisions, DecidedBy::Lease)
}

pub(super) fn answer_by(
    asks: &[Ask<'_>],
    decisions: impl IntoIterator<Item = Decision>,
    by: DecidedBy,
) -> Answer {
    let enforced = asks.iter().enumerate();
    let enforced = enforced.fold(0, |all, (index, ask)| all | u64::from(!ask.dry_run) << index);
    let decided_by = asks.iter().map(|_| by).collect();
    Answer { decisions: decisions.into_iter().collect(), enforced, decided_by }
}

/// Gives back what was spent here. The units whose lease is gone already, which are lost.
pub(super) fn undo(asks: &[Ask<'_>], layers: &[Option<Here>]) -> u64 {
    let spent = asks.iter().zip(layers).filter_map(|(ask, here)| Some((ask.cost, here.as_ref()?)));
    let lost = spent.filter(|(cost, here)| !here.account.leased.give_back(*cost, here.spent));
    lost.map(|(cost, _)| cost.units()).sum()
}

/// The limit of which one key is asked about twice. Each would be asked as if the other were not there.
fn two_of_one_key(asks: &[Ask<'_>]) -> Option<LimitId> {
    let again = asks
        .iter()
        .enumerate()
        .find(|(index, ask)| asks[..*index].iter().any(|other| other.owner() == ask.owner()));
    again.map(|(_, ask)| ask.limit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::account::Owner;
    use super::*;
    use crate::{LeaseRules, Namespace, RemoteLimit, ServerConfig};

    const USERS: LimitId = LimitId(0);
    const SECOND: Duration = Duration::from_secs(1);

    /// One limit that leases, of a server that nobody has started.
    fn limiter() -> RemoteLimiter {
        let server = Server::new(&ServerConfig::single("redis://127.0.0.1:1")).unwrap();
        let users = "token-bucket, 1000 per second, burst 1000".parse().unwrap();
        let users = RemoteLimit::new(&Namespace::new("shop").unwrap(), "user", users).unwrap();
        let users = users.with_leases(LeaseRules::new(SECOND / 2)).unwrap();
        RemoteLimiter::new(Arc::new(server), [users]).unwrap()
    }

    /// A caller's account with a lease of so many units, for a minute.
    fn leased(limiter: &RemoteLimiter, caller: &str, units: u64) -> Arc<Account> {
        let inner = &limiter.inner;
        let account = Arc::new(Account::new(inner.limits[0].limit.key(caller)));
        account.leased.put(units, inner.clock.now() + 60 * SECOND);
        let owner = Owner { limit: 0, caller: caller.into() };
        inner.accounts.pin().insert(owner, account.clone());
        account
    }

    fn ask(caller: &str) -> Ask<'_> {
        Ask::new(USERS, caller, Cost::ONE)
    }

    #[tokio::test]
    async fn a_key_that_is_named_twice_is_refused_whether_leased_or_not() {
        for units in [0, 10] {
            let limiter = limiter();
            let account = leased(&limiter, "alice", units);
            let refused = limiter.decide(&[ask("alice"), ask("bob"), ask("alice")]).await;
            assert!(matches!(refused, Err(ServerError::TwoOfOneKey { .. })), "{refused:?}");
            assert_eq!(account.leased.left(limiter.inner.clock.now()), units, "nothing is charged");
        }
    }

    /// The one that is named first must not be held while the other is waited for: another call may name
    /// them the other way round.
    #[tokio::test]
    async fn accounts_are_waited_for_in_one_order_however_they_are_named() {
        let limiter = limiter();
        let [alice, bob] = ["alice", "bob"].map(|caller| leased(&limiter, caller, 0));
        let _renewing = alice.renewal.clone().try_lock_owned().unwrap();
        let asks = [ask("bob"), ask("alice")];
        let mut deciding = Box::pin(limiter.decide(&asks));
        let waker = std::task::Waker::noop();
        assert!(deciding.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        assert!(bob.renewal.try_lock().is_ok(), "held while it waits for the other");
    }

    #[test]
    fn a_remembered_denial_tells_what_is_leased_of_the_other_layers() {
        let limiter = limiter();
        let (alice, bob) = (leased(&limiter, "alice", 7), leased(&limiter, "bob", 0));
        let now = limiter.inner.clock.now();
        bob.deny(Cost::ONE, Denial::exhausted(0, 400_000_000, 900_000_000), now, SECOND);
        for asks in [[ask("alice"), ask("bob")], [ask("bob"), ask("alice")]] {
            let answer = limiter.decide_here(&asks).unwrap();
            assert!(!answer.is_allow());
            for (ask, decision) in asks.iter().zip(answer.decisions()) {
                let left = if ask.caller == "alice" { Some(7) } else { None };
                assert_eq!(decision.is_allow().then(|| decision.remaining()), left);
            }
            assert_eq!(alice.leased.left(limiter.inner.clock.now()), 7, "nothing is charged");
        }
    }
}
