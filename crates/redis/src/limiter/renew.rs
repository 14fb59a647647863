//! Renewing leases: what is left of the old ones goes back, and new ones are taken, with the call that
//! needs them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use smallvec::SmallVec;
use tidegate::core::Leased;
use tidegate::{Cost, Decision, Timestamp};
use tokio::sync::OwnedMutexGuard;

use super::account::{Account, Lease, Owner, Renewal};
use super::ask::{Ask, Here, Layers, LimitId};
use super::tally::Event;
use super::{Inner, sweep};
use crate::server::{Book, Granted, ServerError};
use crate::spec::Wish;

/// Calls of a key during a lease, from which on it is worth one.
const HOT_CALLS: u64 = 4;

/// A layer that a renewal asks the server for.
struct Missing {
    ask: OwnedAsk,
    account: Option<(Arc<Account>, OwnedMutexGuard<Renewal>)>,
}

/// An ask that outlives its call.
struct OwnedAsk {
    limit: LimitId,
    caller: Box<str>,
    cost: Cost,
    dry_run: bool,
}

impl OwnedAsk {
    fn new(ask: &Ask<'_>) -> Self {
        let (limit, cost, dry_run) = (ask.limit, ask.cost, ask.dry_run);
        Self { limit, caller: ask.caller.into(), cost, dry_run }
    }

    fn as_ask(&self) -> Ask<'_> {
        let ask = Ask::new(self.limit, &self.caller, self.cost);
        if self.dry_run { ask.dry_run() } else { ask }
    }
}

impl Inner {
    /// Whether a call's key is worth a lease. Notes the call.
    pub(super) fn is_hot(&self, ask: &Ask<'_>, now: Timestamp) -> bool {
        if self.limits[ask.limit.0].limit.leases().is_none() || ask.cost == Cost::ZERO {
            return false;
        }
        if let Some(account) = self.accounts.pin().get(&ask.owner()) {
            return !account.is_one_by_one(now);
        }
        let level = self.demand.note(self.hasher.hash_one(ask.owner()), ask.cost.units(), now);
        level >= HOT_CALLS * ask.cost.units() && self.accounts.len() < self.most_accounts
    }

