//! Deciding with an engine: this process's rules first, then the engine's, all or nothing.

use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_core::{Cost, Decision, Denial, Retry, Timestamp};

use super::engine::{DecidedBy, EngineAnswer, EngineAsk, EngineHold};
use super::held::{Account, Held, OnHold};
use super::rule::Applies;
use super::{
    Call, Denied, Grant, Layers, Policy, Reason, Refusal, Standing, Told, Verdict, WhenDown,
    charge_dry_runs, charge_in_order, path, verdict,
};
use crate::reservation::Reservation;

/// The layers of a call whose rules are on the engine, and what they ask it.
struct Elsewhere<'p> {
    layers: Layers<'p>,
    asks: SmallVec<[EngineAsk; 4]>,
}

/// What was charged here for a call that the engine decides on still: taken back, unless it is kept. So a
/// call whose caller goes away while the engine is asked is charged by no rule of this process.
struct Charges<'p> {
    policy: &'p Policy,
    layers: Layers<'p>,
    /// What is settled later. It is noted while the engine is asked, too: so it expires if the process dies.
    noted: Option<Reservation<Held>>,
    now: Timestamp,
}

impl<'p> Charges<'p> {
    /// Of what was charged to `layers` just now.
    fn of(policy: &'p Policy, layers: Layers<'p>, now: Timestamp) -> Self {
        let is_noted = |layer: &&Standing<'_>| !layer.rule.is_dry_run() && layer.is_noted();
        let mut noted = layers.iter().filter(is_noted).peekable();
        let noted = noted.peek().is_some().then(|| {
            let accounts: SmallVec<[Account; 2]> =
                noted.map(|layer| policy.note(layer, now)).collect();
            policy.reservation(accounts, None, now)
        });
        Self { policy, layers, noted, now }
    }

    fn keep(mut self) -> (Layers<'p>, Option<Reservation<Held>>) {
        (std::mem::take(&mut self.layers), self.noted.take())
    }
}

impl Drop for Charges<'_> {
    fn drop(&mut self) {
        if let Some(noted) = self.noted.take() {
            noted.cancel();
        }
        let layers = self.layers.iter().filter(|layer| !layer.rule.is_dry_run());
        for layer in layers.filter(|layer| !layer.is_noted()) {
            layer.rule.refund(&layer.applied, self.now, self.policy.inner.clock.now());
        }
    }
}

