//! Twins with planted bugs, which the checker must reject: it has teeth.

use std::sync::atomic::Ordering;

use tidegate_core::{AtomicU64, Cell, Cost, Limiter, Swap, TokenBucket};

use crate::calls::{Call, Kind, Told};
use crate::models::ExactBucket;
use crate::record::count_rejected;
use crate::subjects::{Over, Subject, told};
use crate::{bucket, quota};

/// A cell whose swap is a look and a store.
struct Torn(AtomicU64);

impl Cell for Torn {
    fn load(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire))
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        let current = self.0.load(Ordering::Acquire);
        if current != from {
            return Swap::Changed(current);
        }
        std::thread::yield_now();
        self.0.store(to, Ordering::Release);
        Swap::Done
    }

    fn ring(&self) -> &[AtomicU64] {
        &[]
    }
}

impl Subject for Over<TokenBucket, Torn> {
    fn call(&self, call: Call) -> Told {
        let Call { cost, now, kind, .. } = call;
        match kind {
            Kind::Decide => told(self.decide(cost, now)),
            Kind::Peek => told(self.peek(cost, now)),
            Kind::Charge => {
                self.charge(cost, now);
                Told::Done
            }
            Kind::Refund(charged_at) => {
                self.refund(cost, charged_at, now);
                Told::Done
            }
        }
    }
}

/// Looks first, and charges then.
struct CheckThenCharge(Limiter<TokenBucket>);

impl Subject for CheckThenCharge {
    fn call(&self, call: Call) -> Told {
        let Call { cost, now, kind, .. } = call;
        match kind {
            Kind::Decide => {
                let decision = self.0.peek(cost, now);
                std::thread::yield_now();
                if decision.is_allow() && cost > Cost::ZERO {
                    self.0.charge(cost, now);
                }
                told(decision)
            }
            Kind::Peek => told(self.0.peek(cost, now)),
            Kind::Charge => {
                self.0.charge(cost, now);
                Told::Done
            }
            Kind::Refund(charged_at) => {
                self.0.refund(cost, charged_at, now);
                Told::Done
            }
        }
    }
}

#[test]
fn the_checker_rejects_a_swap_that_is_a_look_and_a_store() {
    let subject = || Over { protocol: bucket(), cell: Torn(AtomicU64::new(0)) };
    assert!(count_rejected(subject, ExactBucket::new(quota(), 3)) > 0);
}

#[test]
fn the_checker_rejects_a_limiter_that_checks_and_then_charges() {
    let subject = || CheckThenCharge(Limiter::new(bucket()));
    assert!(count_rejected(subject, ExactBucket::new(quota(), 3)) > 0);
}