    /// Asks the server for the layers that are missing, and leases more of those that are hot. Where
    /// another call has renewed a lease meanwhile, the layer is spent from that.
    pub(super) async fn renew(
        self: &Arc<Self>,
        asks: &[Ask<'_>],
        layers: &mut Layers,
        missing: &[usize],
        now: Timestamp,
    ) -> Result<SmallVec<[Decision; 4]>, ServerError> {
        let mut sent = Vec::new();
        // In an order of keys that is the same for all calls, so that none wait for each other.
        let mut in_order: SmallVec<[usize; 4]> = missing.iter().copied().collect();
        in_order.sort_by_key(|index| (asks[*index].limit, asks[*index].caller));
        for index in in_order {
            let ask = &asks[index];
            let account = self.account(ask, now).await;
            if let Some((account, _)) = &account
                && let Some(spent) = account.leased.spend(ask.cost, self.clock.now())
            {
                layers[index] = Some(Here { account: account.clone(), spent });
                continue;
            }
            sent.push((index, Missing { ask: OwnedAsk::new(ask), account }));
        }
        if sent.is_empty() {
            return Ok(SmallVec::new());
        }
        sent.sort_by_key(|(index, _)| *index);
        self.tally.note(Event::by_server);
        // On its own: a caller that goes away must not take a lease with it.
        let inner = self.clone();
        let renewal = tokio::spawn(async move {
            inner.take_leases(sent.into_iter().map(|(_, missing)| missing).collect()).await
        });
        renewal.await.unwrap_or(Err(ServerError::Reply))
    }

    /// The account of a call's key, if it is hot, for its lease to be renewed.
    async fn account(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        now: Timestamp,
    ) -> Option<(Arc<Account>, OwnedMutexGuard<Renewal>)> {
        let limit = &self.limits[ask.limit.0].limit;
        limit.leases()?;
        loop {
            let known = self.accounts.pin().get(&ask.owner()).cloned();
            let account = match known {
                Some(account) if account.is_one_by_one(now) => return None,
                Some(account) => account,
                None if self.accounts.len() >= self.most_accounts => return None,
                None => {
                    let owner = Owner { limit: ask.limit.0, caller: ask.caller.into() };
                    let fresh = || Arc::new(Account::new(limit.key(ask.caller)));
                    self.accounts.pin().get_or_insert_with(owner, fresh).clone()
                }
            };
            self.start_sweeper();
            let renewal = account.renewal.clone().lock_owned().await;
            if account.is_one_by_one(self.clock.now()) {
                return None;
            }
            if !renewal.is_closed {
                return Some((account, renewal));
            }
        }
    }

    fn start_sweeper(self: &Arc<Self>) {
        // Relaxed: a lone flag. A load first, since it is set all but once.
        if !self.has_sweeper.load(Ordering::Relaxed)
            && !self.has_sweeper.swap(true, Ordering::Relaxed)
        {
            let lasts = self.limits.iter().filter_map(|entry| entry.limit.leases());
            if let Some(shortest) = lasts.map(|rules| rules.lasts()).min() {
                tokio::spawn(sweep::run(Arc::downgrade(self), shortest / 2));
            }
        }
    }

    async fn take_leases(
        self: Arc<Self>,
        mut missing: Vec<Missing>,
    ) -> Result<SmallVec<[Decision; 4]>, ServerError> {
        let asked_at = self.clock.now();
        let mut layers = Vec::new();
        let mut returns = Vec::new();
        for Missing { ask, account } in &mut missing {
            let mut layer = self.layer(&ask.as_ask());
            if let Some((account, renewal)) = account {
                let rest = account.leased.take();
                let spent = renewal.lease.map_or(0, |lease| lease.units.saturating_sub(rest));
                if let Some(lease) = renewal.lease.take() {
                    returns.push(self.clone().return_rest(ask.limit, account.clone(), lease, rest));
                }
                if let Some(wish) = self.wish(&ask.as_ask(), spent, asked_at) {
                    layer = layer.wishing(wish);
                }
            }
            layers.push(layer);
        }
        // Behind each other on the one connection: a lease finds what goes back.
        let all_returned = async {
            for returned in returns {
                returned.await;
            }
        };
        let (_, leased) = tokio::join!(all_returned, self.server.lease(&layers));
        drop(layers);
        let (answer, charged_at, grants) = match leased {
            Ok(leased) => leased,
            Err(error) => {
                for (account, _) in missing.iter().filter_map(|missing| missing.account.as_ref()) {
                    account.ask_one_by_one(asked_at + self.server.retry_hint());
                }
                return Err(error);
            }
        };
        // Waits count from when the server said so, which was before this.
        let answered_at = self.clock.now();
        for (index, Missing { ask, account }) in missing.iter_mut().enumerate() {
            let Some((account, renewal)) = account else { continue };
            let Some(rules) = self.limits[ask.limit.0].limit.leases() else { continue };
            match grants.iter().find(|granted| granted.layer == index) {
                Some(granted) => {
                    self.put_in(account, renewal, granted, charged_at, asked_at);
                }
                None => account.ask_one_by_one(asked_at + rules.lasts() / 4),
            }
            if let Some(denial) = answer.decisions[index].denial() {
                account.deny(ask.cost, denial, answered_at, rules.lasts());
            }
        }
        Ok(answer.decisions)
    }

    /// How much to lease: what was spent lately during a lease, and somewhat more.
    fn wish(&self, ask: &Ask<'_>, spent: u64, now: Timestamp) -> Option<Wish> {
        let rules = self.limits[ask.limit.0].limit.leases()?;
        let noted = spent.saturating_add(ask.cost.units());
        let level = self.demand.note(self.hasher.hash_one(ask.owner()), noted, now);
        let units = level.clamp(ask.cost.units(), Leased::MAX_UNITS);
        Some(Wish { units, lead_us: rules.lasts_us(), parts: rules.parts() })
    }

    fn put_in(
        &self,
        account: &Account,
        renewal: &mut Renewal,
        granted: &Granted,
        charged_at: u64,
        asked_at: Timestamp,
    ) {
        // Clocks may differ in speed.
        let lasts_us = granted.lasts_us - granted.lasts_us.div_ceil(512);
        let expires_at = asked_at + std::time::Duration::from_micros(lasts_us);
        let before = account.leased.put(granted.units, expires_at);
        debug_assert_eq!(before, 0, "it was taken, and nobody else puts in");
        let Granted { units, hold, .. } = *granted;
        renewal.lease = Some(Lease { units, charged_at, hold });
        renewal.seen = units;
        self.tally.note(Event::leases);
        self.tally.add(Event::leased_units, units);
    }

    /// Gives back what is left of a lease. When that fails, it stays charged.
    pub(super) async fn return_rest(
        self: Arc<Self>,
        limit: LimitId,
        account: Arc<Account>,
        lease: Lease,
        rest: u64,
    ) {
        if rest == 0 {
            return;
        }
        let limit = &self.limits[limit.0].limit;
        let book = Book::Return { charged_at: lease.charged_at };
        let hold = limit.hold(lease.hold);
        let returned =
            self.server.book(&[(limit, &account.key, Cost::new(rest), book)], Some(&hold)).await;
        match returned {
            Ok((true, _)) => self.tally.add(Event::returned_units, rest),
            Ok((false, _)) | Err(_) => self.tally.add(Event::lost_units, rest),
        }
    }
}
