//! [`LimiterHold`]: what a call was charged by estimates, to be settled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tidegate::policy::DecidedBy;
use tidegate::{Clock, Cost, Timestamp};

use super::ask::{Ask, Layers};
use super::tally::Event;
use super::{Inner, LimitId, RemoteLimiter};
use crate::answer::Answer;
use crate::reservation::{Charged, RemoteReservation};
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
        let charged = used.iter().zip(&self.is_charged).filter(|(_, is_charged)| **is_charged);
        let used: SmallVec<[Cost; 2]> = charged.map(|(used, _)| *used).collect();
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

/// How often [`LimiterHold::settle_at_last`] tries: after 50 ms, twice that and so on, up to 5 s, for about
/// two minutes in all.
const MOST_TRIES: u32 = 30;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl LimiterHold {
    /// As [`settle`](Self::settle), tried again and again for about two minutes while the server does not
    /// answer. Whether it did in the end; if not, the whole charge stays.
    pub async fn settle_at_last(&self, used: &[Cost]) -> bool {
        let mut wait = FIRST_WAIT;
        for _ in 0..MOST_TRIES {
            match self.settle(used).await {
                // Not by this try: then an earlier one did arrive, or its time was over.
                Ok(_) => return true,
                Err(error) => tracing::debug!(%error, "a reservation is settled later"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        tracing::warn!("a reservation could not be settled, and keeps its whole charge");
        false
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
        super::ask::check(asks)?;
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
        super::ask::check(asks)?;
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
        let charged = reserved().map(|ask| {
            let limit = self.limits[ask.limit.0].limit.clone();
            Charged { key: limit.key(ask.caller), limit, cost: ask.cost }
        });
        self.tally.note(Event::by_server);
        let (decisions, by, kind) = match self.server.reserve_layers(&sent, charged).await {
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
