//! The plain models as the checker wants them.

use std::collections::BTreeMap;

use stateright::semantics::SequentialSpec;
use tidegate_core::Cost;

use crate::calls::{Call, Kind, Told};
use crate::models::Model;

/// A model for each user.
#[derive(Debug, Clone)]
pub struct Spec<M> {
    fresh: M,
    users: BTreeMap<u64, M>,
}

impl<M: Model> Spec<M> {
    pub fn new(fresh: M) -> Self {
        Self { fresh, users: BTreeMap::new() }
    }
}

impl<M: Model> SequentialSpec for Spec<M> {
    type Op = Call;
    type Ret = Told;

    fn invoke(&mut self, call: &Call) -> Told {
        let Call { user, cost, now, kind } = *call;
        let model = self.users.entry(user).or_insert_with(|| self.fresh.clone());
        match kind {
            Kind::Decide => {
                let allowed = model.decide(cost, now);
                Told::Decided { allowed, remaining: model.remaining(now) }
            }
            Kind::Peek => {
                let allowed = model.fits(cost, now);
                let left = model.remaining(now);
                let left = if allowed { left - cost.units() } else { left };
                Told::Decided { allowed, remaining: left }
            }
            Kind::Charge => {
                model.charge(cost, now);
                Told::Done
            }
            Kind::Refund(charged_at) => {
                if cost > Cost::ZERO {
                    model.refund(cost, charged_at, now);
                }
                Told::Done
            }
        }
    }
}
