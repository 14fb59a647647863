//! [`LimiterHold`]: what a call was charged by estimates, to be settled.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use tidegate::policy::DecidedBy;
use tidegate::{Clock, Cost, Timestamp};

use super::ask::{Ask, Layers};
use super::tally::Event;
use super::{Inner, LimitId, RemoteLimiter};
use crate::answer::Answer;
use crate::reservation::{Charged, RemoteReservation, Settlement};
use crate::server::{Layer, ServerError};

/// What a call was charged by estimates, to be settled once: on the server, or in the shares of this process
/// while the server did not answer.
///
/// One that is dropped keeps its whole charge, since the call behind it may have been made and paid for.
#[must_use = "a reservation that is dropped keeps its whole charge"]
pub struct LimiterHold {
    limiter: Arc<Inner>,
    kind: Kind,
    /// For each ask that reserved, whether it was charged.
    is_charged: SmallVec<[bool; 2]>,
}

#[derive(Debug)]
enum Kind {
    Server(RemoteReservation),
    Shares { charged: SmallVec<[(LimitId, Box<str>, Cost); 2]>, at: Timestamp },
}

impl fmt::Debug for LimiterHold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LimiterHold").field(&self.kind).finish()
    }
}

impl LimiterHold {
    /// Books what was really used of each ask that reserved, in their order: the rest is given back, or the
    /// excess charged, whether it fits or not. Whether this call booked it: if not, it had been booked
    /// before, or the hold's time was over.
    ///
    /// # Errors
    /// When the server does not answer. Then it may be booked or not; try again.
    pub async fn settle(&self, used: &[Cost]) -> Result<bool, ServerError> {
        let used = self.of_charged(used);
        match &self.kind {
            Kind::Server(reservation) => reservation.settle_each(&used).await,
            Kind::Shares { charged, at } => {
                let now = self.limiter.share_clock.now();
                for ((limit, caller, reserved), used) in charged.iter().zip(used) {
                    let share = &self.limiter.limits[limit.0].share;
                    share.settle(caller, *reserved, used, (*at, now));
                }
                Ok(true)
            }
        }
    }
}

impl LimiterHold {
    /// As [`settle`](Self::settle), tried again and again for about two minutes while the server does not
    /// answer; and what became of it. What was used is charged also where there is no hold any more.
    pub async fn settle_at_last(&self, used: &[Cost]) -> Settlement {
        match &self.kind {
            Kind::Server(reservation) => reservation.settle_at_last(&self.of_charged(used)).await,
            Kind::Shares { .. } => match self.settle(used).await {
                Ok(_) => Settlement::Booked,
                Err(_) => Settlement::Lost,
            },
        }
    }

    /// Of each ask that reserved, those that were charged.
    fn of_charged(&self, used: &[Cost]) -> SmallVec<[Cost; 2]> {
        let charged = used.iter().zip(&self.is_charged).filter(|(_, is_charged)| **is_charged);
        charged.map(|(used, _)| *used).collect()
    }
}

impl RemoteLimiter {
    /// Decides as [`decide`](Self::decide), and reserves what is asked by those of `later`, one for each
    /// ask: they are settled when the call ends. What is reserved is always asked of the server, never
    /// spent from a lease.
    ///
    /// # Errors
    /// When the layers are none that can be decided together.
    pub async fn reserve(
        &self,
        asks: &[Ask<'_>],
        later: &[bool],
    ) -> Result<(Answer, Option<LimiterHold>), ServerError> {
        self.inner.reserve(asks, later).await
    }

    /// What [`decide`](Self::decide) would answer. Charges nothing, and asks the server always.
    ///
    /// When the server does not answer, each limit's [`WhenDown`](tidegate::policy::WhenDown) decides.
    ///
    /// # Errors
    /// When the layers are none that can be decided together.
    pub async fn peek(&self, asks: &[Ask<'_>]) -> Result<Answer, ServerError> {
        let inner = &*self.inner;
        inner.check(asks)?;
        let layers: SmallVec<[Layer<'_>; 4]> = asks.iter().map(|ask| inner.layer(ask)).collect();
        inner.tally.note(Event::by_server);
        match inner.server.peek(&layers).await {
            Err(error) if error.is_outage() => {
                inner.tally.note(Event::without_server);
                let none = asks.iter().map(|_| None).collect();
                let now = inner.share_clock.now();
                let decisions = inner.decide_without_server(asks, &none, false, now);
                Ok(super::ask::answer_by(asks, decisions, DecidedBy::Fallback))
            }
            answered => answered,
        }
    }
}

impl Inner {
    async fn reserve(
        self: &Arc<Self>,
        asks: &[Ask<'_>],
        later: &[bool],
    ) -> Result<(Answer, Option<LimiterHold>), ServerError> {
        self.check(asks)?;
        let is_later = |index: usize| later.get(index).copied().unwrap_or(false);
        let now = self.clock.now();
        // What costs the same always is spent from leases, where there are.
        let mut layers = Layers::new();
        for (index, ask) in asks.iter().enumerate() {
            layers.push(if is_later(index) { None } else { self.spend_one_here(ask, now) });
        }
        let missing = (0..asks.len()).filter(|index| layers[*index].is_none());
        let missing: SmallVec<[usize; 4]> = missing.collect();
        let sent: SmallVec<[Layer<'_>; 4]> =
            missing.iter().map(|index| self.layer(&asks[*index])).collect();
        let reserved =
            || missing.iter().filter(|index| is_later(**index)).map(|index| &asks[*index]);
        let charge = |ask: &Ask<'_>| {
            let limit = self.limits[ask.limit.0].limit.clone();
            Charged { key: limit.key(ask.caller), limit, cost: ask.cost }
        };
        let charged = reserved().map(charge);
        let every_charge = || missing.iter().map(|index| charge(&asks[*index])).collect();
        self.tally.note(Event::by_server);
        let asked = self.server.reserve_layers(&sent, charged, every_charge);
        let (decisions, by, kind) = match asked.await {
            Ok((answer, reservation)) => {
                (answer.decisions, DecidedBy::Server, reservation.map(Kind::Server))
            }
            Err(error) if error.is_outage() => {
                self.tally.note(Event::without_server);
                let at = self.share_clock.now();
                let decisions = self.decide_without_server(asks, &layers, true, at);
                let charged = reserved().map(|ask| (ask.limit, ask.caller.into(), ask.cost));
                let kind = Kind::Shares { charged: charged.collect(), at };
                (decisions, DecidedBy::Fallback, Some(kind))
            }
            Err(error) => {
                super::ask::undo(asks, &layers);
                return Err(error);
            }
        };
        let answer = self.join(asks, layers, decisions, by);
        if !answer.is_allow() {
            return Ok((answer, None));
        }
        let is_charged: SmallVec<[bool; 2]> = (0..asks.len())
            .filter(|index| is_later(*index))
            .map(|index| answer.decisions[index].is_allow())
            .collect();
        let hold = kind.map(|kind| LimiterHold {
            limiter: self.clone(),
            kind: kind.only_charged(&is_charged),
            is_charged,
        });
        Ok((answer, hold))
    }
}

impl Kind {
    /// Without what was not charged, since it was a dry run that had no room.
    fn only_charged(self, is_charged: &[bool]) -> Self {
        let mut keep = is_charged.iter();
        let mut is_kept = || keep.next().copied().unwrap_or(false);
        match self {
            Self::Server(mut reservation) => {
                reservation.charged.retain(|_| is_kept());
                Self::Server(reservation)
            }
            Self::Shares { mut charged, at } => {
                charged.retain(|_| is_kept());
                Self::Shares { charged, at }
            }
        }
    }
}