impl Policy {
    /// Whether the call may go on; charges it to every rule that applies if so. As
    /// [`decide`](Self::decide), also with rules on an [`Engine`](super::Engine), for which it waits; without
    /// one it is done at once.
    ///
    /// Dropped while it waits, it charges no rule of this process; the engine may charge its rules still.
    pub fn decide_async<'p>(
        &'p self,
        call: &Call<'_>,
    ) -> impl Future<Output = Verdict<'p>> + Send + use<'p> {
        let begun = match self.inner.engine.clone() {
            None => Err(self.decide(call)),
            // Guarded from here on: the future may be dropped before it is first polled.
            Some(engine) => self.begin(call, true).map(|(layers, elsewhere, now)| {
                (engine, Charges::of(self, layers, now), elsewhere)
            }),
        };
        async move {
            let (engine, charges, elsewhere) = match begun {
                Err(verdict) => return verdict,
                Ok(begun) => begun,
            };
            let now = charges.now;
            if elsewhere.asks.is_empty() {
                let (layers, noted) = charges.keep();
                return self.allow(layers, noted, None, now);
            }
            // An estimate of nothing is settled by what was used, too.
            let reserves = elsewhere.asks.iter().any(EngineAsk::is_settled_later);
            let here = if reserves { None } else { engine.decide_here(&elsewhere.asks) };
            let answer = match here {
                Some(answer) => answer,
                None => engine.decide(&elsewhere.asks).await,
            };
            let (others, told) = elsewhere.told(self, answer);
            match told {
                Ok(hold) => {
                    let (layers, noted) = charges.keep();
                    self.allow(in_order(self, layers, others), noted, hold, now)
                }
                Err(denied) => {
                    let layers = charges.layers.clone();
                    drop(charges);
                    refuse(denied, in_order(self, layers, others))
                }
            }
        }
    }

    /// What [`decide_async`](Self::decide_async) would answer. Charges nothing.
    pub fn peek_async<'p>(
        &'p self,
        call: &Call<'_>,
    ) -> impl Future<Output = Verdict<'p>> + Send + use<'p> {
        let begun = match self.inner.engine.clone() {
            None => Err(self.peek(call)),
            Some(engine) => self.begin(call, false).map(|begun| (engine, begun)),
        };
        async move {
            let (engine, (mut layers, elsewhere, _)) = match begun {
                Err(verdict) => return verdict,
                Ok(begun) => begun,
            };
            layers.iter_mut().for_each(|layer| layer.is_foreseen = true);
            if elsewhere.asks.is_empty() {
                return Verdict::Allow(Grant::new(layers, None));
            }
            let answer = engine.peek(&elsewhere.asks).await;
            let (others, told) = elsewhere.told(self, answer);
            match told {
                Ok(_) => Verdict::Allow(Grant::new(in_order(self, layers, others), None)),
                Err(denied) => {
                    layers.iter_mut().for_each(|layer| layer.is_foreseen = false);
                    refuse(denied, in_order(self, layers, others))
                }
            }
        }
    }

    /// Waits until what calls have settled is booked, and gives back what is leased from an engine: before
    /// the process ends. Does nothing without one.
    pub async fn finish(&self) {
        if let Some(engine) = &self.inner.engine {
            engine.finish().await;
        }
    }

    /// The verdict on a call that all enforced rules have charged: charges the dry runs, and adds what those and
    /// the engine reserve to what is noted.
    fn allow<'p>(
        &'p self,
        mut layers: Layers<'p>,
        noted: Option<Reservation<Held>>,
        on_hold: Option<Box<OnHold>>,
        now: Timestamp,
    ) -> Verdict<'p> {
        charge_dry_runs(&mut layers, now);
        let mut accounts = noted.map(Reservation::into_accounts).unwrap_or_default();
        let trials = layers.iter().filter(|layer| layer.rule.is_dry_run() && layer.is_noted());
        accounts.extend(trials.map(|layer| self.note(layer, now)));
        let is_reserved = !accounts.is_empty() || on_hold.is_some();
        let reservation = is_reserved.then(|| self.reservation(accounts, on_hold, now));
        Verdict::Allow(Grant::new(layers, reservation))
    }

    /// Asks the rules of this process, and charges them if `charges`; and says what to ask the engine.
    #[allow(
        clippy::type_complexity,
        clippy::result_large_err,
        reason = "moved once, to one caller"
    )]
    fn begin(
        &self,
        call: &Call<'_>,
        charges: bool,
    ) -> Result<(Layers<'_>, Elsewhere<'_>, Timestamp), Verdict<'_>> {
        let now = self.inner.clock.now();
        if charges && self.inner.has_expiring_places {
            self.return_places(now);
        }
        let mut layers = Layers::new();
        let mut denied = self.ask_only(call, now, &mut layers);
        let mut elsewhere = Elsewhere { layers: Layers::new(), asks: SmallVec::new() };
        if denied.is_none() {
            denied = self.ask_elsewhere(call, now, &mut elsewhere).err();
        }
        if denied.is_none() && charges {
            denied = charge_in_order(&mut layers, now).err();
        }
        match denied {
            None => Ok((layers, elsewhere, now)),
            Some((rule, _)) if charges && rule.look_for_expired(now) => self.begin(call, charges),
            Some(denied) => Err(refuse(denied, layers)),
        }
    }

    fn ask_elsewhere<'p>(
        &'p self,
        call: &Call<'_>,
        now: Timestamp,
        elsewhere: &mut Elsewhere<'p>,
    ) -> Result<(), Denied<'p>> {
        let path = self.inner.looks_at_paths.then(|| path::readings(call.path()));
        let rules = self.inner.rules.iter().filter(|rule| rule.engine().is_some());
        for (place, rule) in rules.enumerate() {
            let applied = match rule.applies_elsewhere(call, path.as_deref()) {
                Applies::Yes(applied) => applied,
                Applies::Missing(reason) if !rule.is_dry_run() => return Err((rule, reason)),
                Applies::Missing(_) | Applies::No => continue,
            };
            elsewhere.asks.push(rule.engine_ask(place, call, applied.cost));
            elsewhere.layers.push(Standing::new(rule, applied, now));
        }
        Ok(())
    }
}

impl<'p> Elsewhere<'p> {
    /// The layers as the engine told of them, and what it holds for them, or which of them denied: of
    /// several, the one with the longest wait.
    fn told(
        mut self,
        policy: &Policy,
        answer: EngineAnswer,
    ) -> (Layers<'p>, Result<Option<Box<OnHold>>, Denied<'p>>) {
        let mut longest: Option<(usize, Denial)> = None;
        let mut told = answer.told.into_iter();
        for (index, layer) in self.layers.iter_mut().enumerate() {
            // An engine that says nothing about a rule does not allow.
            let told = told.next().unwrap_or(Told {
                decision: Decision::Deny(Denial::exhausted(0, 0, 0)),
                by: DecidedBy::Fallback,
            });
            (layer.told, layer.by) = (Some(told.decision), told.by);
            match told.decision.denial() {
                Some(_) if layer.rule.is_dry_run() => layer.rule.count_dry_run_denial(),
                Some(denial)
                    if longest.is_none_or(|(_, longest)| verdict::is_longer(denial, longest)) =>
                {
                    longest = Some((index, denial));
                }
                _ => {}
            }
        }
        if let Some((index, denial)) = longest {
            let layer = &self.layers[index];
            let is_fallback = layer.decided_by() == DecidedBy::Fallback;
            let when_down = layer.rule.engine().unwrap_or_default().when_down;
            let reason = match (is_fallback && when_down == WhenDown::Deny, denial.retry()) {
                (true, Retry::After(retry_after)) => Reason::Unavailable { retry_after },
                _ => Reason::Limit(denial),
            };
            let denied = (layer.rule, reason);
            return (self.layers, Err(denied));
        }
        let on_hold = answer.hold.map(|hold| Box::new(self.on_hold(policy, hold)));
        (self.layers, Ok(on_hold))
    }

    /// What is to be settled: of each ask that said so. A dry run that would have denied was not charged.
    fn on_hold(&self, policy: &Policy, hold: Arc<dyn EngineHold>) -> OnHold {
        let later = self.asks.iter().zip(&self.layers).filter(|(ask, _)| ask.is_settled_later);
        let charged = later.map(|(ask, layer)| {
            let charged = if layer.is_denied() { Cost::ZERO } else { ask.cost };
            layer.rule.count_reservation(charged);
            (policy.index_of(layer.rule), charged)
        });
        OnHold { hold, charged: charged.collect() }
    }
}

fn refuse<'p>((rule, reason): Denied<'p>, layers: Layers<'p>) -> Verdict<'p> {
    Verdict::Deny(Refusal::new(rule, reason, layers))
}

/// All layers in the order of their rules.
fn in_order<'p>(policy: &Policy, mut layers: Layers<'p>, others: Layers<'p>) -> Layers<'p> {
    layers.extend(others);
    layers.sort_by_key(|layer| policy.index_of(layer.rule));
    layers
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::clock::FakeClock;
    use crate::policy::{Deciding, Engine, KeyPart, Match, OnEngine, Rule};

    /// Denies, once it has been told to answer.
    #[derive(Debug, Default)]
    struct Slow(AtomicBool);

    impl Engine for Slow {
        fn decide_here(&self, _: &[EngineAsk]) -> Option<EngineAnswer> {
            None
        }

        fn decide<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a> {
            let denial = Decision::Deny(Denial::exhausted(0, 1, 1));
            Box::pin(std::future::poll_fn(move |_| match self.0.load(Ordering::Relaxed) {
                false => Poll::Pending,
                true => Poll::Ready(EngineAnswer {
                    told: asks
                        .iter()
                        .map(|_| Told { decision: denial, by: DecidedBy::Server })
                        .collect(),
                    hold: None,
                }),
            }))
        }

        fn peek<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a> {
            self.decide(asks)
        }

        fn finish(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn what_has_refilled_while_the_engine_was_asked_is_not_given_back_again() {
        let clock: &FakeClock = Box::leak(Box::new(FakeClock::at(Timestamp::from_secs(1_000))));
        let limit = crate::Limit::token_bucket("10 per second".parse().unwrap(), None).unwrap();
        let here = Rule::new("here", limit.clone(), [KeyPart::Global]).unwrap();
        let here = here.costing(crate::policy::CostRule::Fixed(5));
        let there = Rule::on_engine("there", limit, [KeyPart::User], OnEngine::default()).unwrap();
        let there = there.matching(Match::everyone().authenticated(true));
        let engine = Arc::new(Slow::default());
        let policy = Policy::build([here, there], clock, Some(engine.clone())).unwrap();

        let call = Call::new("GET", "/");
        let mut context = Context::from_waker(Waker::noop());
        let mut slow = pin!(policy.decide_async(&call.by_user("alice")));
        assert!(slow.as_mut().poll(&mut context).is_pending());
        clock.advance(Duration::from_millis(500));
        for _ in 0..2 {
            assert!(policy.decide(&call).is_allow(), "all ten are there again");
        }
        engine.0.store(true, Ordering::Relaxed);
        let Poll::Ready(verdict) = slow.poll(&mut context) else { panic!("it answers") };
        assert!(!verdict.is_allow());
        assert!(!policy.decide(&call).is_allow());
    }

    /// As when the process is killed then: nothing is dropped.
    #[test]
    fn what_a_process_had_reserved_here_when_it_died_at_asking_the_engine_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = crate::SharedFile::open(folder.path().join("limits")).unwrap();
        let clock: &FakeClock = Box::leak(Box::new(FakeClock::at(Timestamp::from_secs(1_000))));
        let minute = Duration::from_secs(60);
        let process = || {
            let limit = crate::Limit::concurrent(1).unwrap();
            let here = Rule::shared("here", limit, [KeyPart::Global], 64, &file).unwrap();
            let here = here.with_expiring_reservations(&file, minute).unwrap();
            let limit = crate::Limit::token_bucket("10 per day".parse().unwrap(), None).unwrap();
            let there = Rule::on_engine("there", limit, [KeyPart::User], OnEngine::default());
            let there = there.unwrap().matching(Match::everyone().authenticated(true));
            Policy::build([here, there], clock, Some(Arc::new(Slow::default()))).unwrap()
        };
        let (killed, other) = (process(), process());
        let call = Call::new("GET", "/");
        let mut context = Context::from_waker(Waker::noop());
        let mut asking = Box::pin(killed.decide_async(&call.by_user("alice")));
        assert!(asking.as_mut().poll(&mut context).is_pending());
        std::mem::forget(asking);
        clock.advance(minute - Duration::from_nanos(1));
        assert!(!other.decide(&call).is_allow());
        clock.advance(Duration::from_millis(10));
        let Verdict::Allow(grant) = other.decide(&call) else { panic!("it has expired") };
        assert!(grant.into_reservation().is_some());
    }

    /// Who goes away while the engine is asked has reserved nothing here, and nothing is left to renew.
    #[test]
    fn what_was_reserved_here_is_given_back_when_the_engine_denies() {
        let clock: &FakeClock = Box::leak(Box::new(FakeClock::at(Timestamp::from_secs(1_000))));
        let limit = crate::Limit::fixed_window("100 per day".parse().unwrap(), None).unwrap();
        let here = Rule::new("here", limit.clone(), [KeyPart::Global]).unwrap();
        let here = here.costing(crate::policy::CostRule::LlmTokens);
        let there = Rule::on_engine("there", limit, [KeyPart::User], OnEngine::default()).unwrap();
        let engine = Arc::new(Slow::default());
        let policy = Policy::build([here, there], clock, Some(engine.clone())).unwrap();
        let call = Call::new("GET", "/").by_user("alice").with_llm_tokens(40);
        let left = || policy.account("here", &call).unwrap().standing().remaining();
        let open = || policy.rules()[0].open_reservations();
        let mut context = Context::from_waker(Waker::noop());
        let mut denied = Box::pin(policy.decide_async(&call));
        let mut dropped = Box::pin(policy.decide_async(&call));
        assert!(denied.as_mut().poll(&mut context).is_pending());
        assert!(dropped.as_mut().poll(&mut context).is_pending());
        assert_eq!((left(), open()), (20, (2, 80)));
        drop(dropped);
        assert_eq!((left(), open()), (60, (1, 40)));
        engine.0.store(true, Ordering::Relaxed);
        let Poll::Ready(verdict) = denied.as_mut().poll(&mut context) else { panic!("it answers") };
        assert!(!verdict.is_allow());
        assert_eq!((left(), open()), (100, (0, 0)));
    }

    /// A rule whose state is elsewhere cannot be passed by not asking there.
    #[test]
    fn who_does_not_wait_for_a_server_is_denied_and_charged_nothing() {
        let limit = crate::Limit::token_bucket("10 per hour".parse().unwrap(), None).unwrap();
        let policy = |is_dry_run: bool| {
            let here = Rule::new("here", limit.clone(), [KeyPart::Global]).unwrap();
            let there =
                Rule::on_engine("there", limit.clone(), [KeyPart::User], OnEngine::default());
            let there = there.unwrap();
            let there = if is_dry_run { there.dry_run() } else { there };
            let clock = FakeClock::at(Timestamp::from_secs(1_000));
            Policy::build([here, there], clock, Some(Arc::new(Slow::default()))).unwrap()
        };
        let call = Call::new("GET", "/").by_user("alice");
        let left = |policy: &Policy| policy.account("here", &call).unwrap().standing().remaining();
        let enforced = policy(false);
        for verdict in [enforced.peek(&call), enforced.decide(&call)] {
            let Verdict::Deny(refusal) = verdict else { panic!("{verdict:?}") };
            assert_eq!(refusal.rule().name(), "there");
            assert!(matches!(refusal.reason(), Reason::Unavailable { .. }), "{refusal:?}");
        }
        assert_eq!(left(&enforced), 10);
        let trial = policy(true);
        assert!(trial.peek(&call).is_allow() && trial.decide(&call).is_allow());
        assert_eq!(left(&trial), 9);
    }

    /// Allows the first rule and denies the others, at once, and keeps what it is settled with.
    #[derive(Debug, Default)]
    struct Keeps(Arc<Settled>);

    #[derive(Debug, Default)]
    struct Settled(std::sync::Mutex<Vec<Vec<Cost>>>);

    impl EngineHold for Settled {
        fn settle(&self, used: &[Cost]) {
            self.0.lock().unwrap().push(used.to_vec());
        }
    }

    impl Engine for Keeps {
        fn decide_here(&self, _: &[EngineAsk]) -> Option<EngineAnswer> {
            None
        }

        fn decide<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a> {
            let decision = |ask: &EngineAsk| match ask.rule() {
                0 => Decision::Allow(tidegate_core::Allowance::new(5, 1)),
                _ => Decision::Deny(Denial::exhausted(0, 1, 1)),
            };
            let told = |ask| Told { decision: decision(ask), by: DecidedBy::Server };
            let (told, hold) = (asks.iter().map(told).collect(), Some(self.0.clone() as _));
            Box::pin(std::future::ready(EngineAnswer { told, hold }))
        }

        fn peek<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a> {
            self.decide(asks)
        }

        fn finish(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn what_is_reserved_elsewhere_is_settled_there_once() {
        let limit = crate::Limit::token_bucket("100 per hour".parse().unwrap(), None).unwrap();
        let rule = |name| {
            let rule = Rule::on_engine(name, limit.clone(), [KeyPart::Global], OnEngine::default());
            rule.unwrap().costing(crate::policy::CostRule::LlmTokens)
        };
        let settled = Arc::new(Settled::default());
        let clock = FakeClock::at(Timestamp::from_secs(1_000));
        let engine = Arc::new(Keeps(settled.clone()));
        let policy =
            Policy::build([rule("budget"), rule("trial").dry_run()], clock, Some(engine)).unwrap();
        let call = Call::new("GET", "/").with_llm_tokens(50);
        let mut context = Context::from_waker(Waker::noop());
        let decided = pin!(policy.decide_async(&call)).poll(&mut context);
        let Poll::Ready(Verdict::Allow(grant)) = decided else { panic!("a dry run denies nobody") };
        let reservation = grant.into_reservation().expect("for the budget");
        assert_eq!(reservation.reserved(), Cost::new(50), "not the nothing of the dry run");
        reservation.settle(Cost::new(30));
        assert_eq!(settled.0.lock().unwrap().as_slice(), [[Cost::new(30); 2]]);
    }
}
